"""Publishing to Redis from the catalog and the bucket, and making good what was missed."""

import hashlib
import json
import logging
import secrets
from datetime import timedelta

import pytest

from image_pipeline.catalog import batches, publications
from image_pipeline.catalog.publications import Announcement, Files
from image_pipeline.delivery.manifest_cache import Kind
from image_pipeline.delivery.reader import Manifests
from image_pipeline.settings import RedisSettings
from image_pipeline.stages import caching
from image_pipeline.stages.caching import Cached, open_cache, publish_to_redis, warm_redis
from image_pipeline.store.bucket import StoreError
from image_pipeline_tests.valkey import Store, manifest, suspended

from .helpers import NOW, add_batch, make_tools

A, B = "a1" * 32, "b2" * 32
INDEX = b'{"pages": [], "totals": {"pages": 1, "images": 2, "canonicals": 1}}'


@pytest.fixture(autouse=True)
def forgotten():
    """Nothing of a server that another test had."""
    yield
    open_cache.cache_clear()
    caching._breaker.cache_clear()


@pytest.fixture
def store():
    objects = {f"manifests/photos/{image}.json": manifest(image) for image in (A, B)}
    thumbnails = {f"variants/{image}/thumb.webp": image[:2].encode() for image in (A, B)}
    return Store({**objects, **thumbnails, "indexes/photos/index.json": INDEX})


@pytest.fixture
def tools(catalog, tmp_path, store, redis_settings):
    return make_tools(catalog, tmp_path, store, redis=redis_settings)


@pytest.fixture
def reader(tools, store):
    made = Manifests(tools.settings, store)
    yield made
    made.close()


def announce(tools, *images, finished=NOW):
    """A batch that publishes these images anew, and ends."""
    unique = secrets.token_hex(4)
    keys = [(f"{unique}-{image}.jpg", None, None, None) for image in images]
    batch = add_batch(tools.catalog, *keys)
    with tools.catalog.write() as connection:
        batches.request(connection, batch, NOW)
        rows = [Announcement(image, Files(image, unique), digest(tools, image)) for image in images]
        publications.announce(connection, "photos", batch, rows, NOW)
        if finished:
            batches.finish(connection, batch, finished)


def digest(tools, image):
    """What the catalog knows of the bytes of a manifest in the bucket."""
    data = tools.bucket.objects.get(f"manifests/photos/{image}.json", b"")
    return hashlib.sha256(data).hexdigest()


class TestPublishing:
    def test_manifests_index_and_figures_are_read_without_the_bucket(self, tools, store, reader):
        announce(tools, A, B)
        documents = {image: (1, manifest(image)) for image in (A, B)}
        assert publish_to_redis(tools, "photos", documents, INDEX) == Cached(published=2)
        store.asked.clear()
        assert [reader.image("photos", image)["id"] for image in (A, B)] == [A, B]
        assert reader.index("photos") == json.loads(INDEX)
        assert reader.statistics("photos") == {
            "schema_version": 1, "source": "photos", "generated_at": NOW.isoformat(),
            "batches": 1, "uploads": 2, "bytes_in": 2000,
            "published": {"pages": 1, "images": 2, "canonicals": 1},
        }  # fmt: skip
        assert store.asked == []

    def test_without_redis_nothing_is_done(self, catalog, tmp_path):
        tools = make_tools(catalog, tmp_path)
        assert publish_to_redis(tools, "photos", {A: (1, b"{}")}, INDEX) == Cached()
        assert warm_redis(tools, "photos") == Cached()

    def test_the_index_is_the_one_of_the_bucket(self, tools, store, reader):
        # Another batch was faster between writing its index and this moment.
        store.objects["indexes/photos/index.json"] = b'{"newer": 1, "totals": {}}'
        publish_to_redis(tools, "photos", {}, INDEX)
        assert reader.index("photos")["newer"] == 1

    def test_an_index_and_a_batch_read_before_are_read_again(self, tools, store, reader):
        key = "manifests/batches/x.json"
        store.objects[key] = b'{"source": "photos", "try": 1}'
        assert reader.batch("photos", "x")["try"] == 1
        store.objects[key] = b'{"source": "photos", "try": 2}'
        publish_to_redis(tools, "photos", {}, INDEX)
        assert reader.batch("photos", "x")["try"] == 2

    def test_figures_are_made_when_they_have_run_out(self, tools, cache, reader):
        publish_to_redis(tools, "photos", {}, INDEX)
        announce(tools, A)
        publish_to_redis(tools, "photos", {}, INDEX)
        assert reader.statistics("photos")["uploads"] == 0
        cache.client.delete(cache._key(cache.look("photos", Kind.STATISTICS, "")))
        publish_to_redis(tools, "photos", {}, INDEX)
        assert reader.statistics("photos")["uploads"] == 1

    def test_thumbnails_if_the_settings_say_so(self, catalog, tmp_path, store, redis_settings):
        redis = redis_settings.model_copy(update={"thumbnails": True})
        tools = make_tools(catalog, tmp_path, store, redis=redis)
        documents = {A: (1, manifest(A)), B: (1, manifest(B))}
        publish_to_redis(tools, "photos", documents, INDEX)
        store.asked.clear()
        reader = Manifests(tools.settings, store)
        assert reader.thumbnail("photos", A) == (b"a1", "image/webp")
        assert reader.thumbnail("photos", B) == (b"b2", "image/webp")
        # What never changes under its name is not sent again.
        publish_to_redis(tools, "photos", documents, None)
        assert store.asked == []
        reader.close()

    def test_no_thumbnails_otherwise(self, tools, store):
        publish_to_redis(tools, "photos", {A: (1, manifest(A))}, None)
        assert store.asked == []

    def test_one_that_is_too_large_is_reported_and_an_older_one_not_left(self, tools, reader):
        announce(tools, A)
        publish_to_redis(tools, "photos", {A: (1, manifest(A))}, INDEX)
        announce(tools, A)
        large = manifest(A, html="x" * 9_000_000)
        told = publish_to_redis(tools, "photos", {A: (2, large), B: (1, manifest(B))}, INDEX)
        assert told == Cached(1, 1, 1, "1 manifests are too large for Redis")
        assert reader.cache.look("photos", Kind.MANIFEST, A).value is None


