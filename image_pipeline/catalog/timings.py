"""What stages took: one row each time one ran, and sums of them by day.

Everything is added up in the database, histograms too: what comes out has the size of the window
in days, not of the uploads in it. A window of eight weeks with a million uploads in batches of 200
is 30,000 rows, found by their day.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.schema import timings, uploads


@dataclass(frozen=True, slots=True)
class Timing:
    """A stage that ran, for a batch or (``batch_id`` None) for a whole source.

    ``seconds`` on the clock; ``cpu_seconds`` those of the run's own process and of its workers,
    whose wall time is taken for it: they decode and encode. ``histogram``, ``slowest`` and
    ``worst`` as in :mod:`image_pipeline.performance.timings`; ``amounts`` are named numbers.
    """

    source: str
    stage: str
    began_at: datetime
    seconds: float
    batch_id: str | None = None
    attempt: int = 1
    cpu_seconds: float = 0.0
    workers: int = 1
    recipe: str = ""
    images: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    worst: float = 0.0
    histogram: dict[str, int] | None = None
    slowest: list[list[float]] | None = None
    amounts: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """An upload that nobody has looked into yet: written, and discovered."""

    upload: int
    last_modified: datetime
    discovered_at: datetime


def record(connection: sa.Connection, timing: Timing) -> None:
    """Write down what a stage took."""
    row = asdict(timing) | {
        "day": f"{timing.began_at:%Y-%m-%d}",
        "histogram": timing.histogram or {},
        "slowest": timing.slowest or [],
        "amounts": timing.amounts or {},
    }
    connection.execute(sa.insert(timings).values(row))


def arrivals(connection: sa.Connection, batch: str) -> list[Arrival]:
    """The uploads of a batch that have no verdict yet."""
    query = sa.select(uploads.c.id, uploads.c.last_modified, uploads.c.discovered_at).where(
        uploads.c.batch_id == batch, uploads.c.verdict.is_(None)
    )
    return [Arrival(*row) for row in connection.execute(query)]


def totals(connection: sa.Connection, first: str, source: str | None = None) -> list[sa.Row[Any]]:
    """By day and stage from the day ``first`` on (``YYYY-MM-DD``): sums, and what differed.

    ``runs``, ``seconds``, ``cpu_seconds``, ``worker_seconds`` (workers times seconds), ``images``,
    ``bytes_in``, ``bytes_out``; ``again``, ``again_seconds`` and ``again_images`` are those of
    second and later attempts.
    """
    column = timings.c
    is_again = column.attempt > 1
    query = (
        sa.select(
            column.day,
            column.stage,
            sa.func.count().label("runs"),
            sa.func.sum(column.seconds).label("seconds"),
            sa.func.sum(column.cpu_seconds).label("cpu_seconds"),
            sa.func.sum(column.workers * column.seconds).label("worker_seconds"),
            sa.func.sum(column.images).label("images"),
            sa.cast(sa.func.sum(column.bytes_in), sa.BigInteger).label("bytes_in"),
            sa.cast(sa.func.sum(column.bytes_out), sa.BigInteger).label("bytes_out"),
            sa.func.count().filter(is_again).label("again"),
            sa.func.coalesce(sa.func.sum(column.seconds).filter(is_again), 0.0).label(
                "again_seconds"
            ),
            sa.func.coalesce(sa.func.sum(column.images).filter(is_again), 0).label("again_images"),
        )
        .where(_window(first, source))
        .group_by(column.day, column.stage)
        .order_by(column.day, column.stage)
    )
    return list(connection.execute(query))


def histograms(
    connection: sa.Connection, first: str, source: str | None = None
) -> list[tuple[str, str, int, int]]:
    """(day, stage, bucket, count), added up over all rows of a day."""
    found = _added_up(connection, timings.c.histogram, first, source)
    return [(day, stage, int(name), int(count)) for day, stage, name, count in found]


def amounts(
    connection: sa.Connection, first: str, source: str | None = None
) -> list[tuple[str, str, str, float]]:
    """(day, stage, name, number), added up over all rows of a day."""
    found = _added_up(connection, timings.c.amounts, first, source)
    return [(day, stage, name, float(number)) for day, stage, name, number in found]


def recipes(
    connection: sa.Connection, first: str, source: str | None = None
) -> list[tuple[str, str, str, int]]:
    """(day, source, recipe, images): what was rendered by which recipe."""
    column = timings.c
    query = (
        sa.select(column.day, column.source, column.recipe, sa.func.sum(column.images))
        .where(_window(first, source), column.recipe != "")
        .group_by(column.day, column.source, column.recipe)
        .order_by(column.day, column.source, column.recipe)
    )
    return [(day, one, recipe, int(n)) for day, one, recipe, n in connection.execute(query)]


def slowest(
    connection: sa.Connection, first: str, limit: int, source: str | None = None
) -> list[dict[str, Any]]:
    """The slowest images of every stage: ``stage``, ``seconds``, ``batch``, ``day``, ``key``.

    A row keeps as many of its own as are ever asked for, so those of the ``limit`` rows with the
    worst are enough. ``key`` is empty for an upload that was forgotten.
    """
    column = timings.c
    place = sa.func.row_number().over(partition_by=column.stage, order_by=column.worst.desc())
    ranked = (
        sa.select(
            column.stage, column.batch_id, column.day, column.slowest, place.label("place")
        )
        .where(_window(first, source), column.worst > 0)
        .subquery()
    )  # fmt: skip
    rows = connection.execute(sa.select(ranked).where(ranked.c.place <= limit)).all()
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_stage.setdefault(row.stage, []).extend(
            {
                "stage": row.stage,
                "upload": int(upload),
                "seconds": float(took),
                "batch": row.batch_id,
                "day": row.day,
            }
            for upload, took in row.slowest
        )
    found = [
        one
        for stage in sorted(by_stage)
        for one in sorted(by_stage[stage], key=lambda one: -one["seconds"])[:limit]
    ]
    keys = _keys(connection, {one["upload"] for one in found})
    return [{**one, "key": keys.get(one["upload"], "")} for one in found]


def forget_before(connection: sa.Connection, day: str) -> int:
    """Remove the rows of all days before ``day``; how many."""
    return connection.execute(sa.delete(timings).where(timings.c.day < day)).rowcount


def _window(first: str, source: str | None) -> sa.ColumnElement[bool]:
    since = timings.c.day >= first
    return since if source is None else sa.and_(since, timings.c.source == source)


def _added_up(
    connection: sa.Connection, column: sa.Column[Any], first: str, source: str | None
) -> list[sa.Row[Any]]:
    """Numbers of JSON objects, added up by day, stage and name."""
    is_postgres = connection.dialect.name == "postgresql"
    taken_apart = sa.func.json_each_text(column) if is_postgres else sa.func.json_each(column)
    each = taken_apart.table_valued("key", "value").render_derived() if is_postgres else (
        taken_apart.table_valued("key", "value")
    )  # fmt: skip
    query = (
        sa.select(
            timings.c.day,
            timings.c.stage,
            each.c.key,
            sa.func.sum(sa.cast(each.c.value, sa.Float)),
        )
        .select_from(timings.join(each, sa.true()))
        .where(_window(first, source))
        .group_by(timings.c.day, timings.c.stage, each.c.key)
        .order_by(timings.c.day, timings.c.stage, each.c.key)
    )
    return list(connection.execute(query))


def _keys(connection: sa.Connection, ids: Iterable[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for part in chunks(sorted(ids)):
        query = sa.select(uploads.c.id, uploads.c.key).where(uploads.c.id.in_(part))
        found.update(connection.execute(query).tuples().all())
    return found
