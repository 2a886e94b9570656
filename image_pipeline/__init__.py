"""Photographs in a bucket become published, responsive images."""
