"""What ``demo`` and ``dev`` need on this machine: embedded servers and a Dagster home."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from image_pipeline.embedded import EmbeddedS3, EmbeddedServerError
from image_pipeline.embedded_valkey import EmbeddedValkey
from image_pipeline.settings import CONFIG_VARIABLE, EMBEDDED, Settings, find_config
from image_pipeline.store.bucket import Bucket


def project_folder(config: Path | None) -> Path:
    """The folder of ``pipeline.yaml``, which also holds ``dagster.yaml`` and ``.data``."""
    found = find_config(config)
    folder = found.parent.resolve() if found else Path.cwd()
    for name in ("dagster.yaml", "workspace.yaml"):
        if not (folder / name).is_file():
            raise click.ClickException(
                f"there is no {name} in {folder}: run this in a checkout of the project,"
                " or name its pipeline.yaml with --config"
            )
    return folder


@contextmanager
def local_bucket(settings: Settings) -> Iterator[Bucket]:
    """The configured bucket; embedded servers are started, also the one for manifests."""
    with ExitStack() as servers:
        if settings.bucket.endpoint_url == EMBEDDED:
            server = EmbeddedS3(settings.bucket.data)
            try:
                servers.enter_context(server)
            except EmbeddedServerError as error:
                raise click.ClickException(str(error)) from None
        if settings.redis.url == EMBEDDED:
            try:
                servers.enter_context(EmbeddedValkey(settings.redis.data))
            except EmbeddedServerError as error:
                # All works without it, only manifests are read from the bucket.
                click.echo(f"There is no Redis: {error}", err=True)
        bucket = Bucket(settings.bucket)
        bucket.create_if_missing()
        yield bucket


def dagster_home(folder: Path) -> Path:
    """A Dagster home under ``.data`` that uses the ``dagster.yaml`` of the project.

    Without a home Dagster forgets runs, cursors and partitions when it ends; with a home
    elsewhere it would not read the project's file. So the home holds a link to it.
    """
    home = folder / ".data" / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    link = home / "dagster.yaml"
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(folder / "dagster.yaml", home))
    return home


def environment(config: Path | None, home: Path) -> dict[str, str]:
    """Variables by which Dagster's processes find the same settings and home."""
    found = find_config(config)
    variables = {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    if found:
        variables[CONFIG_VARIABLE] = str(found.resolve())
    return variables
