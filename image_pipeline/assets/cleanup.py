"""Carrying out the plan of orphans: to the trash, and out of it when its time is over."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from image_pipeline.assets.common import OWNERS, TABLES, WEEKLY, shown_table
from image_pipeline.assets.housekeeping import (
    GROUP,
    HousekeepingConfig,
    failure,
    orphaned_objects,
    summary,
)
from image_pipeline.catalog import housekeeping
from image_pipeline.maintenance.applying import REMOVED, Applied, apply_plan
from image_pipeline.maintenance.plans import (
    AHEAD,
    Entry,
    Plan,
    PlanRefused,
    newest_plan,
    read_entries,
    read_plan,
)
from image_pipeline.maintenance.pricing import monthly_cost
from image_pipeline.maintenance.removing import ARCHIVE
from image_pipeline.maintenance.trash import RESTORING, Purged, due_for_purge, purge_trash
from image_pipeline.resources import PipelineResource
from image_pipeline.stages.tools import Tools

CLEANUP_COLUMNS = ("outcome", "objects", "bytes")
ENTRY_COLUMNS = ("key", "bytes", "reason", "storage_class")
PLAN_COLUMNS = ("plan", "objects")

#: Entries of the plan that are shown.
SHOWN = 50


@dataclass(frozen=True, slots=True)
class _Cleanup:
    """What a run did, or (``dry``) would have done."""

    dry: bool
    plan: Plan | None
    applied: Applied | None
    purged: Purged | None
    due: list[Plan]
    first: list[Entry]


@dg.asset(
    group_name=GROUP,
    kinds={"s3", "sql"},
    owners=OWNERS,
    freshness_policy=WEEKLY,
    io_manager_key=TABLES,
    deps=[orphaned_objects],
    check_specs=[
        dg.AssetCheckSpec(
            "plan_did_not_err",
            asset="cleanup_report",
            description="Nothing that was planned to be removed is referred to again.",
        )
    ],
)
def cleanup_report(
    context: dg.AssetExecutionContext, config: HousekeepingConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """What was removed, archived and kept. One row per outcome.

    Carries out the newest plan of orphans, and any that was begun and not finished, then empties
    the trash of plans whose time is over. Everything is asked about once more before it goes. A
    dry run shows what it would do.
    """
    started = time.monotonic()
    tools = pipeline.light_tools(context)
    dry = config.is_dry(tools.settings)
    try:
        done = _clean(tools, config, dry)
    except PlanRefused as refused:
        raise failure(refused) from None
    yield dg.MaterializeResult(
        value=summary(_rows(done), CLEANUP_COLUMNS),
        metadata={
            **_numbers(done),
            **_tables(done),
            "seconds": round(time.monotonic() - started, 3),
        },
        check_results=[_verdict(done.applied)],
    )
    if done.applied is not None and done.applied.stopped:
        raise dg.Failure(
            done.applied.stopped, metadata={"errors": "\n".join(done.applied.errors)},
            allow_retries=False,
        )  # fmt: skip


def _clean(tools: Tools, config: HousekeepingConfig, dry: bool) -> _Cleanup:
    parts = (tools.bucket, tools.catalog, tools.settings, tools.settings.now)
    due = due_for_purge(tools.catalog, tools.settings, tools.settings.now())
    # First, as it is due also while a plan waits to be confirmed, or cannot be read.
    purged = None if dry else purge_trash(*parts, progress=tools.progress)
    plan = _to_apply(tools, config.confirm_plan, tools.settings.now())
    first = next(read_entries(tools.bucket, plan), [])[:SHOWN] if plan else []
    if dry:
        return _Cleanup(True, plan, None, None, due, first)
    applied = None
    if plan is not None:
        applied = apply_plan(*parts, plan.id, confirm=config.confirm_plan, progress=tools.progress)
    return _Cleanup(False, plan, applied, purged, due, first)


def _to_apply(tools: Tools, confirmed: str | None, now: datetime) -> Plan | None:
    """The plan that was confirmed, else one that was begun, else the newest that is not done."""
    if confirmed is not None:
        return read_plan(tools.catalog, confirmed)
    with tools.catalog.read() as connection:
        rows = housekeeping.recent_plans(connection, "orphans", until=now + AHEAD)
    # What somebody began to put back is not removed any further by itself.
    begun = [
        row["id"]
        for row in rows
        if row["state"] == "applying" and RESTORING not in (row["results"] or {})
    ]
    if begun:
        return read_plan(tools.catalog, begun[0])
    plan = newest_plan(tools.catalog, "orphans", now)
    return plan if plan and plan.state in ("planned", "needs_confirmation") else None


def _rows(done: _Cleanup) -> list[dict[str, Any]]:
    if done.applied is None:
        planned = [("planned", done.plan.entries, done.plan.bytes)] if done.plan else []
        due = [("due_for_purge", sum(plan.entries for plan in done.due), None)] if done.due else []
        cells: list[tuple[str, int, int | None]] = [*planned, *due]
    else:
        size: dict[str, int] = {
            name: done.applied.bytes for name in REMOVED if name in done.applied.counts
        }
        cells = [(name, count, size.get(name)) for name, count in done.applied.counts.items()]
    if done.purged is not None:
        cells.append(("purged", done.purged.objects, done.purged.bytes))
    return [dict(zip(CLEANUP_COLUMNS, cell, strict=True)) for cell in cells]


def _numbers(done: _Cleanup) -> dict[str, Any]:
    """Totals for plots; every one is there every week, so that plots have no gaps."""
    counts: Mapping[str, int] = done.applied.counts if done.applied else {}
    moved = done.applied.bytes if done.applied else 0
    freed = done.purged.bytes if done.purged else 0
    saved = monthly_cost(freed, "STANDARD")
    if counts.get("archived"):
        saved += monthly_cost(moved, "STANDARD") - monthly_cost(moved, ARCHIVE)
    return {
        "dry_run": done.dry,
        "plan": done.plan.id if done.plan else "none",
        "planned": done.plan.entries if done.plan else 0,
        "removed": counts.get("trashed", 0),
        "archived": counts.get("archived", 0),
        "kept": sum(counts.values()) - sum(counts.get(name, 0) for name in (*REMOVED, "gone")),
        "skipped_now_live": counts.get("skipped_now_live", 0),
        "failed": counts.get("failed", 0) + counts.get("unclear", 0),
        "bytes_moved": moved,
        "purged": done.purged.objects if done.purged else 0,
        "bytes_freed": freed,
        "dollars_saved_a_month": round(saved, 4),
    }


def _tables(done: _Cleanup) -> dict[str, Any]:
    entries = [
        {
            "key": one.key,
            "bytes": one.size,
            "reason": one.reason,
            "storage_class": one.storage_class,
        }
        for one in done.first
    ]
    due = [{"plan": plan.id, "objects": plan.entries} for plan in done.due]
    errors = [*(done.applied.errors if done.applied else ()),
              *(done.purged.errors if done.purged else ())]  # fmt: skip
    return {
        "outcomes": shown_table(_rows(done), CLEANUP_COLUMNS),
        "entries": shown_table(entries, ENTRY_COLUMNS),
        "due_for_purge": shown_table(due, PLAN_COLUMNS),
        "errors": shown_table([{"error": one} for one in errors], ("error",)),
    }


def _verdict(applied: Applied | None) -> dg.AssetCheckResult:
    """Red where a plan was about to remove what is needed: the last look saved it."""
    live = applied.now_live if applied else 0
    return dg.AssetCheckResult(
        check_name="plan_did_not_err",
        asset_key="cleanup_report",
        passed=live == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"skipped_now_live": live},
    )