class TestServerIsAway:
    def test_is_told_once_and_fails_nothing(self, catalog, tmp_path, store, caplog):
        redis = RedisSettings(url="redis://127.0.0.1:9/0", timeout_seconds=0.2)
        tools = make_tools(catalog, tmp_path, store, redis=redis)
        told = publish_to_redis(tools, "photos", {A: (1, b"{}"), B: (1, b"{}")}, INDEX)
        assert (told.published, told.failed) == (0, 2)
        assert "refused" in told.reason
        # The next part of the same publication does not try again, and says nothing again.
        assert publish_to_redis(tools, "photos", {A: (1, b"{}")}, INDEX).failed == 1
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "Readers use the bucket" in record.message

    def test_one_that_hangs_costs_one_timeout(self, catalog, tmp_path, store, valkey, cache):
        redis = RedisSettings(url=valkey.url, timeout_seconds=0.2)
        tools = make_tools(catalog, tmp_path, store, redis=redis)
        with suspended(valkey.data):
            told = publish_to_redis(tools, "photos", {A: (1, manifest(A))}, INDEX)
        assert told.reason.startswith("TimeoutError")

    def test_trouble_of_the_bucket_or_the_catalog_fails_nothing_either(self, tools, store, caplog):
        store.objects["indexes/photos/index.json"] = StoreError("503")
        told = publish_to_redis(tools, "photos", {A: (1, manifest(A))}, INDEX)
        assert (told.published, told.failed, told.reason) == (1, 0, "StoreError: 503")
        assert "503" in caplog.text
        assert publish_to_redis(tools, "photos", {A: (1, manifest(A))}, None) == Cached(1)


