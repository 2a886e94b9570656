"""Images, who stands for whom, and the published variants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks, insert_new
from image_pipeline.catalog.schema import images, members, uploads, variants
from image_pipeline.dedupe.bands import BANDS


@dataclass(frozen=True, slots=True)
class Member:
    """That an image is stood for by another (or, with ``tier`` None, by itself) in a source."""

    source: str
    image_id: str
    canonical_id: str
    tier: str | None
    distance: int
    upload_id: int


_MEMBER = [members.c[name] for name in Member.__slots__]


def add_images(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Record inspected images; one that is known stays as it is."""
    insert_new(connection, images, rows)


def get_images(connection: sa.Connection, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The rows of these images, by id."""
    found: dict[str, dict[str, Any]] = {}
    for part in chunks(ids):
        query = sa.select(images).where(images.c.id.in_(part))
        found.update((row["id"], dict(row)) for row in connection.execute(query).mappings())
    return found


def canonicals_near(
    connection: sa.Connection, source: str, bands: Sequence[tuple[int, ...]]
) -> list[dict[str, Any]]:
    """Canonical images of a source that share a band of their pHash with one of ``bands``.

    One statement per chunk of pictures, over one index per band; see
    :mod:`image_pipeline.dedupe.bands` for why none within reach is missed.
    """
    found: dict[str, dict[str, Any]] = {}
    for part in chunks(bands, 200):
        shares = [
            images.c[f"b{band}"].in_({values[band] for values in part}) for band in range(BANDS)
        ]
        query = (
            sa.select(images)
            .join(members, members.c.image_id == images.c.id)
            .where(
                sa.or_(*shares),
                members.c.source == source,
                members.c.canonical_id == members.c.image_id,
            )
        )
        found.update((row["id"], dict(row)) for row in connection.execute(query).mappings())
    return list(found.values())


def members_of(connection: sa.Connection, source: str, ids: Iterable[str]) -> dict[str, Member]:
    """Who stands for these images in a source, by image id."""
    found: dict[str, Member] = {}
    for part in chunks(ids):
        query = sa.select(*_MEMBER).where(members.c.source == source, members.c.image_id.in_(part))
        found.update((row.image_id, Member(*row)) for row in connection.execute(query))
    return found


def add_members(connection: sa.Connection, rows: Sequence[Member]) -> None:
    """Record who stands for whom; what is known stays as it is."""
    insert_new(
        connection,
        members,
        [{name: getattr(row, name) for name in Member.__slots__} for row in rows],
    )


def drop_members(connection: sa.Connection, source: str, canonical_ids: Iterable[str]) -> None:
    """Forget images that turned out not to be renderable, and whom they stood for."""
    for part in chunks(canonical_ids):
        connection.execute(
            sa.delete(members).where(members.c.source == source, members.c.canonical_id.in_(part))
        )


def add_variants(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Record published files, after they are in the bucket."""
    insert_new(connection, variants, rows)


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
            sa.select(sa.func.count()).select_from(variants).scalar_subquery().label("variants"),
            sa.select(sa.func.coalesce(sa.func.sum(variants.c.bytes), 0))
            .scalar_subquery()
            .label("variant_bytes"),
            sa.select(sa.func.coalesce(sa.func.sum(uploads.c.size), 0))
            .scalar_subquery()
            .label("upload_bytes"),
        )
    ).one()
    return {name: int(value) for name, value in row._mapping.items()}
