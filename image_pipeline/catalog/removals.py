"""Objects that are being removed or moved at this moment.

Names of published files follow from their contents, so a batch may write an object anew, byte
for byte, while housekeeping removes it. Both therefore meet in the catalog: housekeeping writes
its keys here in the transaction that makes sure nobody refers to them, and whoever is about to
refer to an object looks here in the transaction that says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks, insert_new, lock
from image_pipeline.catalog.schema import removals

#: A row that was not renewed for so long belongs to a process that is no more.
ABANDONED = timedelta(hours=1)

_LOCK = "removals"


def hold(connection: sa.Connection) -> None:
    """Keep everybody else from looking or beginning until the transaction ends."""
    lock(connection, _LOCK)


def begin(connection: sa.Connection, plan: str, keys: Iterable[str], now: datetime) -> None:
    """Announce that these objects go. Call :func:`hold` before looking whether they may."""
    rows = [{"key": key, "plan_id": plan, "touched_at": now} for key in sorted(keys)]
    insert_new(connection, removals, rows)


def renew(connection: sa.Connection, plan: str, now: datetime) -> None:
    """Say that the plan is still at work."""
    connection.execute(sa.update(removals).where(removals.c.plan_id == plan).values(touched_at=now))


def end(connection: sa.Connection, plan: str, keys: Iterable[str]) -> None:
    """The objects are gone, or stay; either way nothing happens to them any more."""
    for part in chunks(keys):
        connection.execute(
            sa.delete(removals).where(removals.c.plan_id == plan, removals.c.key.in_(part))
        )


def being_removed(connection: sa.Connection, keys: Iterable[str], now: datetime) -> set[str]:
    """Those of these keys that somebody is removing. Call :func:`hold` before."""
    found: set[str] = set()
    for part in chunks(keys):
        query = sa.select(removals.c.key).where(
            removals.c.key.in_(part), removals.c.touched_at > now - ABANDONED
        )
        found.update(connection.execute(query).scalars())
    return found
