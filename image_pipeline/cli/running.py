"""Commands that run the pipeline, and get its databases ready."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from image_pipeline.cli.options import CONFIG, JSON, SOURCE, check_source, settings_of


@click.command()
@click.option(
    "--photos", type=click.Path(path_type=Path, exists=True),
    help="Your own files instead of generated samples.",
)  # fmt: skip
@click.option(
    "--housekeeping", is_flag=True,
    help="Then rehearse half a year of housekeeping on a copy, with a clock that runs ahead.",
)  # fmt: skip
@click.option(
    "--all", "everything", is_flag=True,
    help="Then show every optional part: intake, mockups, mirror, housekeeping, report.",
)  # fmt: skip
@CONFIG
def demo(photos: Path | None, housekeeping: bool, everything: bool, config: Path | None) -> None:
    """Run the main job once on sample photographs and show what came of each.

    Starts an S3 server on this machine (data under .data/), uploads the samples, lets the
    upload sensor form batches, and runs each through Dagster.
    """
    from image_pipeline.commands.demo import run_demo

    settings = settings_of(config)
    code = run_demo(settings, config, photos)
    if everything:
        from image_pipeline.commands.showcase import run_showcase

        code = run_showcase(settings, config) or code
    elif housekeeping:
        from image_pipeline.commands.rehearsal import run_rehearsal

        code = run_rehearsal(settings, config) or code
    sys.exit(code)


@click.command()
@click.option("--port", default=3000, show_default=True, help="Port of the Dagster UI.")
@click.option("--verbose", is_flag=True, help="Show the log of every Dagster process.")
@CONFIG
def dev(port: int, verbose: bool, config: Path | None) -> None:
    """Run everything on this machine: bucket, Dagster UI, sensors and schedules.

    Runs, cursors and objects are kept under .data/ and are there again after a restart.
    End it with Ctrl-C.
    """
    from image_pipeline.commands.dev import run_dev

    sys.exit(run_dev(settings_of(config), config, port, verbose))


@click.command()
@click.argument("batches", nargs=-1, metavar="[BATCH]...")
@click.option("--given-up", is_flag=True, help="Every batch that ran out of attempts.")
@SOURCE
@JSON
@CONFIG
def retry(
    batches: tuple[str, ...], given_up: bool, source: str | None, as_json: bool, config: Path | None
) -> None:
    """Try batches again that were given up, by name or all of them with --given-up.

    Each has all its attempts again, and does only what is missing. The upload sensors start
    the runs.
    """
    from image_pipeline.commands.retry import run_retry

    if bool(batches) == given_up:
        raise click.UsageError("name batches, or say --given-up")
    if batches and source:
        raise click.UsageError("--source goes with --given-up")
    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(run_retry(settings, batches, source, as_json))


@click.command()
@CONFIG
def init(config: Path | None) -> None:
    """Get everything ready for a deployment: migrations and the bucket. Safe to repeat."""
    from image_pipeline.commands.init import run_init

    sys.exit(run_init(settings_of(config)))


@click.group()
def catalog() -> None:
    """Make the catalog again from the bucket, if the database is lost."""


@catalog.command("rebuild")
@click.option("--into", help="SQLAlchemy URL of an empty catalog. [default: catalog.url]")
@CONFIG
@JSON
def rebuild_catalog(into: str | None, config: Path | None, as_json: bool) -> None:
    """Fill an empty catalog with what the bucket knows: batches, images, duplicates, files.

    Batches that were not finished run again. A catalog that has anything in it is refused.

    \b
    image-pipeline catalog rebuild
    image-pipeline catalog rebuild --into sqlite:////tmp/compare.db
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.catalog import run_rebuild

    run_rebuild(settings_of(config), into, as_json)
