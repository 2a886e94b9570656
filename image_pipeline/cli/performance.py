"""The command for what the pipeline takes, and why."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import click

from image_pipeline.cli.options import CONFIG, JSON, check_source, settings_of


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page with its plots to this file: one HTML file, to be opened from disk.",
)
@click.option(
    "--weeks", type=click.IntRange(1, 104), help="Go back so far. [default: performance.weeks]"
)
@click.option("--source", help="Only this source. [default: all together]")
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Explain this day (of UTC). [default: that of the last week with most to explain]",
)
@CONFIG
@JSON
def report(
    out: Path | None,
    weeks: int | None,
    source: str | None,
    day: datetime | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show what the stages take, slow images and queries, and why a day was slow.

    \b
    image-pipeline report --out report.html
    image-pipeline report --day 2026-11-17
    image-pipeline report --json | jq '.explanation.sentences[]'
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.performance import run_report

    settings = settings_of(config)
    check_source(settings, source)
    chosen = day.date() if day else None
    sys.exit(run_report(settings, out, weeks, source, chosen, as_json))
