"""The bucket against a real S3 server, and against one that breaks off in mid-sentence."""

import hashlib
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.catalog.batches import batch_id
from image_pipeline.imaging.recipe import extension
from image_pipeline.settings import BucketSettings
from image_pipeline.store import layout
from image_pipeline.store.bucket import (
    MULTIPART_BYTES,
    Bucket,
    Head,
    ObjectChangedError,
    ObjectGoneError,
    StoreError,
)

ODD_KEYS = [
    "a b.jpg", "a+b.jpg", "a//b.jpg", "a...b.jpg", "line\nbreak.jpg", "'single' \"double\".jpg",
    "ü/ñ/夕焼け.jpg", "%2F%41.jpg", "<b>&amp;.jpg", "question?x=1&y=2#z.jpg", "tab\tand\\.jpg",
    "x" * 1000,
]  # fmt: skip


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_people_really_have(bucket, tmp_path, key):
    body = key.encode()
    bucket.put(f"up/{key}", body, "image/jpeg")
    (listed,) = bucket.list("up/")
    assert (listed.key, listed.size) == (f"up/{key}", len(body))
    assert bucket.get(listed.key) == body
    digest = bucket.download(listed.key, tmp_path / "file", listed.etag)
    assert digest == hashlib.sha256(body).hexdigest()
    assert (tmp_path / "file").read_bytes() == body


def test_neighbours_in_spelling_are_different_objects(bucket):
    keys = ["a/b", "a//b", "a b", "a+b", "a%20b", "a", "A"]
    for key in keys:
        bucket.put(key, key.encode(), "text/plain")
    assert {one.key: bucket.get(one.key) for one in bucket.list("")} == {
        key: key.encode() for key in keys
    }


def test_head_tells_what_a_browser_is_told(bucket):
    assert bucket.put("v.avif", b"12345", "image/avif", layout.IMMUTABLE)
    assert bucket.head("v.avif") == Head(5, "image/avif", "public, max-age=31536000, immutable")
    bucket.put("plain.json", b"{}", "application/json")
    assert bucket.head("plain.json") == Head(2, "application/json", "")
    assert bucket.head("nothing") is None


def test_only_if_missing_keeps_what_is_there(bucket):
    assert bucket.put("once", b"first", "text/plain", only_if_missing=True)
    assert not bucket.put("once", b"second", "text/plain", only_if_missing=True)
    assert bucket.get("once") == b"first"
    assert bucket.put("once", b"third", "text/plain")
    assert bucket.get("once") == b"third"


def test_of_many_writers_at_once_one_is_the_first(bucket):
    with ThreadPoolExecutor(8) as threads:
        won = list(
            threads.map(
                lambda n: bucket.put("raced", b"%d" % n, "text/plain", only_if_missing=True),
                range(8),
            )
        )
    assert won.count(True) == 1
    assert bucket.get("raced") == b"%d" % won.index(True)


def test_what_is_gone_is_said_to_be_gone(bucket, tmp_path):
    bucket.put("here", b"x", "text/plain")
    (listed,) = bucket.list("")
    bucket.client.delete_object(Bucket=bucket.name, Key="here")
    with pytest.raises(ObjectGoneError, match="here"):
        bucket.get("here")
    with pytest.raises(ObjectGoneError, match="here"):
        bucket.download("here", tmp_path / "file", listed.etag)
    assert list(tmp_path.iterdir()) == []


def test_an_overwritten_version_is_never_handed_out(bucket, tmp_path):
    bucket.put("photo", b"first", "image/jpeg")
    (first,) = bucket.list("photo")
    bucket.put("photo", b"other", "image/jpeg")
    with pytest.raises(ObjectChangedError, match="photo"):
        bucket.download("photo", tmp_path / "file", first.etag)
    assert list(tmp_path.iterdir()) == []
    (second,) = bucket.list("photo")
    bucket.download("photo", tmp_path / "file", second.etag)
    assert (tmp_path / "file").read_bytes() == b"other"


def test_pages_are_in_order_and_can_be_resumed(bucket):
    keys = [f"many/{n:04d}" for n in range(1002)] + ["many/ä", "many/Z"]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: bucket.put(key, b"x", "text/plain"), [*keys, "other"]))
    in_order = sorted(keys, key=str.encode)
    first = bucket.page("many/")
    assert [one.key for one in first.objects] == in_order[:1000]
    assert first.more
    last = bucket.page("many/", first.objects[-1].key)
    assert [one.key for one in last.objects] == in_order[1000:]
    assert not last.more
    # Also from a key that is not there (any more).
    assert bucket.page("many/", "many/0500x").objects[0].key == "many/0501"
    assert [one.key for one in bucket.list("many/")] == in_order
    assert list(bucket.list("nobody/")) == []


