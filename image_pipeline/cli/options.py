"""Options that several commands have, and how they read the settings."""

from __future__ import annotations

from pathlib import Path

import click

from image_pipeline.settings import CONFIG_VARIABLE, Settings, SettingsError, load_settings

PATHS = click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Settings file; else ${CONFIG_VARIABLE}, else ./pipeline.yaml, else built-in defaults.",
)
WORKERS = click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Worker processes. [default: as the settings say]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
SOURCE = click.option("--source", help="A source of the settings. [default: every source]")


def settings_of(config: Path | None) -> Settings:
    """The settings; mistakes in them are wrong usage."""
    try:
        return load_settings(config)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def check_source(settings: Settings, source: str | None) -> None:
    """A source that is named has to be there."""
    if source is not None and source not in settings.sources:
        known = ", ".join(sorted(settings.sources))
        raise click.UsageError(f"there is no source {source!r} in the settings; there is: {known}")
