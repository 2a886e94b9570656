"""What the report is made of, read from the catalog and from Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import slow_queries, timings, warmth
from image_pipeline.catalog.engine import Catalog
from image_pipeline.delivery.manifest_cache import CacheError, ManifestCache
from image_pipeline.performance.history import Day, StageDay
from image_pipeline.performance.report import Measured, window
from image_pipeline.performance.timings import SLOWEST
from image_pipeline.settings import Settings

#: Slow statements shown, those that took the most time in all.
SHOWN_QUERIES = 20

_SUMS = (
    "runs", "seconds", "cpu_seconds", "worker_seconds", "images", "bytes_in", "bytes_out", "again",
    "again_seconds", "again_images",
)  # fmt: skip


def gather(
    settings: Settings,
    catalog: Catalog,
    now: datetime,
    weeks: int | None = None,
    source: str | None = None,
) -> Measured:
    """Everything of the last ``weeks`` (those of the settings if None), of one source or all.

    Its size depends on days, stages and sources, never on how many uploads there were.
    """
    rules = settings.performance
    weeks = weeks or rules.weeks
    first, _ = window(now, weeks)
    since = datetime.combine(first, time(), UTC)
    with catalog.read() as connection:
        history = _history(connection, first, source)
        slowest = timings.slowest(connection, first.isoformat(), SLOWEST, source)
        slow = slow_queries.slowest(connection, since, SHOWN_QUERIES)
        edge = [row for row in warmth.totals(connection) if source in (None, row["source"])]
    return Measured(
        now=now,
        weeks=weeks,
        history=history,
        slowest=slowest,
        slow_queries=slow,
        edge=edge,
        redis=_redis(settings, [source] if source else sorted(settings.sources)),
        slow_milliseconds=rules.slow_query_milliseconds,
        source=source,
    )


def _history(connection: sa.Connection, first: date, source: str | None) -> dict[date, Day]:
    days: dict[date, Day] = {}
    since = first.isoformat()
    for row in timings.totals(connection, since, source):
        sums = {name: getattr(row, name) for name in _SUMS}
        days.setdefault(_day(row.day), Day()).stages[row.stage] = StageDay(**sums)
    for text, stage, bucket, count in timings.histograms(connection, since, source):
        days[_day(text)].stages[stage].buckets[bucket] += count
    for text, stage, name, number in timings.amounts(connection, since, source):
        days[_day(text)].stages[stage].amounts[name] += number  # type: ignore[assignment]
    for text, of, recipe, images in timings.recipes(connection, since, source):
        days[_day(text)].recipes[of, recipe] += images
    return days


def _day(text: str) -> date:
    return date.fromisoformat(text)


def _redis(settings: Settings, sources: Sequence[str]) -> list[dict[str, Any]] | None:
    """Hits and misses of manifests; None without a Redis, or while it does not answer."""
    if settings.redis.url is None:
        return None
    cache = ManifestCache(settings.redis, settings.bucket.name)
    try:
        return [
            {"source": source, **asdict(one), "hit_rate": one.hits / (one.hits + one.misses)}
            for source in sources
            for one in cache.counted(source)
        ]
    except CacheError:
        return None
    finally:
        cache.close()
