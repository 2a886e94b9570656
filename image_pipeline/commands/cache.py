"""``image-pipeline cache``: what the edge holds, and making it hold it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from statistics import median

from image_pipeline.catalog import warmth
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, progress_bar, size
from image_pipeline.settings import Settings
from image_pipeline.stages.tools import Tools
from image_pipeline.stages.warming import Pass, warm_sources
from image_pipeline.store.bucket import Bucket


def run_warm(settings: Settings, source: str | None, force: bool, as_json: bool) -> int:
    """Ask the edges for what is due. Exit code 1 if some of it could not be warmed."""
    catalog = Catalog(settings.catalog.url)
    try:
        with progress_bar() as progress:
            task = progress.add_task("warming", total=None)
            tools = Tools.open(
                settings,
                Bucket(settings.bucket),
                catalog,
                lambda _, done, total: progress.update(task, completed=done),
            )
            sources = [source] if source else sorted(settings.sources)
            found = warm_sources(tools, sources, force=force)
    finally:
        catalog.close()
    if as_json:
        print_json(asdict(found))
    else:
        _print_pass(found)
    return 1 if found.failures else 0


def _print_pass(found: Pass) -> None:
    for source in found.without_edge:
        print(f"{source}: no base_url is set, so there is no edge to warm", file=sys.stderr)
    print(
        f"asked for {found.asked} files ({size(found.bytes)}): {found.hits} hits,"
        f" {found.misses} misses, {found.failures} not warmed"
    )
    if found.first_byte_seconds:
        print(f"first byte after {median(found.first_byte_seconds) * 1000:.0f} ms (median)")
    if found.shown_failures:
        print_table(
            ("source", "key", "status", "error"),
            [tuple(row.values()) for row in found.shown_failures],
            numbers=("status",),
        )


def run_stats(settings: Settings, as_json: bool) -> int:
    """Print what the edges answered last, by source."""
    catalog = Catalog(settings.catalog.url)
    try:
        with catalog.read() as connection:
            rows = warmth.totals(connection)
    finally:
        catalog.close()
    for row in rows:
        row["oldest"] = row["oldest"].isoformat() if row["oldest"] else None
    if as_json:
        print_json({"sources": rows})
        return 0
    if not rows:
        print("Nothing was published for an edge yet.")
        return 0
    columns = ("source", "files", "asked", "warm", "hits", "misses", "oldest")
    print_table(columns, [[row[name] for name in columns] for row in rows], numbers=columns[1:-1])
    return 0
