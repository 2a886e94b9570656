"""What is in the edge's cache, as far as the warmer has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks, insert_new
from image_pipeline.catalog.schema import warmth


@dataclass(frozen=True, slots=True)
class Wanted:
    """A published file that the edge should hold; ``rank`` 0 is the most wanted."""

    key: str
    image_id: str
    rank: int


@dataclass(frozen=True, slots=True)
class Due:
    """When a file is to be asked for: from which edge, and what is too old.

    ``before`` bounds when a good answer was had, ``retry_before`` a bad one; so a pass that
    gives its own start as ``retry_before`` asks for nothing twice.
    """

    edge: str
    before: datetime
    retry_before: datetime


def replace(
    connection: sa.Connection,
    source: str,
    images: Iterable[str],
    wanted: Sequence[Wanted],
    now: datetime,
) -> None:
    """Make these the files of these images. Known ones keep what the edge said of them."""
    keep = {one.key for one in wanted}
    for part in chunks(images):
        query = sa.select(warmth.c.key).where(
            warmth.c.source == source, warmth.c.image_id.in_(part)
        )
        gone = [key for key in connection.execute(query).scalars() if key not in keep]
        for some in chunks(gone):
            connection.execute(
                sa.delete(warmth).where(warmth.c.source == source, warmth.c.key.in_(some))
            )
    rows = [
        {
            "source": source,
            "key": one.key,
            "image_id": one.image_id,
            "rank": one.rank,
            "added_at": now,
        }
        for one in wanted
    ]
    insert_new(connection, warmth, rows)


def next_due(
    connection: sa.Connection,
    source: str,
    due: Due,
    limit: int,
    images: Sequence[str] | None = None,
) -> list[str]:
    """Keys to ask for next: what was never asked for first, then by rank, then the oldest.

    ``images``, at most a few hundred, restricts them to the files of these.
    """
    good = warmth.c.status == 200
    is_due = sa.or_(
        warmth.c.asked_at.is_(None),
        sa.and_(warmth.c.edge != due.edge, warmth.c.asked_at < due.retry_before),
        sa.and_(good, warmth.c.asked_at < due.before),
        sa.and_(sa.not_(good), warmth.c.asked_at < due.retry_before),
    )
    query = (
        sa.select(warmth.c.key)
        .where(warmth.c.source == source, is_due)
        .order_by(warmth.c.asked_at.is_not(None), warmth.c.rank, warmth.c.asked_at, warmth.c.key)
        .limit(limit)
    )
    if images is not None:
        query = query.where(warmth.c.image_id.in_(images))
    return list(connection.execute(query).scalars())


def record(connection: sa.Connection, source: str, answers: Sequence[Mapping[str, Any]]) -> None:
    """Write what the edge answered: per file ``key`` and the columns of the answer."""
    if not answers:
        return
    fields = (
        "asked_at", "edge", "status", "cache", "first_byte_seconds", "bytes", "attempts", "error",
    )  # fmt: skip
    statement = (
        sa.update(warmth)
        .where(warmth.c.source == source, warmth.c.key == sa.bindparam("at"))
        .values({name: sa.bindparam(f"new_{name}") for name in fields})
    )
    connection.execute(
        statement,
        [{"at": row["key"], **{f"new_{name}": row[name] for name in fields}} for row in answers],
    )


def totals(connection: sa.Connection) -> list[dict[str, Any]]:
    """By source: files, asked for, warm, hits and misses of the last answers, never asked for."""
    count = sa.func.count
    query = (
        sa.select(
            warmth.c.source,
            count().label("files"),
            count(warmth.c.asked_at).label("asked"),
            count().filter(warmth.c.status == 200).label("warm"),
            count().filter(warmth.c.cache == "hit").label("hits"),
            count().filter(warmth.c.cache == "miss").label("misses"),
            sa.func.min(warmth.c.asked_at).label("oldest"),
        )
        .group_by(warmth.c.source)
        .order_by(warmth.c.source)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
