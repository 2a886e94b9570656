"""Images, who stands for whom, and the published variants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks, insert_new
from image_pipeline.catalog.schema import images, members, sketches, uploads, variants


@dataclass(frozen=True, slots=True)
class Member:
    """That an image is stood for by another (or, with ``tier`` None, by itself) in a source.

    ``upload_id`` is the upload that brought it, ``batch_id`` the batch that last changed the
    row and publishes what follows, ``number`` its place in the order of the source's images:
    given by :func:`add_members`.
    """

    source: str
    image_id: str
    canonical_id: str
    tier: str | None
    distance: int
    upload_id: int
    batch_id: str = ""
    number: int = 0


_MEMBER = [members.c[name] for name in Member.__slots__]


def add_images(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Record inspected images; one that is known stays as it is."""
    insert_new(connection, images, sorted(rows, key=lambda row: str(row["id"])))


def add_sketches(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Record the small grey pictures of inspected images; known ones stay as they are."""
    insert_new(connection, sketches, sorted(rows, key=lambda row: str(row["image_id"])))


def get_images(connection: sa.Connection, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The rows of these images, by id."""
    found: dict[str, dict[str, Any]] = {}
    for part in chunks(ids):
        query = sa.select(images).where(images.c.id.in_(part))
        found.update((row["id"], dict(row)) for row in connection.execute(query).mappings())
    return found


def members_of(connection: sa.Connection, source: str, ids: Iterable[str]) -> dict[str, Member]:
    """Who stands for these images in a source, by image id."""
    found: dict[str, Member] = {}
    for part in chunks(ids):
        query = sa.select(*_MEMBER).where(members.c.source == source, members.c.image_id.in_(part))
        found.update((row.image_id, Member(*row)) for row in connection.execute(query))
    return found


def add_members(connection: sa.Connection, rows: Sequence[Member]) -> None:
    """Record who stands for whom, numbered in this order; what is known stays as it is.

    Numbers grow with every commit as long as the caller holds the lock of the source.
    """
    if not rows:
        return
    last: dict[str, int] = {}
    for source in {row.source for row in rows}:
        # One by one: grouped, every number of a source would be read.
        query = sa.select(sa.func.max(members.c.number)).where(members.c.source == source)
        last[source] = connection.execute(query).scalar_one() or 0
    records = []
    for row in rows:
        last[row.source] = number = last[row.source] + 1
        records.append({name: getattr(row, name) for name in Member.__slots__} | {"number": number})
    insert_new(connection, members, records)


def add_variants(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Record published files, after they are in the bucket."""
    insert_new(connection, variants, sorted(rows, key=lambda row: str(row["key"])))


def variants_of(
    connection: sa.Connection, ids: Iterable[str], recipe: str
) -> dict[str, list[dict[str, Any]]]:
    """The variants of these images made with a recipe, by image id."""
    found: dict[str, list[dict[str, Any]]] = {}
    for part in chunks(ids):
        query = (
            sa.select(variants)
            .where(variants.c.image_id.in_(part), variants.c.recipe == recipe)
            .order_by(variants.c.image_id, variants.c.key)
        )
        for row in connection.execute(query).mappings():
            found.setdefault(row["image_id"], []).append(dict(row))
    return found


def totals(connection: sa.Connection) -> dict[str, int]:
    """Images, variants and bytes known in all."""
    row = connection.execute(
        sa.select(
            sa.select(sa.func.count()).select_from(images).scalar_subquery().label("images"),
            sa.select(sa.func.count())
            .select_from(variants)
            .where(~variants.c.dropped)
            .scalar_subquery()
            .label("variants"),
            sa.select(sa.func.coalesce(sa.func.sum(variants.c.bytes), 0))
            .scalar_subquery()
            .label("variant_bytes"),
            sa.select(sa.func.coalesce(sa.func.sum(uploads.c.size), 0))
            .scalar_subquery()
            .label("upload_bytes"),
        )
    ).one()
    return {name: int(value) for name, value in row._mapping.items()}
