"""Claiming uploads, and the life of a batch in the ledger."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import batches, schema, uploads
from image_pipeline.catalog.engine import Catalog

from .helpers import NOW, at, by_count, discover, make_batch, upload_row
from .test_engine import PATIENCE_SECONDS, PROCESSES, in_processes


def state(catalog, batch):
    with catalog.read() as connection:
        found = batches.get(connection, batch)
    return found.state, found.attempt, found.lease_owner, found.due_at


def due(catalog, now, source="photos", limit=100):
    with catalog.write() as connection:
        return [batch.id for batch in batches.due(connection, source, now, limit)]


def in_flight(catalog, now):
    with catalog.read() as connection:
        return batches.in_flight(connection, "photos", now)


def test_forming_claims_in_the_order_of_discovery(catalog):
    ids = discover(catalog, *(f"k{n}" for n in range(5)))
    seen = []

    def split(waiting):
        seen.extend(waiting)
        return [list(waiting[:2]), list(waiting[2:3])]

    with catalog.write() as connection:
        first, second = batches.form(connection, "photos", NOW, 4, split)
        assert [one.id for one in uploads.of_batch(connection, first)] == ids[:2]
        assert [one.id for one in uploads.of_batch(connection, second)] == ids[2:3]
        batch = batches.get(connection, first)
    assert [one.id for one in seen] == ids[:4], "no more than the limit"
    assert (batch.uploads, batch.bytes, batch.state, batch.attempt) == (2, 2000, "waiting", 0)
    assert first.startswith("photos-20260301-120000-")


def test_an_upload_arrived_when_it_was_written_or_seen_whichever_came_first(catalog):
    rows = [
        upload_row("written", last_modified=at(-50), discovered_at=at(0)),
        upload_row("clock ahead", last_modified=at(50), discovered_at=at(-5)),
    ]
    seen = []
    with catalog.write() as connection:
        uploads.add(connection, rows)
        batches.form(connection, "photos", NOW, 9, lambda waiting: seen.extend(waiting) or [])
    assert [one.arrived_at for one in seen] == [at(-50), at(-5)]


def test_sources_do_not_see_each_other(catalog):
    discover(catalog, "a", source="photos")
    discover(catalog, "b", source="products")
    with catalog.write() as connection:
        (batch,) = batches.form(connection, "products", NOW, 9, by_count(9))
        assert [one.key for one in uploads.of_batch(connection, batch)] == ["b"]
    assert due(catalog, NOW, "photos") == []
    assert due(catalog, NOW, "products") == [batch]


def form_until_none_is_left(number, start, url):
    catalog = Catalog(url)
    catalog.migrate()
    start.wait(PATIENCE_SECONDS)
    formed = []
    while True:
        with catalog.write() as connection:
            new = batches.form(connection, "photos", NOW, 20, by_count(7))
        if not new:
            catalog.close()
            return formed
        formed += new


def test_processes_that_form_batches_at_once_claim_every_upload_once(catalog):
    count = 1000
    with catalog.write() as connection:
        uploads.add(connection, [upload_row(f"k{n}") for n in range(count)])
    formed = [
        batch for part in in_processes(form_until_none_is_left, catalog.url) for batch in part
    ]
    assert len(formed) == len(set(formed))
    with catalog.read() as connection:
        claimed = [[one.id for one in uploads.of_batch(connection, batch)] for batch in formed]
        counted = [batches.get(connection, batch).uploads for batch in formed]
        waiting = connection.execute(
            sa.select(sa.func.count()).where(schema.uploads.c.batch_id.is_(None))
        ).scalar_one()
    assert waiting == 0
    assert sorted(upload for part in claimed for upload in part) == list(range(1, count + 1))
    assert [len(part) for part in claimed] == counted
    assert max(counted) <= 7
    assert PROCESSES > 1


def test_the_life_of_a_batch_that_goes_well(catalog):
    batch = make_batch(catalog, "a")
    assert state(catalog, batch) == ("waiting", 0, None, NOW)
    with catalog.write() as connection:
        assert batches.request(connection, batch, at(120)) == 1
    assert state(catalog, batch) == ("requested", 1, None, at(120))
    assert due(catalog, at(119)) == []
    assert in_flight(catalog, at(119)) == 1
    with catalog.write() as connection:
        batches.hold(connection, batch, "run 1", at(60))
    assert state(catalog, batch) == ("running", 1, "run 1", at(60))
    with catalog.write() as connection:
        batches.hold(connection, batch, "run 1", at(90))
    assert due(catalog, at(89)) == []
    with catalog.write() as connection:
        batches.finish(connection, batch, at(80))
    assert state(catalog, batch) == ("done", 1, None, None)
    assert due(catalog, at(9999)) == []
    assert in_flight(catalog, at(80)) == 0


def test_a_hold_that_is_not_renewed_makes_the_batch_due(catalog):
    batch = make_batch(catalog, "a")
    with catalog.write() as connection:
        batches.request(connection, batch, at(120))
        batches.hold(connection, batch, "run 1", at(60))
    assert (due(catalog, at(59)), in_flight(catalog, at(59))) == ([], 1)
    assert (due(catalog, at(60)), in_flight(catalog, at(60))) == ([batch], 0)
    with catalog.write() as connection:
        assert batches.request(connection, batch, at(300)) == 2
    assert state(catalog, batch) == ("requested", 2, None, at(300))


def test_a_batch_is_given_back_only_by_who_holds_it(catalog):
    batch = make_batch(catalog, "a")
    with catalog.write() as connection:
        batches.request(connection, batch, at(120))
        batches.hold(connection, batch, "run 2", at(60))
        batches.release(connection, batch, "run 1", at(30))
    assert state(catalog, batch) == ("running", 1, "run 2", at(60)), "run 1 was taken for dead"
    with catalog.write() as connection:
        batches.release(connection, batch, "run 2", at(30))
    assert state(catalog, batch) == ("retry", 1, None, at(30))
    assert (due(catalog, at(29)), due(catalog, at(30))) == ([], [batch])
    assert in_flight(catalog, at(0)) == 0, "what waits for its retry takes nobody's place"


def test_what_is_done_stays_done(catalog):
    batch = make_batch(catalog, "a")
    with catalog.write() as connection:
        batches.hold(connection, batch, "run 1", at(60))
        batches.finish(connection, batch, at(50))
        batches.hold(connection, batch, "run 1", at(90))
        batches.release(connection, batch, "run 1", at(30))
    assert state(catalog, batch) == ("done", 0, None, None)


def test_a_batch_that_is_given_up_is_never_due_but_can_be_finished_by_hand(catalog):
    batch = make_batch(catalog, "a")
    with catalog.write() as connection:
        batches.give_up(connection, batch, NOW)
        assert batches.open_ids(connection) == []
    assert state(catalog, batch) == ("given_up", 0, None, None)
    assert due(catalog, at(9999)) == []
    with catalog.write() as connection:
        batches.hold(connection, batch, "by hand", at(60))
        assert batches.open_ids(connection) == [batch]
        batches.finish(connection, batch, at(50))
    assert state(catalog, batch)[0] == "done"


def test_waiting_moves_only_the_time(catalog):
    batch = make_batch(catalog, "a")
    with catalog.write() as connection:
        batches.request(connection, batch, at(1))
        batches.wait(connection, batch, at(120))
    assert state(catalog, batch) == ("requested", 1, None, at(120))


def test_the_oldest_are_due_first_and_no_more_than_asked_for(catalog):
    made = [make_batch(catalog, f"k{n}", now=at(-n)) for n in range(3)]
    assert due(catalog, NOW) == made[::-1]
    assert due(catalog, NOW, limit=2) == made[:0:-1]
    assert due(catalog, NOW, limit=0) == []
    assert due(catalog, at(-1)) == made[:0:-1]
    with catalog.read() as connection:
        assert batches.open_ids(connection) == made[::-1]
        assert [row["id"] for row in batches.recent(connection, 2)] == made[:2]
        assert batches.get(connection, "unknown") is None


def test_ids_of_one_second_differ_and_sort_by_time():
    same = {batches.batch_id("s", NOW) for _ in range(100)}
    assert len(same) == 100
    assert max(same) < batches.batch_id("s", at(1))


@pytest.mark.parametrize(("attempt", "seconds"), [(0, 30), (1, 30), (2, 60), (3, 120), (4, 240)])
def test_the_pause_doubles_with_every_attempt(attempt, seconds):
    assert batches.retry_at(NOW, attempt, 30) == NOW + timedelta(seconds=seconds)
