"""``image-pipeline``: for people without the UI, and for scripts.

Only the shape of the commands is here. What they do is imported when it is called: worker
processes import this module when they start, and should not pay for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from image_pipeline.settings import CONFIG_VARIABLE, Settings, SettingsError, load_settings

_PATHS = click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Settings file; else ${CONFIG_VARIABLE}, else ./pipeline.yaml, else built-in defaults.",
)
_WORKERS = click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Worker processes. [default: as the settings say]",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="image-pipeline")
def cli() -> None:
    """Photographs in a bucket become deduplicated, responsive, published images.

    Start with 'image-pipeline demo' (or 'make demo'); it needs no services and no account.
    """


@cli.command()
@_PATHS
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the variants: one folder in it per image.",
)  # fmt: skip
@click.option("--recipe", default="web", show_default=True, help="A recipe of the settings.")
@_WORKERS
@_CONFIG
@_JSON
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

    settings = _settings(config)
    if recipe not in settings.recipes:
        known = ", ".join(sorted(settings.recipes))
        raise click.UsageError(f"there is no recipe {recipe!r} in the settings; there is: {known}")
    run_process(settings, paths, out, recipe, workers, as_json)


@cli.command()
@_PATHS
@click.option(
    "--tier",
    type=click.Choice(["bytes", "pixels", "picture", "near"]),
    default="near",
    show_default=True,
    help="The weakest evidence that counts; 'picture' is what batches act on.",
)
@_WORKERS
@_CONFIG
@_JSON
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

    run_dedupe(_settings(config), paths, tier, workers, as_json)


@cli.command()
@_PATHS
@click.option("--source", required=True, help="A source of the settings: where the files go.")
@click.option("--all", "unchecked", is_flag=True, help="Send also what is sure to be rejected.")
@_CONFIG
@_JSON
def upload(
    paths: tuple[Path, ...], source: str, unchecked: bool, config: Path | None, as_json: bool
) -> None:
    """Check files, then send them to the bucket, several at a time.

    Folders are sent with everything in them, under the names they have there. What the source
    would reject anyway (too large, empty, not an image) is named and left out; the exit code
    is then 1. Files that are in the bucket already are not sent again.
    """
    from image_pipeline.commands.upload import run_upload

    settings = _settings(config)
    _check_source(settings, source)
    sys.exit(run_upload(settings, paths, source, unchecked, as_json))


@cli.command()
@click.argument("name")
@click.option("--source", required=True, help="A source of the settings: where the file goes.")
@click.option("--type", "content_type", help="Media type. [default: by the ending of NAME]")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=15.0, show_default=True,
    help="How long the permission works.",
)  # fmt: skip
@_CONFIG
@_JSON
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

    settings = _settings(config)
    _check_source(settings, source)
    run_presign(settings, name, source, content_type, minutes, as_json)


@cli.command()
@click.option("--batch", help="One batch: every upload of it with its verdict.")
@_CONFIG
@_JSON
def status(batch: str | None, config: Path | None, as_json: bool) -> None:
    """Show what waits, runs, is done, was rejected or failed."""
    from image_pipeline.commands.status import run_status

    sys.exit(run_status(_settings(config), batch, as_json))


@cli.group()
def duplicates() -> None:
    """See which uploads share their variants, and say where that is wrong.

    \b
    An upload is a duplicate by one of these tiers, the surest first:
      bytes    the very same file
      pixels   the same pixels, other metadata or another lossless packing
      picture  the same picture, saved again or made smaller
    Pictures that only resemble another one (mirrored, turned, framed, cropped, marked) are
    'near': they are listed here, and never share anything.
    """  # noqa: D301 - click reads the escape


_SOURCE = click.option("--source", help="A source of the settings. [default: every source]")
_KEY_OR_ID = click.argument("key_or_id")


@duplicates.command("list")
@_SOURCE
@click.option(
    "--tier", type=click.Choice(("bytes", "pixels", "picture", "near")), help="Only this one."
)
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True,
    help="Groups of a source to show, the newest first; totals count all.",
)  # fmt: skip
@_CONFIG
@_JSON
def list_duplicates(
    source: str | None, tier: str | None, limit: int, config: Path | None, as_json: bool
) -> None:
    """List groups of duplicates with their evidence, pictures that are near, and totals.

    \b
    image-pipeline duplicates list --source photos --tier picture
    image-pipeline duplicates list --json | jq '.groups[].canonical'
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.duplicates import run_list

    settings = _settings(config)
    _check_source(settings, source)
    run_list(settings, source, tier, limit, as_json)


