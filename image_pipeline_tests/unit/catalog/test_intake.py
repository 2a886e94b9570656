"""What the intake asks the catalog, on SQLite and on Postgres."""

from datetime import timedelta

import sqlalchemy as sa

from image_pipeline.catalog import batches, intake, uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.schema import publications
from image_pipeline_tests.unit.stages.helpers import NOW

IMAGE = "a" * 64


def add(catalog, *keys, source="photos", etag="e", at=NOW):
    rows = [
        {
            "source": source, "key": key, "etag": etag, "size": 10,
            "last_modified": at, "discovered_at": at,
        }
        for key in keys
    ]  # fmt: skip
    with catalog.write() as connection:
        uploads.add(connection, rows)


def form(catalog, source="photos", at=NOW):
    with catalog.write() as connection:
        (batch,) = batches.form(connection, source, at, 99, lambda found: [list(found)])
    return batch


def states(catalog, *keys, source="photos"):
    with catalog.read() as connection:
        return intake.states(connection, source, keys)


def test_the_secret_is_made_once(either_catalog):
    first = intake.secret_of(either_catalog, NOW)
    assert len(first) == 32
    assert intake.secret_of(either_catalog, NOW + timedelta(days=1)) == first


def test_the_newest_upload_under_a_key(either_catalog):
    add(either_catalog, "a", "b")
    batch = form(either_catalog)
    add(either_catalog, "a", etag="overwritten")
    add(either_catalog, "a", source="other")
    found = states(either_catalog, "a", "b", "never")
    assert set(found) == {"a", "b"}
    assert (found["a"].batch_id, found["a"].batch_state) == (None, None)
    assert (found["b"].batch_id, found["b"].batch_state) == (batch, "waiting")


def test_an_image_is_announced_for_its_own_source(either_catalog):
    add(either_catalog, "a")
    add(either_catalog, "a", source="other")
    row = {
        "source": "photos", "image_id": IMAGE, "canonical_id": IMAGE, "recipe": "r",
        "digest": "d", "version": 1, "batch_id": "b", "published_at": NOW,
    }  # fmt: skip
    with either_catalog.write() as connection:
        decided = [uploads.Decision(n, "accepted", image_id=IMAGE) for n in (1, 2)]
        uploads.decide(connection, decided, NOW)
        connection.execute(sa.insert(publications).values(row))
    mine, other = (states(either_catalog, "a", source=one)["a"] for one in ("photos", "other"))
    assert (mine.verdict, mine.image_id, mine.announced) == ("accepted", IMAGE, True)
    assert other.announced is False


def test_a_batch_by_verdict_and_reason(either_catalog):
    add(either_catalog, *"abcde")
    batch = form(either_catalog)
    decided = [
        uploads.Decision(1, "accepted", image_id=IMAGE),
        uploads.Decision(2, "duplicate", "bytes", image_id=IMAGE),
        uploads.Decision(3, "rejected", "truncated"),
        uploads.Decision(4, "rejected", "not_an_image"),
    ]
    with either_catalog.write() as connection:
        uploads.decide(connection, decided, NOW)
        batches.finish(connection, batch, NOW)
    with either_catalog.read() as connection:
        found = intake.batch_state(connection, batch)
        assert intake.batch_state(connection, "photos-1") is None
    assert (found.id, found.source, found.state) == (batch, "photos", "done")
    assert (found.uploads, found.bytes, found.finished_at) == (5, 50, NOW)
    assert found.verdicts == {"accepted": 1, "duplicate": 1, "rejected": 2}
    assert found.reasons == {"truncated": 1, "not_an_image": 1}


def test_how_much_waits(either_catalog):
    def queue(*sources, now=NOW):
        with either_catalog.read() as connection:
            return intake.queue(connection, sources, now)

    assert queue("photos") == intake.Queue(0, 0, None, 0)
    add(either_catalog, "a", "b", at=NOW - timedelta(minutes=9))
    batch = form(either_catalog, at=NOW - timedelta(minutes=8))
    add(either_catalog, "c", at=NOW - timedelta(minutes=3))
    add(either_catalog, "d", source="other", at=NOW - timedelta(minutes=20))
    assert queue("photos") == intake.Queue(1, 2, NOW - timedelta(minutes=8), 0)
    assert queue("photos", "other") == intake.Queue(2, 2, NOW - timedelta(minutes=20), 0)
    with either_catalog.write() as connection:
        batches.finish(connection, batch, NOW - timedelta(minutes=1))
    assert queue("photos") == intake.Queue(1, 0, NOW - timedelta(minutes=3), 2)
    assert queue("photos", now=NOW + timedelta(minutes=10)).finished == 0


def test_the_state_of_an_upload_is_found_by_its_index(tmp_path):
    """However many uploads a source has."""
    catalog = Catalog(f"sqlite:///{tmp_path / 'plans.db'}")
    add(catalog, *(f"uploads/photos/{number}" for number in range(50)))
    statements = []

    @sa.event.listens_for(catalog.engine, "before_cursor_execute")
    def note(connection, cursor, statement, parameters, context, many):
        statements.append((statement, parameters))

    states(catalog, "uploads/photos/7")
    statement, parameters = next(one for one in statements if "FROM uploads" in one[0])
    with catalog.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    catalog.close()
    plan = [row[-1] for row in rows]
    assert not [line for line in plan if line.startswith("SCAN") and "SUBQUERY" not in line], plan
