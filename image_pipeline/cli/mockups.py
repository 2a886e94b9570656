"""Commands for mockups: which templates there are, whether they are good, how they look."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from image_pipeline.cli.options import CONFIG, JSON, settings_of


@click.group()
def mockup() -> None:
    """Look at templates of mockups, and at designs on them, before a source uses them.

    TEMPLATE is a local folder with a template.yaml, or the name of a template in the bucket.
    docs/mockups.md says what a template is.
    """


@mockup.command()
@click.argument("template")
@click.argument("design", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: .png, .jpg, .webp or .avif.",
)  # fmt: skip
@CONFIG
def preview(template: str, design: Path, out: Path, config: Path | None) -> None:
    """Compose the picture DESIGN onto TEMPLATE, at the size of the template's base.

    \b
    image-pipeline mockup preview ./poster sunset.jpg --out poster.png
    image-pipeline mockup preview poster sunset.jpg --out poster.webp
    """  # noqa: D301 - click reads the escape
    from image_pipeline.commands.mockups import run_preview

    sys.exit(run_preview(settings_of(config), template, design, out))


@mockup.command("list")
@CONFIG
@JSON
def list_templates(config: Path | None, as_json: bool) -> None:
    """List the templates of the bucket, the sources that use them, and what is wrong with any.

    Exit code 1 if something is.
    """
    from image_pipeline.commands.mockups import run_list

    sys.exit(run_list(settings_of(config), as_json))


@mockup.command()
@click.argument("template")
@CONFIG
@JSON
def check(template: str, config: Path | None, as_json: bool) -> None:
    """Read TEMPLATE and its pictures and say what it is, or what is wrong with it.

    Exit code 1 if something is.
    """
    from image_pipeline.commands.mockups import run_check

    sys.exit(run_check(settings_of(config), template, as_json))
