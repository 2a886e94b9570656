"""``image-pipeline status``: what the catalog knows."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from image_pipeline.catalog import batches, images, uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, size
from image_pipeline.settings import Settings


def run_status(settings: Settings, batch: str | None, as_json: bool) -> int:
    """Print the state of everything, or of one batch. Exit code 1 for an unknown batch."""
    catalog = Catalog(settings.catalog.url)
    try:
        return _one(catalog, batch, as_json) if batch else _all(catalog, as_json)
    finally:
        catalog.close()


def _all(catalog: Catalog, as_json: bool) -> int:
    with catalog.read() as connection:
        by_state = uploads.counts(connection)
        recent = batches.recent(connection)
        totals = images.totals(connection)
    if as_json:
        print_json(
            {"uploads": by_state, "batches": [_plain(row) for row in recent], "totals": totals}
        )
        return 0
    if not by_state:
        print("The catalog is empty: nothing was discovered yet. Upload something, or 'make demo'.")
        return 0
    print_table(
        ("source", "state", "uploads", "bytes"),
        [(row["source"], row["state"], row["uploads"], size(row["bytes"])) for row in by_state],
        numbers=("uploads", "bytes"),
    )
    print()
    print_table(
        ("batch", "state", "uploads", "bytes", "attempt"),
        [
            (row["id"], row["state"], row["uploads"], size(row["bytes"]), row["attempt"])
            for row in recent
        ],
        numbers=("uploads", "bytes", "attempt"),
    )
    print(
        f"\n{totals['images']} distinct images, {totals['variants']} variants"
        f" ({size(totals['variant_bytes'])})"
    )
    return 0


def _one(catalog: Catalog, batch: str, as_json: bool) -> int:
    with catalog.read() as connection:
        record = batches.get(connection, batch)
        rows = uploads.report(connection, batch)
    if record is None:
        print(f"There is no batch {batch!r}; 'image-pipeline status' lists them.", file=sys.stderr)
        return 1
    if as_json:
        state = {name: getattr(record, name) for name in record.__slots__}
        print_json({"batch": _plain(state), "uploads": [_plain(row) for row in rows]})
        return 0
    print(f"{record.id}: {record.state}, attempt {record.attempt}")
    print_table(
        ("upload", "verdict", "reason", "pixels", "bytes", "seconds"),
        [
            (
                row["key"],
                row["verdict"] or "processing",
                row["message"] or row["reason"],
                f"{row['width']}x{row['height']}" if row["width"] else "-",
                size(row["bytes"]),
                f"{row['seconds']:.1f}",
            )
            for row in rows
        ],
        numbers=("pixels", "bytes", "seconds"),
    )
    return 0


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
