"""Commands for the intake: the service that hands out permissions to upload."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from image_pipeline.cli.options import CONFIG, JSON, settings_of


@click.group()
def intake() -> None:
    """Take uploads of web applications: the HTTP service, its keys, the bucket's CORS rule."""


@intake.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=8010, show_default=True,
    help="Port to listen on.",
)  # fmt: skip
@click.option(
    "--proxy", "proxies", multiple=True, default=("127.0.0.1",), show_default=True,
    help="Address of a proxy whose X-Forwarded-For is believed. Can be given again.",
)  # fmt: skip
@CONFIG
def serve(host: str, port: int, proxies: tuple[str, ...], config: Path | None) -> None:
    """Run the service until it is told to end. docs/intake.md describes its API.

    \b
    image-pipeline intake serve
    curl http://127.0.0.1:8010/openapi.json
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.intake import run_serve

    sys.exit(run_serve(settings_of(config), host, port, proxies))


@intake.command()
@click.argument("name")
def key(name: str) -> None:
    """Make an API key for NAME: the key, and the line of pipeline.yaml that lets it in.

    The key itself is shown once and kept nowhere.
    """
    from image_pipeline.commands.intake import run_key

    sys.exit(run_key(name))


@intake.command()
@click.option(
    "--origin", "origins", multiple=True, metavar="URL",
    help="Where the upload page is, as https://upload.example. Can be given again.",
)  # fmt: skip
@click.option("--apply", is_flag=True, help="Write the rule. Without it, it is only shown.")
@CONFIG
@JSON
def cors(origins: tuple[str, ...], apply: bool, config: Path | None, as_json: bool) -> None:
    """The bucket's CORS rules with the one by which pages may upload.

    It names the pages of intake.origins and each --origin. Rules of others are never changed.
    """
    from image_pipeline.commands.intake import run_cors

    sys.exit(run_cors(settings_of(config), origins, apply=apply, as_json=as_json))
