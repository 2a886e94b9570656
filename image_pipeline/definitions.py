"""Everything Dagster loads, listed by hand."""

from __future__ import annotations

from typing import TypeVar

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
from image_pipeline.jobs import (
    HOUSEKEEPING,
    compose_mockups,
    look_at_ledger,
    mirror_to_nas,
    process_batch,
    report_performance,
    warm_edges,
)
from image_pipeline.resources import ParquetTables, PipelineResource
from image_pipeline.schedules import (
    hourly_ledger,
    hourly_warming,
    housekeeping_schedules,
    optional_schedules,
)
from image_pipeline.sensors import (
    build_alert_sensor,
    build_event_sensor,
    build_mockup_sensor,
    build_upload_sensor,
)
from image_pipeline.settings import Settings, load_settings
from image_pipeline.stages.templates import wants_mockups

T = TypeVar("T")

ASSETS = (
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
)


@dg.definitions
def pipeline() -> dg.Definitions:
    """The image pipeline, as the settings say."""
    settings = load_settings()
    return dg.Definitions(
        assets=[*ASSETS, *_optional(settings, mockups, nas_mirror, performance_report)],
        jobs=[
            process_batch,
            look_at_ledger,
            warm_edges,
            *HOUSEKEEPING.values(),
            *_optional(settings, compose_mockups, mirror_to_nas, report_performance),
        ],
        sensors=_sensors(settings),
        schedules=[
            hourly_ledger,
            hourly_warming,
            *housekeeping_schedules(settings.maintenance.crons),
            *optional_schedules(settings),
        ],
        resources={"pipeline": PipelineResource(), "tables": ParquetTables()},
    )


def _optional(settings: Settings, of_mockups: T, of_mirror: T, of_report: T) -> list[T]:
    """What belongs to optional parts that the settings switch on."""
    parts = (
        (of_mockups, wants_mockups(settings)),
        (of_mirror, settings.mirror.host),
        (of_report, settings.performance.enabled),
    )
    return [part for part, is_on in parts if is_on]


def _sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """One for each source; those for events and alerts only where they are configured."""
    sensors = [build_upload_sensor(source, settings) for source in settings.sources]
    if settings.discovery.queue_url:
        sensors.append(build_event_sensor(settings))
    if wants_mockups(settings):
        sensors.append(build_mockup_sensor(settings))
    if settings.alerts.any:
        sensors.append(build_alert_sensor(settings))
    return sensors
