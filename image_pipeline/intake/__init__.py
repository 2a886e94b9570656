"""The HTTP service that hands out permissions to upload, and tells what became of uploads."""
