"""What happens by the clock."""

from __future__ import annotations

import dagster as dg

from image_pipeline.jobs import HOUSEKEEPING, look_at_ledger, warm_edges
from image_pipeline.settings import Crons

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
    return [
        dg.ScheduleDefinition(
            name=job.name,
            job=job,
            cron_schedule=getattr(crons, name),
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=job.description,
        )
        for name, job in HOUSEKEEPING.items()
    ]
