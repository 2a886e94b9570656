"""``image-pipeline``: for people without the UI, and for scripts.

Only the shape of the commands is here. What they do is imported when it is called: worker
processes import this package when they start, and should not pay for it.
"""

from __future__ import annotations

import sys

import click

from image_pipeline.cli.housekeeping import forget, maintenance
from image_pipeline.cli.images import dedupe, presign, process, status, upload
from image_pipeline.cli.intake import intake
from image_pipeline.cli.mirror import mirror
from image_pipeline.cli.mockups import mockup
from image_pipeline.cli.performance import report
from image_pipeline.cli.publishing import cache, cookies, duplicates, sign
from image_pipeline.cli.running import catalog, demo, dev, init, retry


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="image-pipeline")
def cli() -> None:
    """Photographs in a bucket become deduplicated, responsive, published images.

    Start with 'image-pipeline demo' (or 'make demo'); it needs no services and no account.
    """


for _command in (
    process, dedupe, upload, presign, status,
    duplicates, sign, cookies, cache,
    maintenance, forget, report,
    intake, mockup, mirror,
    demo, dev, retry, init, catalog,
):  # fmt: skip
    cli.add_command(_command)


def main() -> None:
    """Entry point: known troubles are one line on stderr and exit code 1, not a traceback."""
    from image_pipeline.store.bucket import StoreError

    try:
        cli()
    except StoreError as error:
        click.echo(f"image-pipeline: the bucket: {error}", err=True)
        sys.exit(1)
