"""``image-pipeline forget``: a person wants an upload, and all that was made of it, gone."""

from __future__ import annotations

import sys

import click

from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json
from image_pipeline.maintenance.forgetting import Report
from image_pipeline.settings import Settings
from image_pipeline.stages.forgetting import ForgetError, forget
from image_pipeline.stages.tools import Tools, quiet
from image_pipeline.store.bucket import Bucket

#: Exit codes: it cannot be done; it was begun and has to be called again.
REFUSED, UNFINISHED = 1, 3


def run_forget(settings: Settings, key: str, source: str | None, yes: bool, as_json: bool) -> int:
    """Forget an upload, after asking. 0 when nothing of it is left and that was looked at."""
    if not yes and not click.confirm(
        f"Delete {key!r} and everything made of it for good? This cannot be undone", err=True
    ):
        return REFUSED
    catalog = Catalog(settings.catalog.url)
    try:
        tools = Tools.open(settings, Bucket(settings.bucket), catalog, quiet)
        report = forget(tools, key, source)
    except ForgetError as error:
        print(f"image-pipeline: {error}", file=sys.stderr)
        return REFUSED
    finally:
        catalog.close()
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    return 0 if report.complete else UNFINISHED


def _print(report: Report) -> None:
    print(f"{report.key} of source {report.source}:")
    for title, lines in (
        ("removed", report.removed),
        ("written anew", report.rewritten),
        ("kept", report.kept),
        ("waits", report.pending),
        ("STILL THERE", report.remains),
        ("to be purged at the edge", report.urls),
    ):
        for line in lines:
            print(f"  {title}: {line}")
    looked = ", ".join(f"{count} in {place}" for place, count in report.looked_at.items())
    if report.complete:
        print(f"Nothing of it is left; looked at every row of the catalog and {looked}.")
    else:
        print("It is not forgotten yet: run the same command again.")
