"""Jobs: the one that takes a batch from uploads to manifests, and those that run by the clock."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from image_pipeline.assets.classes import (
    lifecycle_rules,
    storage_class_moves,
    storage_class_plan,
)
from image_pipeline.assets.cleanup import cleanup_report
from image_pipeline.assets.delivery import cache_warm_manifests
from image_pipeline.assets.history import history_prune
from image_pipeline.assets.housekeeping import orphaned_objects, storage_inventory
from image_pipeline.assets.ingest import deduped_images, raw_uploads, upload_ledger
from image_pipeline.assets.mirror import nas_mirror
from image_pipeline.assets.mockups import mockups
from image_pipeline.assets.performance import performance_report
from image_pipeline.assets.refreshing import renditions_refresh
from image_pipeline.assets.renditions import renditions
from image_pipeline.assets.warmth import cache_warmth

#: The terminal shows progress and warnings; every event is in the UI anyway.
_LOG = {"loggers": {"console": {"config": {"log_level": "INFO"}}}}


def _job(
    name: str,
    description: str,
    *assets: dg.AssetsDefinition,
    tags: Mapping[str, str] | None = None,
) -> dg.UnresolvedAssetJobDefinition:
    """A job of some assets.

    Steps run inside the run's own process: starting one for each would cost seconds per step,
    and the work that needs isolation happens in worker processes anyway.
    """
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*assets),
        description=description,
        executor_def=dg.in_process_executor,
        config=_LOG,
        tags=tags,
    )


process_batch = _job(
    "process_batch",
    "Takes one batch of uploads all the way to published manifests, and warms them.",
    raw_uploads,
    deduped_images,
    renditions,
    cache_warm_manifests,
    cache_warmth,
    # A retry by Dagster runs every step again: each does only what is missing.
    tags={"dagster/retry_strategy": "ALL_STEPS"},
)
look_at_ledger = _job(
    "look_at_ledger", "Counts uploads by state, so that a growing backlog shows as a plot.",
    upload_ledger,
)  # fmt: skip
warm_edges = _job(
    "warm_edges",
    "Asks the edges for published files that are due; one source or all, by hand.",
    cache_warmth,
)
compose_mockups = _job(
    "compose_mockups", "Composes published designs onto the templates of their sources.", mockups
)
mirror_to_nas = _job(
    "mirror_to_nas",
    "Copies what is new to the SFTP server, and moves what is gone to its trash.",
    nas_mirror,
)
report_performance = _job(
    "report_performance",
    "Writes the report on what the pipeline takes, and why a day was slow.",
    performance_report,
)


def _housekeeping(
    name: str, description: str, *assets: dg.AssetsDefinition
) -> dg.UnresolvedAssetJobDefinition:
    return _job(
        name,
        f"{description} Without 'dry_run: false' it only shows what it would do.",
        *assets,
        # Of these one at a time: see deploy/dagster.yaml.
        tags={"image_pipeline/kind": "housekeeping"},
    )


clean_up = _housekeeping(
    "clean_up",
    "Looks for objects that nobody refers to, moves them to the trash, and empties it in time.",
    storage_inventory,
    orphaned_objects,
    cleanup_report,
)
move_classes = _housekeeping(
    "move_classes",
    "Moves originals that nobody has used for long to colder, cheaper storage.",
    storage_class_plan,
    storage_class_moves,
)
check_lifecycle = _housekeeping(
    "check_lifecycle", "Compares the bucket's lifecycle rules with what they should be.",
    lifecycle_rules,
)  # fmt: skip
refresh_renditions = _housekeeping(
    "refresh_renditions", "Has files rendered again that are missing or of an older recipe.",
    storage_inventory, renditions_refresh,
)  # fmt: skip
prune_history = _housekeeping(
    "prune_history", "Removes old runs, events, ticks and finished partitions from Dagster.",
    history_prune,
)  # fmt: skip

#: By the names of their cron expressions in the settings.
HOUSEKEEPING = {
    "cleanup": clean_up,
    "classes": move_classes,
    "lifecycle": check_lifecycle,
    "refresh": refresh_renditions,
    "history": prune_history,
}
