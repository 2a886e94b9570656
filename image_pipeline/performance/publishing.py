"""Putting the report where people find it, and forgetting what no report will ask for."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from image_pipeline.catalog import slow_queries, timings
from image_pipeline.catalog.engine import Catalog
from image_pipeline.performance.gathering import gather
from image_pipeline.performance.page import report_page
from image_pipeline.performance.report import Report, build_report, window
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import performance_page_key

#: Weeks kept beyond those of the report: the oldest day of it still has days to be compared with
#: when somebody asks for a longer report after the fact.
SPARE_WEEKS = 4


def publish_report(
    settings: Settings, bucket: Bucket, catalog: Catalog, now: datetime, day: date | None = None
) -> Report:
    """Make the report and put its page into the bucket. Raises what the two raise."""
    report = build_report(gather(settings, catalog, now), day)
    page = report_page(report).encode()
    bucket.put(performance_page_key(), page, "text/html; charset=utf-8", "private, no-cache")
    return report


def prune_timings(settings: Settings, catalog: Catalog, now: datetime) -> dict[str, int]:
    """Remove what is older than any report; how many rows of each table went."""
    first, _ = window(now, settings.performance.weeks + SPARE_WEEKS)
    since = now - timedelta(weeks=settings.performance.weeks + SPARE_WEEKS)
    with catalog.write() as connection:
        return {
            "timings": timings.forget_before(connection, first.isoformat()),
            "slow_queries": slow_queries.forget_before(connection, since),
        }
