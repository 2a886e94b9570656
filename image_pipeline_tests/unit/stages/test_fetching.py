"""Originals that moved, that are moving, and that lie in an archive."""

import hashlib
import io
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import batches, originals, uploads
from image_pipeline.catalog.originals import Moved
from image_pipeline.catalog.schema import removals as removals_table
from image_pipeline.catalog.schema import uploads as uploads_table
from image_pipeline.catalog.uploads import Decision
from image_pipeline.imaging.verdict import Reason
from image_pipeline.ingest.discovery import sweep
from image_pipeline.maintenance.plans import Plan, write_plan
from image_pipeline.samples import photograph
from image_pipeline.settings import Classes, Maintenance, Workers
from image_pipeline.stages.deduplicating import deduplicate_batch
from image_pipeline.stages.fetching import (
    RESTORE_TIMES,
    ArchivedError,
    MovingError,
    fetch,
    load_original,
)
from image_pipeline.stages.inspecting import decision, inspect_batch
from image_pipeline.stages.rendering import render_batch
from image_pipeline.store.bucket import ObjectGoneError
from image_pipeline.workers.pool import ImageWorkers

from .helpers import NOW, make_tools

PREFIX = "uploads/photos/"


@pytest.fixture
def tools(bucket, catalog, tmp_path):
    return make_tools(catalog, tmp_path, bucket)


def put(tools, name, data, **extra):
    tools.bucket.client.put_object(Bucket=tools.bucket.name, Key=PREFIX + name, Body=data, **extra)


def form(tools):
    """Everything under the prefix as one batch; its id."""
    sweep(tools.bucket, tools.catalog, "photos", PREFIX, "", NOW, lambda: True)
    with tools.catalog.write() as connection:
        (batch,) = batches.form(connection, "photos", NOW, 99, lambda all_: [list(all_)])
    return batch


def uploads_of(tools, batch):
    with tools.catalog.read() as connection:
        return uploads.of_batch(connection, batch)


def move(tools, key, storage_class, *, commit=True):
    """Move an object as housekeeping does, with a new ETag; ``commit`` or die before."""
    (before,) = tools.bucket.list(key)
    tools.bucket.copy_bytes = 1
    etag = tools.bucket.copy(key, key, storage_class=storage_class)
    del tools.bucket.copy_bytes
    assert etag != before.etag
    with tools.catalog.write() as connection:
        if commit:
            originals.follow(connection, [Moved(key, before.etag, etag, storage_class)], NOW)
    return etag


def announce(tools, key):
    """A plan of moves says that it is at this object."""
    plan = Plan("classes-1", "classes", NOW, "i", "", 0, 0, 0.0, False, "planned")
    write_plan(tools.bucket, tools.catalog, plan, [])
    with tools.catalog.write() as connection:
        connection.execute(
            sa.insert(removals_table).values(key=key, plan_id="classes-1", touched_at=NOW)
        )


