"""``image-pipeline catalog``: what to do when the catalog is lost."""

from __future__ import annotations

import click

from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, progress_bar
from image_pipeline.settings import Settings
from image_pipeline.stages.exporting import RebuildError, Rebuilt, rebuild
from image_pipeline.stages.tools import utc_now
from image_pipeline.store.bucket import Bucket


def run_rebuild(settings: Settings, into: str | None, as_json: bool) -> None:
    """Rebuild an empty catalog from the bucket and print what came of it."""
    catalog = Catalog(into or settings.catalog.url)
    try:
        with progress_bar() as progress:
            task = progress.add_task("rebuilding", total=None)

            def step(stage: str, done: int, total: int) -> None:
                progress.update(task, description=stage, completed=done, total=total)

            prefixes = [source.prefix for source in settings.sources.values()]
            done = rebuild(Bucket(settings.bucket), catalog, prefixes, utc_now(), step)
    except RebuildError as error:
        raise click.ClickException(str(error)) from None
    finally:
        catalog.close()
    if as_json:
        print_json({"exports": done.exports, "rows": done.rows, "unfinished": done.unfinished})
    else:
        _print(done)


def _print(done: Rebuilt) -> None:
    if not done.exports and not done.unfinished:
        click.echo("The bucket knows of no batch: there was nothing to rebuild.")
        return
    print_table(("table", "rows"), list(done.rows.items()), numbers=("rows",))
    click.echo(f"\n{done.exports} exports read.")
    if done.unfinished:
        click.echo(f"{len(done.unfinished)} batches were not finished and will run again.")
    click.echo("Uploads that were in no batch are found by the sensors.")
