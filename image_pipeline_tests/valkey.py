"""A real Valkey server for tests, and what can happen to one."""

import json
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from image_pipeline.delivery.manifest_cache import ManifestCache
from image_pipeline.embedded_valkey import EmbeddedValkey
from image_pipeline.settings import RedisSettings
from image_pipeline.store.bucket import ObjectGoneError

#: Long enough that a busy machine is not taken for a server that hangs.
PATIENT = 10.0


@pytest.fixture(scope="session")
def valkey(tmp_path_factory):
    """A real Valkey server for the tests of this process."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_settings(valkey):
    """Settings of a server that is empty and as it was started."""
    with client_of(valkey.url) as client:
        client.flushall()
    return RedisSettings(url=valkey.url, timeout_seconds=PATIENT)


@pytest.fixture
def cache(redis_settings):
    """A cache of the manifests of the bucket "images"."""
    made = ManifestCache(redis_settings, "images")
    yield made
    made.close()


@contextmanager
def client_of(url):
    """A client of redis-py for things that the cache never does."""
    with redis.Redis.from_url(url) as client:
        yield client


def process_of(folder):
    """The process of the server that works on a folder."""
    said = json.loads(Path(folder, "server.lock").read_text())
    return psutil.Process(said["pid"])


@contextmanager
def suspended(folder):
    """The server of a folder takes connections, and answers nobody."""
    process = process_of(folder)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


class Store:
    """The part of a bucket that readers use; keeps what it was asked for."""

    def __init__(self, objects=()):
        self.objects = dict(objects)
        self.asked = []

    def get(self, key):
        self.asked.append(key)
        found = self.objects.get(key)
        if found is None:
            raise ObjectGoneError(key)
        if isinstance(found, Exception):
            raise found
        return found


def manifest(image, **changes):
    """JSON of a manifest, as far as readers look at it."""
    variants = [
        {
            "role": "thumbnail", "width": 40, "height": 40, "format": kind,
            "key": f"variants/{image}/thumb.{kind}", "url": f"https://cdn.example/{image}.{kind}",
        }
        for kind in ("avif", "webp", "jpeg")
    ]  # fmt: skip
    return json.dumps({"id": image, "variants": variants, **changes}).encode()
