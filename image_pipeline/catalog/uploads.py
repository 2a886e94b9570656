"""Uploads in the catalog: discovered once, claimed once, decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks, insert_new
from image_pipeline.catalog.schema import images, members, uploads, variants


@dataclass(frozen=True, slots=True)
class Upload:
    """One object version under a source, and what became of it so far.

    ``verdict`` is None until there is one; ``size`` in bytes, ``seconds`` of work so far.
    """

    id: int
    source: str
    key: str
    etag: str
    size: int
    image_id: str | None = None
    verdict: str | None = None
    reason: str | None = None
    message: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of an upload. ``seconds`` is added to the work counted so far."""

    upload: int
    verdict: str
    reason: str | None = None
    message: str | None = None
    image_id: str | None = None
    seconds: float = 0.0


_COLUMNS = [uploads.c[name] for name in Upload.__slots__]

_IS_OPEN = sa.or_(uploads.c.verdict.is_(None), uploads.c.verdict == "failed")


def known(connection: sa.Connection, source: str, keys: Iterable[str]) -> set[tuple[str, str]]:
    """The (key, ETag) pairs among ``keys`` that were discovered before."""
    found: set[tuple[str, str]] = set()
    for part in chunks(keys):
        query = sa.select(uploads.c.key, uploads.c.etag).where(
            uploads.c.source == source, uploads.c.key.in_(part)
        )
        found.update((key, etag) for key, etag in connection.execute(query))
    return found


