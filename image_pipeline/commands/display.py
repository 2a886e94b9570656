"""Tables and progress on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from image_pipeline.delivery.wording import visible, weight

_COLORS = {"accepted": "green", "duplicate": "cyan", "rejected": "yellow", "failed": "red"}


def progress_bar() -> Progress:
    """A progress display on stderr, so that stdout stays for results."""
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def print_json(document: object) -> None:
    """JSON for scripts, on stdout; always in UTF-8, as JSON is."""
    text = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False)
    # A file name that is not UTF-8 reads as lone surrogates; their escapes are valid JSON.
    click.echo(text.encode("utf-8", "backslashreplace"))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[str] = ()
) -> None:
    """A table on stdout. Cells are shown as they are: no markup, no control characters."""
    # Into a file or a pipe there is no width to fold at.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def size(value: int | None) -> str:
    """Bytes for people; a dash for nothing."""
    return weight(value) if value else "-"


def _cell(value: object) -> Text:
    text = visible("" if value is None else str(value))
    return Text(text, style=_COLORS.get(text, ""))