class TestMendingWhatWasMissed:
    def test_the_next_batch_drops_what_is_older_than_the_catalog_knows(self, tools, store, reader):
        announce(tools, A, B)
        publish_to_redis(tools, "photos", {i: (1, manifest(i)) for i in (A, B)}, INDEX)
        announce(tools, A)
        store.objects[f"manifests/photos/{A}.json"] = manifest(A, v=2)
        assert "v" not in reader.image("photos", A)

        assert publish_to_redis(tools, "photos", {}, INDEX).dropped == 1
        assert reader.image("photos", A)["v"] == 2
        store.asked.clear()
        reader.image("photos", B)
        assert store.asked == []

    def test_also_of_a_batch_that_has_not_ended(self, tools):
        announce(tools, A)
        publish_to_redis(tools, "photos", {A: (1, manifest(A))}, INDEX)
        announce(tools, A, finished=None)
        assert publish_to_redis(tools, "photos", {}, INDEX).dropped == 1

    def test_nothing_of_other_sources(self, tools, cache):
        announce(tools, A)
        list(cache.publish("other", [(A, 1, manifest(A))]))
        announce(tools, A)
        assert publish_to_redis(tools, "photos", {}, INDEX).dropped == 0
        assert cache.look("other", Kind.MANIFEST, A).value is not None

    @pytest.mark.parametrize(
        ("ended", "compared", "dropped"),
        [(30, None, 1), (30, 31, 1), (30, 29, 0), (64, None, 1), (66, None, 0), (64, 600, 1),
         (66, 600, 0)],
    )  # fmt: skip
    def test_what_ended_since_the_last_comparison_counts_and_has_not_run_out(
        self, tools, cache, ended, compared, dropped
    ):
        # Minutes ago. What is kept is kept for 60, and clocks may be 5 apart.
        list(cache.publish("photos", [(A, 1, manifest(A))]))
        announce(tools, A, finished=NOW - timedelta(minutes=ended))
        announce(tools, A, finished=NOW - timedelta(minutes=ended))
        if compared is not None:
            cache.set_mended("photos", NOW - timedelta(minutes=compared))
        assert publish_to_redis(tools, "photos", {}, INDEX).dropped == dropped
        assert cache.mended_until("photos") == NOW - timedelta(minutes=5)

    def test_a_comparison_in_the_future_is_none(self, tools, cache):
        list(cache.publish("photos", [(A, 1, manifest(A))]))
        announce(tools, A)
        announce(tools, A)
        cache.set_mended("photos", NOW + timedelta(days=30))
        assert publish_to_redis(tools, "photos", {}, INDEX).dropped == 1

    def test_warming_does_it_too(self, tools, store, reader):
        announce(tools, A)
        publish_to_redis(tools, "photos", {A: (1, manifest(A))}, INDEX)
        announce(tools, A)
        store.objects[f"manifests/photos/{A}.json"] = manifest(A, v=2)
        assert warm_redis(tools, "photos") == Cached(published=1, dropped=1)
        assert reader.image("photos", A)["v"] == 2


class TestWarming:
    def test_gives_what_is_not_there(self, tools, store, reader, monkeypatch):
        monkeypatch.setattr(caching, "CHUNK", 2)
        images = [f"{number:064}" for number in range(5)]
        store.objects.update((f"manifests/photos/{one}.json", manifest(one)) for one in images)
        announce(tools, *images)
        list(reader.cache.publish("photos", [(images[0], 1, manifest(images[0]))]))
        assert warm_redis(tools, "photos").published == 4
        assert warm_redis(tools, "photos").published == 0
        assert warm_redis(tools, "photos", force=True).published == 5
        store.asked.clear()
        assert [reader.image("photos", image)["id"] for image in images] == images
        assert reader.index("photos") == json.loads(INDEX)
        assert store.asked == []

    def test_a_newer_version_stays(self, tools, store, reader):
        announce(tools, A)
        list(reader.cache.publish("photos", [(A, 9, manifest(A, v=9))]))
        get = store.get

        def slow_get(key):
            data = get(key)
            if A in key:
                list(reader.cache.publish("photos", [(A, 10, manifest(A, v=10))]))
            return data

        store.get = slow_get
        warm_redis(tools, "photos", force=True)
        assert reader.image("photos", A)["v"] == 10

    def test_what_the_bucket_has_not_got_yet_is_not_taken_for_it(self, tools, store, cache):
        # Announced as version 2, and not put by now: what is read is of version 1.
        announce(tools, A)
        announced = tools.bucket.objects.pop(f"manifests/photos/{A}.json")
        announce(tools, A)
        store.objects[f"manifests/photos/{A}.json"] = announced
        warm_redis(tools, "photos")
        assert cache.look("photos", Kind.MANIFEST, A).version == "0"
        announce(tools, A)
        warm_redis(tools, "photos", force=True)
        assert cache.look("photos", Kind.MANIFEST, A).version == "3"

    def test_what_is_not_in_the_bucket_yet_is_left_out(self, tools, store):
        announce(tools, A, B)
        del store.objects[f"manifests/photos/{A}.json"], store.objects["indexes/photos/index.json"]
        assert warm_redis(tools, "photos") == Cached(published=1)

    def test_says_what_is_wrong_with_redis(self, catalog, tmp_path, store):
        redis = RedisSettings(url="redis://127.0.0.1:9/0", timeout_seconds=0.2)
        tools = make_tools(catalog, tmp_path, store, redis=redis)
        assert "refused" in warm_redis(tools, "photos").reason
