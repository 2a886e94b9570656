"""Everything Dagster loads, listed by hand."""

from __future__ import annotations

import dagster as dg

from image_pipeline.assets.delivery import cache_warm_manifests
from image_pipeline.assets.ingest import deduped_images, raw_uploads, upload_ledger
from image_pipeline.assets.renditions import renditions
from image_pipeline.assets.warmth import cache_warmth
from image_pipeline.jobs import look_at_ledger, process_batch, warm_edges
from image_pipeline.resources import ParquetTables, PipelineResource
from image_pipeline.schedules import hourly_ledger, hourly_warming
from image_pipeline.sensors import build_upload_sensor
from image_pipeline.settings import load_settings


@dg.definitions
def pipeline() -> dg.Definitions:
    """The image pipeline, as the settings say."""
    settings = load_settings()
    return dg.Definitions(
        assets=[
            raw_uploads,
            deduped_images,
            renditions,
            cache_warm_manifests,
            cache_warmth,
            upload_ledger,
        ],
        jobs=[process_batch, look_at_ledger, warm_edges],
        sensors=[build_upload_sensor(source, settings) for source in settings.sources],
        schedules=[hourly_ledger, hourly_warming],
        resources={"pipeline": PipelineResource(), "tables": ParquetTables()},
    )
