"""Manifests in a real server: what is found, what never is, and what a bad server does."""

import json
import secrets
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.delivery import manifest_cache
from image_pipeline.delivery.manifest_cache import (
    MAX_BYTES,
    CacheError,
    Counted,
    Kind,
    Look,
    ManifestCache,
    address,
    shown_address,
)
from image_pipeline.settings import KeepMinutes, RedisSettings
from image_pipeline_tests.valkey import client_of, manifest

PREFIX = "image-pipeline:{images/photos}"
MINUTE = 60_000


def publish(cache, image, version, data, source="photos"):
    return sum(cache.publish(source, [(image, version, data)]))


def found(cache, image, source="photos"):
    return cache.look(source, Kind.MANIFEST, image).value


def key(cache, *parts):
    generation = cache.client.get(f"{PREFIX}:generation").decode()
    return ":".join((PREFIX, generation, *parts))


class TestManifests:
    def test_what_is_published_is_found(self, cache):
        assert found(cache, "a") is None
        assert publish(cache, "a", 1, b'{"id": "a"}') == 1
        assert found(cache, "a") == b'{"id": "a"}'
        assert found(cache, "b") is None
        assert found(cache, "a", source="other") is None

    def test_pipelines_of_two_buckets_do_not_meet(self, cache, redis_settings):
        publish(cache, "a", 1, b"{}")
        other = ManifestCache(redis_settings, "others")
        assert found(other, "a") is None
        other.close()

    def test_a_newer_version_takes_the_place_of_an_older_one_and_leaves_nothing(self, cache):
        publish(cache, "a", 1, b"one")
        before = cache.client.dbsize()
        publish(cache, "a", 2, b"two")
        assert found(cache, "a") == b"two"
        assert cache.client.dbsize() == before + 1  # the counters of the look
        assert not cache.client.exists(key(cache, "manifest", "a", "1"))

    def test_an_older_version_never_wins(self, cache):
        publish(cache, "a", 10, b"ten")
        assert publish(cache, "a", 9, b"nine") == 1
        assert found(cache, "a") == b"ten"
        assert not cache.client.exists(key(cache, "manifest", "a", "9"))

    def test_the_newest_wins_whoever_publishes_when(self, cache):
        versions = list(range(1, 61))
        secrets.SystemRandom().shuffle(versions)
        barrier = threading.Barrier(6)

        def run(mine):
            barrier.wait()
            for version in mine:
                publish(cache, "a", version, b"%d" % version)

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(run, [versions[part::6] for part in range(6)]))
        assert found(cache, "a") == b"60"
        assert len(cache.client.keys("*:manifest:a:*")) == 1

    def test_an_older_version_loses_also_when_the_newer_one_has_run_out(self, cache):
        publish(cache, "a", 5, b"five")
        cache.client.delete(key(cache, "manifest", "a", "5"))
        publish(cache, "a", 4, b"four")
        assert found(cache, "a") is None

    def test_the_same_version_again_keeps_it_longer(self, cache):
        publish(cache, "a", 1, b"one")
        cache.client.pexpire(key(cache, "manifest", "a", "1"), 1000)
        publish(cache, "a", 1, b"one")
        assert cache.client.pttl(key(cache, "manifest", "a", "1")) > 50 * MINUTE

    def test_many_are_published_in_parts(self, cache, monkeypatch):
        monkeypatch.setattr(manifest_cache, "CHUNK", 10)
        rows = [(f"i{number}", 1, b"%d" % number) for number in range(25)]
        assert list(cache.publish("photos", rows)) == [10, 10, 5]
        assert [found(cache, f"i{number}") for number in range(25)] == [data for *_, data in rows]

    def test_nothing_is_seen_before_the_pointer_is_set(self, cache, monkeypatch):
        publish(cache, "a", 1, b"one")
        monkeypatch.setattr(cache, "_flip", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            publish(cache, "a", 2, b"two")
        with pytest.raises(ZeroDivisionError):
            publish(cache, "b", 1, b"one")
        assert found(cache, "a") == b"one"
        assert found(cache, "b") is None

    def test_what_is_too_large_is_left_out(self, cache):
        large = bytes(MAX_BYTES + 1)
        rows = [("a", 1, large), ("b", 1, b"small")]
        assert list(cache.publish("photos", rows)) == [1]
        assert found(cache, "a") is None
        assert found(cache, "b") == b"small"

    def test_older_ones_than_the_catalog_knows_are_dropped(self, cache):
        for image in ("a", "b", "c"):
            publish(cache, image, 3, b"three")
        assert cache.drop_older("photos", {"a": 4, "b": 3, "c": 2, "d": 1}) == 1
        assert [found(cache, image) for image in "abc"] == [None, b"three", b"three"]


class TestFilling:
    """After a miss: what was read from the bucket."""

    def test_what_was_filled_is_found(self, cache):
        look = cache.look("photos", Kind.MANIFEST, "a")
        assert cache.fill([(look, b"read")]) == 1
        assert found(cache, "a") == b"read"

    def test_what_was_published_meanwhile_stays(self, cache):
        look = cache.look("photos", Kind.MANIFEST, "a")
        publish(cache, "a", 1, b"published")
        cache.fill([(look, b"read before")])
        assert found(cache, "a") == b"published"

    def test_what_was_read_before_an_invalidation_is_never_found(self, cache):
        for kind in (Kind.MANIFEST, Kind.THUMBNAIL, Kind.INDEX, Kind.PAGE, Kind.BATCH):
            look = cache.look("photos", kind, "a")
            cache.invalidate("photos")
            cache.fill([(look, b"old")])
            assert cache.look("photos", kind, "a").value is None

    def test_what_was_read_before_the_server_lost_everything_is_never_found(self, cache):
        look = cache.look("photos", Kind.MANIFEST, "a")
        cache.client.flushall()
        publish(cache, "b", 1, b"new")
        cache.fill([(look, b"old")])
        assert found(cache, "a") is None

    @pytest.mark.parametrize("kind", [Kind.INDEX, Kind.BATCH])
    def test_what_changes_with_a_publication_is_gone_after_the_next(self, cache, kind):
        look = cache.look("photos", kind, "x")
        cache.fill([(look, b"old")])
        assert cache.look("photos", kind, "x").value == b"old"
        cache.renew_edition("photos")
        assert cache.look("photos", kind, "x").value is None
        cache.fill([(look, b"read before")])
        assert cache.look("photos", kind, "x").value is None

    @pytest.mark.parametrize("kind", [Kind.THUMBNAIL, Kind.PAGE, Kind.STATISTICS])
    def test_what_does_not_change_stays(self, cache, kind):
        cache.fill([(cache.look("photos", kind, "x"), b"bytes")])
        cache.renew_edition("photos")
        assert cache.look("photos", kind, "x").value == b"bytes"

    def test_a_look_from_afar_says_what_is_there(self, cache):
        publish(cache, "a", 7, b"seven")
        (a, there), (b, missing) = cache.peek("photos", Kind.MANIFEST, ["a", "b"])
        assert (a.name, a.version, a.value, there) == ("a", "7", None, True)
        assert (b.name, b.version, b.value, missing) == ("b", "0", None, False)
        assert cache.counted("photos") == []


class TestInvalidation:
    def test_nothing_of_the_source_is_found_at_once(self, cache):
        publish(cache, "a", 1, b"one")
        publish(cache, "a", 1, b"one", source="other")
        cache.invalidate("photos")
        assert found(cache, "a") is None
        assert found(cache, "a", source="other") == b"one"

    def test_neither_the_server_nor_its_keys_are_gone_through(self, cache, redis_settings):
        for image in range(50):
            publish(cache, f"i{image}", 1, b"x")
        with client_of(redis_settings.url) as client:
            client.config_resetstat()
            cache.invalidate("photos")
            used = set(client.info("commandstats"))
        assert not used & {"cmdstat_keys", "cmdstat_scan", "cmdstat_del", "cmdstat_unlink"}
        assert "cmdstat_incr" in used

    def test_a_source_is_published_again_after_it(self, cache):
        publish(cache, "a", 5, b"five")
        cache.invalidate("photos")
        publish(cache, "a", 5, b"five again")
        assert found(cache, "a") == b"five again"


class TestLifetimes:
    @pytest.mark.parametrize(
        ("kind", "minutes"),
        [("index", 1), ("page", 1), ("batch", 2), ("manifest", 2), ("thumbnail", 3),
         ("statistics", 4)],
    )  # fmt: skip
    def test_each_kind_is_kept_as_long_as_the_settings_say(self, redis_settings, kind, minutes):
        keep = KeepMinutes(index=1, manifest=2, thumbnail=3, statistics=4)
        settings = redis_settings.model_copy(update={"keep_minutes": keep})
        cache = ManifestCache(settings, "images")
        cache.fill([(cache.look("photos", Kind(kind), "x"), b"data")])
        wanted = minutes * MINUTE
        # The pointer has the shorter name.
        body = max(cache.client.keys(f"*:{kind}:x*"), key=len)
        assert cache.client.get(body).endswith(b"data")
        assert wanted - MINUTE / 2 < cache.client.pttl(body) <= wanted
        cache.close()

    def test_defaults(self):
        keep = RedisSettings().keep_minutes
        assert (keep.index, keep.manifest, keep.thumbnail, keep.statistics) == (30, 60, 1440, 5)

    def test_a_pointer_outlives_what_it_points_to(self, cache):
        publish(cache, "a", 1, b"one")
        body = cache.client.pttl(key(cache, "manifest", "a", "1"))
        assert body < cache.client.pttl(key(cache, "manifest", "a")) <= 2 * 60 * MINUTE

    def test_everything_that_grows_runs_out(self, cache):
        publish(cache, "a", 1, b"one")
        for kind in Kind:
            cache.fill([(cache.look("photos", kind, "x"), b"data")])
        cache.renew_edition("photos")
        lasting = {one.decode() for one in cache.client.keys("*") if cache.client.pttl(one) == -1}
        assert lasting == {f"{PREFIX}:{name}" for name in ("generation", "edition", "counters")}


class TestEncoding:
    def stored(self, cache, data):
        publish(cache, "a", 1, data)
        return cache.client.get(key(cache, "manifest", "a", "1"))

    def test_compressed_where_it_pays(self, cache):
        data = b'{"url": "https://cdn.example/variants/"}' * 200
        stored = self.stored(cache, data)
        assert stored[:1] == b"z"
        assert struct.unpack(">I", stored[1:5])[0] == zlib.crc32(stored[5:])
        assert zlib.decompress(stored[5:]) == data
        assert len(stored) < len(data) / 10
        assert found(cache, "a") == data

    @pytest.mark.parametrize(
        "data", [b"x" * 2047, secrets.token_bytes(5000), b""], ids=["small", "noise", "empty"]
    )
    def test_as_it_is_where_it_does_not(self, cache, data):
        assert self.stored(cache, data) == b"r" + struct.pack(">I", zlib.crc32(data)) + data
        assert found(cache, "a") == data

    def test_from_the_number_of_bytes_that_the_settings_say(self, redis_settings):
        settings = redis_settings.model_copy(update={"compress_from_bytes": 100})
        cache = ManifestCache(settings, "images")
        assert self.stored(cache, b"x" * 99)[:1] == b"r"
        assert self.stored(cache, b"x" * 100)[:1] == b"z"
        cache.close()

    @given(st.binary(max_size=200))
    def test_anything_else_is_as_if_it_were_not_there(self, data):
        decoded = manifest_cache._decoded(data)
        assert decoded is None or data == b"r" + struct.pack(">I", zlib.crc32(decoded)) + decoded

    def test_a_bomb_is_not_inflated(self):
        bomb = zlib.compress(bytes(MAX_BYTES + 1))
        assert manifest_cache._decoded(b"z" + struct.pack(">I", zlib.crc32(bomb)) + bomb) is None
        fits = zlib.compress(bytes(MAX_BYTES))
        whole = manifest_cache._decoded(b"z" + struct.pack(">I", zlib.crc32(fits)) + fits)
        assert whole == bytes(MAX_BYTES)


class TestStrangeThings:
    """Somebody else writes to the same server."""

    @pytest.mark.parametrize("garbage", [b"", b"\x00\xff garbage", b"z0000", b"r0000{}"])
    def test_garbage_under_a_body_is_a_miss_and_is_replaced(self, cache, garbage):
        publish(cache, "a", 3, b"three")
        cache.client.set(key(cache, "manifest", "a", "3"), garbage)
        look = cache.look("photos", Kind.MANIFEST, "a")
        assert (look.value, look.version) == (None, "3")
        cache.fill([(look, b"read")])
        assert found(cache, "a") == b"read"

    @pytest.mark.parametrize("name", ["generation", "edition", "counters", "mended"])
    @pytest.mark.parametrize("put", ["set", "rpush"])
    def test_something_else_under_a_key_of_a_source(self, cache, name, put):
        for kind in (Kind.MANIFEST, Kind.INDEX):
            cache.fill([(cache.look("photos", kind, "a"), b"old")])
        cache.client.delete(f"{PREFIX}:{name}")
        getattr(cache.client, put)(f"{PREFIX}:{name}", "nonsense")
        assert cache.mended_until("photos") is None
        for kind in (Kind.MANIFEST, Kind.INDEX):
            look = cache.look("photos", kind, "a")
            cache.fill([(look, b"new")])
            assert cache.look("photos", kind, "a").value == b"new"
        publish(cache, "b", 1, b"one")
        cache.renew_edition("photos")
        cache.invalidate("photos")
        assert found(cache, "a") is None
        cache.set_mended("photos", datetime(2026, 1, 1, tzinfo=UTC))

    @pytest.mark.parametrize("part", [("manifest", "a"), ("manifest", "a", "1")])
    def test_something_else_under_a_pointer_or_a_body(self, cache, part):
        publish(cache, "a", 1, b"one")
        cache.client.delete(key(cache, *part))
        cache.client.rpush(key(cache, *part), "nonsense")
        assert found(cache, "a") is None
        publish(cache, "a", 1, b"one")
        assert found(cache, "a") == b"one"

    @pytest.mark.parametrize("pointer", ["nonsense", "", "-1", "1.5", "9" * 40])
    def test_a_pointer_that_is_no_version(self, cache, pointer):
        publish(cache, "a", 1, b"one")
        cache.client.set(key(cache, "manifest", "a"), pointer)
        look = cache.look("photos", Kind.MANIFEST, "a")
        assert (look.value, look.version) == (None, "0")
        cache.fill([(look, b"read")])
        assert found(cache, "a") == b"read"
        cache.client.set(key(cache, "manifest", "a"), pointer)
        publish(cache, "a", 2, b"two")
        assert found(cache, "a") == b"two"
        cache.client.set(key(cache, "manifest", "a"), "nonsense")
        assert cache.drop_older("photos", {"a": 2}) == 1

    @pytest.mark.parametrize(
        "document",
        ["\u2028\x00\ud83d\ude00</script>", "a" * 100_000, "\r\n$-1\r\n*0\r\n", {"deep": [[[[]]]]}],
        ids=["unicode", "long", "protocol", "nested"],
    )
    def test_documents_come_back_byte_by_byte(self, cache, document):
        data = json.dumps({"id": "a", "value": document}).encode()
        publish(cache, "a", 1, data)
        assert found(cache, "a") == data

    def test_scripts_that_the_server_forgot(self, cache):
        publish(cache, "a", 1, b"one")
        cache.client.script_flush()
        assert found(cache, "a") == b"one"
        cache.client.script_flush()
        publish(cache, "a", 2, b"two")
        cache.client.script_flush()
        cache.invalidate("photos")
        cache.client.script_flush()
        assert cache.peek("photos", Kind.MANIFEST, ["a"])[0][1] is False

    def test_options_of_the_url_do_not_change_what_is_read(self, redis_settings):
        url = f"{redis_settings.url}?decode_responses=True"
        cache = ManifestCache(redis_settings.model_copy(update={"url": url}), "images")
        publish(cache, "a", 1, b"\xff\xfe")
        assert found(cache, "a") == b"\xff\xfe"
        cache.close()


class TestCounters:
    def test_hits_and_misses_by_source_and_kind(self, cache):
        assert cache.counted("photos") == []
        found(cache, "a")
        publish(cache, "a", 1, b"one")
        found(cache, "a")
        found(cache, "a")
        cache.look("photos", Kind.INDEX, "")
        found(cache, "a", source="other")
        assert cache.counted("photos") == [Counted("manifest", 2, 1), Counted("index", 0, 1)]
        assert cache.counted("other") == [Counted("manifest", 0, 1)]

    def test_they_outlive_an_invalidation_and_what_is_not_a_number_is_left_out(self, cache):
        found(cache, "a")
        cache.invalidate("photos")
        cache.client.hset(f"{PREFIX}:counters", mapping={"hits:index": "x", "\xff": "1"})
        assert cache.counted("photos") == [Counted("manifest", 0, 1)]

    def test_the_last_comparison_is_remembered(self, cache):
        when = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
        assert cache.mended_until("photos") is None
        cache.set_mended("photos", when)
        assert cache.mended_until("photos") == when
        cache.client.set(f"{PREFIX}:mended", "2026-03-01")
        assert cache.mended_until("photos") is None

    def test_the_server_says_how_it_is(self, cache):
        publish(cache, "a", 1, b"one")
        server = cache.server()
        assert server.keys == cache.client.dbsize() > 0
        assert server.bytes > 100_000
        assert server.version.count(".") == 2


class TestServerThatDoesNotDoItsPart:
    def everything(self, cache):
        look = Look("photos", Kind.MANIFEST, "a", "1", "1", None)
        return [
            lambda: cache.look("photos", Kind.MANIFEST, "a"),
            lambda: cache.peek("photos", Kind.MANIFEST, ["a"]),
            lambda: cache.fill([(look, b"x")]),
            lambda: list(cache.publish("photos", [("a", 1, b"x")])),
            lambda: cache.drop_older("photos", {"a": 1}),
            lambda: cache.renew_edition("photos"),
            lambda: cache.invalidate("photos"),
            lambda: cache.counted("photos"),
            lambda: cache.mended_until("photos"),
            lambda: cache.set_mended("photos", datetime(2026, 1, 1, tzinfo=UTC)),
            cache.server,
        ]

    @pytest.mark.parametrize(
        "url",
        [
            "redis://127.0.0.1:9/0", "unix:///nowhere/socket", "redis://nowhere.invalid:6379/0",
            "memcached://127.0.0.1:9", "nonsense", "redis://127.0.0.1:port/0", None,
        ],
    )  # fmt: skip
    def test_is_one_kind_of_error(self, url):
        cache = ManifestCache(RedisSettings(url=url, timeout_seconds=0.5), "images")
        for ask in self.everything(cache):
            with pytest.raises(CacheError):
                ask()
        cache.close()

    def test_a_wrong_password_is_one_and_is_not_repeated(self, valkey):
        url = f"redis://:sesame@127.0.0.1:{valkey.port}/0"
        cache = ManifestCache(RedisSettings(url=url), "images")
        with pytest.raises(CacheError) as error:
            found(cache, "a")
        assert "sesame" not in str(error.value)
        assert shown_address(cache.settings) == f"redis://127.0.0.1:{valkey.port}/0"

    def test_reading_goes_on_where_there_is_no_memory_to_write(self, cache, redis_settings):
        publish(cache, "a", 1, b"one")
        with client_of(redis_settings.url) as client:
            before = client.config_get("maxmemory*")
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            try:
                assert found(cache, "a") == b"one"
                assert cache.look("new", Kind.MANIFEST, "a").value is None
                for write in (
                    lambda: publish(cache, "b", 1, b"x"),
                    lambda: cache.invalidate("photos"),
                    lambda: cache.invalidate("new"),
                ):
                    with pytest.raises(CacheError, match=r"OOM|memory"):
                        write()
            finally:
                for name, value in before.items():
                    client.config_set(name, value)

    def test_the_embedded_server_was_never_started(self, tmp_path):
        settings = RedisSettings(url="embedded", data=tmp_path)
        with pytest.raises(CacheError, match="make dev"):
            address(settings)
        assert shown_address(settings) == "embedded"

    def test_the_embedded_server_is_found_by_its_folder(self, valkey, tmp_path):
        (tmp_path / "port").write_text(f"{valkey.port}\n")
        (tmp_path / "password").write_text("secret")
        settings = RedisSettings(url="embedded", data=tmp_path)
        assert address(settings) == f"redis://:secret@127.0.0.1:{valkey.port}/0"
        assert shown_address(settings) == f"redis://127.0.0.1:{valkey.port}/0"


def test_manifests_of_tests_have_what_readers_look_at():
    assert json.loads(manifest("a", canonical="b"))["canonical"] == "b"
