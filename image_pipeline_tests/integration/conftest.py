"""A server of manifests for the tests of this folder."""

from image_pipeline_tests.valkey import cache, redis_settings, valkey

__all__ = ["cache", "redis_settings", "valkey"]
