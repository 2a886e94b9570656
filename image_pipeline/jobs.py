"""Jobs: the one that takes a batch from uploads to manifests, and the look at the ledger."""

from __future__ import annotations

import dagster as dg

from image_pipeline.assets.delivery import cache_warm_manifests
from image_pipeline.assets.ingest import deduped_images, raw_uploads, upload_ledger
from image_pipeline.assets.renditions import renditions
from image_pipeline.assets.warmth import cache_warmth

#: The terminal shows progress and warnings; every event is in the UI anyway.
_LOG = {"loggers": {"console": {"config": {"log_level": "INFO"}}}}

#: Steps run inside the run's own process: starting one for each would cost seconds per step,
#: and the work that needs isolation happens in worker processes anyway.
process_batch = dg.define_asset_job(
    "process_batch",
    selection=dg.AssetSelection.assets(
        raw_uploads, deduped_images, renditions, cache_warm_manifests, cache_warmth
    ),
    description="Takes one batch of uploads all the way to published manifests, and warms them.",
    executor_def=dg.in_process_executor,
    config=_LOG,
    # A retry by Dagster runs every step again: each does only what is missing.
    tags={"dagster/retry_strategy": "ALL_STEPS"},
)

look_at_ledger = dg.define_asset_job(
    "look_at_ledger",
    selection=dg.AssetSelection.assets(upload_ledger),
    description="Counts uploads by state, so that a growing backlog shows as a plot.",
    executor_def=dg.in_process_executor,
    config=_LOG,
)

warm_edges = dg.define_asset_job(
    "warm_edges",
    selection=dg.AssetSelection.assets(cache_warmth),
    description="Asks the edges for published files that are due; one source or all, by hand.",
    executor_def=dg.in_process_executor,
    config=_LOG,
)
