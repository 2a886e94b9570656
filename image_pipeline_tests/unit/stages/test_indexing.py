"""The index of a source in the bucket, with pages of three images."""

import hashlib
import json
import threading

import pytest

from image_pipeline.catalog import images, removals
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.publications import Announcement, Files, announce
from image_pipeline.delivery import index as delivery_index
from image_pipeline.delivery.urls import url_builder
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.stages import indexing
from image_pipeline.stages.indexing import update_index
from image_pipeline.store import layout
from image_pipeline.store.bucket import StoreError

from .helpers import NOW, RECIPE, add_images, image_row, make_tools

IDS = [f"{number:064x}" for number in range(1, 9)]
FILES = recipe_fingerprint(RECIPE)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(delivery_index, "PAGE_IMAGES", 3)


@pytest.fixture
def tools(catalog, tmp_path, bucket):
    """Eight images in the order of their ids; none of them is published."""
    add_images(catalog, *(image_row(one) for one in IDS))
    rows = [Member("photos", one, one, None, 0, n) for n, one in enumerate(IDS, 1)]
    with catalog.write() as connection:
        images.add_members(connection, rows)
    return make_tools(catalog, tmp_path, bucket)


def say(tools, ids, by=None, digest="d"):
    """Announce these images in the catalog."""
    rows = [Announcement(one, Files(by or one, FILES), digest) for one in ids]
    with tools.catalog.write() as connection:
        announce(connection, "photos", "batch", rows, NOW)


def put(tools, ids):
    """Put something for their manifests."""
    for one in ids:
        tools.bucket.put(layout.image_manifest_key("photos", one), b"{}", "application/json")


def update(tools, ids):
    return update_index(tools, "photos", ids, url_builder(None, tools.bucket.url))


def publish(tools, ids, by=None, digest="d"):
    say(tools, ids, by, digest)
    put(tools, ids)
    return update(tools, ids)


def read(tools):
    """The ids on every page, read as a visitor would, and checked on the way."""
    pointer = json.loads(tools.bucket.get(layout.index_key("photos")))
    found = {}
    for page in pointer["pages"]:
        data = tools.bucket.get(page["key"])
        assert hashlib.sha256(data).hexdigest() == page["sha256"]
        assert page["url"] == f"{tools.bucket.url}/{page['key']}"
        entries = json.loads(data)["images"]
        assert page["images"] == len(entries)
        assert page["canonicals"] == sum(one["id"] == one["canonical"] for one in entries)
        found[page["page"]] = [one["id"] for one in entries]
    assert pointer["totals"]["images"] == sum(len(ids) for ids in found.values())
    return found


def watched_puts(tools, monkeypatch):
    real, keys = tools.bucket.put, []

    def watched(key, *arguments, **options):
        keys.append(key)
        return real(key, *arguments, **options)

    monkeypatch.setattr(tools.bucket, "put", watched)
    return keys


def test_images_have_their_places_by_their_numbers(tools):
    assert publish(tools, [IDS[4], IDS[0], IDS[7]]).pages == 3
    assert read(tools) == {0: [IDS[0]], 1: [IDS[4]], 2: [IDS[7]]}
    assert publish(tools, [IDS[2], IDS[1]]).pages == 1
    assert read(tools) == {0: IDS[:3], 1: [IDS[4]], 2: [IDS[7]]}
    head = tools.bucket.head(layout.index_key("photos"))
    assert (head.content_type, head.cache_control) == ("application/json", "public, max-age=60")


def test_pages_are_for_ever(tools):
    publish(tools, IDS)
    for one in tools.bucket.list("indexes/photos/00"):
        assert "immutable" in tools.bucket.head(one.key).cache_control


def test_only_pages_with_changed_images_are_written_and_read(tools, monkeypatch):
    publish(tools, IDS)
    asked = []
    monkeypatch.setattr(
        indexing.catalog_publications,
        "listed",
        watched(asked, indexing.catalog_publications.listed),
    )
    keys = watched_puts(tools, monkeypatch)
    assert publish(tools, [IDS[3]], by=IDS[7]).pages == 1
    page, pointer = [key for key in keys if key.startswith("indexes/")]
    assert page.startswith("indexes/photos/000001.")
    assert pointer == layout.index_key("photos")
    assert [numbers for _, _, numbers in asked] == [range(4, 7)]


def watched(calls, function):
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


def test_nothing_changed_writes_nothing(tools, monkeypatch):
    first = publish(tools, IDS)
    keys = watched_puts(tools, monkeypatch)
    second = update(tools, IDS)
    assert (second.pages, second.pointer) == (0, first.pointer)
    assert keys == []


def test_a_picture_that_another_stands_for_is_listed_as_such(tools):
    publish(tools, IDS[:2])
    publish(tools, IDS[:2], by=IDS[1])
    (page,) = json.loads(tools.bucket.get(layout.index_key("photos")))["pages"]
    assert (page["images"], page["canonicals"]) == (2, 1)
    entries = json.loads(tools.bucket.get(page["key"]))["images"]
    assert [one["canonical"] for one in entries] == [IDS[1], IDS[1]]


