"""When batches came to an end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.schema import batches


def ends(connection: sa.Connection, ids: Iterable[str]) -> dict[str, datetime]:
    """When those of these batches were finished that are done."""
    found: dict[str, datetime] = {}
    for part in chunks(ids):
        query = sa.select(batches.c.id, batches.c.finished_at).where(
            batches.c.id.in_(part), batches.c.state == "done", batches.c.finished_at.is_not(None)
        )
        found.update(connection.execute(query).tuples().all())
    return found
