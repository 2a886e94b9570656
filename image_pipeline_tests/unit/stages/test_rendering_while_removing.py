"""A batch renders files of the very names that housekeeping is removing: they are there after."""

import hashlib
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import batches, images, removals
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.schema import uploads, variants
from image_pipeline.imaging.recipe import plan_variants
from image_pipeline.imaging.rendering import RenderedVariant
from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.maintenance.plans import Entry, Plan, write_plan
from image_pipeline.stages import rendering, storing
from image_pipeline.stages.rendering import expected_keys, render_batch
from image_pipeline.workers.pool import Outcome
from image_pipeline_tests.fake_bucket import FakeBucket, Stored

from .helpers import NOW, RECIPE, add_batch, add_images, image_row, make_tools

IMAGE = "a1" * 32
LONG_AGO = NOW.replace(year=NOW.year - 1)
PLAN = "orphans-20260301-000000-abcdef"
#: Longer than anything here takes, and shorter than a test that hangs may take.
PATIENCE = 30


class Workers:
    """Worker processes that are none: every file is its own size in bytes."""

    def run(self, task, jobs):
        for job in jobs:
            files = [
                RenderedVariant(plan, data, hashlib.sha256(data).hexdigest(), len(data))
                for plan in plan_variants(RECIPE, 90, 60, ("responsive", "thumbnail"), 1)
                for data in [f"{plan.width}x{plan.height}".encode()]
            ]
            yield Outcome(job.key, files, None, 0.5)


@pytest.fixture
def tools(catalog, tmp_path):
    made = make_tools(catalog, tmp_path, FakeBucket(lambda: NOW))
    add_images(catalog, image_row(IMAGE))
    return replace(made, workers=Workers())


@pytest.fixture
def batch(tools):
    made = add_batch(tools.catalog, ("a.jpg", "accepted", None, IMAGE))
    with tools.catalog.write() as connection:
        images.add_members(connection, [Member("photos", IMAGE, IMAGE, None, 0, 1, made)])
        batches.finish(connection, made, NOW)
    return made


@pytest.fixture
def keys(tools):
    """Files as a killed run left them long ago, planned to be removed: objects without rows."""
    found = sorted(expected_keys(IMAGE, 90, 60, RECIPE))
    for key, plan in expected_keys(IMAGE, 90, 60, RECIPE).items():
        data = f"{plan.width}x{plan.height}".encode()
        tools.bucket.objects[key] = Stored(data, LONG_AGO, "image/webp")
    entries = []
    for key in found:
        head = tools.bucket.head(key)
        entries.append(
            Entry(key, head.etag, head.size, head.last_modified, "STANDARD", "unknown_variant",
                  LONG_AGO, NOW)
        )  # fmt: skip
    plan = Plan(PLAN, "orphans", NOW, "i", "", 0, 0, 0.001, False, "planned")
    write_plan(tools.bucket, tools.catalog, plan, entries)
    return found


def remove(tools):
    return apply_plan(tools.bucket, tools.catalog, tools.settings, tools.clock, PLAN, threads=1)


def reopen(tools, batch):
    with tools.catalog.write() as connection:
        batches.reopen(connection, [batch], NOW)


def rows(tools):
    with tools.catalog.read() as connection:
        return set(connection.execute(sa.select(variants.c.key)).scalars())


@contextmanager
def rendering_beside(tools, batch):
    """A batch that renders at the same time; at the end it is through, or the test fails."""
    errors = []

    def run():
        try:
            render_batch(tools, batch)
        except BaseException as error:  # noqa: BLE001 - shown by the test itself
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield thread
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert errors == []


def test_who_wants_to_record_what_is_being_removed_waits_and_writes_it_again(
    tools, batch, keys, monkeypatch
):
    waits, removed = threading.Event(), threading.Event()

    def await_removal():
        waits.set()
        assert removed.wait(PATIENCE)

    monkeypatch.setattr(storing, "await_removal", await_removal)
    beside = []

    def render_meanwhile(call, _):
        if call == "delete":
            tools.bucket.before = lambda *_: None
            reopen(tools, batch)
            beside.append(rendering_beside(tools, batch))
            beside[0].__enter__()
            # It has written its files, wanted to record them, and saw that they are going.
            assert waits.wait(PATIENCE)
            assert rows(tools) == set()

    tools.bucket.before = render_meanwhile
    done = remove(tools)
    assert done.counts == {"trashed": len(keys)}
    assert not set(keys) & tools.bucket.objects.keys()
    removed.set()
    beside[0].__exit__(None, None, None)
    assert set(keys) <= tools.bucket.objects.keys()
    assert rows(tools) == set(keys)


