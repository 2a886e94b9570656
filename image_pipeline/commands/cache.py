"""``image-pipeline cache``: what the edge and Redis hold, and making them hold it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from image_pipeline.catalog import warmth
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, progress_bar, size
from image_pipeline.delivery.manifest_cache import (
    CacheError,
    Counted,
    ManifestCache,
    shown_address,
)
from image_pipeline.settings import Settings
from image_pipeline.stages.caching import Cached, warm_redis
from image_pipeline.stages.tools import Tools
from image_pipeline.stages.warming import Pass, warm_sources
from image_pipeline.store.bucket import Bucket

_NO_REDIS = "no redis.url is set: manifests are read from the bucket"


def run_warm(
    settings: Settings, source: str | None, force: bool, as_json: bool, only: str | None = None
) -> int:
    """Ask the edges for what is due, and give Redis what it lacks; ``only`` one of the two.

    Exit code 1 if some of it could not be done.
    """
    catalog = Catalog(settings.catalog.url)
    sources = [source] if source else sorted(settings.sources)
    edge, redis = Pass(), {}
    try:
        with progress_bar() as progress:
            task = progress.add_task("warming", total=None)
            tools = Tools.open(
                settings,
                Bucket(settings.bucket),
                catalog,
                lambda _, done, total: progress.update(task, completed=done, total=total),
            )
            if only != "redis":
                edge = warm_sources(tools, sources, force=force)
            if only != "edge" and settings.redis.url is not None:
                redis = {one: warm_redis(tools, one, force=force) for one in sources}
    finally:
        catalog.close()
    if as_json:
        found = asdict(edge) | {"first_byte_seconds": _median(edge.first_byte_seconds)}
        print_json({**found, "redis": {one: asdict(found) for one, found in redis.items()}})
    else:
        if only != "redis":
            _print_pass(edge)
        _print_cached(redis)
    if only == "redis" and settings.redis.url is None:
        print(_NO_REDIS, file=sys.stderr)
    failed = edge.failures or edge.unsigned or any(one.reason for one in redis.values())
    return 1 if failed else 0


def _median(seconds: list[float]) -> float | None:
    return median(seconds) if seconds else None


def _print_cached(found: Mapping[str, Cached]) -> None:
    for source, one in found.items():
        dropped = f", dropped {one.dropped} older" if one.dropped else ""
        print(f"{source}: gave Redis {one.published} manifests{dropped}")
        if one.reason:
            print(f"{source}: not all of it: {one.reason}", file=sys.stderr)


def _print_pass(found: Pass) -> None:
    for source in found.without_edge:
        print(f"{source}: no base_url is set, so there is no edge to warm", file=sys.stderr)
    for source, why in found.unsigned.items():
        print(f"{source}: is private, and its URLs cannot be signed: {why}", file=sys.stderr)
    print(
        f"asked for {found.asked} files ({size(found.bytes)}): {found.hits} hits,"
        f" {found.misses} misses, {found.failures} not warmed"
    )
    if found.first_byte_seconds:
        protocols = ", ".join(f"{count} by {name}" for name, count in found.protocols.items())
        wait = (_median(found.first_byte_seconds) or 0) * 1000
        print(f"first byte after {wait:.0f} ms (median); {protocols}")
    if found.shown_failures:
        print_table(
            ("source", "key", "status", "error"),
            [tuple(row.values()) for row in found.shown_failures],
            numbers=("status",),
        )


def run_stats(settings: Settings, as_json: bool) -> int:
    """Print what the edges answered last, by source, and how Redis is."""
    catalog = Catalog(settings.catalog.url)
    try:
        with catalog.read() as connection:
            rows = warmth.totals(connection)
    finally:
        catalog.close()
    for row in rows:
        row["oldest"] = row["oldest"].isoformat() if row["oldest"] else None
    redis = None if settings.redis.url is None else _redis_stats(settings)
    if as_json:
        print_json({"sources": rows, "redis": redis})
        return 0
    if rows:
        columns = ("source", "files", "asked", "warm", "hits", "misses", "oldest")
        cells = [[row[name] for name in columns] for row in rows]
        print_table(columns, cells, numbers=columns[1:-1])
    else:
        print("Nothing was published for an edge yet.")
    _print_redis(redis)
    return 0


def _redis_stats(settings: Settings) -> dict[str, Any]:
    cache = ManifestCache(settings.redis, settings.bucket.name)
    found: dict[str, Any] = {"address": shown_address(settings.redis), "reachable": False}
    try:
        found |= {"reachable": True, "reason": "", **asdict(cache.server())}
        found["counts"] = [
            {"source": source, **asdict(one), "hit_rate": _hit_rate(one)}
            for source in sorted(settings.sources)
            for one in cache.counted(source)
        ]
    except CacheError as error:
        found |= {"reachable": False, "reason": str(error)}
    finally:
        cache.close()
    return found


def _hit_rate(counted: Counted) -> float:
    return round(counted.hits / (counted.hits + counted.misses), 4)


def _print_redis(found: Mapping[str, Any] | None) -> None:
    if found is None:
        return
    print(f"\nRedis at {found['address']}", end=": ")
    if not found["reachable"]:
        print(f"does not answer ({found['reason']}); manifests are read from the bucket")
        return
    most = f" of {size(found['most_bytes'])}" if found["most_bytes"] else ""
    print(
        f"{found['keys']} keys, {size(found['bytes'])}{most} in memory,"
        f" {found['evicted']} dropped for want of it"
    )
    if found["counts"]:
        columns = ("source", "kind", "hits", "misses", "hit_rate")
        cells = [[row[name] for name in columns] for row in found["counts"]]
        print_table(columns, cells, numbers=columns[2:])


def run_invalidate(settings: Settings, source: str | None, as_json: bool) -> int:
    """Make Redis forget a source, or all of them. Exit code 1 if it could not be told."""
    sources = [source] if source else sorted(settings.sources)
    reason = _NO_REDIS if settings.redis.url is None else _invalidate(settings, sources)
    if as_json:
        print_json({"invalidated": [] if reason else sources, "reason": reason})
    elif reason:
        print(reason, file=sys.stderr)
    else:
        print(f"Redis has nothing of {', '.join(sources)} any more")
    return 1 if reason and settings.redis.url is not None else 0


def _invalidate(settings: Settings, sources: list[str]) -> str:
    """Why it failed; empty if it did not."""
    cache = ManifestCache(settings.redis, settings.bucket.name)
    try:
        for source in sources:
            cache.invalidate(source)
    except CacheError as error:
        return str(error)
    finally:
        cache.close()
    return ""
