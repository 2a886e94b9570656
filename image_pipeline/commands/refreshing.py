"""``image-pipeline maintenance refresh`` and ``history``."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, progress_bar
from image_pipeline.commands.local import dagster_home, environment, project_folder
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.maintenance.refreshing import Refreshed, refresh
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket, StoreError

#: Images named on the terminal; ``--json`` names all.
SHOWN = 20


def run_refresh(
    settings: Settings,
    *,
    source: str | None,
    outdated: bool,
    max_objects: int | None,
    apply: bool,
    as_json: bool,
) -> int:
    """Show which images should be rendered again; with ``apply`` let the sensors ask for it.

    Exit code 0, 2 if it was refused.
    """
    catalog, bucket = Catalog(settings.catalog.url), Bucket(settings.bucket)
    try:
        with progress_bar() as bars:
            task = bars.add_task("looking for files", total=None)
            found = refresh(
                bucket,
                catalog,
                settings,
                settings.now,
                dry_run=not apply,
                outdated=outdated or None,
                source=source,
                max_objects=max_objects,
                progress=lambda _, done, total: bars.update(task, completed=done, total=total),
            )
    except (PlanRefused, StoreError) as refused:
        print(refused, file=sys.stderr)
        return 2
    finally:
        catalog.close()
    if as_json:
        print_json({"applied": apply, **found.counts, "images": found.rows})
    else:
        _print(found, apply)
    return 0


def run_history(
    settings: Settings,
    config: Path | None,
    *,
    older_than_days: float | None,
    max_objects: int | None,
    apply: bool,
    as_json: bool,
) -> int:
    """Show which runs and partitions of Dagster are old; delete them with ``apply``.

    Uses the instance of ``DAGSTER_HOME``, else the project's own.
    """
    from dagster import DagsterInstance

    from image_pipeline.assets import history
    from image_pipeline.partitions import BATCHES

    if "DAGSTER_HOME" not in os.environ:
        os.environ.update(environment(config, dagster_home(project_folder(config))))
    rules = settings.maintenance
    before = settings.now() - timedelta(days=max(rules.history_days, older_than_days or 0))
    limit = min(max_objects or rules.max_objects, rules.max_objects)
    catalog = Catalog(settings.catalog.url)
    with DagsterInstance.get() as instance:
        partitions = history.partitions_to_forget(instance, catalog, before, limit)
        runs = history.runs_to_forget(instance, partitions, before, limit)
        if apply:
            history.prune(instance, runs, partitions, before)
    catalog.close()
    rows = history.rows_by_job(runs)
    if as_json:
        document = {"applied": apply, "before": before.isoformat(), "runs": len(runs)}
        print_json({**document, "partitions": partitions, "jobs": rows})
        return 0
    print_table(history.COLUMNS, [tuple(row.values()) for row in rows], numbers=("runs",))
    said = "Deleted" if apply else "Would delete (--apply does)"
    print(
        f"\n{said}: {len(runs)} runs and {len(partitions)} partitions of {BATCHES.name} from"
        f" before {before:%Y-%m-%d}."
    )
    return 0


def _print(found: Refreshed, apply: bool) -> None:
    rows = [tuple(row.values()) for row in found.rows[:SHOWN]]
    print_table(("source", "image", "batch", "why", "fate"), rows)
    if len(found.rows) > SHOWN:
        print(f"and {len(found.rows) - SHOWN} more")
    counts = found.counts
    print(f"\n{counts['files_missing']} files are missing, {counts['chosen']} images to render.")
    if apply:
        print(f"{counts['batches_reopened']} batches are open again; sensors ask for them.")
    elif counts["chosen"]:
        print("Nothing was changed: do it with --apply.")
