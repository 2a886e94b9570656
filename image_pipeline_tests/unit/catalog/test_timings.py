"""Times of stages, added up by the database on both of them."""

from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import timings
from image_pipeline.catalog.schema import timings as table
from image_pipeline.catalog.timings import Timing
from image_pipeline.catalog.uploads import add

from .helpers import NOW, at, discover, make_batch, upload_row

FIRST = "2026-02-01"


def timing(stage="render", days=0, source="photos", **changes):
    return Timing(source, stage, NOW + timedelta(days=days), 10.0, **changes)


def write(catalog, *rows):
    with catalog.write() as connection:
        for row in rows:
            timings.record(connection, row)


def test_sums_by_day_and_stage(catalog):
    write(
        catalog,
        timing(images=3, bytes_in=2**40, bytes_out=5, cpu_seconds=4.0, workers=2),
        timing(images=4, bytes_in=2**40, bytes_out=6, cpu_seconds=1.0, workers=4, attempt=2),
        timing(images=9, days=1),
        timing("inspect", images=7),
        timing(images=100, days=-60),
        timing(images=50, source="shop"),
    )
    with catalog.read() as connection:
        rows = timings.totals(connection, FIRST, "photos")
        everything = timings.totals(connection, FIRST)
    assert [(row.day, row.stage, row.images) for row in rows] == [
        ("2026-03-01", "inspect", 7), ("2026-03-01", "render", 7), ("2026-03-02", "render", 9),
    ]  # fmt: skip
    row = rows[1]
    assert (row.runs, row.seconds, row.cpu_seconds, row.worker_seconds) == (2, 20.0, 5.0, 60.0)
    assert (row.bytes_in, row.bytes_out) == (2**41, 11)
    assert (row.again, row.again_seconds, row.again_images) == (1, 10.0, 4)
    assert (rows[0].again, rows[0].again_seconds, rows[0].again_images) == (0, 0.0, 0)
    assert [row.images for row in everything] == [7, 57, 9]


def test_histograms_and_amounts_are_added_up_by_name(catalog):
    parts = [{"-3": 2, "5": 1}, {"5": 4, "60": 1}, {}]
    numbers = [{"bytes.avif": 12.5}, {"bytes.avif": 1, "failed": 3}, {}]
    write(
        catalog,
        *(
            timing(histogram=part, amounts=amounts)
            for part, amounts in zip(parts, numbers, strict=True)
        ),
        timing("inspect", histogram={"5": 8}),
        timing(days=1, histogram={"5": 16}),
    )
    expected = sum((Counter({int(k): v for k, v in one.items()}) for one in parts), Counter())
    with catalog.read() as connection:
        found = timings.histograms(connection, FIRST)
        amounts = timings.amounts(connection, FIRST)
        assert timings.histograms(connection, FIRST, "shop") == []
    of_first_day = ("2026-03-01", "render")
    assert {bucket: n for *of, bucket, n in found if tuple(of) == of_first_day} == expected
    assert {(day, stage): count for day, stage, bucket, count in found if count in (8, 16)} == {
        ("2026-03-01", "inspect"): 8, ("2026-03-02", "render"): 16,
    }  # fmt: skip
    assert amounts == [
        ("2026-03-01", "render", "bytes.avif", 13.5), ("2026-03-01", "render", "failed", 3.0),
    ]  # fmt: skip


def test_images_by_recipe(catalog):
    write(
        catalog,
        timing(recipe="r1", images=3), timing(recipe="r1", images=2), timing(recipe="r2", images=1),
        timing("inspect", images=9),
    )  # fmt: skip
    with catalog.read() as connection:
        assert timings.recipes(connection, FIRST) == [
            ("2026-03-01", "photos", "r1", 5), ("2026-03-01", "photos", "r2", 1),
        ]  # fmt: skip


def test_the_slowest_images_of_each_stage_by_their_keys(catalog):
    one, two = discover(catalog, "uploads/photos/one.jpg", "uploads/photos/two.jpg")
    write(
        catalog,
        timing(batch_id="b1", slowest=[[one, 9.0], [two, 1.0]], worst=9.0),
        timing(batch_id="b2", slowest=[[two, 5.0], [999_999, 4.0]], worst=5.0),
        timing(batch_id="b3", slowest=[[one, 3.0]], worst=3.0),
        timing("inspect", slowest=[[one, 0.5]], worst=0.5),
        timing("publish"),
        timing(slowest=[[one, 99.0]], worst=99.0, days=-60),
    )
    with catalog.read() as connection:
        found = timings.slowest(connection, FIRST, 3)
    assert [(row["stage"], row["key"], row["seconds"], row["batch"]) for row in found] == [
        ("inspect", "uploads/photos/one.jpg", 0.5, None),
        ("render", "uploads/photos/one.jpg", 9.0, "b1"),
        ("render", "uploads/photos/two.jpg", 5.0, "b2"),
        # Forgotten since: nothing here knew its key.
        ("render", "", 4.0, "b2"),
    ]


def test_arrivals_are_those_without_a_verdict(catalog):
    with catalog.write() as connection:
        add(connection, [upload_row("late", last_modified=at(-90), discovered_at=at(-30))])
    batch = make_batch(catalog, "early")
    with catalog.read() as connection:
        found = {
            one.last_modified: one.discovered_at for one in timings.arrivals(connection, batch)
        }
    assert found == {at(-90): at(-30), NOW: NOW}


def test_old_rows_are_forgotten(catalog):
    write(catalog, timing(days=-29), timing(days=-28), timing())
    with catalog.write() as connection:
        # 28 days before the first of March is the first of February.
        assert timings.forget_before(connection, FIRST) == 1
    with catalog.read() as connection:
        left = connection.execute(sa.select(table.c.day).order_by(table.c.day)).scalars().all()
    assert left == ["2026-02-01", "2026-03-01"]


QUESTIONS = [
    lambda connection: timings.totals(connection, FIRST),
    lambda connection: timings.histograms(connection, FIRST),
    lambda connection: timings.amounts(connection, FIRST, "photos"),
    lambda connection: timings.recipes(connection, FIRST),
    lambda connection: timings.slowest(connection, FIRST, 5),
    lambda connection: timings.forget_before(connection, FIRST),
]


@pytest.mark.parametrize("ask", QUESTIONS)
def test_only_the_rows_of_the_window_are_read(catalog, ask):
    statements = []

    def seen(_connection, _cursor, statement, parameters, *_rest):
        if "FROM timings" in statement:
            statements.append((statement, parameters))

    write(catalog, timing())
    with catalog.write() as connection:
        sa.event.listen(catalog.engine, "before_cursor_execute", seen)
        ask(connection)
        sa.event.remove(catalog.engine, "before_cursor_execute", seen)
        ((statement, parameters),) = statements
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plan = [row.detail for row in rows]
            (step,) = [one for one in plan if one.startswith(("SCAN t", "SEARCH t"))]
            assert step.startswith("SEARCH timings USING INDEX ix_timings_day_stage (day")
        else:
            # Of a handful of rows Postgres would rather read all; whether it could do otherwise:
            connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            plan = [row[0] for row in rows]
            assert not [line for line in plan if "Seq Scan" in line]
            assert [line for line in plan if "ix_timings_day_stage" in line]
            assert [line for line in plan if "Index Cond: (day" in line]
