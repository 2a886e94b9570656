"""The report, from what was measured to what is shown. All pure; what comes out is plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from image_pipeline.performance.explanation import Explanation, explain, slowest_day
from image_pipeline.performance.history import STAGES, WORK, Day, History, together

#: Days of which the one that has most to explain is explained, if nobody names a day.
RECENT_DAYS = 7


@dataclass(frozen=True, slots=True)
class Measured:
    """What the catalog and Redis know of a window of days; see the functions they come from.

    ``edge`` are rows by source (:func:`image_pipeline.catalog.warmth.totals`), ``redis`` counters
    by source and kind, None without a Redis or while it does not answer.
    """

    now: datetime
    weeks: int
    history: History
    slowest: Sequence[Mapping[str, Any]]
    slow_queries: Sequence[Mapping[str, Any]]
    edge: Sequence[Mapping[str, Any]]
    redis: Sequence[Mapping[str, Any]] | None
    slow_milliseconds: float
    source: str | None = None


@dataclass(frozen=True, slots=True)
class StageLine:
    """A stage over the whole window: seconds per image, and images per second of its clock.

    ``share`` of the work of all stages, 0-1; None for those that are none. ``per_core`` are images
    per second and worker. ``slowest`` are images with ``key``, ``seconds``, ``batch``, ``day``.
    """

    stage: str
    runs: int
    images: int
    seconds: float
    share: float | None
    median: float | None
    p95: float | None
    images_per_second: float | None
    per_core: float | None
    slowest: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FormatLine:
    """What the files of a format weigh, that were made in the window.

    ``share`` of the bytes of the originals they were made from; ``saved_beside_jpeg`` what they
    save against JPEG files of the same pictures and sizes, 0-1, None where there are none.
    """

    format: str
    bytes: int
    share: float | None
    saved_beside_jpeg: float | None


@dataclass(frozen=True, slots=True)
class Span:
    """A day or a week: ``first`` day, images, their pace, and what they weighed and waited."""

    first: date
    images: int
    seconds: float
    images_per_second: float | None
    per_core: float | None
    wait_median: float | None
    wait_p95: float | None
    render_median: float | None
    render_p95: float | None
    bytes_in: int
    bytes_out: int
    duplicate_rate: float | None
    failed: int
    retries: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the page, the terminal and the UI show. Rates are None without images."""

    now: datetime
    weeks: int
    source: str | None
    total: Span
    rendered_bytes: int
    stages: list[StageLine]
    formats: list[FormatLine]
    duplicates: dict[str, int]
    edge: list[dict[str, Any]]
    edge_hit_rate: float | None
    redis: list[dict[str, Any]] | None
    slow_milliseconds: float
    slow_queries: list[dict[str, Any]]
    by_day: list[Span]
    by_week: list[Span]
    explanation: Explanation | None

    def as_json(self) -> dict[str, Any]:
        """Plain data, days and times as texts."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def window(now: datetime, weeks: int) -> tuple[date, date]:
    """The first and the last day of a report of ``weeks`` whole weeks that end with today."""
    last = now.date()
    return last - timedelta(days=7 * weeks - 1), last


def build_report(measured: Measured, day: date | None = None) -> Report:
    """The report. ``day`` is to be explained; without one it is that of the last week which has
    most to explain. ``KeyError`` for a day of which nothing was measured.
    """  # noqa: D205 - one thought
    history = measured.history
    first, last = window(measured.now, measured.weeks)
    whole = together(history.values())
    recent = [last - timedelta(days=n) for n in range(RECENT_DAYS)]
    # Until there are days to compare with, it says so of the newest.
    chosen = day or slowest_day(history, recent) or max(history, default=None)
    known = sum(row["hits"] + row["misses"] for row in measured.edge)
    return Report(
        now=measured.now,
        weeks=measured.weeks,
        source=measured.source,
        total=_span(first, whole),
        rendered_bytes=whole.of("render").bytes_in,
        stages=_stages(whole, measured.slowest),
        formats=_formats(whole),
        duplicates=_duplicates(whole),
        edge=[dict(row) for row in measured.edge],
        edge_hit_rate=_ratio(sum(row["hits"] for row in measured.edge), known),
        redis=None if measured.redis is None else [dict(row) for row in measured.redis],
        slow_milliseconds=measured.slow_milliseconds,
        slow_queries=[dict(row) for row in measured.slow_queries],
        by_day=_days(history, first, last),
        by_week=_weeks(history, first, last),
        explanation=explain(history, chosen) if chosen else None,
    )


def _stages(whole: Day, slowest: Sequence[Mapping[str, Any]]) -> list[StageLine]:
    lines = []
    for name in STAGES:
        one = whole.stages.get(name)
        if one is None:
            continue
        is_work = name in WORK
        lines.append(
            StageLine(
                stage=name,
                runs=one.runs,
                images=one.images,
                seconds=one.seconds,
                share=_ratio(one.seconds, whole.seconds) if is_work else None,
                median=one.median(),
                p95=one.p95(),
                # Uploads wait side by side: their waiting has no pace.
                images_per_second=None if name == "wait" else _ratio(one.images, one.seconds),
                per_core=_ratio(one.images, one.worker_seconds) if is_work else None,
                slowest=[dict(row) for row in slowest if row["stage"] == name],
            )
        )
    return lines


def _formats(whole: Day) -> list[FormatLine]:
    rendered = whole.of("render")
    sizes = rendered.amounts
    lines = []
    for name, size in sorted(sizes.items(), key=lambda one: -one[1]):
        kind = name.removeprefix("bytes.")
        if name != kind:
            of_jpeg = _ratio(sizes[f"own.{kind}"], sizes[f"jpeg.{kind}"])
            saved = None if of_jpeg is None else 1 - of_jpeg
            lines.append(FormatLine(kind, int(size), _ratio(size, rendered.bytes_in), saved))
    return lines


def _duplicates(whole: Day) -> dict[str, int]:
    """By tier."""
    return {
        name.removeprefix("duplicates."): int(count)
        for name, count in sorted(whole.of("dedupe").amounts.items())
    }


def _span(first: date, day: Day) -> Span:
    wait, rendered, inspected = day.of("wait"), day.of("render"), day.of("inspect")
    good = day.of("dedupe").images
    return Span(
        first=first,
        images=day.images,
        seconds=day.seconds,
        images_per_second=_ratio(day.images, day.seconds),
        per_core=_ratio(day.images, day.worker_seconds),
        wait_median=wait.median(),
        wait_p95=wait.p95(),
        render_median=rendered.median(),
        render_p95=rendered.p95(),
        bytes_in=inspected.bytes_in,
        bytes_out=rendered.bytes_out,
        duplicate_rate=_ratio(day.duplicates, good),
        failed=int(inspected.amounts["failed"]),
        retries=max((day.of(name).again for name in WORK), default=0),
    )


def _days(history: History, first: date, last: date) -> list[Span]:
    """Every day of the window, so that a plot has no holes."""
    count = (last - first).days + 1
    days = [first + timedelta(days=n) for n in range(count)]
    return [_span(day, history.get(day) or Day()) for day in days]


def _weeks(history: History, first: date, last: date) -> list[Span]:
    """Weeks that end with the last day: all of them whole."""
    starts = range(0, (last - first).days + 1, 7)
    spans = []
    for start in starts:
        days = [first + timedelta(days=start + n) for n in range(7)]
        spans.append(_span(days[0], together(history[day] for day in days if day in history)))
    return spans


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _plain(value: Any) -> Any:
    if isinstance(value, date):  # datetimes are dates
        return value.isoformat()
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
