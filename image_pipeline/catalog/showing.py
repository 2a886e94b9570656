"""What the page of a source shows: its newest images and batches, and what it has in all.

It is asked for after every batch, so nothing here counts uploads or images one by one: the
newest are found by their numbers, and totals are added up from the batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.schema import batches, images, members, publications, uploads, variants


@dataclass(frozen=True, slots=True)
class SourceTotals:
    """What a source has received: uploads and their bytes in all batches, distinct files."""

    batches: int
    uploads: int
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """A batch with its uploads by verdict; ``done`` once everything of it is published."""

    id: str
    created_at: datetime
    done: bool
    uploads: int
    bytes: int
    verdicts: dict[str, int]


def source_totals(connection: sa.Connection, source: str) -> SourceTotals:
    """Added up from the batches: a few hundred rows for a hundred thousand uploads."""
    count, received, size = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(batches.c.uploads), 0),
            sa.func.coalesce(sa.func.sum(batches.c.bytes), 0),
        ).where(batches.c.source == source)
    ).one()
    # The last number is the count: images of a source are numbered from 1 and never removed.
    last = sa.select(sa.func.max(members.c.number)).where(members.c.source == source)
    files = connection.execute(last).scalar()
    return SourceTotals(int(count), int(received), int(size), int(files or 0))


def newest_batches(connection: sa.Connection, source: str, limit: int) -> list[BatchSummary]:
    """The newest batches of a source, the newest first."""
    query = (
        sa.select(batches)
        .where(batches.c.source == source, batches.c.attempt > 0)
        .order_by(batches.c.created_at.desc(), batches.c.id.desc())
        .limit(limit)
    )
    rows = connection.execute(query).all()
    verdicts = _verdicts(connection, [row.id for row in rows])
    return [
        BatchSummary(
            row.id,
            row.created_at,
            row.state == "done",
            row.uploads,
            row.bytes,
            verdicts.get(row.id, {}),
        )
        for row in rows
    ]


def newest_images(connection: sa.Connection, source: str, limit: int) -> list[dict[str, Any]]:
    """The newest published canonicals of a source, the newest first.

    Each with its row, the ``key``, ``size``, ``seconds`` and ``batch_id`` of the upload that
    brought it, and its ``variants``, those of the recipe that is published.
    """
    query = (
        sa.select(
            images,
            uploads.c.key,
            uploads.c.size,
            uploads.c.seconds,
            uploads.c.batch_id,
        )
        .select_from(members)
        .join(images, images.c.id == members.c.image_id)
        .join(uploads, uploads.c.id == members.c.upload_id)
        .join(
            publications,
            (publications.c.source == members.c.source)
            & (publications.c.image_id == members.c.image_id),
        )
        .where(members.c.source == source, members.c.canonical_id == members.c.image_id)
        .order_by(members.c.number.desc())
        .limit(limit)
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    files = _published_variants(connection, source, [row["id"] for row in rows])
    return [{**row, "variants": files.get(row["id"], [])} for row in rows]


def _verdicts(connection: sa.Connection, ids: Iterable[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for part in chunks(ids):
        query = (
            sa.select(uploads.c.batch_id, uploads.c.verdict, sa.func.count())
            .where(uploads.c.batch_id.in_(part), uploads.c.verdict.is_not(None))
            .group_by(uploads.c.batch_id, uploads.c.verdict)
        )
        for batch, verdict, count in connection.execute(query):
            found.setdefault(batch, {})[verdict] = count
    return found


def _published_variants(
    connection: sa.Connection, source: str, ids: Iterable[str]
) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for part in chunks(ids):
        query = (
            sa.select(variants)
            .join(
                publications,
                (publications.c.image_id == variants.c.image_id)
                & (publications.c.recipe == variants.c.recipe),
            )
            .where(
                publications.c.source == source,
                publications.c.image_id.in_(part),
                ~variants.c.dropped,
            )
            .order_by(variants.c.image_id, variants.c.key)
        )
        for row in connection.execute(query).mappings():
            found.setdefault(row["image_id"], []).append(dict(row))
    return found
