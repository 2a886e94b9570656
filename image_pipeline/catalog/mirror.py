"""What lies on the SFTP server that has copies, and what is still to be brought there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from image_pipeline.catalog.engine import chunks, insert_new
from image_pipeline.catalog.schema import (
    batches,
    mirror_targets,
    mirrored,
    publications,
    uploads,
    variants,
)

WAITING = "waiting"
MIRRORED = "mirrored"
LEAVING = "leaving"

#: Verdicts whose originals are copied. What was rejected was never shown to be a picture, and
#: what is still failing gets another verdict.
_COPIED = ("accepted", "duplicate")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object that is to be on the server. Without an ETag its name changes with its bytes."""

    key: str
    source: str
    etag: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A row: what is to be on the server (see :class:`Wanted`), and ``held``, what is."""

    key: str
    source: str
    etag: str
    size: int
    sha256: str
    path: str
    state: str
    held: str | None
    failures: int


@dataclass(frozen=True, slots=True)
class Target:
    """How far a server has been brought."""

    scope: str = ""
    looked_until: datetime | None = None
    inventory_id: str | None = None
    purged_at: datetime | None = None


_COPY = [mirrored.c[name] for name in Copy.__slots__]


def target_row(connection: sa.Connection, target: str) -> Target:
    """What is known of a server; of one that is new, nothing."""
    columns = [mirror_targets.c[name] for name in Target.__slots__]
    row = connection.execute(
        sa.select(*columns).where(mirror_targets.c.target == target)
    ).one_or_none()
    return Target() if row is None else Target(*row)


def set_target(connection: sa.Connection, target: str, **values: Any) -> None:
    """Write some of the columns of :class:`Target`."""
    insert_new(connection, mirror_targets, [{"target": target, "scope": ""}])
    connection.execute(
        sa.update(mirror_targets).where(mirror_targets.c.target == target).values(**values)
    )


def ended_batches(
    connection: sa.Connection,
    since: datetime | None,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[tuple[datetime, str]]:
    """The next batches that ended since a moment, as (moment, id) behind ``after``, in order."""
    ended, name = batches.c.finished_at, batches.c.id
    query = sa.select(ended, name).where(ended.is_not(None)).order_by(ended, name).limit(limit)
    if since is not None:
        query = query.where(ended >= since)
    if after is not None:
        query = query.where(ended >= after[0], sa.or_(ended > after[0], name > after[1]))
    return [(moment, batch) for moment, batch in connection.execute(query)]


def originals_of(
    connection: sa.Connection, ids: Collection[str], sources: Collection[str]
) -> list[Wanted]:
    """Originals of these batches: those that are the newest of their key."""
    newer = uploads.alias()
    is_newest = ~(
        sa.select(newer.c.id)
        .where(
            newer.c.source == uploads.c.source,
            newer.c.key == uploads.c.key,
            newer.c.id > uploads.c.id,
        )
        .exists()
    )
    query = sa.select(
        uploads.c.key, uploads.c.source, uploads.c.etag, uploads.c.size, uploads.c.image_id
    ).where(
        uploads.c.batch_id.in_(ids),
        uploads.c.source.in_(sources),
        uploads.c.verdict.in_(_COPIED),
        uploads.c.image_id.is_not(None),
        is_newest,
    )
    return [Wanted(*row) for row in connection.execute(query)]


def variants_of(
    connection: sa.Connection,
    ids: Collection[str],
    sources: Collection[str],
    sizes: Collection[str],
) -> list[Wanted]:
    """Files of these sizes that are published by what these batches changed."""
    query = (
        sa.select(
            variants.c.key,
            sa.func.min(publications.c.source),
            sa.literal(""),
            variants.c.bytes,
            variants.c.sha256,
        )
        .join(
            publications,
            sa.and_(
                publications.c.canonical_id == variants.c.image_id,
                publications.c.recipe == variants.c.recipe,
            ),
        )
        .where(
            publications.c.batch_id.in_(ids),
            publications.c.source.in_(sources),
            variants.c.size.in_(sizes),
            sa.not_(variants.c.dropped),
        )
        .group_by(variants.c.key, variants.c.bytes, variants.c.sha256)
    )
    return [Wanted(*row) for row in connection.execute(query)]


def want(
    connection: sa.Connection,
    target: str,
    wanted: Sequence[Wanted],
    paths: Mapping[str, str],
    now: datetime,
) -> int:
    """Write down what is to be copied; how much of it was not known. ``paths`` are by key."""
    known = copies_of(connection, target, [one.key for one in wanted])
    new = [one for one in wanted if one.key not in known]
    if new:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        # With the rows as parameters: a statement that holds them takes ten times as long to
        # build, and there may be millions.
        connection.execute(
            dialect.insert(mirrored).on_conflict_do_nothing(),
            [
                {
                    "target": target,
                    **{name: getattr(one, name) for name in Wanted.__slots__},
                    "path": paths[one.key],
                    "state": WAITING,
                    "due_at": now,
                    "failures": 0,
                }
                for one in new
            ],
        )
    changed = [one for one in wanted if one.key in known and _is_other(known[one.key], one)]
    for one in changed:
        connection.execute(
            sa.update(mirrored)
            .where(mirrored.c.target == target, mirrored.c.key == one.key)
            .values(
                etag=one.etag, size=one.size, sha256=one.sha256,
                state=WAITING, due_at=now, failures=0, error=None,
            )
        )  # fmt: skip
    return len(new) + len(changed)


def _is_other(copy: Copy, wanted: Wanted) -> bool:
    # An ETag also changes by a move to another class: the bytes are what counts.
    return copy.sha256 != wanted.sha256 or copy.state == LEAVING


def copies_of(connection: sa.Connection, target: str, keys: Iterable[str]) -> dict[str, Copy]:
    """What is written of these objects, by key."""
    found: dict[str, Copy] = {}
    for part in chunks(keys):
        query = sa.select(*_COPY).where(mirrored.c.target == target, mirrored.c.key.in_(part))
        found.update((row.key, Copy(*row)) for row in connection.execute(query))
    return found


def is_anything_due(connection: sa.Connection, target: str, now: datetime) -> bool:
    """Whether a run would have anything to do. One look at an index."""
    query = sa.select(mirrored.c.key).where(_due(target, now)).limit(1)
    return connection.execute(query).first() is not None


def count_due(connection: sa.Connection, target: str, now: datetime, source: str | None) -> int:
    """How many files :func:`claim` would give by and by."""
    query = sa.select(sa.func.count()).where(_due(target, now, source))
    return connection.execute(query).scalar_one()


def claim(
    connection: sa.Connection,
    target: str,
    now: datetime,
    until: datetime,
    limit: int,
    source: str | None = None,
) -> list[Copy]:
    """Take the next files that were due at ``now``; to others they are due at ``until`` only."""
    query = (
        sa.select(*_COPY)
        .where(_due(target, now, source))
        .order_by(mirrored.c.due_at, mirrored.c.key)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = [Copy(*row) for row in connection.execute(query)]
    set_due(connection, target, [row.key for row in rows], until)
    return rows


def _due(target: str, now: datetime, source: str | None = None) -> sa.ColumnElement[bool]:
    due = sa.and_(mirrored.c.target == target, mirrored.c.due_at <= now)
    return due if source is None else sa.and_(due, mirrored.c.source == source)


def set_due(connection: sa.Connection, target: str, keys: Iterable[str], moment: datetime) -> None:
    """When these files are to be looked at next, if there is still anything to do with them."""
    for part in chunks(sorted(keys)):
        connection.execute(
            sa.update(mirrored)
            .where(
                mirrored.c.target == target,
                mirrored.c.key.in_(part),
                mirrored.c.due_at.is_not(None),
            )
            .values(due_at=moment)
        )


def record_copied(
    connection: sa.Connection, target: str, copies: Iterable[Copy], now: datetime
) -> list[Copy]:
    """These are on the server. Of one that changed meanwhile, the newer version is still due.

    Returns those that nothing is known of any more: they were forgotten while they were sent.
    """
    forgotten = []
    for copy in sorted(copies, key=lambda one: one.key):
        is_it = sa.and_(mirrored.c.target == target, mirrored.c.key == copy.key)
        found = connection.execute(
            sa.update(mirrored).where(is_it).values(held=copy.sha256, mirrored_at=now)
        )
        if not found.rowcount:
            forgotten.append(copy)
        connection.execute(
            sa.update(mirrored)
            .where(is_it, mirrored.c.sha256 == copy.sha256, mirrored.c.state == WAITING)
            .values(state=MIRRORED, due_at=None, failures=0, error=None)
        )
    return forgotten


def record_failed(
    connection: sa.Connection, target: str, errors: Mapping[str, tuple[str, datetime]]
) -> None:
    """These were tried in vain: why, and when they are due again."""
    for key, (error, due) in sorted(errors.items()):
        connection.execute(
            sa.update(mirrored)
            .where(mirrored.c.target == target, mirrored.c.key == key)
            .values(failures=mirrored.c.failures + 1, error=error, due_at=due)
        )


def record_left(connection: sa.Connection, target: str, keys: Iterable[str]) -> None:
    """These are not on the server any more; one that came back meanwhile is still due."""
    for part in chunks(sorted(keys)):
        these = sa.and_(mirrored.c.target == target, mirrored.c.key.in_(part))
        connection.execute(sa.delete(mirrored).where(these, mirrored.c.state == LEAVING))
        connection.execute(sa.update(mirrored).where(these).values(held=None))


def let_leave(connection: sa.Connection, target: str, keys: Iterable[str], now: datetime) -> int:
    """The bucket has these no more; how many are taken off the server for it.

    What never got there is forgotten at once.
    """
    count = 0
    for part in chunks(sorted(keys)):
        these = sa.and_(mirrored.c.target == target, mirrored.c.key.in_(part))
        connection.execute(sa.delete(mirrored).where(these, mirrored.c.held.is_(None)))
        count += connection.execute(
            sa.update(mirrored)
            .where(these)
            .values(state=LEAVING, due_at=now, failures=0, error=None)
        ).rowcount
    return count


def mark_seen(connection: sa.Connection, target: str, keys: Iterable[str], inventory: str) -> None:
    """These objects are in this inventory of the bucket."""
    for part in chunks(sorted(keys)):
        connection.execute(
            sa.update(mirrored)
            .where(mirrored.c.target == target, mirrored.c.key.in_(part))
            .values(seen=inventory)
        )


def unseen(
    connection: sa.Connection,
    target: str,
    inventory: str,
    before: datetime,
    after: str,
    limit: int,
) -> list[str]:
    """Files that were copied before an inventory which does not have them, by key."""
    query = (
        sa.select(mirrored.c.key)
        .where(
            mirrored.c.target == target,
            mirrored.c.key > after,
            mirrored.c.state == MIRRORED,
            mirrored.c.mirrored_at < before,
            sa.func.coalesce(mirrored.c.seen, "") != inventory,
        )
        .order_by(mirrored.c.key)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def copies_to_erase(
    connection: sa.Connection, keys: Collection[str], images: Collection[str]
) -> list[tuple[str, Copy]]:
    """Copies of these objects and of the files of these images, each with its server."""
    mine: list[sa.ColumnElement[bool]] = [mirrored.c.key.in_(list(keys))]
    mine += [mirrored.c.key.startswith(f"variants/{image}/", autoescape=True) for image in images]
    query = sa.select(mirrored.c.target, *_COPY).where(sa.or_(*mine))
    return [(target, Copy(*row)) for target, *row in connection.execute(query)]


def drop(connection: sa.Connection, target: str, keys: Iterable[str]) -> None:
    """Nothing is known of these files any more."""
    for part in chunks(sorted(keys)):
        connection.execute(
            sa.delete(mirrored).where(mirrored.c.target == target, mirrored.c.key.in_(part))
        )


def totals(connection: sa.Connection) -> list[dict[str, Any]]:
    """By server, source and state: files, bytes, files that failed, the last copy. Reads all."""
    query = (
        sa.select(
            mirrored.c.target,
            mirrored.c.source,
            mirrored.c.state,
            sa.func.count().label("files"),
            sa.func.sum(mirrored.c.size).label("bytes"),
            sa.func.count(mirrored.c.error).label("failing"),
            sa.func.max(mirrored.c.mirrored_at).label("last"),
        )
        .group_by(mirrored.c.target, mirrored.c.source, mirrored.c.state)
        .order_by(mirrored.c.target, mirrored.c.source, mirrored.c.state)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def failing(connection: sa.Connection, target: str, limit: int) -> list[dict[str, Any]]:
    """Files that were tried in vain: key, failures, error. Read by the index of what is due."""
    query = (
        sa.select(mirrored.c.source, mirrored.c.key, mirrored.c.failures, mirrored.c.error)
        .where(
            mirrored.c.target == target,
            mirrored.c.due_at.is_not(None),
            mirrored.c.error.is_not(None),
        )
        .order_by(mirrored.c.due_at, mirrored.c.key)
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def drop_target(connection: sa.Connection, target: str) -> None:
    """Nothing is known of this server any more."""
    for table in (mirrored, mirror_targets):
        connection.execute(sa.delete(table).where(table.c.target == target))
