"""Originals on their way to colder storage, and the rules the bucket keeps house with."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd

from image_pipeline.assets.common import OWNERS, TABLES, shown, shown_table
from image_pipeline.assets.housekeeping import (
    GROUP,
    HousekeepingConfig,
    failure,
    storage_inventory,
)
from image_pipeline.maintenance.lifecycle import LifecycleError, bring_in_line
from image_pipeline.maintenance.moving import (
    Applied,
    apply_moves,
    move_rows,
    plan_classes,
    stay_rows,
    totals,
)
from image_pipeline.maintenance.plans import PlanRefused, newest_plan
from image_pipeline.maintenance.pricing import LISTED
from image_pipeline.resources import PipelineResource

MOVE_COLUMNS = ("from", "to", "objects", "bytes", "monthly_saving_usd", "once_usd")
STAY_COLUMNS = ("reason", "objects", "bytes", "why")
RULE_COLUMNS = ("rule", "change", "meaning")

#: What columns hold; all others are text.
_KINDS = {"objects": "Int64", "bytes": "Int64", "monthly_saving_usd": "Float64",
          "once_usd": "Float64"}  # fmt: skip

_NOTE = (
    f"Money is estimated from the list prices of us-east-1 of {LISTED}. The last use of an original"
    " is its upload, its verdict or its last rendering; downloads by others are not known."
)


@dg.asset(
    group_name=GROUP,
    kinds={"s3", "sql"},
    owners=OWNERS,
    io_manager_key=TABLES,
    deps=[storage_inventory],
)
def storage_class_plan(
    context: dg.AssetExecutionContext, config: HousekeepingConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[pd.DataFrame]]:
    """Which originals would move to colder storage, and what that saves. One row per way."""
    tools = pipeline.light_tools(context)
    try:
        found = plan_classes(
            tools.bucket,
            tools.catalog,
            tools.settings,
            tools.settings.now,
            source=config.source,
            older_than_days=config.older_than_days,
            max_objects=config.max_objects,
            progress=tools.progress,
        )
    except PlanRefused as refused:
        raise failure(refused) from None
    rows, stays = move_rows(found.moves), stay_rows(found)
    yield dg.MaterializeResult(
        value=_table(rows, MOVE_COLUMNS),
        metadata={
            "plan": dg.MetadataValue.text(found.plan.id),
            **totals(found.moves),
            "early_deletion_spared_usd": round(found.early_deletion, 6),
            "staying": sum(row["objects"] for row in stays),
            "moves": shown_table(rows, MOVE_COLUMNS),
            "stays": shown_table(stays, STAY_COLUMNS),
            "note": dg.MetadataValue.text(_NOTE + (_VERSIONS if found.versioned else "")),
        },
    )


@dg.asset(
    group_name=GROUP,
    kinds={"s3", "sql"},
    owners=OWNERS,
    io_manager_key=TABLES,
    deps=[storage_class_plan],
)
def storage_class_moves(
    context: dg.AssetExecutionContext, config: HousekeepingConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[pd.DataFrame]]:
    """What of the newest plan was moved, each object only if it still is as planned."""
    tools = pipeline.light_tools(context)
    dry_run = config.is_dry(tools.settings)
    plan = newest_plan(tools.catalog, "classes", tools.settings.now())
    if plan is None:
        raise dg.Failure("there is no plan: materialize storage_class_plan", allow_retries=False)
    applied = Applied(plan.id)
    if not dry_run and plan.entries:
        try:
            applied = apply_moves(
                tools.bucket,
                tools.catalog,
                tools.settings,
                tools.settings.now,
                plan.id,
                max_objects=config.max_objects,
                progress=tools.progress,
            )
        except PlanRefused as refused:
            raise failure(refused) from None
    rows = move_rows(applied.moves)
    yield dg.MaterializeResult(
        value=_table(rows, MOVE_COLUMNS),
        metadata={
            "plan": dg.MetadataValue.text(plan.id),
            "dry_run": dry_run,
            "planned": plan.entries,
            **totals(applied.moves),
            "already_moved": applied.outcomes["already"],
            "skipped": sum(applied.outcomes[one] for one in ("changed", "gone", "in_use")),
            "archived": applied.outcomes["archived"],
            "errors": applied.outcomes["error"],
            "moves": shown_table(rows, MOVE_COLUMNS),
            "first_errors": shown_table(
                [{"key": key, "error": error} for key, error in applied.errors], ("key", "error")
            ),
        },
    )
    if applied.outcomes["error"]:
        # After the result: what was moved is moved, and shown.
        raise dg.Failure(applied.stopped or "some objects could not be moved: apply the plan again")


@dg.asset(group_name=GROUP, kinds={"s3"}, owners=OWNERS, io_manager_key=TABLES)
def lifecycle_rules(
    context: dg.AssetExecutionContext, config: HousekeepingConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[pd.DataFrame]]:
    """What the bucket's lifecycle configuration should say, beside rules of others."""
    tools = pipeline.light_tools(context)
    dry_run = config.is_dry(tools.settings)
    try:
        found = bring_in_line(tools.bucket, tools.settings, dry_run=dry_run)
    except LifecycleError as refused:
        raise dg.Failure(str(refused), allow_retries=False) from None
    rows = [
        {"rule": one.rule, "change": one.change, "meaning": one.meaning} for one in found.changes
    ]
    yield dg.MaterializeResult(
        value=_table(rows, RULE_COLUMNS),
        metadata={
            "dry_run": dry_run,
            "rules": sum(row["change"] != "dropped" for row in rows),
            "foreign": sum(row["change"] == "foreign" for row in rows),
            "drift": found.drift,
            "applied": found.applied,
            "table": shown_table(rows, RULE_COLUMNS),
            "diff": dg.MetadataValue.text("\n".join(map(shown, found.diff.splitlines()))),
        },
    )


_VERSIONS = (
    " The bucket keeps versions: what moves leaves its old version behind, in its old class, until"
    " the bucket's own rule (lifecycle_rules) ends it. What that costs is counted."
)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(rows, columns=list(columns))
    return frame.astype({name: _KINDS.get(name, "string") for name in columns})
