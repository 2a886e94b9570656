"""What happens by the clock."""

from __future__ import annotations

import dagster as dg

from image_pipeline.jobs import (
    HOUSEKEEPING,
    look_at_ledger,
    mirror_to_nas,
    report_performance,
    warm_edges,
)
from image_pipeline.settings import Crons, Settings

hourly_ledger = dg.ScheduleDefinition(
    name="hourly_ledger",
    job=look_at_ledger,
    cron_schedule="7 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: how many uploads wait, failed or were rejected.",
)

hourly_warming = dg.ScheduleDefinition(
    name="hourly_warming",
    job=warm_edges,
    cron_schedule="22 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: the edges are asked for published files that are due.",
)


def housekeeping_schedules(crons: Crons) -> list[dg.ScheduleDefinition]:
    """A schedule for each job of housekeeping, at the time that the settings say (UTC)."""
    return [_by_clock(job, getattr(crons, name)) for name, job in HOUSEKEEPING.items()]


def optional_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Schedules of the optional parts that are switched on, at the times of the settings (UTC)."""
    found = []
    if settings.mirror.host:
        found.append(_by_clock(mirror_to_nas, settings.mirror.cron))
    if settings.performance.enabled:
        found.append(_by_clock(report_performance, settings.performance.cron))
    return found


def _by_clock(job: dg.UnresolvedAssetJobDefinition, cron: str) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=job.name,
        job=job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=job.description,
    )
