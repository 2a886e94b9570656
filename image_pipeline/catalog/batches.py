"""Batches in the catalog: formed, requested under a lease, run, finished.

The catalog and not Dagster is the ledger of what is done: Dagster spends a run key for ever,
even on a run that failed, and forgets it when its history is pruned.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks, insert_new
from image_pipeline.catalog.schema import batches, uploads

#: States in which a batch still has to come to an end.
OPEN = ("waiting", "requested", "running", "retry")

#: Reasons of failed uploads that may wait for an archive: their own original's, or that of the
#: picture that stands for them.
_WAITING = ("archived", "canonical_failed")

#: What :func:`expected_note` writes. Messages begin with it; the names of objects follow, and
#: may hold anything.
_EXPECTED = re.compile(r"expected by (\d{4}-\d\d-\d\dT\d\d:\d\dZ)")

#: Between two attempts. A night without anybody to look is not to pass without one.
LONGEST_PAUSE = timedelta(hours=6)

#: The slowest restore takes two days. What says longer than this was not written by us.
_LONGEST_WAIT = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the ledger has it. ``attempt`` counts requests since it was last opened."""

    id: str
    source: str
    created_at: datetime
    uploads: int
    bytes: int
    state: str
    attempt: int
    lease_owner: str | None
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An upload in no batch yet. ``arrived_at`` is the earlier of written and discovered."""

    id: int
    size: int
    arrived_at: datetime


_COLUMNS = [
    (batches.c.attempt - batches.c.spent).label("attempt") if name == "attempt" else batches.c[name]
    for name in Batch.__slots__
]


def batch_id(source: str, now: datetime) -> str:
    """A new id: sorts by time within a source, never used twice."""
    return f"{source}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def waiting(connection: sa.Connection, source: str, limit: int) -> list[Waiting]:
    """The oldest uploads of a source that are in no batch, without those another sensor takes."""
    query = (
        sa.select(uploads.c.id, uploads.c.size, uploads.c.last_modified, uploads.c.discovered_at)
        .where(uploads.c.source == source, uploads.c.batch_id.is_(None))
        .order_by(uploads.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [
        Waiting(row.id, row.size, min(row.last_modified, row.discovered_at))
        for row in connection.execute(query)
    ]


def form(
    connection: sa.Connection,
    source: str,
    now: datetime,
    limit: int,
    split: Callable[[Sequence[Waiting]], list[list[Waiting]]],
) -> list[str]:
    """Put waiting uploads into new batches, as ``split`` says. Needs a writing transaction.

    An upload is claimed once: a second sensor finds these rows taken.
    """
    formed = []
    for part in split(waiting(connection, source, limit)):
        batch = batch_id(source, now)
        row = {
            "id": batch,
            "source": source,
            "created_at": now,
            "uploads": len(part),
            "bytes": sum(upload.size for upload in part),
            "state": "waiting",
            "attempt": 0,
            "due_at": now,
        }
        insert_new(connection, batches, [row])
        for ids in chunks(upload.id for upload in part):
            connection.execute(
                sa.update(uploads).where(uploads.c.id.in_(ids)).values(batch_id=batch)
            )
        formed.append(batch)
    return formed


def get(connection: sa.Connection, batch: str) -> Batch | None:
    """One batch."""
    row = connection.execute(sa.select(*_COLUMNS).where(batches.c.id == batch)).one_or_none()
    return None if row is None else Batch(*row)


def due(
    connection: sa.Connection,
    source: str,
    now: datetime,
    limit: int,
    longest: timedelta | None = None,
) -> list[Batch]:
    """Open batches whose time has come: new ones, retries, and those nobody holds any more.

    So is that of batches due later than anybody would have said: a clock that was ahead said so.
    ``longest`` is how far ahead a run or a sensor may put it; nobody looks without one.
    """
    come = batches.c.due_at <= now
    if longest is not None:
        come = sa.or_(come, _is_misdated(now, longest))
    query = (
        sa.select(*_COLUMNS)
        .where(batches.c.source == source, batches.c.state.in_(OPEN), come)
        .order_by(batches.c.created_at, batches.c.id)
        .limit(limit)
    )
    return [Batch(*row) for row in connection.execute(query)]


def _is_misdated(now: datetime, longest: timedelta) -> sa.ColumnElement[bool]:
    archived = sa.exists().where(
        uploads.c.batch_id == batches.c.id,
        uploads.c.verdict == "failed",
        uploads.c.reason.in_(_WAITING),
    )
    furthest = now + max(longest, _LONGEST_WAIT)
    return sa.or_(
        batches.c.due_at > furthest, sa.and_(batches.c.due_at > now + longest, sa.not_(archived))
    )


def in_flight(
    connection: sa.Connection, source: str, now: datetime, longest: timedelta | None = None
) -> int:
    """How many batches of a source are requested or running under a valid lease.

    ``longest`` as in :func:`due`.
    """
    query = sa.select(sa.func.count()).where(
        batches.c.source == source,
        batches.c.state.in_(("requested", "running")),
        batches.c.due_at > now,
    )
    if longest is not None:
        query = query.where(sa.not_(_is_misdated(now, longest)))
    return connection.execute(query).scalar_one()


def request(connection: sa.Connection, batch: str, until: datetime) -> int:
    """Mark a batch requested until ``until``; the number of this attempt, from 1.

    The number is never used twice for a batch, also when it was reopened in between.
    """
    statement = (
        sa.update(batches)
        .where(batches.c.id == batch)
        .values(state="requested", attempt=batches.c.attempt + 1, due_at=until, lease_owner=None)
        .returning(batches.c.attempt)
    )
    attempt: int = connection.execute(statement).scalar_one()
    return attempt


def wait(connection: sa.Connection, batch: str, until: datetime) -> None:
    """Leave a batch alone until then: its run is still in Dagster's queue."""
    connection.execute(sa.update(batches).where(batches.c.id == batch).values(due_at=until))