@duplicates.command()
@_KEY_OR_ID
@_SOURCE
@_CONFIG
@_JSON
def split(key_or_id: str, source: str | None, config: Path | None, as_json: bool) -> None:
    """Say that an image is not a duplicate of its group.

    KEY_OR_ID is the key of an upload, with or without the prefix of its source, or the id of
    an image (8 digits of it are enough). The image is kept apart from everybody who is in its
    group now, for ever and whatever comes later; 'rejoin' takes that back. The groups change
    at once. The image's own variants and manifests follow when its batch has run again, which
    the upload sensor asks for. An image that stands alone is kept apart from what was listed
    as near to it.
    """
    from image_pipeline.commands.duplicates import run_split

    settings = _settings(config)
    _check_source(settings, source)
    sys.exit(run_split(settings, key_or_id, source, as_json))


@duplicates.command()
@_KEY_OR_ID
@_SOURCE
@_CONFIG
@_JSON
def rejoin(key_or_id: str, source: str | None, config: Path | None, as_json: bool) -> None:
    """Take back what 'split' said of an image: it is grouped by the evidence again."""
    from image_pipeline.commands.duplicates import run_rejoin

    settings = _settings(config)
    _check_source(settings, source)
    sys.exit(run_rejoin(settings, key_or_id, source, as_json))


@cli.command()
@click.option(
    "--photos", type=click.Path(path_type=Path, exists=True),
    help="Your own files instead of generated samples.",
)  # fmt: skip
@_CONFIG
def demo(photos: Path | None, config: Path | None) -> None:
    """Run the main job once on sample photographs and show what came of each.

    Starts an S3 server on this machine (data under .data/), uploads the samples, lets the
    upload sensor form batches, and runs each through Dagster.
    """
    from image_pipeline.commands.demo import run_demo

    sys.exit(run_demo(_settings(config), config, photos))


@cli.command()
@click.option("--port", default=3000, show_default=True, help="Port of the Dagster UI.")
@click.option("--verbose", is_flag=True, help="Show the log of every Dagster process.")
@_CONFIG
def dev(port: int, verbose: bool, config: Path | None) -> None:
    """Run everything on this machine: bucket, Dagster UI, sensors and schedules.

    Runs, cursors and objects are kept under .data/ and are there again after a restart.
    End it with Ctrl-C.
    """
    from image_pipeline.commands.dev import run_dev

    sys.exit(run_dev(_settings(config), config, port, verbose))


@cli.group()
def cache() -> None:
    """Keep published files warm at the edge, and see what it holds."""


@cache.command()
@click.option("--source", help="Only this source. [default: all]")
@click.option("--force", is_flag=True, help="Also what was warmed a short while ago.")
@_CONFIG
@_JSON
def warm(source: str | None, force: bool, config: Path | None, as_json: bool) -> None:
    """Ask the edges (base_url) for published files that are due, new ones first.

    Exit code 1 if some could not be warmed; they are listed, and due again the next time.
    """
    from image_pipeline.commands.cache import run_warm

    settings = _settings(config)
    _check_source(settings, source)
    sys.exit(run_warm(settings, source, force, as_json))


@cache.command("stats")
@_CONFIG
@_JSON
def cache_stats(config: Path | None, as_json: bool) -> None:
    """Show what the edges answered last: files, hits and misses by source."""
    from image_pipeline.commands.cache import run_stats

    sys.exit(run_stats(_settings(config), as_json))


def _settings(config: Path | None) -> Settings:
    try:
        return load_settings(config)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def _check_source(settings: Settings, source: str | None) -> None:
    if source is not None and source not in settings.sources:
        known = ", ".join(sorted(settings.sources))
        raise click.UsageError(f"there is no source {source!r} in the settings; there is: {known}")


def main() -> None:
    """Entry point: known troubles are one line on stderr and exit code 1, not a traceback."""
    from image_pipeline.store.bucket import StoreError

    try:
        cli()
    except StoreError as error:
        click.echo(f"image-pipeline: the bucket: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
