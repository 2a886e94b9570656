"""What every asset says about itself in the same way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd

OWNERS = ["team:images"]
TABLES = "tables"

#: Rows of a table shown inside the UI: an event is stored for ever, so it stays small.
SHOWN_ROWS = 50


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a table with exactly these columns, also when there are none."""
    return pd.DataFrame.from_records(list(rows), columns=list(columns))


def verdict_counts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many uploads got which verdict; every verdict is named, so that plots have no gaps."""
    counted = Counter(row["verdict"] for row in rows)
    return {name: counted[name] for name in ("accepted", "duplicate", "rejected", "failed")}


def pace(count: int, started: float) -> dict[str, float]:
    """Seconds since ``started`` (:func:`time.monotonic`) and images per second, for plots."""
    seconds = max(time.monotonic() - started, 1e-9)
    return {"seconds": round(seconds, 3), "images_per_second": round(count / seconds, 3)}


def shown(value: object) -> str:
    """A text from outside for the UI: one line, no control or direction characters, not long.

    Dagster shows table cells and text as text; what is left to fear are characters that make
    one line look like another.
    """
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))
    return text if len(text) <= 300 else f"{text[:297]}..."


def shown_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> dg.TableMetadataValue:
    """The first rows as a table in the UI, every cell made safe to show."""
    records = [
        dg.TableRecord({name: shown(row.get(name) or "") for name in columns})
        for row in rows[:SHOWN_ROWS]
    ]
    schema = dg.TableSchema([dg.TableColumn(name) for name in columns])
    return dg.MetadataValue.table(records, schema)
