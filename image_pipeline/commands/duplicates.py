"""``image-pipeline duplicates``: which uploads share their variants, and people's word on it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import near as catalog_near
from image_pipeline.catalog import reports
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, size
from image_pipeline.settings import Settings
from image_pipeline.stages.reporting import near_stars
from image_pipeline.stages.separating import (
    Separation,
    SeparationError,
    find_image,
    rejoin,
    split,
)
from image_pipeline.stages.tools import utc_now

TIERS = ("bytes", "pixels", "picture")


def run_list(
    settings: Settings, source: str | None, tier: str | None, limit: int, as_json: bool
) -> None:
    """Print groups with their evidence, pictures that are near, and totals."""
    found: dict[str, list[dict[str, Any]]] = {"groups": [], "near": []}
    totals: Counter[str] = Counter()
    with _catalog(settings) as catalog, catalog.read() as connection:
        for name in [source] if source else sorted(settings.sources):
            if tier != "near":
                found["groups"] += _groups(connection, name, tier, limit)
            if tier in (None, "near"):
                pairs = catalog_near.newest_near(connection, name, limit)
                stars = near_stars(connection, name, pairs)
                found["near"] += [{"source": name, **star} for star in stars]
            totals.update(_totals(connection, name))
    if as_json:
        print_json({**found, "totals": totals})
        return
    _print_groups(found["groups"])
    _print_near(found["near"])
    _print_totals(totals)


def run_split(settings: Settings, name: str, source: str | None, as_json: bool) -> int:
    """Keep an image apart from its group. Exit code 1 where that cannot be."""
    return _say(settings, name, source, as_json, split, "kept apart from")


def run_rejoin(settings: Settings, name: str, source: str | None, as_json: bool) -> int:
    """Take back what was said of an image. Exit code 1 where nothing was."""
    return _say(settings, name, source, as_json, rejoin, "no longer kept apart from")


def _say(
    settings: Settings,
    name: str,
    source: str | None,
    as_json: bool,
    act: Callable[[Catalog, Settings, str, str, datetime], Separation],
    words: str,
) -> int:
    with _catalog(settings) as catalog:
        try:
            where, image = find_image(catalog, settings, name, source)
            done = act(catalog, settings, where, image, utc_now())
        except SeparationError as error:
            print(f"image-pipeline: {error}", file=sys.stderr)
            return 1
    if as_json:
        print_json(asdict(done))
        return 0
    count = len(done.others)
    print(f"Image {done.image[:12]} of source {done.source} is {words} {count} other(s).")
    print(
        f"{len(done.regrouped)} image(s) were grouped anew; batch {done.batch} publishes what"
        " follows: the upload sensor asks for it at its next look, or materialize that partition."
    )
    return 0


@contextmanager
def _catalog(settings: Settings) -> Iterator[Catalog]:
    catalog = Catalog(settings.catalog.url)
    try:
        yield catalog
    finally:
        catalog.close()


def _groups(
    connection: sa.Connection, source: str, tier: str | None, limit: int
) -> list[dict[str, Any]]:
    canonicals = reports.canonicals_with_duplicates(connection, source, tier, limit)
    return [
        {
            "source": source,
            "canonical": group.key,
            "canonical_id": group.canonical_id,
            "members": [
                {
                    "key": one.key,
                    "image_id": one.image_id,
                    "tier": one.tier,
                    "distance": one.distance,
                    "evidence": one.evidence,
                    "bytes": one.bytes,
                }
                for one in group.duplicates
                if tier in (None, one.tier)
            ],
        }
        for group in reports.groups_of(connection, source, canonicals)
    ]


def _totals(connection: sa.Connection, source: str) -> dict[str, int]:
    """Duplicates by tier, their bytes, and what was not rendered and stored for them."""
    counted = reports.count_duplicates(connection, source)
    found = {tier: counted.get(tier, (0, 0))[0] for tier in TIERS}
    found["near"] = catalog_near.count_near(connection, source)
    found["bytes_of_duplicates"] = sum(weight for _, weight in counted.values())
    effort = reports.mean_effort(connection, source)
    stored = found["pixels"] + found["picture"]
    found["bytes_saved"] = round(stored * effort.bytes) if effort else 0
    return found


def _print_groups(groups: list[dict[str, Any]]) -> None:
    rows = [
        (group["canonical"], one["key"], one["tier"], one["evidence"], one["image_id"][:12])
        for group in groups
        for one in group["members"]
    ]
    if rows:
        print_table(("canonical", "duplicate", "tier", "evidence", "image"), rows)
        print()


def _print_near(stars: list[dict[str, Any]]) -> None:
    rows = [
        (star["canonical"], one["image"], one["transform"], f"{one['score']:.3f}", one["distance"])
        for star in stars
        for one in star["members"]
    ]
    if rows:
        columns = ("picture", "near to it", "transform", "score", "bits")
        print_table(columns, rows, numbers=("score", "bits"))
        print()


def _print_totals(totals: Counter[str]) -> None:
    if not any(totals.values()):
        print("No duplicates are known.")
        return
    tiers = ", ".join(f"{totals[tier]} by {tier}" for tier in TIERS)
    print(
        f"Duplicates: {tiers}; {totals['near']} near pairs, which share nothing."
        f" About {size(totals['bytes_saved'])} of variants were not made again for them"
        " (each taken for a mean picture of its source)."
    )
