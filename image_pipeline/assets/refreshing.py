"""Images that are rendered again: their files are missing, or of an older recipe."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from image_pipeline.assets.common import OWNERS, TABLES, shown_table, table
from image_pipeline.assets.housekeeping import (
    GROUP,
    HousekeepingConfig,
    failure,
    storage_inventory,
)
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.maintenance.refreshing import refresh
from image_pipeline.resources import PipelineResource

COLUMNS = ("source", "image_id", "batch_id", "reason", "fate")


@dg.asset(
    group_name=GROUP,
    kinds={"s3", "sql"},
    owners=OWNERS,
    io_manager_key=TABLES,
    deps=[storage_inventory],
)
def renditions_refresh(
    context: dg.AssetExecutionContext, config: HousekeepingConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Images that should be rendered again, and what becomes of each. One row per image.

    Their batches are opened again; the upload sensors ask for them after all new uploads.
    """
    started = time.monotonic()
    tools = pipeline.light_tools(context)
    dry_run = config.is_dry(tools.settings)
    try:
        found = refresh(
            tools.bucket,
            tools.catalog,
            tools.settings,
            tools.settings.now,
            dry_run=dry_run,
            source=config.source,
            max_objects=config.max_objects,
            progress=tools.progress,
        )
    except PlanRefused as refused:
        raise failure(refused) from None
    yield dg.MaterializeResult(
        value=table(found.rows, COLUMNS),
        metadata={
            **found.counts,
            "dry_run": dry_run,
            "inventory": f"{found.inventory_id} of {found.taken_at:%Y-%m-%d %H:%M} UTC",
            "seconds": round(time.monotonic() - started, 3),
            "images": shown_table(found.rows, COLUMNS),
        },
    )
