"""Run a function over many images in isolated processes."""