def test_a_large_file_goes_up_in_parts_and_comes_down_whole(bucket, tmp_path):
    source = tmp_path / "large"
    source.write_bytes(random.Random(3).randbytes(MULTIPART_BYTES + 1_000_000))
    bucket.upload_file(source, "large.tif", "image/tiff")
    (listed,) = bucket.list("large.tif")
    assert re.fullmatch(r"[0-9a-f]{32}-\d+", listed.etag), "the ETag of a multipart upload"
    assert bucket.head("large.tif") == Head(MULTIPART_BYTES + 1_000_000, "image/tiff", "")
    digest = bucket.download("large.tif", tmp_path / "copy", listed.etag)
    assert digest == hashlib.sha256(source.read_bytes()).hexdigest()
    assert digest == hashlib.sha256((tmp_path / "copy").read_bytes()).hexdigest()


def test_a_small_file_has_the_etag_of_its_bytes(bucket, tmp_path):
    (tmp_path / "small").write_bytes(b"abc")
    bucket.upload_file(tmp_path / "small", "small.jpg", "image/jpeg")
    (listed,) = bucket.list("small.jpg")
    assert listed.etag == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, A.5
    assert bucket.head("small.jpg") == Head(3, "image/jpeg", "")


@pytest.mark.parametrize("size", [10, MULTIPART_BYTES])
def test_a_refused_upload_is_a_store_error_whatever_its_size(bucket, tmp_path, size):
    missing = Bucket(bucket.settings.model_copy(update={"name": "nobody-made-this"}))
    (tmp_path / "file").write_bytes(bytes(size))
    with pytest.raises(StoreError, match="NoSuchBucket"):
        missing.upload_file(tmp_path / "file", "key", "image/jpeg")
    missing.client.close()


def test_making_a_bucket_twice_changes_nothing(bucket):
    bucket.put("kept", b"x", "text/plain")
    bucket.create_if_missing()
    assert bucket.get("kept") == b"x"


def test_a_server_that_was_never_started_says_what_to_do(tmp_path):
    nowhere = Bucket(BucketSettings(endpoint_url="embedded", data=tmp_path))
    with pytest.raises(StoreError, match=r"never been started.*make dev.*make demo"):
        nowhere.page("")
    with pytest.raises(StoreError, match="never been started"):
        _ = nowhere.url


def test_the_url_before_every_key():
    assert Bucket(BucketSettings(name="pictures", region="eu-west-1")).url == (
        "https://pictures.s3.eu-west-1.amazonaws.com"
    )
    there = BucketSettings(name="pictures", endpoint_url="http://127.0.0.1:9000/")
    assert Bucket(there).url == "http://127.0.0.1:9000/pictures"


BODY = b"0123456789" * 1000


@contextmanager
def store_that_breaks_off(times):
    """A server whose first answers end in the middle of the body; yields it and its requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.headers.get("If-Match"))
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.send_header("ETag", '"e"')
            self.end_headers()
            broken = len(requests) <= times
            self.wfile.write(BODY[: len(BODY) // 2] if broken else BODY)
            self.close_connection = True

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    store = Bucket(
        BucketSettings(
            name="breaks-off", endpoint_url=f"http://127.0.0.1:{server.server_port}",
            addressing="path",
        )
    )  # fmt: skip
    try:
        yield store, requests
    finally:
        store.client.close()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def waits(s3, monkeypatch):
    """Waiting between attempts takes no time here; the seconds are collected instead."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    seconds = []
    monkeypatch.setattr("image_pipeline.store.bucket.time", SimpleNamespace(sleep=seconds.append))
    return seconds


def test_a_body_that_breaks_off_is_asked_for_again(waits, tmp_path):
    with store_that_breaks_off(2) as (store, requests):
        assert store.download("k", tmp_path / "file", "e") == hashlib.sha256(BODY).hexdigest()
    assert (tmp_path / "file").read_bytes() == BODY
    assert requests == ['"e"'] * 3
    assert len(waits) == 2
    assert waits[1] > waits[0] > 0


def test_a_body_that_always_breaks_off_is_a_store_error_and_no_file(waits, tmp_path):
    with store_that_breaks_off(99) as (store, requests):
        with pytest.raises(StoreError, match="k: "):
            store.download("k", tmp_path / "file", "e")
        assert not (tmp_path / "file").exists()
        downloads = len(requests)
        with pytest.raises(StoreError, match="k: "):
            store.get("k")
    assert downloads == 4
    assert len(requests) == 8


HEX = st.text("0123456789abcdef", min_size=12, max_size=64)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_]{0,30}", fullmatch=True)
TIMES = st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1))


@given(HEX, HEX, NAMES, NAMES, TIMES, st.sampled_from(["avif", "webp", "jpeg"]))
def test_keys_of_the_pipeline_need_no_quoting_anywhere(image, mark, source, size, now, kind):
    batch = batch_id(source, now)
    keys = [
        layout.batch_key(batch),
        layout.variant_key(image, size, 640, 480, mark, extension(kind)),
        layout.image_manifest_key(source, image),
        layout.batch_manifest_key(batch),
        layout.warm_list_key(batch),
        layout.gallery_key(batch),
        layout.table_key("raw_uploads", batch),
        layout.table_key("upload_ledger", None),
    ]
    for key in keys:
        assert re.fullmatch(r"[a-z0-9/._-]+", key), key
        assert "//" not in key
        assert len(key) < 300
    assert len(set(keys)) == len(keys)
