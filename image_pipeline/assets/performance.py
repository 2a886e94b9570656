"""What the pipeline takes, by stage and by day, and why a day was slow."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import dagster as dg

from image_pipeline.assets.common import OWNERS, TABLES, shown, shown_table, table
from image_pipeline.performance.publishing import publish_report
from image_pipeline.performance.report import Report, Span
from image_pipeline.performance.wording import duration
from image_pipeline.resources import PipelineResource
from image_pipeline.store.layout import performance_page_key

COLUMNS = (
    "stage", "runs", "images", "seconds", "share", "median", "p95", "images_per_second", "per_core",
)  # fmt: skip
SLOWEST_COLUMNS = ("stage", "key", "seconds", "day")
QUERY_COLUMNS = ("statement", "count", "worst", "total", "plan")

#: Every day: overdue once a night was missed, and failed with the second.
DAILY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=50), warn_window=timedelta(hours=26)
)


@dg.asset(
    group_name="housekeeping",
    kinds={"sql", "html"},
    owners=OWNERS,
    freshness_policy=DAILY,
    io_manager_key=TABLES,
)
def performance_report(
    context: dg.AssetExecutionContext, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """What stages take, trends of the last weeks, and why a day was slow. One row per stage.

    The numbers are those of the day before, which is over: plotted, they are its trend.
    """
    started = time.monotonic()
    tools = pipeline.light_tools(context)
    report = publish_report(tools.settings, tools.bucket, tools.catalog, tools.settings.now())
    lines = [asdict(line) for line in report.stages]
    frame = table(lines, COLUMNS)
    numbers = dict.fromkeys(("share", "median", "p95", "images_per_second", "per_core"), "Float64")
    yield dg.MaterializeResult(
        value=frame.astype({**numbers, "runs": "Int64", "images": "Int64"}),
        metadata={
            **_numbers(report.by_day[-2]),
            "slow_queries": len(report.slow_queries),
            "why": _why(report),
            "stages": shown_table([_in_words(line) for line in lines], COLUMNS),
            "slowest_images": shown_table(
                [one for line in report.stages for one in line.slowest], SLOWEST_COLUMNS
            ),
            "slow_statements": shown_table(report.slow_queries, QUERY_COLUMNS),
            "page": f"s3://{tools.bucket.name}/{performance_page_key()}",
            "seconds": round(time.monotonic() - started, 3),
        },
    )


def _numbers(span: Span) -> dict[str, Any]:
    """A day for the plots of the UI; what is not known of it leaves a gap."""
    found: dict[str, Any] = {"day": span.first.isoformat()}
    for name, value in asdict(span).items():
        if name not in ("first", "seconds") and value is not None:
            found[name] = round(value, 4) if isinstance(value, float) else value
    return {**found, "work_seconds": round(span.seconds, 3)}


def _why(report: Report) -> dg.MetadataValue[Any]:
    found = report.explanation
    sentences = found.sentences if found else ["Nothing was processed in the last week."]
    return dg.MetadataValue.text(shown_sentences(sentences))


def shown_sentences(sentences: list[str]) -> str:
    """Sentences for the UI; each made safe by itself."""
    return " ".join(map(shown, sentences))


def _in_words(line: dict[str, Any]) -> dict[str, Any]:
    """A stage for people: times with their units."""
    return {
        name: duration(value) if name in ("seconds", "median", "p95")
        else f"{value:.3g}" if isinstance(value, float) else value
        for name, value in line.items()
    }  # fmt: skip
