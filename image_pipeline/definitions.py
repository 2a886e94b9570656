"""Everything Dagster loads, listed by hand."""

from __future__ import annotations

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
from image_pipeline.assets.refreshing import renditions_refresh
from image_pipeline.assets.renditions import renditions
from image_pipeline.assets.warmth import cache_warmth
from image_pipeline.jobs import HOUSEKEEPING, look_at_ledger, process_batch, warm_edges
from image_pipeline.resources import ParquetTables, PipelineResource
from image_pipeline.schedules import hourly_ledger, hourly_warming, housekeeping_schedules
from image_pipeline.sensors import build_alert_sensor, build_event_sensor, build_upload_sensor
from image_pipeline.settings import Settings, load_settings


@dg.definitions
def pipeline() -> dg.Definitions:
    """The image pipeline, as the settings say."""
    settings = load_settings()
    return dg.Definitions(
        assets=[
            # From uploads to what is published, batch by batch.
            raw_uploads,
            deduped_images,
            renditions,
            cache_warm_manifests,
            cache_warmth,
            upload_ledger,
            # Housekeeping, weekly and monthly.
            storage_inventory,
            orphaned_objects,
            cleanup_report,
            storage_class_plan,
            storage_class_moves,
            lifecycle_rules,
            renditions_refresh,
            history_prune,
        ],
        jobs=[process_batch, look_at_ledger, warm_edges, *HOUSEKEEPING.values()],
        sensors=_sensors(settings),
        schedules=[
            hourly_ledger,
            hourly_warming,
            *housekeeping_schedules(settings.maintenance.crons),
        ],
        resources={"pipeline": PipelineResource(), "tables": ParquetTables()},
    )


def _sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """One for each source; those for events and alerts only where they are configured."""
    sensors = [build_upload_sensor(source, settings) for source in settings.sources]
    if settings.discovery.queue_url:
        sensors.append(build_event_sensor(settings))
    if settings.alerts.any:
        sensors.append(build_alert_sensor(settings))
    return sensors
