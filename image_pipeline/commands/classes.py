"""``image-pipeline maintenance classes`` and ``lifecycle``."""

from __future__ import annotations

import sys
from typing import Any

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, progress_bar, size
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.maintenance.lifecycle import LifecycleError, bring_in_line
from image_pipeline.maintenance.moving import (
    Applied,
    Planned,
    apply_moves,
    move_rows,
    plan_classes,
    stay_rows,
    totals,
)
from image_pipeline.maintenance.orphans import INVENTORY_AGE
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.maintenance.pricing import LISTED
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket, StoreError


def run_classes(
    settings: Settings,
    *,
    source: str | None,
    older_than_days: float | None,
    max_objects: int | None,
    plan: str | None,
    apply: bool,
    as_json: bool,
) -> int:
    """Plan moves from an inventory of today, or take ``plan``; move what it names with ``apply``.

    Exit code 0, 1 if some objects could not be moved, 2 if the plan was refused.
    """
    catalog, bucket = Catalog(settings.catalog.url), Bucket(settings.bucket)
    planned: Planned | None = None
    applied: Applied | None = None
    try:
        with progress_bar() as bars:
            task = bars.add_task("classes", total=None)

            def progress(_: str, done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

            if plan is None:
                if not _has_inventory(catalog, settings):
                    take_inventory(bucket, catalog, settings, settings.now, progress=progress)
                planned = plan_classes(
                    bucket,
                    catalog,
                    settings,
                    settings.now,
                    source=source,
                    older_than_days=older_than_days,
                    max_objects=max_objects,
                    progress=progress,
                )
                plan = planned.plan.id
            if apply:
                applied = apply_moves(
                    bucket,
                    catalog,
                    settings,
                    settings.now,
                    plan,
                    max_objects=max_objects,
                    progress=progress,
                )
    except (PlanRefused, StoreError) as refused:
        print(refused, file=sys.stderr)
        return 2
    finally:
        catalog.close()
    if as_json:
        print_json({"plan": plan, **_planned(planned), **_applied(applied)})
    else:
        _print(plan, planned, applied)
    return 1 if applied and applied.outcomes["error"] else 0


def run_lifecycle(settings: Settings, *, apply: bool, as_json: bool) -> int:
    """Show how the bucket's lifecycle rules differ from those wanted; write them with ``apply``.

    Exit code 0, 2 if they were refused.
    """
    try:
        found = bring_in_line(Bucket(settings.bucket), settings, dry_run=not apply)
    except (LifecycleError, StoreError) as refused:
        print(refused, file=sys.stderr)
        return 2
    if as_json:
        rules = [
            {"rule": one.rule, "change": one.change, "meaning": one.meaning}
            for one in found.changes
        ]
        print_json({"drift": found.drift, "applied": found.applied, "rules": rules,
                    "diff": found.diff})  # fmt: skip
        return 0
    print_table(
        ("rule", "change", "meaning"),
        [(one.rule, one.change, one.meaning) for one in found.changes],
    )
    if found.applied:
        print(f"\n{found.drift} rules were brought in line.")
    elif found.drift:
        print(f"\n{found.drift} rules differ; write them with --apply.")
    else:
        print("\nEverything is as it should be.")
    return 0


def _has_inventory(catalog: Catalog, settings: Settings) -> bool:
    with catalog.read() as connection:
        newest = housekeeping.newest_inventories(connection, 1)
    return bool(newest) and settings.now() - newest[0].taken_at <= INVENTORY_AGE


def _planned(planned: Planned | None) -> dict[str, Any]:
    if planned is None:
        return {}
    return {
        "planned": {
            **totals(planned.moves),
            "early_deletion_spared_usd": round(planned.early_deletion, 6),
            "moves": move_rows(planned.moves),
            "stays": stay_rows(planned),
        }
    }


def _applied(applied: Applied | None) -> dict[str, Any]:
    if applied is None:
        return {}
    return {
        "applied": {
            **totals(applied.moves),
            "outcomes": dict(applied.outcomes),
            "stopped": applied.stopped,
            "errors": [{"key": key, "error": error} for key, error in applied.errors],
        }
    }


def _print(plan: str, planned: Planned | None, applied: Applied | None) -> None:
    if planned is not None:
        _print_plan(planned)
    if applied is None:
        again = f"image-pipeline maintenance classes --plan {plan} --apply"
        print(f"\nNothing was moved. Move it with: {again}")
        return
    outcomes = ", ".join(f"{number} {name}" for name, number in applied.outcomes.most_common())
    print(f"\nplan {plan}: {outcomes or 'nothing to move'}")
    for key, error in applied.errors:
        print(f"{key}: {error}", file=sys.stderr)
    if applied.stopped:
        print(applied.stopped, file=sys.stderr)


def _print_plan(planned: Planned) -> None:
    numbers = ("objects", "size", "USD saved a month", "USD once")
    print_table(
        ("from", "to", *numbers),
        [
            (
                row["from"],
                row["to"],
                row["objects"],
                size(row["bytes"]),
                f"{row['monthly_saving_usd']:.6f}",
                f"{row['once_usd']:.6f}",
            )
            for row in move_rows(planned.moves)
        ],
        numbers=numbers,
    )
    print()
    print_table(
        ("stays because", "objects", "size", "that is"),
        [
            (row["reason"], row["objects"], size(row["bytes"]), row["why"])
            for row in stay_rows(planned)
        ],
        numbers=("objects", "size"),
    )
    kept = " and the old versions that the bucket keeps" if planned.versioned else ""
    print(
        f"\nEstimated from the list prices of us-east-1 of {LISTED}; once: requests, reading{kept}."
        " Downloads by others are not known."
    )
