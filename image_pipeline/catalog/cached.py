"""What readers of Redis may have missed: queries over publications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from image_pipeline.catalog.schema import batches, publications


@dataclass(frozen=True, slots=True)
class Published:
    """The version of an image's manifest, and the SHA-256 (hex) of the bytes of that version."""

    image_id: str
    version: int
    digest: str


def batches_since(connection: sa.Connection, source: str, since: datetime) -> list[str]:
    """Batches of a source that ended at ``since`` or later, or have not ended yet."""
    query = sa.select(batches.c.id).where(
        batches.c.source == source,
        batches.c.attempt > 0,
        batches.c.finished_at.is_(None) | (batches.c.finished_at >= since),
    )
    return list(connection.execute(query).scalars())


def versions_of(connection: sa.Connection, batch_ids: Sequence[str]) -> dict[str, int]:
    """The versions of the images whose publication was last changed by one of these batches.

    All of them of one source, or an image could have two versions.
    """
    query = sa.select(publications.c.image_id, publications.c.version).where(
        publications.c.batch_id.in_(batch_ids)
    )
    return dict(connection.execute(query).tuples().all())


def published_after(
    connection: sa.Connection, source: str, image: str, limit: int
) -> list[Published]:
    """What is published of a source in the order of image ids, from the next after ``image``."""
    columns = (publications.c.image_id, publications.c.version, publications.c.digest)
    query = (
        sa.select(*columns)
        .where(publications.c.source == source, publications.c.image_id > image)
        .order_by(publications.c.image_id)
        .limit(limit)
    )
    return [Published(*row) for row in connection.execute(query)]