def is_readable(tools, key):
    """Wait for the server to have restored an object: two seconds, it says."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if tools.bucket.head(key).restore.startswith("until"):
            return True
        time.sleep(0.1)
    return False


def test_a_move_between_claim_and_download_is_followed(tools):
    put(tools, "a.jpg", b"picture")
    batch = form(tools)
    claimed = uploads_of(tools, batch)
    move(tools, PREFIX + "a.jpg", "STANDARD_IA")
    (found,) = fetch(tools, claimed)
    assert found.error is None
    assert found.path.read_bytes() == b"picture"


def test_an_object_on_the_move_is_nobodys_fault(tools):
    """Between copy and commit: not gone, not replaced, but to be tried again."""
    put(tools, "a.jpg", b"picture")
    batch = form(tools)
    announce(tools, PREFIX + "a.jpg")
    move(tools, PREFIX + "a.jpg", "STANDARD_IA", commit=False)
    (found,) = fetch(tools, uploads_of(tools, batch))
    assert isinstance(found.error, MovingError)
    assert decision(1, found.error).verdict == "failed"
    with pytest.raises(MovingError):
        load_original(tools, uploads_of(tools, batch))


def test_what_really_is_gone_or_replaced_stays_so(tools):
    put(tools, "gone.jpg", b"1")
    put(tools, "other.jpg", b"2")
    batch = form(tools)
    put(tools, "other.jpg", b"3")
    tools.bucket.delete([PREFIX + "gone.jpg"])
    found = [decision(1, one.error).reason for one in fetch(tools, uploads_of(tools, batch))]
    assert found == [Reason.gone, Reason.superseded]
    with pytest.raises(ObjectGoneError):
        load_original(tools, uploads_of(tools, batch))


@pytest.mark.parametrize(
    ("storage_class", "tier", "asked", "hours"),
    [
        ("GLACIER", "Expedited", "Expedited", 5 / 60),
        ("GLACIER", "Standard", "Standard", 5),
        ("GLACIER", "Bulk", "Bulk", 12),
        ("DEEP_ARCHIVE", "Standard", "Standard", 12),
        ("DEEP_ARCHIVE", "Bulk", "Bulk", 48),
        # There is no such tier in Deep Archive.
        ("DEEP_ARCHIVE", "Expedited", "Standard", 12),
    ],
)
def test_an_archived_original_is_asked_back(
    bucket, catalog, tmp_path, monkeypatch, storage_class, tier, asked, hours
):
    rules = Classes(restore_tier=tier, restore_days=3)
    tools = make_tools(catalog, tmp_path, bucket, maintenance=Maintenance(classes=rules))
    put(tools, "a.jpg", b"picture", StorageClass=storage_class)
    batch = form(tools)
    requests = []
    monkeypatch.setattr(bucket, "restore", lambda *request: requests.append(request) or True)
    (found,) = fetch(tools, uploads_of(tools, batch))
    assert requests == [(PREFIX + "a.jpg", 3, asked)]
    assert isinstance(found.error, ArchivedError)
    until = NOW + timedelta(hours=hours)
    assert f"expected by {until:%Y-%m-%dT%H:%M}Z" in str(found.error)
    judged = decision(7, found.error)
    assert (judged.verdict, judged.reason) == ("failed", "archived")


def test_asking_twice_is_no_error(tools):
    put(tools, "a.jpg", b"picture", StorageClass="GLACIER")
    batch = form(tools)
    for _ in range(2):
        (found,) = fetch(tools, uploads_of(tools, batch))
        assert isinstance(found.error, ArchivedError)
    assert is_readable(tools, PREFIX + "a.jpg")
    (found,) = fetch(tools, uploads_of(tools, batch))
    assert found.path.read_bytes() == b"picture"


def test_of_equal_originals_one_that_can_be_read_is_read(tools, monkeypatch):
    put(tools, "a.jpg", b"picture", StorageClass="GLACIER")
    put(tools, "b.jpg", b"picture")
    batch = form(tools)
    found = uploads_of(tools, batch)
    image = hashlib.sha256(b"picture").hexdigest()
    candidates = [replace(one, image_id=image) for one in found]
    monkeypatch.setattr(tools.bucket, "restore", lambda *request: pytest.fail("not needed"))
    assert load_original(tools, candidates) == b"picture"


def test_only_the_first_of_equal_archived_originals_is_asked_back(tools, monkeypatch):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        put(tools, name, b"picture", StorageClass="GLACIER")
    batch = form(tools)
    requests = []
    monkeypatch.setattr(tools.bucket, "restore", lambda *request: requests.append(request) or True)
    with pytest.raises(ArchivedError, match=r"expected by .*a\.jpg"):
        load_original(tools, uploads_of(tools, batch))
    assert [key for key, *_ in requests] == [PREFIX + "a.jpg"]


@pytest.fixture
def working(tools, tmp_path):
    """Tools with a worker process."""
    workers = ImageWorkers(Workers(processes=1, memory_megabytes=1024), tools.spool.folder)
    workers.start()
    yield replace(tools, workers=workers, clock=lambda: datetime.now(UTC))
    workers.close()


def jpeg(seed):
    data = io.BytesIO()
    photograph(180, 120, seed).save(data, "JPEG", quality=90)
    return data.getvalue()


def forget_downloads(tools, batch):
    """As in another run, which has another spool."""
    for upload in uploads_of(tools, batch):
        tools.spool.path(upload.id).unlink(missing_ok=True)


def lease(tools, batch, owner):
    with tools.catalog.write() as connection:
        batches.request(connection, batch, tools.clock() + timedelta(minutes=2))
        batches.hold(connection, batch, owner, tools.clock() + timedelta(minutes=1))


def give_back(tools, batch, owner):
    """As a run's lease does when it ends."""
    with tools.catalog.write() as connection:
        due = batches.retry_at(tools.clock(), batches.get(connection, batch).attempt, 30)
        batches.release(connection, batch, owner, due)
        return batches.get(connection, batch)


