"""Manifests from a published batch to a reader, through real servers, and the commands."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from image_pipeline.catalog import images
from image_pipeline.catalog.images import Member
from image_pipeline.commands import cache as commands
from image_pipeline.commands.local import local_bucket
from image_pipeline.delivery.manifest_cache import Kind
from image_pipeline.delivery.reader import Manifests
from image_pipeline.embedded import EmbeddedServerError
from image_pipeline.settings import BucketSettings, CatalogSettings, RedisSettings
from image_pipeline.stages import caching
from image_pipeline.stages.publishing import publish_batch
from image_pipeline.store.bucket import StoreError
from image_pipeline_tests.unit.stages.helpers import (
    add_batch,
    add_images,
    image_row,
    make_settings,
    make_tools,
)
from image_pipeline_tests.unit.stages.test_publishing import render
from image_pipeline_tests.valkey import Store, manifest

A, B = "a1" * 32, "b2" * 32

#: Publishes version 2 of manifests, and is killed when the bodies are there.
PUBLISHER = """
import json, os, signal, sys
from image_pipeline.delivery.manifest_cache import ManifestCache
from image_pipeline.settings import RedisSettings
cache = ManifestCache(RedisSettings(url=sys.argv[1]), "images")
cache._flip = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
rows = [(image, 2, json.dumps({"id": image, "v": 2}).encode()) for image in sys.argv[2:]]
list(cache.publish("photos", rows))
"""


class Nothing:
    """A bucket that is away."""

    def get(self, key):
        raise StoreError(f"{key}: the bucket is away")


@pytest.fixture
def tools(catalog, tmp_path, bucket, redis_settings):
    """A project with two images, and redis with the thumbnails."""
    add_images(catalog, image_row(A), image_row(B))
    with catalog.write() as connection:
        images.add_members(
            connection, [Member("photos", one, one, None, 0, n) for n, one in ((1, A), (2, B))]
        )
    parts = {
        "bucket": bucket.settings,
        "catalog": CatalogSettings(url=catalog.url),
        "redis": redis_settings.model_copy(update={"thumbnails": True}),
    }
    made = make_tools(catalog, tmp_path, bucket)
    yield replace(made, settings=made.settings.model_copy(update=parts))
    caching.open_cache.cache_clear()
    caching._breaker.cache_clear()


@pytest.fixture
def reader(tools):
    made = Manifests(tools.settings, Nothing())
    yield made
    made.close()


def publish(tools):
    batch = add_batch(tools.catalog, ("a.jpg", "accepted", None, A), ("b.jpg", "accepted", None, B))
    for one in (A, B):
        render(tools, one)
    return batch, publish_batch(tools, batch)


class TestFromABatchToAReader:
    def test_all_of_a_batch_is_read_while_the_bucket_is_away(self, tools, reader):
        batch, published = publish(tools)
        assert (published.cached.published, published.cached.reason) == (2, "")
        for image in (A, B):
            stored = json.loads(tools.bucket.get(f"manifests/photos/{image}.json"))
            assert reader.image("photos", image) == stored
            data, mime = reader.thumbnail("photos", image)
            assert (data[:4], data[8:12], mime) == (b"RIFF", b"WEBP", "image/webp")
        index = json.loads(tools.bucket.get("indexes/photos/index.json"))
        assert reader.index("photos") == index
        assert reader.statistics("photos")["published"] == index["totals"]
        with pytest.raises(StoreError, match="away"):
            reader.batch("photos", batch)

    def test_the_same_is_read_from_the_bucket_while_redis_is_away(self, tools):
        redis = RedisSettings(url="redis://127.0.0.1:9/0", timeout_seconds=0.2)
        without = make_tools(tools.catalog, tools.spool.root, tools.bucket, redis=redis)
        batch, published = publish(without)
        assert published.unfinished == []
        assert (published.cached.published, published.cached.failed) == (0, 2)
        reader = Manifests(without.settings, tools.bucket)
        assert reader.image("photos", A)["id"] == A
        assert reader.thumbnail("photos", A)[1] == "image/webp"
        assert reader.page("photos", 0)["images"][0]["id"] == A
        assert reader.batch("photos", batch)["totals"]["uploads"] == 2
        assert reader.statistics("photos") is None


def test_a_publisher_killed_between_bodies_and_pointers_leaves_what_was(cache):
    numbers = [f"{number:064}" for number in range(30)]
    list(cache.publish("photos", [(one, 1, manifest(one, v=1)) for one in numbers]))
    command = [sys.executable, "-c", PUBLISHER, cache.settings.url, *numbers]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    look = cache.look("photos", Kind.MANIFEST, numbers[0])
    assert cache.client.exists(f"{cache._key(look)}:2"), "the bodies were there"

    reader = Manifests(make_settings(redis=cache.settings), Store())
    assert {reader.image("photos", one)["v"] for one in numbers} == {1}
    list(cache.publish("photos", [(one, 2, manifest(one, v=2)) for one in numbers]))
    assert {reader.image("photos", one)["v"] for one in numbers} == {2}
    reader.close()


class TestCommands:
    def run(self, capsys, command, *arguments):
        code = command(*arguments, True)
        return code, json.loads(capsys.readouterr().out)

    def warm(self, capsys, settings, only):
        code = commands.run_warm(settings, None, False, True, only)
        return code, json.loads(capsys.readouterr().out)

    def test_stats_count_what_readers_asked_for(self, tools, reader, capsys):
        publish(tools)
        reader.image("photos", A)
        reader.image("photos", A)
        with pytest.raises(StoreError):
            reader.image("photos", "c3" * 32)
        code, found = self.run(capsys, commands.run_stats, tools.settings)
        assert code == 0
        assert found["redis"]["reachable"] is True
        assert found["redis"]["keys"] > 4
        assert "@" not in found["redis"]["address"]
        assert found["redis"]["counts"] == [
            {"source": "photos", "kind": "manifest", "hits": 2, "misses": 1, "hit_rate": 0.6667}
        ]
        assert commands.run_stats(tools.settings, False) == 0
        assert "0.6667" in capsys.readouterr().out

    def test_invalidate_and_warm(self, tools, reader, capsys):
        publish(tools)
        wanted = {"invalidated": ["photos"], "reason": ""}
        assert self.run(capsys, commands.run_invalidate, tools.settings, None) == (0, wanted)
        with pytest.raises(StoreError):
            reader.image("photos", A)
        code, found = self.warm(capsys, tools.settings, "redis")
        assert code == 0
        assert found["redis"]["photos"]["published"] == 2
        assert reader.image("photos", A)["id"] == A
        code, found = self.warm(capsys, tools.settings, "edge")
        assert (code, found["redis"]) == (0, {})
        assert commands.run_warm(tools.settings, None, True, False) == 0
        assert "photos: gave Redis 2 manifests" in capsys.readouterr().out

    def test_with_redis_away(self, tools, capsys):
        redis = RedisSettings(url="redis://:secret@127.0.0.1:9/0", timeout_seconds=0.2)
        settings = tools.settings.model_copy(update={"redis": redis})
        code, found = self.run(capsys, commands.run_stats, settings)
        assert (code, found["redis"]["reachable"]) == (0, False)
        assert "secret" not in json.dumps(found)
        assert commands.run_stats(settings, False) == 0
        assert "manifests are read from the bucket" in capsys.readouterr().out
        code, found = self.run(capsys, commands.run_invalidate, settings, "photos")
        assert (code, found["invalidated"]) == (1, [])
        code, found = self.warm(capsys, settings, None)
        assert code == 1
        assert "refused" in found["redis"]["photos"]["reason"]

    def test_without_redis(self, tools, capsys):
        settings = tools.settings.model_copy(update={"redis": RedisSettings()})
        assert self.run(capsys, commands.run_stats, settings)[1]["redis"] is None
        code, found = self.run(capsys, commands.run_invalidate, settings, None)
        assert (code, found["invalidated"]) == (0, [])
        assert "no redis.url is set" in found["reason"]
        assert commands.run_warm(settings, None, False, False, "redis") == 0
        assert "no redis.url is set" in capsys.readouterr().err


class TestOnThisMachine:
    def settings(self, tmp_path):
        return make_settings(
            bucket=BucketSettings(endpoint_url="embedded", data=tmp_path / "s3"),
            redis=RedisSettings(url="embedded", data=tmp_path / "valkey"),
        )

    def test_both_servers_are_started_and_ended(self, tmp_path):
        settings = self.settings(tmp_path)
        with local_bucket(settings) as bucket:
            bucket.put(f"manifests/photos/{A}.json", manifest(A), "application/json")
            reader = Manifests(settings, bucket)
            assert reader.image("photos", A)["id"] == A
            assert reader.cache.look("photos", Kind.MANIFEST, A).value == manifest(A)
            reader.close()
            bucket.client.close()
        assert Manifests(settings, Store()).statistics("photos") is None

    def test_the_bucket_is_there_without_the_other(self, tmp_path, monkeypatch, capsys):
        def no_build(self):
            raise EmbeddedServerError("there is no build for this machine")

        monkeypatch.setattr("image_pipeline.commands.local.EmbeddedValkey.start", no_build)
        with local_bucket(self.settings(tmp_path)) as bucket:
            bucket.put("a", b"x", "text/plain")
            bucket.client.close()
        assert "There is no Redis: there is no build" in capsys.readouterr().err
