"""What the intake asks the catalog: what became of uploads and batches, and how much waits."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from image_pipeline.catalog.batches import OPEN
from image_pipeline.catalog.engine import Catalog, chunks, insert_new
from image_pipeline.catalog.schema import batches, intake_secrets, publications, uploads

#: Over so long throughput is told: several batches, and yet what happens now.
WINDOW = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class UploadState:
    """The newest upload under a key: its batch, its verdict, and whether it is announced."""

    key: str
    batch_id: str | None
    batch_state: str | None
    verdict: str | None
    reason: str | None
    message: str | None
    image_id: str | None
    announced: bool


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch with its uploads by verdict, and what was rejected by reason."""

    id: str
    source: str
    state: str
    created_at: datetime
    finished_at: datetime | None
    uploads: int
    bytes: int
    verdicts: dict[str, int]
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class Queue:
    """How much of some sources waits or runs, since when, and how much came out lately.

    ``finished`` counts uploads of the batches that were finished within :data:`WINDOW`.
    """

    waiting: int
    in_batches: int
    oldest_at: datetime | None
    finished: int


def secret_of(catalog: Catalog, now: datetime) -> bytes:
    """What ids of uploads are signed with: the same for every process that has this catalog."""
    query = sa.select(intake_secrets.c.secret).where(intake_secrets.c.id == 1)
    with catalog.read() as connection:
        known = connection.execute(query).scalar()
    if known is None:
        row = {"id": 1, "secret": secrets.token_bytes(32), "created_at": now}
        with catalog.write() as connection:
            insert_new(connection, intake_secrets, [row])
            known = connection.execute(query).scalar_one()
    return bytes(known)


def states(connection: sa.Connection, source: str, keys: Iterable[str]) -> dict[str, UploadState]:
    """The newest upload under each of these keys; none where nothing was discovered yet."""
    found: dict[str, UploadState] = {}
    for part in chunks(dict.fromkeys(keys)):
        latest = (
            sa.select(sa.func.max(uploads.c.id))
            .where(uploads.c.source == source, uploads.c.key.in_(part))
            .group_by(uploads.c.key)
        )
        query = (
            sa.select(
                uploads.c.key,
                uploads.c.batch_id,
                batches.c.state,
                uploads.c.verdict,
                uploads.c.reason,
                uploads.c.message,
                uploads.c.image_id,
                publications.c.image_id.is_not(None),
            )
            .outerjoin(batches, batches.c.id == uploads.c.batch_id)
            .outerjoin(
                publications,
                (publications.c.source == uploads.c.source)
                & (publications.c.image_id == uploads.c.image_id),
            )
            .where(uploads.c.id.in_(latest))
        )
        found.update((row[0], UploadState(*row)) for row in connection.execute(query))
    return found


def batch_state(connection: sa.Connection, batch: str) -> BatchState | None:
    """One batch; None where there is none."""
    row = connection.execute(sa.select(batches).where(batches.c.id == batch)).one_or_none()
    if row is None:
        return None
    verdicts: dict[str, int] = {}
    reasons: dict[str, int] = {}
    query = (
        sa.select(uploads.c.verdict, uploads.c.reason, sa.func.count())
        .where(uploads.c.batch_id == batch, uploads.c.verdict.is_not(None))
        .group_by(uploads.c.verdict, uploads.c.reason)
    )
    for verdict, reason, count in connection.execute(query):
        verdicts[verdict] = verdicts.get(verdict, 0) + count
        if verdict in ("rejected", "failed") and reason:
            reasons[reason] = reasons.get(reason, 0) + count
    return BatchState(
        row.id,
        row.source,
        row.state,
        row.created_at,
        row.finished_at,
        row.uploads,
        row.bytes,
        verdicts,
        reasons,
    )


def queue(connection: sa.Connection, sources: Sequence[str], now: datetime) -> Queue:
    """How much waits of these sources together.

    Only rows that wait are counted one by one; of batches, their own counts are added up.
    """
    waiting, oldest = connection.execute(
        sa.select(sa.func.count(), sa.func.min(uploads.c.discovered_at)).where(
            uploads.c.source.in_(sources), uploads.c.batch_id.is_(None)
        )
    ).one()
    total = sa.func.coalesce(sa.func.sum(batches.c.uploads), 0)
    running, begun = connection.execute(
        sa.select(total, sa.func.min(batches.c.created_at)).where(
            batches.c.source.in_(sources), batches.c.state.in_(OPEN)
        )
    ).one()
    finished = connection.execute(
        sa.select(total).where(
            batches.c.source.in_(sources),
            batches.c.finished_at > now - WINDOW,
            batches.c.state == "done",
        )
    ).scalar_one()
    moments = [moment for moment in (oldest, begun) if moment is not None]
    return Queue(int(waiting), int(running), min(moments, default=None), int(finished))
