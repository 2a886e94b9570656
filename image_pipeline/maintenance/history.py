"""Which runs and partitions of the orchestrator may be forgotten. All pure.

Dagster keeps every run with all its events, and every partition, for ever; both make its
database and its pages slow. What people still look for is the newest success of everything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Past:
    """A run: when it last changed, whether it came to an end, and its partition if it has one."""

    id: str
    changed_at: datetime
    finished: bool
    partition: str | None = None


def old_partitions(
    partitions: Collection[str], ends: Mapping[str, datetime], before: datetime, limit: int
) -> list[str]:
    """Partitions whose batch was done ``before``, the oldest first, at most ``limit``.

    ``ends`` are those of batches that are done. Whatever else has a partition keeps it: a batch
    that is open, one that was given up (people may still finish it by hand), and one that the
    catalog does not know.
    """
    found = [one for one in partitions if one in ends and ends[one] < before]
    return sorted(found, key=lambda one: (ends[one], one))[:limit]


def old_runs(runs: Iterable[Past], keep: Collection[str], before: datetime) -> Iterator[Past]:
    """Runs that came to an end and did not change since ``before``, except those to ``keep``.

    ``keep`` are runs that hold the newest success of an asset, or of one of its partitions
    that still exist.
    """
    return (run for run in runs if run.finished and run.changed_at < before and run.id not in keep)