def test_a_glacier_original_comes_back_and_is_processed(working):
    """Asked back, waited for without spending attempts, read, rendered."""
    tools = working
    put(tools, "cold.jpg", jpeg(1), StorageClass="GLACIER")
    put(tools, "warm.jpg", jpeg(2))
    batch = form(tools)
    lease(tools, batch, "run-1")
    rows = {row["key"]: row for row in inspect_batch(tools, batch)}
    assert rows[PREFIX + "warm.jpg"]["verdict"] == "accepted", "the others do not wait"
    cold = rows[PREFIX + "cold.jpg"]
    assert (cold["verdict"], cold["reason"]) == ("failed", "archived")
    assert "Standard restore from GLACIER" in cold["message"]
    waiting = give_back(tools, batch, "run-1")
    assert (waiting.state, waiting.attempt) == ("retry", 0), "the attempt is not counted"
    wait = waiting.due_at - tools.clock()
    assert timedelta(hours=4, minutes=58) < wait < timedelta(hours=5, minutes=2)
    assert tools.bucket.head(PREFIX + "cold.jpg").restore

    assert is_readable(tools, PREFIX + "cold.jpg")
    forget_downloads(tools, batch)
    lease(tools, batch, "run-2")
    with tools.catalog.read() as connection:
        assert batches.get(connection, batch).attempt == 1
    rows = {row["key"]: row["verdict"] for row in inspect_batch(tools, batch)}
    assert rows == {PREFIX + "cold.jpg": "accepted", PREFIX + "warm.jpg": "accepted"}


def test_an_archived_canonical_is_rendered_when_it_is_back(working):
    tools = working
    put(tools, "a.jpg", jpeg(3))
    batch = form(tools)
    inspect_batch(tools, batch)
    deduplicate_batch(tools, batch)
    move(tools, PREFIX + "a.jpg", "GLACIER")
    forget_downloads(tools, batch)
    assert render_batch(tools, batch) == []
    (upload,) = uploads_of(tools, batch)
    assert (upload.verdict, upload.reason) == ("failed", "archived")
    lease(tools, batch, "run")
    assert give_back(tools, batch, "run").attempt == 0
    assert is_readable(tools, PREFIX + "a.jpg")
    inspect_batch(tools, batch)
    deduplicate_batch(tools, batch)
    assert len(render_batch(tools, batch)) == 3
    with tools.catalog.read() as connection:
        (row,) = connection.execute(sa.select(uploads_table)).mappings()
    assert (row["verdict"], row["storage_class"]) == ("accepted", "GLACIER")


def failed(tools, batch, reason, message):
    with tools.catalog.write() as connection:
        decisions = [
            Decision(one.id, "failed", reason, message)
            for one in uploads.of_batch(connection, batch)
        ]
        uploads.decide(connection, decisions, NOW)


@pytest.mark.parametrize(
    ("reason", "message", "hours", "attempt"),
    [
        ("archived", "ArchivedError: expected by 2026-03-01T17:00Z (Standard ...): key", 5, 0),
        ("canonical_failed", "... not be rendered (expected by 2026-03-01T16:00Z (...))", 4, 0),
        ("storage_error", "StoreError: uploads/expected by 2026-03-01T17:00Z: 503", 0, 1),
        # Over already: the run died before it looked.
        ("archived", "ArchivedError: expected by 2026-03-01T11:00Z: key", 0, 1),
        # Nothing takes that long, whatever the name of a file says.
        ("canonical_failed", "... expected by 2030-01-01T00:00Z", 0, 1),
        ("archived", "ArchivedError: expected by 2026-99-99T99:99Z", 0, 1),
        ("archived", None, 0, 1),
    ],
)
def test_how_long_a_batch_waits(tools, reason, message, hours, attempt):
    put(tools, "a.jpg", b"x")
    batch = form(tools)
    lease(tools, batch, "run")
    failed(tools, batch, reason, message)
    found = give_back(tools, batch, "run")
    due = NOW + timedelta(hours=hours) if hours else NOW + timedelta(seconds=30)
    assert (found.state, found.attempt, found.due_at) == ("retry", attempt, due)


def test_a_run_by_hand_gives_back_no_attempt_that_it_did_not_take(tools):
    put(tools, "a.jpg", b"x")
    batch = form(tools)
    with tools.catalog.write() as connection:
        batches.hold(connection, batch, "by hand", NOW + timedelta(minutes=1))
    failed(tools, batch, "archived", "ArchivedError: expected by 2026-03-01T17:00Z: key")
    assert give_back(tools, batch, "by hand").attempt == 0


def test_the_table_of_times_is_amazons():
    assert RESTORE_TIMES["GLACIER"].keys() == {"Expedited", "Standard", "Bulk"}
    assert "Expedited" not in RESTORE_TIMES["DEEP_ARCHIVE"]
