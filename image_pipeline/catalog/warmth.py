"""What is in the edge's cache, as far as the warmer has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks, insert_new
from image_pipeline.catalog.schema import members, publications, variants, warmth


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
    """Make these the files of these images. Known ones keep what the edge said of them.

    Mockups of theirs are no files of the images themselves, and stay.
    """
    keep = {one.key for one in wanted}
    is_mockup = sa.exists().where(variants.c.key == warmth.c.key, variants.c.role == "mockup")
    for part in chunks(images):
        query = sa.select(warmth.c.key).where(
            warmth.c.source == source, warmth.c.image_id.in_(part), ~is_mockup
        )
        gone = [key for key in connection.execute(query).scalars() if key not in keep]
        exchange(connection, source, gone, [], now)
    exchange(connection, source, [], wanted, now)


def exchange(
    connection: sa.Connection,
    source: str,
    gone: Iterable[str],
    wanted: Sequence[Wanted],
    now: datetime,
) -> None:
    """Ask the edge for these files from now on, and not for those of the keys ``gone``."""
    for part in chunks(gone):
        connection.execute(
            sa.delete(warmth).where(warmth.c.source == source, warmth.c.key.in_(part))
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
    query = (
        sa.select(warmth.c.key)
        .where(_due(source, due, images))
        .order_by(warmth.c.asked_at.is_not(None), warmth.c.rank, warmth.c.asked_at, warmth.c.key)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def count_due(
    connection: sa.Connection, source: str, due: Due, images: Sequence[str] | None = None
) -> int:
    """How many keys :func:`next_due` would give without a limit."""
    query = sa.select(sa.func.count()).where(_due(source, due, images))
    return connection.execute(query).scalar_one()


def _due(source: str, due: Due, images: Sequence[str] | None) -> sa.ColumnElement[bool]:
    good = warmth.c.status == 200
    is_due = sa.or_(
        warmth.c.asked_at.is_(None),
        sa.and_(warmth.c.edge != due.edge, warmth.c.asked_at < due.retry_before),
        sa.and_(good, warmth.c.asked_at < due.before),
        sa.and_(sa.not_(good), warmth.c.asked_at < due.retry_before),
    )
    of_source = sa.and_(warmth.c.source == source, is_due)
    return of_source if images is None else sa.and_(of_source, warmth.c.image_id.in_(images))


def unknown(
    connection: sa.Connection, source: str, recipe: str, after: str, limit: int
) -> list[tuple[str, str]]:
    """Images whose files are published but not here, by id behind ``after``, with their recipe.

    For canonicals that nothing is written of in ``publications`` (they were published before
    there was that table) it is ``recipe``, the fingerprint of the source's own. One file of an
    image is enough to know it by: those of an image and a recipe come together.
    """
    its_recipe = sa.func.coalesce(publications.c.recipe, recipe)
    files = sa.and_(
        variants.c.image_id == members.c.image_id,
        variants.c.recipe == its_recipe,
        sa.not_(variants.c.dropped),
    )
    known = (
        sa.select(warmth.c.key)
        .join(variants, variants.c.key == warmth.c.key)
        .where(warmth.c.source == members.c.source, files)
        .exists()
    )
    published = publications.c.image_id.is_(None) | (
        publications.c.canonical_id == members.c.image_id
    )
    query = (
        sa.select(members.c.image_id, its_recipe)
        .outerjoin(
            publications,
            sa.and_(
                publications.c.source == members.c.source,
                publications.c.image_id == members.c.image_id,
            ),
        )
        .where(
            members.c.source == source,
            members.c.image_id > after,
            members.c.canonical_id == members.c.image_id,
            published,
            sa.not_(known),
            sa.select(variants.c.key).where(files).exists(),
        )
        .order_by(members.c.image_id)
        .limit(limit)
    )
    return [(image, found) for image, found in connection.execute(query)]


def unpublished(connection: sa.Connection, source: str) -> list[str]:
    """Images that have rows here although no manifest of the source names their files."""
    images = sa.select(warmth.c.image_id).where(warmth.c.source == source).distinct().subquery()
    named = sa.select(publications.c.image_id).where(
        publications.c.canonical_id == images.c.image_id, publications.c.source == source
    )
    # Published before there were publications.
    stands = sa.select(members.c.image_id).where(
        members.c.source == source,
        members.c.image_id == images.c.image_id,
        members.c.canonical_id == images.c.image_id,
    )
    query = sa.select(images.c.image_id).where(sa.not_(named.exists()), sa.not_(stands.exists()))
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
