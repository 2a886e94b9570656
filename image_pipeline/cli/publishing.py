"""Commands for what is published: who shares it, who may see it, where it is cached."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from image_pipeline.cli.options import CONFIG, JSON, SOURCE, check_source, settings_of


@click.group()
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


_KEY_OR_ID = click.argument("key_or_id")


@duplicates.command("list")
@SOURCE
@click.option(
    "--tier", type=click.Choice(("bytes", "pixels", "picture", "near")), help="Only this one."
)
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True,
    help="Groups of a source to show, the newest first; totals count all.",
)  # fmt: skip
@CONFIG
@JSON
def list_duplicates(
    source: str | None, tier: str | None, limit: int, config: Path | None, as_json: bool
) -> None:
    """List groups of duplicates with their evidence, pictures that are near, and totals.

    \b
    image-pipeline duplicates list --source photos --tier picture
    image-pipeline duplicates list --json | jq '.groups[].canonical'
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.duplicates import run_list

    settings = settings_of(config)
    check_source(settings, source)
    run_list(settings, source, tier, limit, as_json)


@duplicates.command()
@_KEY_OR_ID
@SOURCE
@CONFIG
@JSON
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

    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(run_split(settings, key_or_id, source, as_json))


@duplicates.command()
@_KEY_OR_ID
@SOURCE
@CONFIG
@JSON
def rejoin(key_or_id: str, source: str | None, config: Path | None, as_json: bool) -> None:
    """Take back what 'split' said of an image: it is grouped by the evidence again."""
    from image_pipeline.commands.duplicates import run_rejoin

    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(run_rejoin(settings, key_or_id, source, as_json))


_MINUTES = click.option(
    "--minutes",
    type=click.FloatRange(0, 7 * 24 * 60, min_open=True),
    help="How long it works. [default: delivery.signing.minutes]",
)


@click.command()
@click.argument("wanted", metavar="KEY_OR_ID")
@click.option("--source", help="A private source. [default: the only one]")
@_MINUTES
@CONFIG
@JSON
def sign(
    wanted: str, source: str | None, minutes: float | None, config: Path | None, as_json: bool
) -> None:
    """Print URLs of a private source that work for a while.

    Of an image, by its id (64 characters): its manifest with every URL signed. Of any other object,
    by its key: its URL. CloudFront's signature where the source has a base_url, else one of S3.

    \b
    curl -o a.avif "$(image-pipeline sign variants/3f.../small-640x427.a1b2.avif)"
    image-pipeline sign 3f... --source contracts --minutes 5 --json | jq -r .html
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.signing import run_sign

    settings = settings_of(config)
    if source is not None:
        check_source(settings, source)
    sys.exit(run_sign(settings, wanted, source, minutes, as_json))


@click.command()
@click.option("--source", required=True, help="A private source with a base_url.")
@_MINUTES
@CONFIG
@JSON
def cookies(source: str, minutes: float | None, config: Path | None, as_json: bool) -> None:
    """Print the three CloudFront cookies that open every file of a private source.

    They are for a server to send to a visitor who may see the source; URLs then need no signature
    of their own. docs/signing.md says on which host they have to be set.
    """
    from image_pipeline.commands.signing import run_cookies

    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(run_cookies(settings, source, minutes, as_json))


@click.group()
def cache() -> None:
    """Keep published files warm at the edge and manifests in Redis, and see what they hold."""


@cache.command()
@click.option("--source", help="Only this source. [default: all]")
@click.option("--force", is_flag=True, help="Also what was warmed a short while ago.")
@click.option(
    "--only", type=click.Choice(["edge", "redis"]), help="Only one of the two. [default: both]"
)
@CONFIG
@JSON
def warm(
    source: str | None, force: bool, only: str | None, config: Path | None, as_json: bool
) -> None:
    """Ask the edges (base_url) for published files that are due, new ones first, and give Redis
    the manifests that it does not have.

    Exit code 1 if some could not be warmed; they are listed, and due again the next time.
    """  # noqa: D205 - click shows it as one paragraph
    from image_pipeline.commands.cache import run_warm

    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(run_warm(settings, source, force, as_json, only))


@cache.command("stats")
@CONFIG
@JSON
def cache_stats(config: Path | None, as_json: bool) -> None:
    """Show what the edges answered last, and how Redis is: memory, hits and misses by source."""
    from image_pipeline.commands.cache import run_stats

    sys.exit(run_stats(settings_of(config), as_json))


@cache.command()
@click.option("--source", help="Forget this source.")
@click.option("--all", "everything", is_flag=True, help="Forget all sources.")
@CONFIG
@JSON
def invalidate(source: str | None, everything: bool, config: Path | None, as_json: bool) -> None:
    """Make Redis forget a source with all its manifests, at once.

    Readers then get them from the bucket, and Redis from them. Nothing at the edge changes:
    names of files change with their contents.
    """
    from image_pipeline.commands.cache import run_invalidate

    if everything == (source is not None):
        raise click.UsageError("say either --source or --all")
    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(run_invalidate(settings, source, as_json))
