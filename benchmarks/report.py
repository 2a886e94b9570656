"""What a benchmark found: printed as a table, kept as JSON, turned into Markdown."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import PIL
import psutil
from PIL import features
from rich.console import Console
from rich.table import Table

#: Results and the cache of photographs, in the checkout.
FOLDER = Path(".data") / "bench"

COLUMNS = ("what", "measured", "beside it", "ratio", "goal", "of goal")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``beside`` is the same figure of the other tool, ``goal`` its upper bound.

    ``goal_of`` says what the goal bounds: the figure itself, or its ratio to ``beside``.
    """

    what: str
    measured: float
    unit: str
    beside: float | None = None
    goal: float | None = None
    goal_of: Literal["figure", "ratio"] = "figure"

    @property
    def ratio(self) -> float | None:
        """The figure divided by the one beside it."""
        return self.measured / self.beside if self.beside else None

    @property
    def share_of_goal(self) -> float | None:
        """How much of what the goal allows was used: 1 is exactly on it, less is better.

        None where the goal allows nothing.
        """
        value = self.ratio if self.goal_of == "ratio" else self.measured
        return None if not self.goal or value is None else value / self.goal

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of :data:`COLUMNS`."""
        goal = ""
        if self.goal is not None:
            unit = "times" if self.goal_of == "ratio" else self.unit
            goal = f"at most {self.goal:g} {unit}"
        ratio, share = self.ratio, self.share_of_goal
        return (
            self.what,
            _amount(self.measured, self.unit),
            "" if self.beside is None else _amount(self.beside, self.unit),
            "" if ratio is None else f"{ratio:.2f}",
            goal,
            "" if share is None else f"{share:.0%}",
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """A table with columns of its own: text, of which all but the first column is figures."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """One benchmark: what stands beside what, its figures, and what to know about them."""

    name: str
    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    machine: dict[str, str] = field(default_factory=dict)
    grids: tuple[Grid, ...] = ()


def describe_machine() -> dict[str, str]:
    """The machine and the libraries that do the work; call it before the measuring begins."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    codecs = [
        f"{label} {features.version(name) or 'missing'}"
        for label, name in (
            ("libjpeg-turbo", "libjpeg_turbo"), ("libwebp", "webp"), ("libavif", "avif"),
        )
    ]  # fmt: skip
    return {
        "CPU": f"{_cpu_model()}, {cores} cores usable",
        "RAM": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "Pillow": ", ".join([PIL.__version__, *codecs]),
        # Other work on the machine is the first thing to suspect behind an odd figure.
        "load before": f"{psutil.getloadavg()[0]:.2f}",
        "measured at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def show(report: Report) -> None:
    """Print a report on stdout."""
    # Into a file or a pipe there is no width to fold at.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140)
    table = Table(title=report.title, title_justify="left", show_edge=False, pad_edge=False)
    for column in COLUMNS:
        numeric = column in ("measured", "beside it", "ratio", "of goal")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in report.rows:
        table.add_row(*row.cells())
    console.print(table)
    for grid in report.grids:
        console.print()
        console.print(_grid_table(grid))
    for note in report.notes:
        console.print(f"- {note}", style="dim", highlight=False, markup=False)
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    console.print(f"{machine}\n", style="dim", highlight=False, markup=False)


def _grid_table(grid: Grid) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for place, column in enumerate(grid.columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*row)
    return table


def save(report: Report) -> Path:
    """Keep a report as ``.data/bench/<name>.json``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{report.name}.json"
    path.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    return path


def load(name: str) -> Report | None:
    """The report kept of a benchmark, if there is one."""
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = tuple(Row(**row) for row in kept.pop("rows"))
    grids = tuple(
        Grid(tuple(grid["columns"]), tuple(map(tuple, grid["rows"])))
        for grid in kept.pop("grids", ())
    )
    return Report(rows=rows, notes=tuple(kept.pop("notes")), grids=grids, **kept)


def markdown(reports: Iterable[Report]) -> str:
    """Reports as a part of a Markdown page."""
    return "\n".join(line for report in reports for line in _markdown_lines(report))


def _markdown_lines(report: Report) -> list[str]:
    align = ["---", "---:", "---:", "---:", "---", "---:"]
    grids = [line for grid in report.grids for line in _grid_lines(grid)]
    return [
        f"## {report.title}",
        "",
        _markdown_row(COLUMNS),
        _markdown_row(align),
        *(_markdown_row(row.cells()) for row in report.rows),
        "",
        *grids,
        *(f"- {note}" for note in report.notes),
        "- " + "; ".join(f"{name}: {value}" for name, value in report.machine.items()),
        "",
    ]


def _grid_lines(grid: Grid) -> list[str]:
    align = ["---", *("---:" for _ in grid.columns[1:])]
    return [_markdown_row(grid.columns), _markdown_row(align), *map(_markdown_row, grid.rows), ""]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _amount(value: float, unit: str) -> str:
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,} {unit}".strip()
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