def test_what_was_removed_between_writing_and_recording_is_written_again(
    tools, batch, keys, monkeypatch
):
    """The removal has ended when the rows are to be written: nothing announces it any more."""
    written, removed = threading.Event(), threading.Event()
    commit = rendering._Press._commit

    def late(press):
        written.set()
        assert removed.wait(PATIENCE)
        commit(press)

    monkeypatch.setattr(rendering._Press, "_commit", late)
    beside = []

    def render_meanwhile(call, _):
        if call == "delete":
            tools.bucket.before = lambda *_: None
            reopen(tools, batch)
            beside.append(rendering_beside(tools, batch))
            beside[0].__enter__()
            assert written.wait(PATIENCE)

    tools.bucket.before = render_meanwhile
    assert remove(tools).counts == {"trashed": len(keys)}
    assert not set(keys) & tools.bucket.objects.keys()
    with tools.catalog.write() as connection:
        assert removals.being_removed(connection, keys, NOW) == set()
    removed.set()
    beside[0].__exit__(None, None, None)
    assert set(keys) <= tools.bucket.objects.keys()
    assert rows(tools) == set(keys)


@pytest.mark.parametrize("moment", ["before it is asked about", "after it was copied"])
def test_what_is_rendered_first_is_not_removed(tools, batch, keys, moment):
    """Recorded before: somebody refers to it. Written before it is looked at: it has changed."""
    if moment == "before it is asked about":
        render_batch(tools, batch)
        assert remove(tools).counts == {"skipped_now_live": len(keys)}
    else:
        seen = []

        def render_meanwhile(call, key):
            if call == "head" and key == keys[0] and not seen:
                seen.append(key)
                for name in keys:
                    tools.bucket.put(name, tools.bucket.objects[name].data, "image/webp")

        tools.bucket.before = render_meanwhile
        assert remove(tools).counts == {"skipped_changed": len(keys)}
    assert set(keys) <= tools.bucket.objects.keys()


def test_a_removal_that_does_not_end_leaves_the_upload_to_another_attempt(
    tools, batch, keys, monkeypatch
):
    looks = []
    monkeypatch.setattr(storing, "await_removal", lambda: looks.append(1))
    monkeypatch.setattr(storing, "REMOVAL_LOOKS", 3)
    with tools.catalog.write() as connection:
        removals.begin(connection, "a plan that was killed", keys[:1], NOW)
    reopen(tools, batch)
    assert render_batch(tools, batch) == []
    assert len(looks) == 3
    assert rows(tools) == set()
    with tools.catalog.read() as connection:
        query = sa.select(uploads.c.verdict, uploads.c.reason)
        assert [tuple(row) for row in connection.execute(query)] == [("failed", "storage_error")]


def test_work_is_counted_once_and_nothing_is_kept_in_memory(tools, batch, keys, monkeypatch):
    presses = []
    start = rendering._Press.__init__

    def kept(press, *arguments):
        presses.append(press)
        start(press, *arguments)

    monkeypatch.setattr(rendering._Press, "__init__", kept)
    render_batch(tools, batch)
    with tools.catalog.read() as connection:
        assert connection.execute(sa.select(uploads.c.seconds)).scalars().all() == [0.5]
    assert (presses[0].stored, presses[0].rows, presses[0].seconds) == ({}, [], {})


def test_files_that_a_forgetting_erased_in_between_are_put_again(tools, batch, monkeypatch):
    """Somebody sends the same bytes anew, while what was made of them is being forgotten."""
    holder, record = f"forget {IMAGE}", rendering._Press._commit

    def forgotten_before(press):
        monkeypatch.setattr(rendering._Press, "_commit", record)
        files = [one.key for one in tools.bucket.list(f"variants/{IMAGE}/")]
        assert files
        with tools.catalog.write() as connection:
            removals.hold(connection)
            removals.begin(connection, holder, [*files, "left by a call that was killed"], NOW)
        tools.bucket.delete(files)
        with tools.catalog.write() as connection:
            removals.hold(connection)
            removals.end_forgetting(connection, holder, NOW)
        record(press)

    monkeypatch.setattr(rendering._Press, "_commit", forgotten_before)
    reopen(tools, batch)
    render_batch(tools, batch)
    assert rows(tools)
    assert rows(tools) <= tools.bucket.objects.keys()
    with tools.catalog.read() as connection:
        left = connection.execute(sa.text("SELECT key FROM removals")).scalars().all()
    assert left == ["forgotten"]
