"""The pipeline's clock jumps: a day ahead, a day back, or ahead and then right again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from image_pipeline.catalog import batches, uploads
from image_pipeline.catalog.uploads import Decision
from image_pipeline.ingest.discovery import encode_cursor, sweep_is_due
from image_pipeline.maintenance.orphans import refuse_clock
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.settings import Batches, Discovery
from image_pipeline_tests.unit.stages.helpers import NOW
from image_pipeline_tests.unit.stages.test_batching import Watch, run

DAY = timedelta(days=1).total_seconds()
JUMPS = pytest.mark.parametrize("jump", [DAY, -DAY], ids=["ahead", "back"])

LEASE = 60.0


@pytest.fixture
def watch(bucket, catalog):
    made = Watch(bucket, catalog)
    made.rules = Batches(quiet_seconds=100, max_age_seconds=300, lease_seconds=LEASE)
    return made


def hold(watch, batch):
    """A run begins, or renews its hold, by the clock as it is now."""
    watch.write(batches.hold, batch, "run", watch.clock() + timedelta(seconds=LEASE))


def release(watch, batch):
    """A run ends red."""
    hold(watch, batch)
    watch.write(batches.release, batch, "run", watch.clock() + timedelta(seconds=30))


def requested(watch):
    """A batch that was asked for just now."""
    watch.upload("a")
    watch.look()
    watch.clock.advance(100)
    return asked(watch)[0]


def asked(watch):
    return [request.batch for request in watch.look().requests]


@JUMPS
def test_uploads_that_wait_for_company_wait_no_longer(watch, jump):
    watch.upload("a")
    watch.look()
    assert asked(watch) == []
    watch.clock.advance(jump + 100)
    assert len(asked(watch)) == 1


@JUMPS
@pytest.mark.parametrize("state", ["requested", "running", "retry"])
def test_a_batch_that_nobody_has_is_asked_for_within_minutes(watch, jump, state):
    batch = requested(watch)
    if state != "requested":
        {"running": hold, "retry": release}[state](watch, batch)
    assert watch.batch(batch).state == state
    assert asked(watch) == []
    watch.runs[batch] = run("FAILURE")
    watch.clock.advance(jump + 120)
    assert asked(watch) == [batch]
    assert watch.batch(batch).attempt == 2
    assert asked(watch) == [], "once"


@JUMPS
def test_a_run_that_goes_on_keeps_its_batch(watch, jump):
    batch = requested(watch)
    hold(watch, batch)
    watch.runs[batch] = run("STARTED")
    watch.clock.advance(jump)
    hold(watch, batch)  # as its thread does every third of the lease
    assert asked(watch) == []
    watch.clock.advance(LEASE / 3)
    hold(watch, batch)
    assert asked(watch) == []
    assert watch.batch(batch).state == "running"


@pytest.mark.parametrize("days", [1, 2])
def test_a_batch_that_waits_for_an_archive_is_left_alone(watch, days):
    """The one wait of days that is meant."""
    batch = requested(watch)
    with watch.catalog.write() as connection:
        (upload,) = uploads.of_batch(connection, batch)
        expected = watch.clock() + timedelta(days=days)
        note = batches.expected_note(expected)
        verdict = Decision(upload.id, "failed", "archived", note)
        uploads.decide(connection, [verdict], watch.clock())
    release(watch, batch)
    watch.clock.advance(3600)
    assert asked(watch) == []
    watch.clock.advance(days * DAY)
    assert asked(watch) == [batch]


@JUMPS
def test_a_prefix_is_swept_at_once(jump):
    rules = Discovery(queue_url="https://queue.example/1")
    cursor = encode_cursor("", NOW)
    assert not sweep_is_due(cursor, rules, NOW + timedelta(seconds=1))
    assert sweep_is_due(cursor, rules, NOW + timedelta(seconds=jump))


@JUMPS
def test_housekeeping_plans_nothing_by_a_wrong_clock(jump):
    refuse_clock(NOW, NOW)
    with pytest.raises(PlanRefused, match="clock"):
        refuse_clock(NOW + timedelta(seconds=jump), NOW)
