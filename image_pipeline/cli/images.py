"""Commands for pictures: on this machine, and on their way into the bucket."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from image_pipeline.cli.options import CONFIG, JSON, PATHS, WORKERS, check_source, settings_of


@click.command()
@PATHS
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the variants: one folder in it per image.",
)  # fmt: skip
@click.option("--recipe", default="web", show_default=True, help="A recipe of the settings.")
@WORKERS
@CONFIG
@JSON
def process(
    paths: tuple[Path, ...],
    out: Path,
    recipe: str,
    workers: int | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Render local files or folders: no bucket, no catalog, no Dagster.

    Every file gets a verdict. A file that is refused does not change the exit code 0.

    \b
    image-pipeline process ~/Pictures --out /tmp/variants
    image-pipeline process a.jpg b.heic --out out --json | jq '.images[].verdict'
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.process import run_process

    settings = settings_of(config)
    if recipe not in settings.recipes:
        known = ", ".join(sorted(settings.recipes))
        raise click.UsageError(f"there is no recipe {recipe!r} in the settings; there is: {known}")
    run_process(settings, paths, out, recipe, workers, as_json)


@click.command()
@PATHS
@click.option(
    "--tier",
    type=click.Choice(["bytes", "pixels", "picture", "near"]),
    default="near",
    show_default=True,
    help="The weakest evidence that counts; 'picture' is what batches act on.",
)
@WORKERS
@CONFIG
@JSON
def dedupe(
    paths: tuple[Path, ...], tier: str, workers: int | None, config: Path | None, as_json: bool
) -> None:
    """Show which local files are the same picture. Nothing is changed or deleted.

    Every group has a canonical, the file best worth keeping, and members, each with the evidence
    that was found, from the surest to the weakest:

    \b
    bytes    the same file under another name
    pixels   the same pixels; other metadata, or packed otherwise
    picture  the same picture, saved again or scaled
    near     mirrored, turned, framed, with a logo, cropped a little: look before you act

    Files that are no pictures are listed with the reason and do not change the exit code 0.

    \b
    image-pipeline dedupe ~/Pictures
    image-pipeline dedupe ~/Pictures /mnt/card --tier picture
    image-pipeline dedupe . --json | jq -r '.groups[].members[] | select(.tier == "bytes").path'
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.dedupe import run_dedupe

    run_dedupe(settings_of(config), paths, tier, workers, as_json)


@click.command()
@PATHS
@click.option("--source", required=True, help="A source of the settings: where the files go.")
@click.option("--all", "unchecked", is_flag=True, help="Send also what is sure to be rejected.")
@CONFIG
@JSON
def upload(
    paths: tuple[Path, ...], source: str, unchecked: bool, config: Path | None, as_json: bool
) -> None:
    """Check files, then send them to the bucket, several at a time.

    Folders are sent with everything in them, under the names they have there. What the source
    would reject anyway (too large, empty, not an image) is named and left out; the exit code
    is then 1. Files that are in the bucket already are not sent again.
    """
    from image_pipeline.commands.upload import run_upload

    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(run_upload(settings, paths, source, unchecked, as_json))


@click.command()
@click.argument("name")
@click.option("--source", required=True, help="A source of the settings: where the file goes.")
@click.option("--type", "content_type", help="Media type. [default: by the ending of NAME]")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=15.0, show_default=True,
    help="How long the permission works.",
)  # fmt: skip
@CONFIG
@JSON
def presign(
    name: str,
    source: str,
    content_type: str | None,
    minutes: float,
    config: Path | None,
    as_json: bool,
) -> None:
    """Permit one upload from a browser, without credentials: a presigned POST.

    Exactly one file, of this type, no larger than the source allows, under a key that is
    chosen here. Printed as a curl command, or as the JSON that a web application hands on.

    \b
    image-pipeline presign holiday.jpg --source photos
    image-pipeline presign holiday.jpg --source photos --minutes 5 --json
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.presign import run_presign

    settings = settings_of(config)
    check_source(settings, source)
    run_presign(settings, name, source, content_type, minutes, as_json)


@click.command()
@click.option("--batch", help="One batch: every upload of it with its verdict.")
@CONFIG
@JSON
def status(batch: str | None, config: Path | None, as_json: bool) -> None:
    """Show what waits, runs, is done, was rejected or failed."""
    from image_pipeline.commands.status import run_status

    sys.exit(run_status(settings_of(config), batch, as_json))
