"""Bar charts as geometry, to be written down as SVG by a template. All pure.

Every chart has the same frame, so that days stand above one another on the page. A bar without
a value is not drawn; one that is too small to be seen is drawn one unit high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

#: Units of the drawing: it is scaled to the column it stands in.
WIDTH, HEIGHT = 720, 190
LEFT, RIGHT, TOP, BOTTOM = 84, 4, 10, 24

#: Marks on the vertical axis above zero, about; and dates below the horizontal one, at most.
MARKS = 3
DATES = 8

#: Of the room of a day, what its bars fill.
FILL = 0.78


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: its place in the drawing, the class of its series, and what it says."""

    x: float
    y: float
    width: float
    height: float
    series: str
    text: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """A label of an axis at ``at``."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """Values of every day under a name. ``css`` is the class of their bars."""

    name: str
    css: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with what a template needs of it. ``rows`` are its figures, for the table beside."""

    id: str
    title: str
    note: str
    description: str
    bars: list[Bar]
    marks: list[Mark]
    dates: list[Mark]
    series: Sequence[Series]
    rows: list[tuple[date, list[str]]]


def bar_chart(
    name: str,
    title: str,
    note: str,
    days: Sequence[date],
    series: Sequence[Series],
    say: Callable[[float], str],
    *,
    chosen: date | None = None,
    overlaid: bool = False,
    round_up: Callable[[float], float] | None = None,
) -> Chart:
    """A chart of one bar a day and series; ``overlaid`` ones stand before one another.

    ``say`` puts a value into words, ``round_up`` finds the end of the axis. Of overlaid series the
    greatest has to come first.
    """
    greatest = max((v for one in series for v in one.values if v is not None), default=0.0)
    top = (round_up or next_round)(greatest)
    room = (WIDTH - LEFT - RIGHT) / max(len(days), 1)
    lanes = 1 if overlaid else len(series)
    width = room * FILL / lanes
    bars = []
    for number, one in enumerate(series):
        lane = 0 if overlaid else number
        for position, (day, value) in enumerate(zip(days, one.values, strict=True)):
            if value:
                height = max(_height(value, top), 1.0)
                x = LEFT + position * room + room * (1 - FILL) / 2 + lane * width
                text = f"{day:%a} {day.day} {day:%b %Y}, {one.name}: {say(value)}"
                y = HEIGHT - BOTTOM - height
                bars.append(
                    Bar(round(x, 2), round(y, 2), round(width, 2), round(height, 2), one.css, text,
                        day == chosen)
                )  # fmt: skip
    return Chart(
        id=name,
        title=title,
        note=note,
        description=_described(days, series, say),
        bars=bars,
        marks=[Mark(round(HEIGHT - BOTTOM - _height(v, top), 2), say(v)) for v in _marks(top)],
        dates=_dates(days, room),
        series=series,
        rows=_rows(days, series, say),
    )


def _height(value: float, top: float) -> float:
    return value / top * (HEIGHT - TOP - BOTTOM) if top else 0.0


def next_round(value: float) -> float:
    """The next of 1, 2, 3, 4, 6, 8 times a power of ten: a third or a half of it is short too."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    # A value may be a hair above the number it stands for.
    return next(n * power for n in (1, 2, 3, 4, 6, 8, 10) if n * power >= value * (1 - 1e-9))


def next_duration(value: float) -> float:
    """The next number of seconds that reads well, and so does half of it."""
    long = (60, 120, 240, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 86_400, 172_800)
    if value <= long[0] / 2:
        return next_round(value)
    days = 172_800 * math.ceil(value / 172_800)
    return float(next((one for one in long if one >= value), days))


def _marks(top: float) -> list[float]:
    return [top * n / 2 for n in range(1, MARKS)] if top else []


def _dates(days: Sequence[date], room: float) -> list[Mark]:
    """Every so many whole weeks, counted from the last day."""
    weeks = max(1, math.ceil(len(days) / 7 / DATES))
    return [
        Mark(round(LEFT + (position + 0.5) * room, 2), f"{day.day} {day:%b}")
        for position, day in enumerate(days)
        if (len(days) - 1 - position) % (7 * weeks) == 0
    ]


def _described(days: Sequence[date], series: Sequence[Series], say: Callable[[float], str]) -> str:
    """The chart in a sentence, for those who do not see it."""
    said = []
    for one in series:
        known = [(v, day) for day, v in zip(days, one.values, strict=True) if v is not None]
        if known:
            greatest, at = max(known)
            newest, _ = known[-1]
            said.append(
                f"{one.name}: most on {at.day} {at:%B} with {say(greatest)}, last {say(newest)}"
            )
    return "; ".join(said) or "nothing was measured"


def _rows(
    days: Sequence[date], series: Sequence[Series], say: Callable[[float], str]
) -> list[tuple[date, list[str]]]:
    """Newest first, without days of which nothing is known."""
    rows = []
    for position in range(len(days) - 1, -1, -1):
        values = [one.values[position] for one in series]
        if any(values):
            rows.append((days[position], [say(v) if v is not None else "\u2013" for v in values]))
    return rows
