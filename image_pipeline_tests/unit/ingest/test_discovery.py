"""The listing sweep against a bucket that can be changed between and within sweeps."""

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import repeat

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.schema import uploads
from image_pipeline.ingest.discovery import (
    decode_cursor,
    encode_cursor,
    is_upload,
    sweep,
    sweep_is_due,
)
from image_pipeline.settings import Discovery
from image_pipeline.store.bucket import Object, Page

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Shelf:
    """Objects in S3's order: UTF-8 bytes, 1,000 (here fewer) a page."""

    def __init__(self, page_size=3):
        self.objects = {}
        self.page_size = page_size
        self.pages_served = 0

    def put(self, key, body=b"x"):
        etag = hashlib.md5(body).hexdigest()
        self.objects[key] = Object(key, etag, len(body), NOW)

    def page(self, prefix, after=""):
        self.pages_served += 1
        order = sorted(self.objects, key=lambda key: key.encode())
        keys = [key for key in order if key.startswith(prefix) and key.encode() > after.encode()]
        part = keys[: self.page_size]
        return Page([self.objects[key] for key in part], len(keys) > len(part))


def found(catalog):
    with catalog.read() as connection:
        rows = connection.execute(sa.select(uploads.c.key, uploads.c.etag).order_by(uploads.c.id))
        return [tuple(row) for row in rows]


def walk(shelf, catalog, after="", pages=None):
    budget = repeat(True) if pages is None else repeat(True, pages - 1)
    return sweep(shelf, catalog, "s", "up/", after, NOW, lambda: next(budget, False))


def test_keys_people_really_have(catalog):
    keys = [
        "up/a b.jpg", "up/a+b.jpg", "up/ü/ñ.jpg", "up//double.jpg", "up/a...b.jpg", "up/夕焼け.png",
        "up/%2F.jpg", "up/new\nline.jpg", "up/<b>.jpg", "up/'quote'.jpg", "up/" + "x" * 1000,
    ]  # fmt: skip
    shelf = Shelf()
    for key in keys:
        shelf.put(key)
    walk(shelf, catalog)
    assert {key for key, _ in found(catalog)} == set(keys)


def test_folder_markers_are_passed_over_but_empty_files_are_not(catalog):
    shelf = Shelf()
    shelf.put("up/", b"")
    shelf.put("up/folder/", b"")
    shelf.put("up/empty.jpg", b"")
    walk(shelf, catalog)
    assert [key for key, _ in found(catalog)] == ["up/empty.jpg"]
    assert is_upload("odd/", 5)


def test_an_overwritten_key_is_a_new_upload_and_the_same_bytes_again_are_not(catalog):
    shelf = Shelf()
    shelf.put("up/a", b"one")
    walk(shelf, catalog)
    shelf.put("up/a", b"one")
    walk(shelf, catalog)
    shelf.put("up/a", b"two")
    walk(shelf, catalog)
    assert [key for key, _ in found(catalog)] == ["up/a", "up/a"]
    assert len({etag for _, etag in found(catalog)}) == 2


def test_a_deleted_key_neither_hides_nor_repeats_others(catalog):
    shelf = Shelf(page_size=2)
    for name in "abcdef":
        shelf.put(f"up/{name}")
    first = walk(shelf, catalog, pages=1)
    assert not first.complete
    del shelf.objects[first.after]
    walk(shelf, catalog, first.after)
    assert [key for key, _ in found(catalog)] == [f"up/{name}" for name in "abcdef"]


def test_a_sweep_out_of_time_goes_on_where_it_stopped(catalog):
    shelf = Shelf(page_size=2)
    for number in range(9):
        shelf.put(f"up/{number}")
    after, looks = "", 0
    while True:
        look = walk(shelf, catalog, after, pages=2)
        looks += 1
        after = decode_cursor(encode_cursor(look.after))
        if look.complete:
            break
    assert looks == 3
    assert shelf.pages_served == 5
    assert len(found(catalog)) == 9


def test_other_prefixes_are_left_alone(catalog):
    shelf = Shelf()
    shelf.put("variants/a.avif")
    shelf.put("up/a")
    walk(shelf, catalog)
    assert [key for key, _ in found(catalog)] == ["up/a"]


@pytest.mark.parametrize("cursor", [None, "", "{", "[]", "7", '{"v": 0, "after": "x"}', '{"v": 1}'])
def test_a_cursor_that_is_not_understood_starts_anew(cursor):
    assert decode_cursor(cursor) == ""


@given(st.text())
def test_cursors_keep_any_key(key):
    assert decode_cursor(encode_cursor(key)) == key


actions = st.lists(
    st.tuples(
        st.sampled_from(["put", "delete", "look"]),
        st.sampled_from(["up/a", "up/b", "up/b/c", "up/ä", "up/z+", "up//"]),
        st.binary(min_size=1, max_size=1),
    ),
    max_size=25,
)


@given(actions)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_after_a_quiet_sweep_everything_in_the_bucket_is_known_once(some):
    shelf, catalog, after = Shelf(page_size=2), Catalog("sqlite://"), ""
    try:
        for action, key, body in some:
            if action == "put":
                shelf.put(key, body)
            elif action == "delete":
                shelf.objects.pop(key, None)
            else:
                after = walk(shelf, catalog, after, pages=1).after
        walk(shelf, catalog, after)
        walk(shelf, catalog)
        rows = found(catalog)
        assert len(rows) == len(set(rows))
        assert set(rows) >= {(one.key, one.etag) for one in shelf.objects.values()}
    finally:
        catalog.close()


QUEUE = Discovery(queue_url="https://sqs.example.com/1/q", reconcile_minutes=60)


@pytest.mark.parametrize(
    ("cursor", "due"),
    [
        (None, True),
        (encode_cursor(""), True),
        (encode_cursor("", NOW - timedelta(minutes=59)), False),
        (encode_cursor("", NOW - timedelta(minutes=60)), True),
        # Unfinished ones go on at once.
        (encode_cursor("uploads/a", NOW), True),
        # Written by a clock that was ahead.
        (encode_cursor("", NOW + timedelta(days=1)), True),
        ('{"v": 1, "after": "", "swept_at": "yesterday"}', True),
        ('{"v": 1, "after": "", "swept_at": "2026-03-01T12:00:00"}', True),
    ],
)
def test_with_events_a_prefix_is_swept_now_and_then(cursor, due):
    assert sweep_is_due(cursor, QUEUE, NOW) == due
    assert sweep_is_due(cursor, Discovery(), NOW)