def test_what_others_have_announced_is_listed_only_when_it_is_there(tools):
    """Another batch is between its announcement and its manifests."""
    say(tools, IDS[1:3])
    put(tools, IDS[2:3])
    publish(tools, IDS[:1])
    assert read(tools) == {0: [IDS[0], IDS[2]]}
    # Once listed, it is not asked for again; the other batch adds what is its own.
    put(tools, IDS[1:2])
    assert update(tools, IDS[1:3]).pages == 1
    assert read(tools) == {0: IDS[:3]}


def test_what_is_listed_already_is_not_asked_for(tools, monkeypatch):
    publish(tools, IDS[:2])
    asked = []
    monkeypatch.setattr(tools.bucket, "head", watched(asked, tools.bucket.head))
    publish(tools, IDS[2:4])
    assert not [key for (key,) in asked if key.startswith("manifests/")]
    assert read(tools) == {0: IDS[:3], 1: IDS[3:4]}


def test_two_batches_at_once_end_with_an_index_that_has_both(tools, monkeypatch):
    """Each waits in the middle until the other has come as far as it can."""
    publish(tools, IDS[:1])
    say(tools, IDS)
    put(tools, IDS)
    real, started, turns = tools.bucket.put, threading.Barrier(2), []

    def slow(key, *arguments, **options):
        if key.startswith("indexes/") and threading.current_thread() not in turns:
            turns.append(threading.current_thread())
            threading.Event().wait(0.2)
        return real(key, *arguments, **options)

    monkeypatch.setattr(tools.bucket, "put", slow)

    def run(ids):
        started.wait()
        update(tools, ids)

    threads = [threading.Thread(target=run, args=(ids,)) for ids in (IDS[1:5], IDS[5:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(turns) == 2
    assert read(tools) == {0: IDS[:3], 1: IDS[3:6], 2: IDS[6:]}


@pytest.mark.parametrize(
    "damage", [None, b"{", b"[]", b'{"page_images": 3}', b'{"page_images": 2}']
)
def test_an_index_that_is_lost_or_damaged_is_made_anew_with_every_page(tools, damage):
    publish(tools, IDS)
    key = layout.index_key("photos")
    if damage is None:
        tools.bucket.client.delete_object(Bucket=tools.bucket.name, Key=key)
    else:
        tools.bucket.put(key, damage, "application/json")
    update(tools, IDS[:1])
    assert read(tools) == {0: IDS[:3], 1: IDS[3:6], 2: IDS[6:]}


def test_a_page_that_lost_its_object_is_made_anew_when_it_changes(tools):
    publish(tools, IDS[:2])
    (page,) = json.loads(tools.bucket.get(layout.index_key("photos")))["pages"]
    tools.bucket.client.delete_object(Bucket=tools.bucket.name, Key=page["key"])
    publish(tools, IDS[2:3])
    assert read(tools) == {0: IDS[:3]}


def test_a_page_without_published_images_is_not_listed(tools):
    put(tools, IDS[:1])
    assert update(tools, IDS[:1]).pages == 0
    assert read(tools) == {}


@pytest.mark.parametrize("ends", [True, False])
def test_a_former_page_that_is_on_its_way_out_is_put_once_more(tools, monkeypatch, ends):
    publish(tools, IDS[:1])
    (page,) = json.loads(tools.bucket.get(layout.index_key("photos")))["pages"]
    publish(tools, IDS[:1], by=IDS[1])
    with tools.catalog.write() as connection:
        removals.begin(connection, "plan", [page["key"]], NOW)
    paused = []

    def pause():
        paused.append(True)
        tools.bucket.client.delete_object(Bucket=tools.bucket.name, Key=page["key"])
        if ends:
            with tools.catalog.write() as connection:
                removals.end(connection, "plan", [page["key"]])

    monkeypatch.setattr(indexing, "await_removal", pause)
    monkeypatch.setattr(indexing, "REMOVAL_LOOKS", 3)
    if ends:
        publish(tools, IDS[:1])
        assert (len(paused), read(tools)) == (1, {0: IDS[:1]})
    else:
        with pytest.raises(StoreError, match="housekeeping"):
            publish(tools, IDS[:1])
        assert len(paused) == 3


def test_a_former_page_that_was_removed_just_now_is_put_once_more(tools, monkeypatch):
    """Housekeeping looked before we wrote and deleted after it, and has ended since."""
    put = tools.bucket.put

    def then_gone(key, *arguments, **options):
        done = put(key, *arguments, **options)
        if key.startswith("indexes/photos/0") and not gone:
            gone.append(key)
            tools.bucket.client.delete_object(Bucket=tools.bucket.name, Key=key)
        return done

    gone = []
    monkeypatch.setattr(tools.bucket, "put", then_gone)
    monkeypatch.setattr(indexing, "await_removal", lambda: None)
    publish(tools, IDS[:1])
    assert (len(gone), read(tools)) == (1, {0: IDS[:1]})
