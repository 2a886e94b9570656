"""The imaging core: bytes and pixels in, bytes and numbers out. No network, files or database."""
