"""``image-pipeline demo --all``: after the main job, every optional part on the same pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from image_pipeline.commands import intake, mirror, mockups, performance
from image_pipeline.commands.local import local_bucket
from image_pipeline.commands.rehearsal import run_rehearsal
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket

Rehearsal = Callable[[Settings, Path | None, Bucket], int]

#: The report comes last: it tells of all the others.
PARTS: tuple[tuple[str, Rehearsal], ...] = (
    ("Intake: uploads through the HTTP service", intake.rehearse),
    ("Mockups: designs on templates", mockups.rehearse),
    ("Mirror: copies on an SFTP server", mirror.rehearse),
    ("Housekeeping: half a year of it", run_rehearsal),
    ("Performance: where the time went", performance.rehearse),
)


def run_showcase(settings: Settings, config: Path | None) -> int:
    """Rehearse all parts, one after the other; the exit code is 0, or 1 if one of them failed."""
    failed = []
    with local_bucket(settings) as bucket:
        for title, rehearse in PARTS:
            click.secho(f"\n{title}\n", bold=True)
            if rehearse(settings, config, bucket):
                failed.append(title)
    for title in failed:
        click.echo(f"failed: {title}", err=True)
    return 1 if failed else 0
