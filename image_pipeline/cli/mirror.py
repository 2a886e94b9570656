"""``image-pipeline mirror``: copies on an SFTP server."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from image_pipeline.cli.options import CONFIG, JSON, SOURCE, check_source, settings_of


@click.group()
def mirror() -> None:
    """Copy originals and chosen variants to an SFTP server, such as a NAS."""


@mirror.command("run")
@SOURCE
@CONFIG
@JSON
def run_command(source: str | None, config: Path | None, as_json: bool) -> None:
    """Bring the server up to date, as the schedule does by the hour.

    Exit code 1 if anything could not be copied: it is listed, and due again the next time.
    """
    from image_pipeline.commands.mirror import run_mirror

    settings = settings_of(config)
    check_source(settings, source)
    sys.exit(run_mirror(settings, source, as_json))


@mirror.command("status")
@CONFIG
@JSON
def status_command(config: Path | None, as_json: bool) -> None:
    """Show what lies on the server, what waits and what fails, as the catalog knows it."""
    from image_pipeline.commands.mirror import run_status

    sys.exit(run_status(settings_of(config), as_json))
