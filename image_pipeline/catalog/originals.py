"""What the catalog knows of originals that may move to another class of storage, and of moves.

A move may change the ETag of an object. It is announced in ``removals`` before, and followed in
the transaction that ends the announcement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from image_pipeline.catalog.batches import OPEN
from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.schema import batches, members, removals, uploads, variants

#: Ids of plans, and names of their holders, begin with the kind of the plan.
_BY_A_MOVE = removals.c.plan_id.like("classes-%")


@dataclass(frozen=True, slots=True)
class Version:
    """An upload with what tells whether its original is still needed, and since when it is where.

    ``batch_open`` and ``group_open`` say that its own batch, or the one that last changed its
    group, has not come to an end; ``canonical`` that it stands for itself in its source.
    """

    id: int
    source: str
    key: str
    etag: str
    size: int
    image_id: str | None
    verdict: str | None
    last_modified: datetime
    decided_at: datetime | None
    storage_class: str | None
    moved_at: datetime | None
    batch_open: bool
    group_open: bool
    canonical: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """An object that was copied onto itself in another class of storage."""

    key: str
    old_etag: str
    etag: str
    storage_class: str


def versions_of(connection: sa.Connection, keys: Iterable[str]) -> dict[str, list[Version]]:
    """Every upload that has one of these keys, in whatever source, by key."""
    open_batches = sa.select(batches.c.id).where(batches.c.state.in_(OPEN))
    names = [name for name in Version.__slots__ if name in uploads.c]
    found: dict[str, list[Version]] = {}
    for part in chunks(keys):
        query = (
            sa.select(
                *(uploads.c[name] for name in names),
                sa.or_(uploads.c.batch_id.is_(None), uploads.c.batch_id.in_(open_batches)),
                sa.func.coalesce(members.c.batch_id.in_(open_batches), sa.false()),
                sa.func.coalesce(members.c.canonical_id == uploads.c.image_id, sa.false()),
            )
            .outerjoin(
                members,
                (members.c.source == uploads.c.source) & (members.c.image_id == uploads.c.image_id),
            )
            .where(_is_of(connection, part))
            .order_by(uploads.c.id)
        )
        for row in connection.execute(query):
            version = Version(*row[:-3], *map(bool, row[-3:]))
            found.setdefault(version.key, []).append(version)
    return found


def last_rendered(connection: sa.Connection, images: Iterable[str]) -> dict[str, datetime]:
    """When variants were last made of these images, for those that have any."""
    found: dict[str, datetime] = {}
    for part in chunks(images):
        query = (
            sa.select(variants.c.image_id, sa.func.max(variants.c.created_at))
            .where(variants.c.image_id.in_(part))
            .group_by(variants.c.image_id)
        )
        found.update((image, moment) for image, moment in connection.execute(query))
    return found


def note_classes(connection: sa.Connection, seen: Mapping[int, tuple[str, datetime]]) -> None:
    """Write down classes that objects were found in, and since when, by the id of the upload."""
    if seen:
        connection.execute(
            sa.update(uploads)
            .where(uploads.c.id == sa.bindparam("at"))
            .values(storage_class=sa.bindparam("to"), moved_at=sa.bindparam("since")),
            [{"at": one, "to": to, "since": since} for one, (to, since) in sorted(seen.items())],
        )


def announced(connection: sa.Connection, keys: Iterable[str]) -> dict[str, str]:
    """Those of these keys that are being moved to another class, with the name of who moves them.

    However long ago that began: a version that the catalog does not know may be what a killed
    move left.
    """
    found: dict[str, str] = {}
    for part in chunks(keys):
        query = sa.select(removals.c.key, removals.c.plan_id).where(
            removals.c.key.in_(part), _BY_A_MOVE
        )
        found.update((key, by) for key, by in connection.execute(query))
    return found


def announcements(
    connection: sa.Connection, before: datetime, holder: str | None = None
) -> list[tuple[str, str]]:
    """Moves that were announced and not renewed since ``before``, as pairs (by whom, key).

    Those of ``holder`` whenever they were announced; not its hold on the plan itself.
    """
    is_left = removals.c.touched_at <= before
    if holder is not None:
        mine = sa.and_(removals.c.plan_id == holder, removals.c.key.not_like("plans/%"))
        is_left = sa.or_(is_left, mine)
    query = (
        sa.select(removals.c.plan_id, removals.c.key)
        .where(_BY_A_MOVE, is_left)
        .order_by(removals.c.key)
    )
    return [(by, key) for by, key in connection.execute(query)]


def left_by_a_move(
    versions: Iterable[Version], etag: str, size: int, storage_class: str
) -> Version | None:
    """The version that an object is, if a move to another class was killed before it said so.

    ``versions`` are those of its key in one source, in the order of their ids. Asked only of
    keys that a plan of moves announced. A copy has the size of what it was copied from and lies
    in a colder class; what somebody sends anew has another size, or arrives in Standard.
    """
    newest = max(versions, key=lambda one: one.id, default=None)
    if newest is None or storage_class == "STANDARD":
        return None
    return newest if newest.size == size and newest.etag != etag else None


def follow(connection: sa.Connection, moves: Iterable[Moved], now: datetime) -> int:
    """Give the uploads behind moved objects their new ETag and class; how many there were.

    Where the catalog already has a version with the new ETag, that one gets the class: the same
    bytes were once sent in another way, and the copy made them alike. The old one then stays as
    what it was, a version that is no more.
    """
    followed = 0
    for part in chunks(moves):
        of_key = {one.key: one for one in part}
        columns = (uploads.c.id, uploads.c.source, uploads.c.key, uploads.c.etag)
        rows = connection.execute(sa.select(*columns).where(_is_of(connection, of_key))).all()
        there = {(row.source, row.key) for row in rows if row.etag == of_key[row.key].etag}
        changed = [
            {"at": row.id, "now": of_key[row.key].etag, "to": of_key[row.key].storage_class}
            for row in rows
            if row.etag == of_key[row.key].etag
            or (row.etag == of_key[row.key].old_etag and (row.source, row.key) not in there)
        ]
        if changed:
            connection.execute(
                sa.update(uploads)
                .where(uploads.c.id == sa.bindparam("at"))
                .values(etag=sa.bindparam("now"), storage_class=sa.bindparam("to"), moved_at=now),
                sorted(changed, key=lambda one: int(one["at"])),
            )
        followed += len(changed)
    return followed


def _is_of(connection: sa.Connection, keys: Iterable[str]) -> sa.ColumnElement[bool]:
    """Uploads with these keys. The index begins with the source, so all of them are named."""
    sources = connection.execute(sa.select(batches.c.source).distinct()).scalars()
    return sa.and_(uploads.c.source.in_(list(sources)), uploads.c.key.in_(list(keys)))
