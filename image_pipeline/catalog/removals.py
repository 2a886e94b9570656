"""Objects that are being removed or moved at this moment.

Names of published files follow from their contents, so a batch may write an object anew, byte
for byte, while housekeeping removes it. Both therefore meet in the catalog: housekeeping writes
its keys here in the transaction that makes sure nobody refers to them, and whoever is about to
refer to an object looks here in the transaction that says so.

Who works on a plan holds the plan itself in the same way, under the key of its entries, and
renews its hold. One that stops renewing is taken for dead: the next takes its rows over.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks, insert_new, lock
from image_pipeline.catalog.schema import plans, removals

#: A row that was not renewed for so long belongs to a process that is no more.
ABANDONED = timedelta(hours=1)

#: A plan whose holder says nothing for so long may be taken over: eight renewals are missing.
LEASE = timedelta(minutes=2)

_LOCK = "removals"

#: Key of the row that says which forgetting ended last; no object of ours, or of a source, has it.
_FORGOTTEN = "forgotten"


def hold(connection: sa.Connection) -> None:
    """Keep everybody else from looking or beginning until the transaction ends."""
    lock(connection, _LOCK)


def begin(connection: sa.Connection, plan: str, keys: Iterable[str], now: datetime) -> set[str]:
    """Announce that these objects go; those that are now ours to remove.

    The rest is being removed by somebody else. Call :func:`hold` before looking whether they
    may go. ``plan`` is the plan's id, or its holder's name from :func:`take`.
    """
    wanted = sorted(keys)
    for part in chunks(wanted):
        connection.execute(
            sa.delete(removals).where(
                removals.c.key.in_(part), removals.c.touched_at <= now - ABANDONED
            )
        )
    rows = [{"key": key, "plan_id": plan, "touched_at": now} for key in wanted]
    insert_new(connection, removals, rows)
    ours: set[str] = set()
    for part in chunks(wanted):
        query = sa.select(removals.c.key).where(
            removals.c.key.in_(part), removals.c.plan_id == plan
        )
        ours.update(connection.execute(query).scalars())
    return ours


def renew(connection: sa.Connection, plan: str, now: datetime) -> bool:
    """Say that the plan is still at work. False if nothing is its own any more.

    Also if it said nothing for so long, asleep perhaps, that others took it for dead: they may
    rely on what it was about to remove, and it has to ask again.
    """
    oldest = sa.select(sa.func.min(removals.c.touched_at)).where(removals.c.plan_id == plan)
    touched = connection.execute(oldest).scalar()
    if touched is None or touched <= now - ABANDONED:
        return False
    connection.execute(sa.update(removals).where(removals.c.plan_id == plan).values(touched_at=now))
    return True


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


def end_forgetting(connection: sa.Connection, holder: str, now: datetime) -> None:
    """End everything that a forgetting announced, also before it was killed. Call :func:`hold`.

    There is no plan that :func:`mark` could tell it by: so a row of its own says that one ended.
    """
    mine = sa.or_(removals.c.plan_id == holder, removals.c.key == _FORGOTTEN)
    connection.execute(sa.delete(removals).where(mine))
    last = {"key": _FORGOTTEN, "plan_id": f"forget {secrets.token_hex(8)}", "touched_at": now}
    connection.execute(sa.insert(removals).values(last))


#: What :func:`mark` gives.
Mark = tuple[object, ...]


def mark(connection: sa.Connection) -> Mark:
    """Something that differs once any plan of orphans or any forgetting has removed more.

    Whoever wrote an object looks at this before and after: while it is the same, nothing that
    :func:`being_removed` does not tell has removed the object since.
    """
    waiting = ("planned", "needs_confirmation")
    query = sa.select(plans.c.id, plans.c.results).where(plans.c.state == "applying")
    going = sorted(
        (plan, (results or {}).get("chunks", 0)) for plan, results in connection.execute(query)
    )
    begun = sa.select(sa.func.count()).where(
        plans.c.kind == "orphans", plans.c.state.not_in(waiting)
    )
    forgotten = sa.select(removals.c.plan_id).where(removals.c.key == _FORGOTTEN)
    return (
        connection.execute(begun).scalar_one(),
        connection.execute(forgotten).scalar(),
        *going,
    )


def take(connection: sa.Connection, key: str, holder: str, now: datetime) -> datetime | None:
    """Become the one who works on a plan, ``key`` being that of its entries.

    None if that is so now; else until when somebody else is believed to be at it. What a holder
    that is no more was removing is then ours.
    """
    hold(connection)
    query = sa.select(removals.c.plan_id, removals.c.touched_at).where(removals.c.key == key)
    found = connection.execute(query).one_or_none()
    if found is None:
        insert_new(connection, removals, [{"key": key, "plan_id": holder, "touched_at": now}])
        return None
    if found.touched_at > now - LEASE:
        until: datetime = found.touched_at + LEASE
        return until
    connection.execute(
        sa.update(removals)
        .where(removals.c.plan_id == found.plan_id)
        .values(plan_id=holder, touched_at=now)
    )
    return None


def give_back(connection: sa.Connection, key: str, holder: str, now: datetime) -> None:
    """Let the next take a plan at once; what was being removed stays announced."""
    connection.execute(
        sa.update(removals)
        .where(removals.c.key == key, removals.c.plan_id == holder)
        .values(touched_at=now - LEASE)
    )


def finish(connection: sa.Connection, key: str, holder: str) -> None:
    """The work on a plan is done; what may still be deleted late stays announced for an hour."""
    end(connection, holder, [key])
