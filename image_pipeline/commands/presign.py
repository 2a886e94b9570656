"""``image-pipeline presign``: permission for one upload from a browser."""

from __future__ import annotations

import mimetypes
import shlex

import click

from image_pipeline.commands.display import print_json
from image_pipeline.ingest.presigning import Permission, RefusedError, presigned_post
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket


def run_presign(
    settings: Settings,
    name: str,
    source: str,
    content_type: str | None,
    minutes: float,
    as_json: bool,
) -> None:
    """Print where to POST which fields; as a curl command, or as JSON for a web application."""
    kind = content_type or mimetypes.guess_type(name)[0] or ""
    if not kind:
        raise click.UsageError(f"the type of {name!r} is not known: name it with --type")
    bucket = Bucket(settings.bucket)
    try:
        permission = presigned_post(bucket, settings.sources[source], name, kind, minutes)
    except RefusedError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        print_json(
            {
                "url": permission.url,
                "fields": permission.fields,
                "key": permission.key,
                "max_bytes": permission.max_bytes,
                "minutes": permission.minutes,
            }
        )
    else:
        click.echo(_curl(permission, name))


def _curl(permission: Permission, name: str) -> str:
    """A command that does what a browser's form would do."""
    fields = [f"-F {shlex.quote(f'{key}={value}')}" for key, value in permission.fields.items()]
    lines = ["curl --fail-with-body", *fields, f"-F {shlex.quote(f'file=@{name}')}"]
    return " \\\n  ".join([*lines, shlex.quote(permission.url)])
