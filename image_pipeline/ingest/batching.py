"""When uploads become a batch, and what to do with a batch whose time has come. All pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum

from image_pipeline.catalog.batches import Waiting
from image_pipeline.settings import Batches


def split(waiting: Sequence[Waiting], now: datetime, rules: Batches) -> list[list[Waiting]]:
    """Cut waiting uploads into batches that close now; the rest goes on waiting.

    Full batches always close. The last, partial one closes when its oldest upload has waited
    ``max_age_seconds``, or when nothing arrived for ``quiet_seconds``: then there is no reason
    to wait for company. An upload larger than ``max_megabytes`` is a batch of its own.
    """
    parts = list(_fill(waiting, rules))
    if not parts:
        return []
    last = parts[-1]
    # Full is also a batch that the next upload did not fit into; only the last one is open.
    if len(last) >= rules.max_images or _is_ripe(last, now, rules):
        return parts
    return parts[:-1]


def _fill(waiting: Iterable[Waiting], rules: Batches) -> Iterable[list[Waiting]]:
    limit = rules.max_megabytes * 1e6
    part: list[Waiting] = []
    size = 0
    for upload in waiting:
        if part and (len(part) >= rules.max_images or size + upload.size > limit):
            yield part
            part, size = [], 0
        part.append(upload)
        size += upload.size
    if part:
        yield part


def _is_ripe(part: Sequence[Waiting], now: datetime, rules: Batches) -> bool:
    oldest = min(upload.arrived_at for upload in part)
    newest = max(upload.arrived_at for upload in part)
    # An upload that arrived later than now did so by a clock that was ahead.
    return now - oldest >= timedelta(seconds=rules.max_age_seconds) or abs(
        now - newest
    ) >= timedelta(seconds=rules.quiet_seconds)


def seconds_until_quiet(waiting: Sequence[Waiting], now: datetime, rules: Batches) -> float:
    """How long until the newest of these has been there for ``quiet_seconds``; 0 for none."""
    if not waiting:
        return 0.0
    newest = max(upload.arrived_at for upload in waiting)
    return max(0.0, rules.quiet_seconds - (now - newest).total_seconds())


class Step(Enum):
    """What to do with a batch whose time has come."""

    REQUEST = "request"
    WAIT = "wait"
    GIVE_UP = "give up"


#: A run in Dagster's queue survives everything and is started when its turn comes.
QUEUED = "QUEUED"

#: States of a Dagster run between the queue and its first sign of life.
STARTING = frozenset({"NOT_STARTED", "MANAGED", "STARTING"})

#: A run that stays in one of them for longer was lost with the process that launched it: a
#: start takes seconds.
START_PATIENCE = timedelta(seconds=90)


def next_step(
    attempt: int, rules: Batches, run_status: str | None, run_age: timedelta | None
) -> Step:
    """Decide about a batch that is due.

    ``run_status`` is that of its newest Dagster run and ``run_age`` the time since that run
    changed, None where there is none. A run in the queue is waited for; one that is said to
    run although nobody renews its lease is dead.
    """
    if run_status == QUEUED:
        return Step.WAIT
    if run_status in STARTING and run_age is not None and run_age < START_PATIENCE:
        return Step.WAIT
    if attempt >= rules.max_attempts:
        return Step.GIVE_UP
    return Step.REQUEST
