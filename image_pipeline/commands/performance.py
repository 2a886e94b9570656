"""``image-pipeline report``: what the pipeline takes, and why a day was slow."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click

from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, size
from image_pipeline.commands.local import project_folder
from image_pipeline.performance.gathering import gather
from image_pipeline.performance.page import report_page
from image_pipeline.performance.publishing import publish_report
from image_pipeline.performance.report import Report, build_report
from image_pipeline.performance.wording import duration, rate, share
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import performance_page_key

#: Slowest images and slow statements printed; the page has more of them.
SHOWN = 3


def run_report(
    settings: Settings,
    out: Path | None,
    weeks: int | None,
    source: str | None,
    day: date | None,
    as_json: bool,
) -> int:
    """Print the report, and write its page to ``out``. Exit code 1 for a day that has nothing."""
    catalog = Catalog(settings.catalog.url)
    try:
        measured = gather(settings, catalog, settings.now(), weeks, source)
    finally:
        catalog.close()
    if day is not None and day not in measured.history:
        days = sorted(measured.history)
        known = f"from {days[0]} to {days[-1]}" if days else "of no day yet"
        raise click.ClickException(
            f"nothing was measured on {day}; there are measurements {known} (see --weeks)"
        )
    report = build_report(measured, day)
    if out is not None:
        out.write_text(report_page(report), encoding="utf-8")
    if as_json:
        print_json(report.as_json())
        return 0
    print_report(report)
    if out is not None:
        print(f"\nThe page with its plots: {out}")
    return 0


def print_report(report: Report) -> None:
    """The report in a few tables."""
    total = report.total
    if not report.stages:
        print("Nothing was measured yet: every batch that runs writes down what it takes.")
        return
    print(
        f"{total.images:,} images in {report.weeks} weeks; {rate(total.images_per_second)} a second"
        f" of work, {rate(total.per_core)} a worker; {size(total.bytes_in)} received,"
        f" {size(total.bytes_out)} made; {share(total.duplicate_rate)} duplicates; edge hit rate"
        f" {share(report.edge_hit_rate)}\n"
    )
    _print_stages(report)
    _print_formats(report)
    _print_slow(report)
    if report.explanation:
        print()
        for sentence in report.explanation.sentences:
            print(sentence)


def _print_stages(report: Report) -> None:
    columns = ("stage", "images", "median", "95 of 100", "clock", "share", "slowest")
    rows = [
        (
            line.stage,
            f"{line.images:,}",
            duration(line.median),
            duration(line.p95),
            duration(line.seconds) if line.share is not None else "",
            share(line.share) if line.share is not None else "",
            ", ".join(
                f"{one['key'] or 'forgotten'} {duration(one['seconds'])}"
                for one in line.slowest[:1]
            ),
        )
        for line in report.stages
    ]
    print_table(columns, rows, numbers=columns[1:-1])


def _print_formats(report: Report) -> None:
    if report.formats:
        columns = ("format", "bytes", "of the originals", "saved beside JPEG")
        rows = [
            (one.format, size(one.bytes), share(one.share), share(one.saved_beside_jpeg))
            for one in report.formats
        ]
        print()
        print_table(columns, rows, numbers=columns[1:])


def _print_slow(report: Report) -> None:
    found = report.slow_queries
    number = "1 catalog query" if len(found) == 1 else f"{len(found)} catalog queries"
    print(f"\n{number} took {report.slow_milliseconds:g} ms or more")
    if found:
        rows = [
            (duration(row["worst"]), row["count"], row["stage"], row["statement"][:200])
            for row in found[:SHOWN]
        ]
        print_table(("worst", "times", "stage", "statement"), rows, numbers=("worst", "times"))


def rehearse(settings: Settings, config: Path | None, bucket: Bucket) -> int:
    """The report of the demo's own run: printed, put into the bucket, and kept as a file."""
    catalog = Catalog(settings.catalog.url)
    try:
        report = publish_report(settings, bucket, catalog, settings.now())
    finally:
        catalog.close()
    print_report(report)
    path = project_folder(config) / ".data" / "performance.html"
    path.write_bytes(bucket.get(performance_page_key()))
    print(f"\nThe page with its plots: {path}, and s3://{bucket.name}/{performance_page_key()}")
    return 0 if report.total.images else 1
