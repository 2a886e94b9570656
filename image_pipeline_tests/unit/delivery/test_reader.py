"""Reading manifests: from Redis, from the bucket, and never half of anything."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from image_pipeline.delivery import reader as reading
from image_pipeline.delivery.manifest_cache import Kind, Look
from image_pipeline.delivery.reader import Breaker, Manifests, smallest_thumbnail
from image_pipeline.embedded_valkey import EmbeddedValkey
from image_pipeline.settings import BucketSettings, RedisSettings, Settings, Source
from image_pipeline.store.bucket import StoreError
from image_pipeline_tests.valkey import Store, client_of, manifest, process_of, suspended

A, B = "a" * 64, "b" * 64


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def settings_of(redis=None, **parts):
    sources = {"photos": Source(prefix="uploads/photos/"), "other": Source(prefix="uploads/o/")}
    return Settings(
        bucket=BucketSettings(name="images"),
        sources=sources,
        **({"redis": redis} if redis else {}),
        **parts,
    )


@pytest.fixture
def store():
    return Store({f"manifests/photos/{A}.json": manifest(A)})


@pytest.fixture
def manifests(redis_settings, store):
    made = Manifests(settings_of(redis_settings), store)
    yield made
    made.close()


def own_server(folder):
    """A server that a test may do anything to, and settings with a short patience."""
    server = EmbeddedValkey(folder)
    return server, RedisSettings(url="embedded", data=folder, timeout_seconds=0.2)


class TestImages:
    def test_the_first_comes_from_the_bucket_and_the_next_from_redis(self, manifests, store):
        wanted = json.loads(manifest(A))
        assert manifests.image("photos", A) == wanted
        assert manifests.image("photos", A) == wanted
        assert store.asked == [f"manifests/photos/{A}.json"]

    def test_what_was_published_is_read_without_the_bucket(self, manifests, store):
        list(manifests.cache.publish("photos", [(B, 1, manifest(B))]))
        assert manifests.image("photos", B)["id"] == B
        assert store.asked == []

    def test_the_next_publication_is_seen_at_once(self, manifests):
        manifests.image("photos", A)
        list(manifests.cache.publish("photos", [(A, 1, manifest(A, width=7))]))
        assert manifests.image("photos", A)["width"] == 7

    def test_a_dictionary_is_the_callers_own(self, manifests):
        manifests.image("photos", A)["id"] = "changed"
        assert manifests.image("photos", A)["id"] == A

    def test_without_redis(self, store):
        manifests = Manifests(settings_of(), store)
        assert manifests.image("photos", A) == manifests.image("photos", A)
        assert len(store.asked) == 2
        assert manifests.statistics("photos") is None
        manifests.close()

    def test_threads_read_at_once(self, manifests):
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: manifests.image("photos", A)["id"], range(200)))
        assert found == [A] * 200
        assert manifests.cache.counted("photos")[0].hits >= 190

    def test_an_older_bucket_read_does_not_hide_what_was_published_meanwhile(
        self, manifests, store, monkeypatch
    ):
        get = store.get

        def slow_get(key):
            data = get(key)
            list(manifests.cache.publish("photos", [(A, 2, manifest(A, width=2))]))
            return data

        monkeypatch.setattr(store, "get", slow_get)
        assert "width" not in manifests.image("photos", A)
        assert manifests.image("photos", A)["width"] == 2

    def test_an_invalidation_during_a_bucket_read_holds(self, manifests, store, monkeypatch):
        get = store.get

        def slow_get(key):
            data = get(key)
            manifests.cache.invalidate("photos")
            return data

        monkeypatch.setattr(store, "get", slow_get)
        manifests.image("photos", A)
        monkeypatch.undo()
        manifests.image("photos", A)
        assert len(store.asked) == 2


class TestWhatIsNotThere:
    def test_is_a_lookup_error_each_time_and_is_not_stored(self, manifests, store):
        for _ in range(2):
            with pytest.raises(LookupError, match="nothing is published"):
                manifests.image("photos", B)
        assert len(store.asked) == 2
        store.objects[f"manifests/photos/{B}.json"] = manifest(B)
        assert manifests.image("photos", B)["id"] == B

    @pytest.mark.parametrize(
        "image",
        [
            "", "../batches/x", "a/b", "a\x00b", "a:1", "{a}", "a b", "é", "a" * 201, "*",
            "\r\nGET", "a\n",
        ],
    )  # fmt: skip
    def test_names_that_nothing_of_ours_has_are_asked_for_nowhere(self, manifests, store, image):
        for ask in (manifests.image, manifests.thumbnail, manifests.batch):
            with pytest.raises(LookupError):
                ask("photos", image)
        assert store.asked == []
        assert manifests.cache.client.dbsize() == 0

    def test_a_source_that_is_not_in_the_settings(self, manifests, store):
        for ask in (manifests.index, manifests.statistics):
            with pytest.raises(LookupError, match="no source"):
                ask("nowhere")
        with pytest.raises(LookupError, match="no source"):
            manifests.image("../photos", A)
        assert store.asked == []

    def test_errors_of_the_bucket_are_not_stored(self, manifests, store):
        store.objects[f"manifests/photos/{B}.json"] = StoreError("503")
        with pytest.raises(StoreError):
            manifests.image("photos", B)
        store.objects[f"manifests/photos/{B}.json"] = manifest(B)
        assert manifests.image("photos", B)["id"] == B

    @pytest.mark.parametrize("data", [b"<html>", b"[]", b"\xff", b"[" * 100_000, b"", b"null"])
    def test_what_is_no_manifest_is_an_error_of_the_store_and_is_not_stored(
        self, manifests, store, data
    ):
        store.objects[f"manifests/photos/{B}.json"] = data
        with pytest.raises(StoreError, match=B):
            manifests.image("photos", B)
        store.objects[f"manifests/photos/{B}.json"] = manifest(B)
        assert manifests.image("photos", B)["id"] == B


class TestOtherDocuments:
    def test_thumbnails(self, store, redis_settings):
        settings = settings_of(redis_settings.model_copy(update={"thumbnails": True}))
        store.objects[f"variants/{A}/thumb.webp"] = b"RIFF\x00\xff"
        manifests = Manifests(settings, store)
        for _ in range(2):
            assert manifests.thumbnail("photos", A) == (b"RIFF\x00\xff", "image/webp")
        assert store.asked == [f"manifests/photos/{A}.json", f"variants/{A}/thumb.webp"]
        manifests.close()

    def test_thumbnails_are_not_stored_unless_the_settings_say_so(self, manifests, store):
        store.objects[f"variants/{A}/thumb.webp"] = b"RIFF"
        for _ in range(2):
            manifests.thumbnail("photos", A)
        assert store.asked.count(f"variants/{A}/thumb.webp") == 2

    def test_an_image_without_thumbnails(self, manifests, store):
        store.objects[f"manifests/photos/{B}.json"] = json.dumps({"id": B, "variants": []}).encode()
        with pytest.raises(LookupError, match="no thumbnail"):
            manifests.thumbnail("photos", B)

    def test_the_smallest_thumbnail_and_of_its_formats_the_one_everybody_reads(self):
        def variant(role, side, kind):
            return {"role": role, "width": side, "height": side, "format": kind}

        variants = [
            variant("responsive", 10, "webp"), variant("thumbnail", 400, "webp"),
            variant("thumbnail", 40, "avif"), variant("thumbnail", 40, "webp"),
            variant("thumbnail", 40, "jpeg"),
        ]  # fmt: skip
        assert smallest_thumbnail({"variants": variants}) == variants[3]
        assert smallest_thumbnail({"variants": variants[:1]}) is None

    def test_a_batch_belongs_to_its_source(self, manifests, store):
        batch = "photos-20260301-120000-abcdef"
        key = f"manifests/batches/{batch}.json"
        store.objects[key] = json.dumps({"batch": batch, "source": "photos"}).encode()
        assert manifests.batch("photos", batch)["batch"] == batch
        assert manifests.batch("photos", batch)["batch"] == batch
        assert store.asked == [key]
        with pytest.raises(LookupError):
            manifests.batch("other", batch)

    def test_an_index_and_its_pages(self, manifests, store):
        page = "indexes/photos/000000.abc.json"
        index = {"pages": [{"page": 0, "key": page}]}
        store.objects["indexes/photos/index.json"] = json.dumps(index).encode()
        store.objects[page] = b'{"page": 0}'
        for _ in range(2):
            assert manifests.index("photos") == index
            assert manifests.page("photos", 0) == {"page": 0}
        assert store.asked == ["indexes/photos/index.json", page]
        with pytest.raises(LookupError, match="no page 1"):
            manifests.page("photos", 1)
        manifests.cache.renew_edition("photos")
        manifests.page("photos", 0)
        assert store.asked == ["indexes/photos/index.json", page, "indexes/photos/index.json"]

    def test_statistics_are_only_in_redis(self, manifests):
        assert manifests.statistics("photos") is None
        look = manifests.cache.look("photos", Kind.STATISTICS, "")
        manifests.cache.fill([(look, b'{"uploads": 3}')])
        assert manifests.statistics("photos") == {"uploads": 3}
        manifests.cache.fill([(look, b"garbage")])
        assert manifests.statistics("photos") is None


class TestStrangeThingsInRedis:
    @pytest.mark.parametrize(
        "data", [b"not json", b"[]", b"\xff\xfe", manifest(B), b"[" * 100_000, b"{}"]
    )
    def test_a_document_of_something_else_is_replaced_from_the_bucket(self, manifests, data):
        generation = manifests.cache.look("photos", Kind.MANIFEST, A).generation
        wrong = Look("photos", Kind.MANIFEST, A, generation, "1", None)
        manifests.cache.fill([(wrong, data)])
        assert manifests.image("photos", A)["id"] == A
        assert manifests.cache.look("photos", Kind.MANIFEST, A).value == manifest(A)


class TestSigning:
    def test_urls_of_private_sources_are_signed_if_asked_for(self, redis_settings, store):
        private = Source(prefix="uploads/photos/", access="private")
        settings = settings_of(redis_settings).model_copy(
            update={"sources": {"photos": private, "other": Source(prefix="uploads/o/")}}
        )
        full = manifest(A, srcset={}, sizes="100vw", src=None)
        store.objects = {f"manifests/{source}/{A}.json": full for source in settings.sources}
        store.presigned_url = lambda key, seconds: f"https://signed/{key}"
        signed, plain = Manifests(settings, store, signed=True), Manifests(settings, store)
        for _ in range(2):
            urls = [one["url"] for one in signed.image("photos", A)["variants"]]
            assert urls == [f"https://signed/variants/{A}/thumb.{kind}" for kind in
                            ("avif", "webp", "jpeg")]  # fmt: skip
        # What is stored is not signed: a signature is out of date before a manifest is.
        assert plain.image("photos", A) == json.loads(full)
        assert signed.image("other", A) == json.loads(full)
        for one in (signed, plain):
            one.close()


class TestBreaker:
    def test_leaves_a_failed_server_alone_and_lets_one_try_after_a_while(self):
        clock = Clock()
        breaker = Breaker(clock)
        assert breaker.allows()
        assert breaker.allows()
        assert breaker.failed()
        assert not breaker.failed()
        clock.now += reading.PAUSE_SECONDS - 0.01
        assert not breaker.allows()
        clock.now += 0.01
        assert [breaker.allows() for _ in range(3)] == [True, False, False]
        breaker.failed()
        clock.now += reading.PAUSE_SECONDS
        assert breaker.allows()
        assert breaker.succeeded()
        assert not breaker.succeeded()
        assert [breaker.allows() for _ in range(3)] == [True] * 3


class TestFailures:
    """What happens to a server while readers use it."""

    def test_never_started(self, tmp_path, store, caplog):
        settings = settings_of(RedisSettings(url="embedded", data=tmp_path))
        manifests = Manifests(settings, store)
        for _ in range(3):
            assert manifests.image("photos", A)["id"] == A
        assert [one.levelno for one in caplog.records] == [logging.WARNING]
        assert "make dev" in caplog.text

    def test_stopped_and_started_again(self, tmp_path, store, caplog):
        server, redis = own_server(tmp_path)
        clock = Clock()
        manifests = Manifests(settings_of(redis), store, clock=clock)
        with server:
            manifests.image("photos", A)
            manifests.image("photos", A)
            assert len(store.asked) == 1
            process_of(tmp_path).kill()
            process_of(tmp_path).wait()
            for _ in range(5):
                assert manifests.image("photos", A)["id"] == A
            assert len(store.asked) == 6
            assert "manifests come from the bucket" in caplog.text
        with EmbeddedValkey(tmp_path):
            clock.now += reading.PAUSE_SECONDS
            # What it kept is there again, up to the last second.
            manifests.image("photos", A)
            asked = len(store.asked)
            assert manifests.image("photos", A)["id"] == A
            assert len(store.asked) == asked
            assert "Redis is back" in caplog.text
        manifests.close()
        assert len(caplog.records) == 2

    def test_a_restart_costs_no_request_a_failure(self, tmp_path, store, caplog):
        server, redis = own_server(tmp_path)
        manifests = Manifests(settings_of(redis), store)
        with server:
            manifests.image("photos", A)
        with EmbeddedValkey(tmp_path):
            manifests.image("photos", A)
        manifests.close()
        assert len(store.asked) == 1
        assert caplog.records == []

    def test_one_that_hangs_delays_one_request_and_no_other(self, tmp_path, store):
        server, redis = own_server(tmp_path)
        manifests = Manifests(settings_of(redis), store, clock=Clock())
        with server:
            manifests.image("photos", A)
            with suspended(tmp_path):
                started = time.monotonic()
                assert manifests.image("photos", A)["id"] == A
                assert time.monotonic() - started >= 0.2
                assert manifests.breaker.is_open
                cache = manifests.cache
                manifests.cache = None  # who asked it now would fail
                for _ in range(20):
                    assert manifests.image("photos", A)["id"] == A
                manifests.cache = cache
        manifests.close()

    def test_flushed(self, manifests, store, redis_settings):
        manifests.image("photos", A)
        with client_of(redis_settings.url) as client:
            client.flushall()
        manifests.image("photos", A)
        manifests.image("photos", A)
        assert len(store.asked) == 2

    def test_lost_between_the_look_and_the_filling(self, tmp_path, store, monkeypatch):
        server, redis = own_server(tmp_path)
        manifests = Manifests(settings_of(redis), store)
        get = store.get

        def get_while_it_ends(key):
            server.stop()
            return get(key)

        monkeypatch.setattr(store, "get", get_while_it_ends)
        with server:
            assert manifests.image("photos", A)["id"] == A
        assert manifests.breaker.is_open
        manifests.close()


class TestPublishing:
    def test_readers_never_get_half_of_a_publication(self, manifests, store):
        """A publisher that dies anywhere between bodies and pointers leaves the old ones."""
        cache = manifests.cache
        images = [f"{number:064}" for number in range(20)]
        list(cache.publish("photos", [(image, 1, manifest(image, v=1)) for image in images]))
        looks = [cache.look("photos", Kind.MANIFEST, image) for image in images]
        for look in looks:
            body = cache._encoded(manifest(look.name, v=2))
            cache.client.set(f"{cache._key(look)}:2", body[: len(body) // 2])
        assert {manifests.image("photos", image)["v"] for image in images} == {1}
        list(cache.publish("photos", [(image, 2, manifest(image, v=2)) for image in images]))
        assert {manifests.image("photos", image)["v"] for image in images} == {2}
        assert store.asked == []

    def test_versions_only_grow_for_readers_of_a_running_publisher(self, manifests, store):
        cache = manifests.cache
        list(cache.publish("photos", [(A, 1, manifest(A, v=1))]))
        ended = threading.Event()
        seen = []

        def read():
            mine = []
            while not ended.is_set():
                mine.append(manifests.image("photos", A)["v"])
            seen.append(mine)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for one in readers:
            one.start()
        for version in range(2, 60):
            list(cache.publish("photos", [(A, version, manifest(A, v=version))]))
        ended.set()
        for one in readers:
            one.join()
        assert all(mine == sorted(mine) for mine in seen)
        assert store.asked == []
        assert manifests.image("photos", A)["v"] == 59