def hold(connection: sa.Connection, batch: str, owner: str, until: datetime) -> None:
    """A run takes an open batch, or renews its hold. A batch that is done stays done."""
    connection.execute(
        sa.update(batches)
        .where(batches.c.id == batch, batches.c.state.not_in(("done",)))
        .values(state="running", lease_owner=owner, due_at=until)
    )


def release(connection: sa.Connection, batch: str, owner: str, due_at: datetime) -> None:
    """A run that ends without having finished its batch gives it back.

    One that waits for originals to come back from an archive is due when the last of them is
    expected, and this attempt does not count: it could not have succeeded.
    """
    values: dict[str, Any] = {"state": "retry", "lease_owner": None, "due_at": due_at}
    expected = _expected(connection, batch)
    if expected is not None and due_at < expected <= due_at + _LONGEST_WAIT:
        values["due_at"] = expected
        # A run by hand spends no attempt that could be given back.
        values["spent"] = sa.case(
            (batches.c.spent < batches.c.attempt, batches.c.spent + 1), else_=batches.c.spent
        )
    connection.execute(
        sa.update(batches)
        .where(batches.c.id == batch, batches.c.state == "running", batches.c.lease_owner == owner)
        .values(**values)
    )


def expected_note(moment: datetime) -> str:
    """The words by which the message of a failed upload says until when to wait for it (UTC)."""
    whole = moment.astimezone(UTC) + timedelta(minutes=1, microseconds=-1)
    return f"expected by {whole:%Y-%m-%dT%H:%M}Z"


def _expected(connection: sa.Connection, batch: str) -> datetime | None:
    """The latest moment that failed uploads of a batch wait for; None if they do not wait."""
    query = sa.select(uploads.c.message).where(
        uploads.c.batch_id == batch,
        uploads.c.verdict == "failed",
        uploads.c.reason.in_(_WAITING),
    )
    found = (_EXPECTED.search(message or "") for message in connection.execute(query).scalars())
    moments = [_moment(match[1]) for match in found if match]
    return max((moment for moment in moments if moment), default=None)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def finish(connection: sa.Connection, batch: str, now: datetime) -> None:
    """Everything of the batch has its final verdict and is published."""
    connection.execute(
        sa.update(batches)
        .where(batches.c.id == batch)
        .values(state="done", lease_owner=None, due_at=None, finished_at=now)
    )


def give_up(connection: sa.Connection, batch: str, now: datetime) -> None:
    """No more attempts by themselves; a run started by hand may still finish the batch."""
    connection.execute(
        sa.update(batches)
        .where(batches.c.id == batch)
        .values(state="given_up", lease_owner=None, due_at=None, finished_at=now)
    )


def reopen(connection: sa.Connection, ids: Iterable[str], now: datetime) -> list[str]:
    """Let sensors ask for these batches again, with every attempt allowed; those reopened.

    A batch that is open already comes to an end by itself and is left alone.
    """
    reopened: list[str] = []
    for part in chunks(ids):
        statement = (
            sa.update(batches)
            .where(batches.c.id.in_(part), batches.c.state.not_in(OPEN))
            .values(
                state="retry",
                spent=batches.c.attempt,
                lease_owner=None,
                due_at=now,
                finished_at=None,
            )
            .returning(batches.c.id)
        )
        reopened.extend(connection.execute(statement).scalars())
    return reopened


def given_up(connection: sa.Connection, source: str | None = None) -> list[str]:
    """Batches that ran out of attempts, oldest first; of one source or of all."""
    query = sa.select(batches.c.id).where(batches.c.state == "given_up")
    if source is not None:
        query = query.where(batches.c.source == source)
    return list(connection.execute(query.order_by(batches.c.created_at, batches.c.id)).scalars())


def recent(connection: sa.Connection, limit: int = 20) -> list[dict[str, Any]]:
    """The newest batches, for people."""
    query = sa.select(*_COLUMNS).order_by(batches.c.created_at.desc(), batches.c.id).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def open_ids(connection: sa.Connection) -> list[str]:
    """Every batch that has not come to an end, oldest first."""
    query = sa.select(batches.c.id).where(batches.c.state.in_(OPEN)).order_by(batches.c.created_at)
    return list(connection.execute(query).scalars())


def retry_at(now: datetime, attempt: int, seconds: float) -> datetime:
    """When to try again: ``seconds`` after the first attempt, twice that after each further.

    Never later than in :data:`LONGEST_PAUSE`.
    """
    doublings = min(max(0, attempt - 1), 32)
    return now + timedelta(seconds=min(seconds * 2**doublings, LONGEST_PAUSE.total_seconds()))
