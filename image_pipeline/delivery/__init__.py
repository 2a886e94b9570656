"""What a front end and a cache warmer get: manifests, URLs, ready markup, the gallery page."""