def add(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Record discovered uploads; a pair (key, ETag) that is known stays as it is."""
    insert_new(connection, uploads, rows)


def etags(connection: sa.Connection, ids: Iterable[int]) -> dict[int, str]:
    """The ETags that these uploads have by now: a move to another class may change them."""
    found: dict[int, str] = {}
    for part in chunks(ids):
        query = sa.select(uploads.c.id, uploads.c.etag).where(uploads.c.id.in_(part))
        found.update((upload, etag) for upload, etag in connection.execute(query))
    return found


def of_batch(connection: sa.Connection, batch: str) -> list[Upload]:
    """The uploads of a batch, in the order of discovery."""
    query = sa.select(*_COLUMNS).where(uploads.c.batch_id == batch).order_by(uploads.c.id)
    return [Upload(*row) for row in connection.execute(query)]


def decide(
    connection: sa.Connection,
    decisions: Sequence[Decision],
    now: datetime,
    *,
    only_open: bool = False,
) -> None:
    """Write verdicts, in bulk; with ``only_open`` a final one stays as it is.

    In the order of their ids: two transactions that met each other's rows in different orders
    would wait for one another for ever.
    """
    if not decisions:
        return
    statement = (
        sa.update(uploads)
        .where(uploads.c.id == sa.bindparam("at"), _IS_OPEN if only_open else sa.true())
        .values(
            verdict=sa.bindparam("to"),
            reason=sa.bindparam("why"),
            message=sa.bindparam("text"),
            image_id=sa.func.coalesce(sa.bindparam("image"), uploads.c.image_id),
            seconds=uploads.c.seconds + sa.bindparam("took"),
            decided_at=now,
        )
    )
    connection.execute(
        statement,
        [
            {
                "at": one.upload,
                "to": one.verdict,
                "why": one.reason,
                "text": one.message,
                "image": one.image_id,
                "took": one.seconds,
            }
            for one in sorted(decisions, key=lambda one: one.upload)
        ],
    )


def add_seconds(connection: sa.Connection, seconds: dict[int, float]) -> None:
    """Count work done for uploads whose verdict does not change by it."""
    if seconds:
        connection.execute(
            sa.update(uploads)
            .where(uploads.c.id == sa.bindparam("at"))
            .values(seconds=uploads.c.seconds + sa.bindparam("took")),
            [{"at": upload, "took": took} for upload, took in sorted(seconds.items())],
        )


def originals(connection: sa.Connection, image_ids: Iterable[str]) -> dict[str, list[Upload]]:
    """For each image the uploads that hold its bytes, the oldest first."""
    found: dict[str, list[Upload]] = {}
    for part in chunks(image_ids):
        query = sa.select(*_COLUMNS).where(uploads.c.image_id.in_(part)).order_by(uploads.c.id)
        for row in connection.execute(query):
            upload = Upload(*row)
            found.setdefault(str(upload.image_id), []).append(upload)
    return found


def keys_of_canonicals(
    connection: sa.Connection, source: str, canonical_ids: Iterable[str]
) -> dict[str, list[tuple[str, str]]]:
    """For each canonical image of a source the (image id, upload key) pairs it stands for."""
    found: dict[str, list[tuple[str, str]]] = {}
    for part in chunks(canonical_ids):
        query = sa.select(members.c.image_id, members.c.canonical_id).where(
            members.c.source == source, members.c.canonical_id.in_(part)
        )
        canonical_of = dict(connection.execute(query).tuples().all())
        # Not joined, and without the source: by that, SQLite would go through all its uploads.
        for some in chunks(canonical_of):
            named = sa.select(uploads.c.source, uploads.c.image_id, uploads.c.key).where(
                uploads.c.image_id.in_(some), uploads.c.verdict.in_(("accepted", "duplicate"))
            )
            pairs = {
                (row.image_id, row.key) for row in connection.execute(named) if row.source == source
            }
            for image, key in sorted(pairs):
                found.setdefault(canonical_of[image], []).append((image, key))
    return found


def report(connection: sa.Connection, batch: str) -> list[dict[str, Any]]:
    """One row per upload of a batch, with its image and its canonical: what people read."""
    query = (
        sa.select(
            uploads.c.id,
            uploads.c.key,
            uploads.c.etag,
            uploads.c.size.label("bytes"),
            uploads.c.verdict,
            uploads.c.reason,
            uploads.c.message,
            uploads.c.seconds,
            uploads.c.image_id,
            images.c.format,
            images.c.width,
            images.c.height,
            images.c.flags,
            members.c.canonical_id,
            members.c.tier,
            members.c.distance,
        )
        .outerjoin(images, images.c.id == uploads.c.image_id)
        .outerjoin(
            members,
            (members.c.image_id == uploads.c.image_id) & (members.c.source == uploads.c.source),
        )
        .where(uploads.c.batch_id == batch)
        .order_by(uploads.c.id)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def newest(connection: sa.Connection, source: str, keys: Iterable[str]) -> list[dict[str, Any]]:
    """The newest upload of each of these keys, with its batch and verdict."""
    found: list[dict[str, Any]] = []
    for part in chunks(dict.fromkeys(keys)):
        latest = (
            sa.select(sa.func.max(uploads.c.id))
            .where(uploads.c.source == source, uploads.c.key.in_(part))
            .group_by(uploads.c.key)
        )
        query = sa.select(
            uploads.c.id, uploads.c.batch_id, uploads.c.verdict, uploads.c.image_id
        ).where(uploads.c.id.in_(latest))
        found.extend(dict(row) for row in connection.execute(query).mappings())
    return found


def bytes_by_format(
    connection: sa.Connection, image_ids: Iterable[str | None]
) -> dict[str, dict[str, int]]:
    """For each image with variants the bytes of all of them, by format."""
    found: dict[str, dict[str, int]] = {}
    for part in chunks({image for image in image_ids if image}):
        query = (
            sa.select(variants.c.image_id, variants.c.format, sa.func.sum(variants.c.bytes))
            .where(variants.c.image_id.in_(part), ~variants.c.dropped)
            .group_by(variants.c.image_id, variants.c.format)
        )
        for image, kind, total in connection.execute(query):
            found.setdefault(image, {})[kind] = int(total)
    return found


def counts(connection: sa.Connection) -> list[dict[str, Any]]:
    """Uploads and bytes by source and state (``waiting``, ``processing`` or the verdict)."""
    state = sa.case(
        (uploads.c.batch_id.is_(None), "waiting"),
        (uploads.c.verdict.is_(None), "processing"),
        else_=uploads.c.verdict,
    ).label("state")
    query = (
        sa.select(
            uploads.c.source,
            state,
            sa.func.count().label("uploads"),
            sa.func.sum(uploads.c.size).label("bytes"),
        )
        .group_by(uploads.c.source, state)
        .order_by(uploads.c.source, state)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
