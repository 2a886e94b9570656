"""``image-pipeline retry``: batches that were given up are asked for again."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import sqlalchemy as sa

from image_pipeline.catalog import batches
from image_pipeline.catalog.batches import Batch
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table
from image_pipeline.settings import Settings


def run_retry(settings: Settings, names: Sequence[str], source: str | None, as_json: bool) -> int:
    """Let the sensors ask for these batches again, or for all that were given up if none is named.

    Each has every attempt of ``batches.max_attempts`` again, and does only what is missing.
    A batch that is open comes to its end by itself and is left alone. Exit code 1, and nothing
    is changed, if there is no batch of a name.
    """
    catalog = Catalog(settings.catalog.url)
    try:
        with catalog.write() as connection:
            found = _find(connection, names, source)
            unknown = [name for name, batch in found.items() if batch is None]
            known = [batch for batch in found.values() if batch is not None]
            if not unknown:
                again = set(batches.reopen(connection, found, settings.now()))
    finally:
        catalog.close()
    if unknown:
        for name in unknown:
            print(
                f"There is no batch {name!r}; 'image-pipeline status' lists them.", file=sys.stderr
            )
        return 1
    _print(known, again, as_json)
    return 0


def _find(
    connection: sa.Connection, names: Sequence[str], source: str | None
) -> dict[str, Batch | None]:
    wanted = names or batches.given_up(connection, source)
    return {name: batches.get(connection, name) for name in wanted}


def _print(found: Sequence[Batch], again: set[str], as_json: bool) -> None:
    if as_json:
        print_json({"batches": [{"id": one.id, "retried": one.id in again} for one in found]})
        return
    if not found:
        print("No batch was given up.")
        return
    rows = [
        (one.id, one.uploads, one.state, "asked for again" if one.id in again else "still open")
        for one in found
    ]
    print_table(("batch", "uploads", "was", "now"), rows, numbers=("uploads",))
    if again:
        print("\nThe upload sensors of 'make dev', or of your deployment, start their runs.")
