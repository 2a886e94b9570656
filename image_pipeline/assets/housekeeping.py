"""Housekeeping: what lies in the bucket, and what of it nobody refers to."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from image_pipeline.assets.common import OWNERS, TABLES, WEEKLY, shown_table
from image_pipeline.maintenance.inventory import Group, Inventory, Total, take_inventory
from image_pipeline.maintenance.planning import Planned, Scope, look_for_orphans
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.resources import PipelineResource
from image_pipeline.settings import Settings
from image_pipeline.store.layout import plan_key

GROUP = "housekeeping"

INVENTORY_COLUMNS = (
    "prefix", "storage_class", "kind", "referred_to_by", "orphan", "objects", "bytes",
)  # fmt: skip
ORPHAN_COLUMNS = ("outcome", "reason", "objects", "bytes")
ENTRY_COLUMNS = ("key", "bytes", "reason", "written", "first_seen", "last_seen", "storage_class")

_TYPES = {"objects": "Int64", "bytes": "Int64", "orphan": "boolean"}


class HousekeepingConfig(dg.Config):
    """What a run of housekeeping does. Empty fields mean: as the settings say."""

    dry_run: bool | None = Field(
        default=None, description="Only show what would be done. Empty: as maintenance.dry_run."
    )
    older_than_days: float | None = Field(
        default=None, ge=0, description="Can only make the grace periods of the settings longer."
    )
    source: str | None = Field(default=None, description="One source; all of them if empty.")
    archive_instead_of_delete: bool = Field(
        default=False, description="Move to an archive class instead of the trash."
    )
    max_objects: int | None = Field(
        default=None, gt=0, description="At most so many objects; fewer than the settings say."
    )
    confirm_plan: str | None = Field(
        default=None, description="The id of a plan that has to be confirmed before it is applied."
    )

    def is_dry(self, settings: Settings) -> bool:
        """Whether nothing is to be done but shown."""
        return settings.maintenance.dry_run if self.dry_run is None else self.dry_run

    @property
    def scope(self) -> Scope:
        """What a plan of orphans is to be about."""
        return Scope(
            self.older_than_days, self.source, self.max_objects, self.archive_instead_of_delete
        )


def failure(refused: PlanRefused) -> dg.Failure:
    """A refusal as the end of a run: red, with what to do, and not tried again by itself."""
    return dg.Failure(refused.message, metadata={"code": refused.code}, allow_retries=False)


def summary(rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """A table of totals with exactly these columns and always the same types."""
    frame = pd.DataFrame.from_records(list(rows), columns=list(columns))
    return frame.astype({name: _TYPES.get(name, "string") for name in columns})


@dg.asset(
    group_name=GROUP,
    kinds={"s3", "parquet"},
    owners=OWNERS,
    freshness_policy=WEEKLY,
    io_manager_key=TABLES,
)
def storage_inventory(
    context: dg.AssetExecutionContext, pipeline: PipelineResource
) -> dg.MaterializeResult[Any]:
    """Every object of the bucket and who refers to it. One row per prefix, class and reason.

    The objects themselves are a Parquet file in the bucket, named in the metadata: a table of
    millions of rows is nothing to pass on. A listing that fails on any page is no inventory.
    """
    started = time.monotonic()
    tools = pipeline.light_tools(context)
    try:
        found = take_inventory(
            tools.bucket, tools.catalog, tools.settings, tools.settings.now, tools.progress
        )
    except PlanRefused as refused:
        raise failure(refused) from None
    rows = [
        dict(zip(INVENTORY_COLUMNS, (*group, total.objects, total.bytes), strict=True))
        for group, total in sorted(found.groups.items())
    ]
    orphans = [
        {"key": one.key, "bytes": one.size, "reason": one.by, "written": one.last_modified}
        for one in found.orphans
    ]
    return dg.MaterializeResult(
        value=summary(rows, INVENTORY_COLUMNS),
        metadata={
            **_inventory_numbers(found),
            "seconds": round(time.monotonic() - started, 3),
            "inventory": found.id,
            "origin": found.origin,
            "taken_at": dg.MetadataValue.timestamp(found.taken_at),
            "every_object": dg.MetadataValue.url(f"s3://{tools.bucket.name}/{found.key}"),
            "by_prefix_class_and_reason": shown_table(rows, INVENTORY_COLUMNS),
            "nobody_refers_to": shown_table(orphans, ("key", "bytes", "reason", "written")),
        },
    )


@dg.asset(
    group_name=GROUP,
    kinds={"s3", "sql"},
    owners=OWNERS,
    io_manager_key=TABLES,
    deps=[storage_inventory],
    check_specs=[
        dg.AssetCheckSpec(
            "needs_no_confirmation",
            asset="orphaned_objects",
            description="The plan is of a usual size, and the inventory did not shrink.",
        )
    ],
)
def orphaned_objects(
    context: dg.AssetExecutionContext, config: HousekeepingConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """The plan: what nobody refers to and may be removed. One row per outcome and reason.

    Nothing is removed here. The run fails, with what to do, where the catalog, the inventory or
    the clock cannot be relied on. A plan of an unusual size is made, but its check is red and it
    is applied only when it is confirmed by its id.
    """
    started = time.monotonic()
    tools = pipeline.light_tools(context)
    try:
        found = look_for_orphans(
            tools.bucket,
            tools.catalog,
            tools.settings,
            tools.settings.now,
            config.scope,
            tools.progress,
        )
    except PlanRefused as refused:
        raise failure(refused) from None
    rows = _outcomes(found)
    entries = [
        {
            "key": one.key,
            "bytes": one.size,
            "reason": one.reason,
            "written": one.last_modified,
            "first_seen": one.first_at,
            "last_seen": one.last_at,
            "storage_class": one.storage_class,
        }
        for one in found.shown
    ]
    yield dg.MaterializeResult(
        value=summary(rows, ORPHAN_COLUMNS),
        metadata={
            **_plan_numbers(found),
            "seconds": round(time.monotonic() - started, 3),
            "plan": found.plan.id,
            "state": found.plan.state,
            "inventory": found.plan.inventory_id,
            "sha256": found.plan.digest,
            "every_entry": dg.MetadataValue.url(
                f"s3://{tools.bucket.name}/{plan_key(found.plan.id)}"
            ),
            "outcomes": shown_table(rows, ORPHAN_COLUMNS),
            "entries": shown_table(entries, ENTRY_COLUMNS),
        },
        check_results=[_confirmation(found)],
    )


def _inventory_numbers(found: Inventory) -> dict[str, Any]:
    """Totals for plots: in all, by class, by what nobody refers to and why."""
    orphans = _sum(found.groups, lambda group: group.orphan)
    foreign = _sum(found.groups, lambda group: group.kind == "foreign")
    numbers: dict[str, Any] = {
        "objects": found.objects,
        "bytes": found.bytes,
        "unreferenced_objects": orphans.objects,
        "unreferenced_bytes": orphans.bytes,
        "unreferenced_share": round(orphans.objects / max(found.objects, 1), 6),
        "foreign_objects": foreign.objects,
        "foreign_bytes": foreign.bytes,
    }
    for name in sorted({group.storage_class for group in found.groups}):
        total = _sum(found.groups, lambda group, name=name: group.storage_class == name)
        numbers[f"objects_in_{name}"] = total.objects
        numbers[f"bytes_in_{name}"] = total.bytes
    for reason in sorted({group.by for group in found.groups if group.orphan}):
        total = _sum(found.groups, lambda group, reason=reason: group.by == reason)
        numbers[f"objects_{reason}"] = total.objects
    return numbers


def _sum(groups: Mapping[Group, Total], wanted: Any) -> Total:
    chosen = [total for group, total in groups.items() if wanted(group)]
    return Total(sum(one.objects for one in chosen), sum(one.bytes for one in chosen))


def _plan_numbers(found: Planned) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "objects": found.plan.entries,
        "bytes": found.plan.bytes,
        "share": round(found.plan.share, 6),
        "kept": sum(found.kept.values()),
    }
    numbers.update((f"objects_{name}", total.objects) for name, total in found.by_reason.items())
    numbers.update((f"kept_{name}", count) for name, count in sorted(found.kept.items()))
    return numbers


def _outcomes(found: Planned) -> list[dict[str, Any]]:
    planned = [
        {"outcome": "planned", "reason": reason, "objects": total.objects, "bytes": total.bytes}
        for reason, total in sorted(found.by_reason.items())
    ]
    kept = [
        {"outcome": "kept", "reason": guard, "objects": count, "bytes": None}
        for guard, count in sorted(Counter(found.kept).items())
    ]
    return planned + kept


def _confirmation(found: Planned) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"plan": found.plan.id, "share": round(found.plan.share, 6)}
    if found.doubts:
        metadata["why"] = "; ".join(found.doubts)
        metadata["to_go_on"] = f"look at the entries, then confirm the plan as {found.plan.id}"
    return dg.AssetCheckResult(
        check_name="needs_no_confirmation",
        asset_key="orphaned_objects",
        passed=not found.doubts,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )
