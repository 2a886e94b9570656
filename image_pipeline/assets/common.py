"""What every asset says about itself in the same way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd

from image_pipeline.delivery.wording import visible

OWNERS = ["team:images"]
TABLES = "tables"

#: Rows of a table shown inside the UI: an event is stored for ever, so it stays small.
SHOWN_ROWS = 50


#: What a column of a table holds; every other one is text. Fixed, so that the schema of a
#: partition does not depend on its rows. Nullable: rejects have no pixels.
_KINDS = {
    **dict.fromkeys(
        ("width", "height", "bytes", "distance", "quality", "uploads", "aliases", "variants"),
        "Int64",
    ),
    "seconds": "Float64",
}


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a table with exactly these columns and always the same types."""
    frame = pd.DataFrame.from_records(list(rows), columns=list(columns))
    return frame.astype({name: _KINDS.get(name, "string") for name in columns})


def verdict_counts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many uploads got which verdict; every verdict is named, so that plots have no gaps."""
    counted = Counter(row["verdict"] for row in rows)
    return {name: counted[name] for name in ("accepted", "duplicate", "rejected", "failed")}


def pace(count: int, started: float) -> dict[str, float]:
    """Seconds since ``started`` (:func:`time.monotonic`) and images per second, for plots."""
    seconds = max(time.monotonic() - started, 1e-9)
    return {"seconds": round(seconds, 3), "images_per_second": round(count / seconds, 3)}


def shown(value: object) -> str:
    """A text from outside for the UI: one line, nothing invisible, not long.

    Dagster shows table cells as text; what is left to fear are characters that make one name
    look like another.
    """
    text = visible(str(value))
    return text if len(text) <= 300 else f"{text[:297]}..."


def shown_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> dg.TableMetadataValue:
    """The first rows as a table in the UI, every cell made safe to show."""
    records = [
        dg.TableRecord(
            {name: shown("" if row.get(name) is None else row[name]) for name in columns}
        )
        for row in rows[:SHOWN_ROWS]
    ]
    schema = dg.TableSchema([dg.TableColumn(name) for name in columns])
    return dg.MetadataValue.table(records, schema)
