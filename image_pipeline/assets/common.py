"""What every asset says about itself in the same way."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
import pandas as pd

from image_pipeline.catalog.reports import Effort, Group
from image_pipeline.delivery.wording import visible

OWNERS = ["team:images"]
TABLES = "tables"

#: By the hour, and by the week: overdue once a turn was missed and the next one is late.
HOURLY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=3), warn_window=timedelta(minutes=90)
)
WEEKLY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(days=15), warn_window=timedelta(days=8)
)

#: Rows of a table shown inside the UI: an event is stored for ever, so it stays small.
SHOWN_ROWS = 50


#: What a column of a table holds; every other one is text. Fixed, so that the schema of a
#: partition does not depend on its rows. Nullable: rejects have no pixels.
_KINDS = {
    **dict.fromkeys(
        (
            "width", "height", "bytes", "distance", "quality", "uploads", "aliases", "variants",
            "files", "asked", "warm", "hits", "misses", "published", "failed", "rejected",
        ),
        "Int64",
    ),
    "seconds": "Float64",
}  # fmt: skip


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


#: Groups and members of each with a preview: 144 characters a preview, so an event stays small.
PREVIEWED_GROUPS = 20
PREVIEWED_MEMBERS = 6

_PREVIEW = re.compile(r"data:image/webp;base64,[A-Za-z0-9+/]{1,2000}={0,2}")


def saved_by_duplicates(duplicates: Sequence[dict[str, Any]], effort: Effort) -> dict[str, float]:
    """What duplicates did not cost, estimated: every one is taken for a mean picture.

    ``duplicates`` are uploads with ``seconds`` of work and their tier as ``reason``. Rendering one
    would have taken what the source's rendered pictures took on average; what was spent on
    recognising them is taken off. Of equal bytes nothing is ever stored twice, so that only the
    other tiers save storage.
    """
    own = sum(row["seconds"] for row in duplicates)
    stored = sum(row["reason"] != "bytes" for row in duplicates)
    return {
        "cpu_seconds_saved": round(max(0.0, len(duplicates) * effort.seconds - own), 3),
        "bytes_saved_by_duplicates": round(stored * effort.bytes),
    }


def group_previews(groups: Sequence[Group]) -> dg.MetadataValue[Any]:
    """Small pictures of groups, each canonical beside its duplicates; the first ones only."""
    if not groups:
        return dg.MetadataValue.text("no duplicates")
    lines = ["| canonical | duplicates |", "|---|---|"]
    for group in groups[:PREVIEWED_GROUPS]:
        members = [
            _preview(one.placeholder, f"{one.key}: {one.tier}, {one.evidence}")
            for one in group.duplicates[:PREVIEWED_MEMBERS]
        ]
        more = len(group.duplicates) - len(members)
        lines.append(
            f"| {_preview(group.placeholder, group.key)} {_escaped(group.key)} |"
            f" {' '.join(members)}{f' and {more} more' if more else ''} |"
        )
    if len(groups) > PREVIEWED_GROUPS:
        lines.append(f"| and {len(groups) - PREVIEWED_GROUPS} more groups | |")
    return dg.MetadataValue.md("\n".join(lines))


def _preview(placeholder: str, text: str) -> str:
    """A placeholder as a picture; only what cannot be anything else."""
    if not _PREVIEW.fullmatch(placeholder):
        return ""
    return f"![{_escaped(text)}]({placeholder})"


def _escaped(text: str) -> str:
    """A text from outside inside Markdown: every punctuation mark escaped (CommonMark 2.4)."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", shown(text))
