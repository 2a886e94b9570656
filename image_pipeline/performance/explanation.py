"""Why a day was slow: which factors made it differ from the other days, in seconds. All pure.

The time of a stage on a day is a product::

    seconds = images x share x megabytes per image x seconds per megabyte and worker / workers

``images`` are those that arrived, ``share`` those of them that the stage had to do with (only new
ones are rendered), and the megabytes count for stages whose work grows with them. The same product
of the medians of the other days is the usual time. The difference of two products is divided
among their factors by the logarithmic mean Divisia index (LMDI-I; Ang, "The LMDI approach to
decomposition analysis", Energy Policy 33, 2005): it leaves no rest, treats all factors alike,
and two factors that changed by the same ratio get the same seconds.

What was tried again is set apart before and counted as it is. Waiting before a run is no work and
is told beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from statistics import median

from image_pipeline.performance.history import PARALLEL, WORK, Day, History
from image_pipeline.performance.wording import day_name, duration

#: A day is slow from this ratio to the usual on: the same work takes up to a fifth longer from one
#: day to the next on machines that are shared with others.
SLOW_RATIO = 1.25

#: Seconds of longer waiting that nobody minds: two ticks of a sensor.
WAIT_SECONDS = 60.0

#: A factor is told that made this share of the difference: less than a tenth explains nothing.
TOLD_SHARE = 0.1

#: With fewer days to compare with, their median is a matter of chance.
FEWEST_DAYS = 3

#: Stages whose time grows with the bytes of the originals. The others handle rows or documents.
BY_BYTES = frozenset({"fetch", "inspect", "render"})


@dataclass(frozen=True, slots=True)
class Factor:
    """What made a day differ: ``seconds`` more (or less) because of it, said in words.

    ``name`` is one of ``images``, ``share``, ``size``, ``workers``, ``recipe``, ``stage``,
    ``retries``; ``stage`` tells which stage where it is about one.
    """

    name: str
    stage: str
    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A day beside the median of the others. ``seconds`` of work, and the ``usual`` ones.

    ``factors`` add up to their difference, the largest first. ``sentences`` say what matters.
    """

    day: date
    compared_with: int
    slow: bool
    seconds: float
    usual: float
    factors: list[Factor] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Shape:
    """The factors of a stage on a day; their product is its seconds."""

    images: float
    share: float
    size: float
    workers: float
    unit: float

    @property
    def seconds(self) -> float:
        return self.images * self.share * self.size * self.unit / self.workers


def explain(history: History, day: date) -> Explanation:
    """Why ``day`` differs from the other days of ``history``. ``KeyError`` for a day not in it."""
    it = history[day]
    others = [one for at, one in history.items() if at != day and one.images]
    if not it.images or len(others) < FEWEST_DAYS:
        return _incomparable(day, it, len(others))
    factors: list[Factor] = []
    usual = 0.0
    for stage in WORK:
        before, after = _usual_shape(stage, others), _shape(stage, it)
        usual += before.seconds if before else 0.0
        factors += _divided(stage, before, after)
    retried = median(_retried(one) for one in others)
    usual += retried
    factors.append(Factor("retries", "", _retried(it) - retried, _retry_text(it)))
    told = _worded(_gathered(factors), it, others)
    return _told(day, it, others, usual, told)


def slowest_day(history: History, days: Sequence[date]) -> date | None:
    """The day of these that has most to explain: the greatest time beside its usual one."""
    ratios = {
        day: found.seconds / found.usual
        for day in days
        if day in history and (found := explain(history, day)).usual > 0
    }
    return max(ratios, key=lambda day: (ratios[day], day)) if ratios else None


def _incomparable(day: date, it: Day, others: int) -> Explanation:
    if not it.images:
        text = f"{day_name(day)}: nothing was processed."
    else:
        text = (
            f"{day_name(day)} took {duration(it.seconds)} of work for {it.images:,} images. There"
            f" are {others} other days with work to compare it with; it takes {FEWEST_DAYS}."
        )
    return Explanation(day, others, False, it.seconds, 0.0, [], [text])


def _shape(stage: str, day: Day) -> _Shape | None:
    """The factors of a stage on a day, first attempts only; None if it did not run."""
    one = day.of(stage)
    images, seconds = one.images - one.again_images, one.seconds - one.again_seconds
    if images <= 0 or seconds <= 0 or not day.images:
        return None
    size = one.bytes_in / one.images / 1e6 if stage in BY_BYTES and one.bytes_in else 1.0
    workers = one.worker_seconds / one.seconds if stage in PARALLEL else 1.0
    unit = seconds * workers / (images * size)
    return _Shape(float(day.images), images / day.images, size, workers, unit)


def _usual_shape(stage: str, days: Sequence[Day]) -> _Shape | None:
    shapes = [shape for day in days if (shape := _shape(stage, day))]
    # What runs on fewer than half of the days is not usual.
    if 2 * len(shapes) < len(days):
        return None
    return _Shape(
        median(day.images for day in days),
        median(one.share for one in shapes),
        median(one.size for one in shapes),
        median(one.workers for one in shapes),
        median(one.unit for one in shapes),
    )


def _divided(stage: str, before: _Shape | None, after: _Shape | None) -> list[Factor]:
    """The difference of a stage, divided among its factors."""
    if before is None or after is None:
        seconds = (after.seconds if after else 0.0) - (before.seconds if before else 0.0)
        text = f"stage {stage} ran, which it usually does not" if after else f"no {stage} was due"
        return [Factor("stage", stage, seconds, text)] if seconds else []
    mean = _logarithmic_mean(after.seconds, before.seconds)

    def part(name: str, ratio: float) -> Factor:
        return Factor(name, stage, mean * math.log(ratio), "")

    return [
        part("images", after.images / before.images),
        part("share", after.share / before.share),
        part("size", after.size / before.size),
        part("workers", before.workers / after.workers),
        part("stage", after.unit / before.unit),
    ]


def _logarithmic_mean(one: float, other: float) -> float:
    return one if math.isclose(one, other) else (one - other) / math.log(one / other)


def _gathered(factors: Sequence[Factor]) -> list[Factor]:
    """One of each kind; those about a stage stay apart."""
    found: dict[tuple[str, str], Factor] = {}
    for one in factors:
        key = (one.name, one.stage if one.name == "stage" else "")
        known = found.get(key)
        seconds = one.seconds + (known.seconds if known else 0.0)
        found[key] = Factor(*key, seconds, one.text)
    return list(found.values())


def _worded(factors: Sequence[Factor], it: Day, others: Sequence[Day]) -> list[Factor]:
    """With words, the largest first. A slower ``render`` may be another recipe's."""
    new_recipe = _recipe_text(it, others)
    found = []
    for one in factors:
        name, text = one.name, one.text
        if (name, one.stage) == ("stage", "render") and new_recipe:
            name, text = "recipe", new_recipe
        say = _WORDS.get(name)
        if not text and say:
            text = say(one.stage, it, others)
        found.append(Factor(name, one.stage, one.seconds, text))
    return sorted(found, key=lambda one: -abs(one.seconds))


def _told(
    day: date, it: Day, others: Sequence[Day], usual: float, factors: list[Factor]
) -> Explanation:
    difference = it.seconds - usual
    waits = _wait_sentences(it, others)
    is_more = it.seconds > SLOW_RATIO * usual
    compared = f"the usual {duration(usual)} (median of {len(others)} other days)"
    said = f"{day_name(day)} took {duration(it.seconds)} of work"
    if not is_more:
        sentences = [f"{said}, no more than {compared} and the differences between days."]
        return Explanation(
            day, len(others), bool(waits), it.seconds, usual, factors, sentences + waits
        )
    sentences = [f"{said}, {it.seconds / usual:.1f} times {compared}: {duration(difference)} more."]
    least = TOLD_SHARE * difference
    sentences += [
        f"{duration(one.seconds)} of it ({one.seconds / difference:.0%}): {one.text}."
        for one in factors
        if one.seconds >= least
    ]
    sentences += [
        f"It would have been {duration(-one.seconds)} more without this: {one.text}."
        for one in factors
        if one.seconds <= -least
    ]
    sentences += waits + _failure_sentences(it, others)
    return Explanation(day, len(others), True, it.seconds, usual, factors, sentences)


def _retried(day: Day) -> float:
    return sum(day.of(stage).again_seconds for stage in WORK)


def _retry_text(it: Day) -> str:
    runs = max(it.of(stage).again for stage in WORK)
    return f"{_count(runs, 'batch was', 'batches were')} tried again"


def _recipe_text(it: Day, others: Sequence[Day]) -> str:
    """What to say of recipes that only this day used for the most of a source; empty if none."""
    before: Counter[tuple[str, str]] = Counter()
    for one in others:
        before.update(one.recipes)
    new = [key for key in it.recipes if key not in before]
    if sum(it.recipes[key] for key in new) * 2 <= it.recipes.total():
        return ""
    named = ", ".join(f"{recipe[:8]} of source {source}" for source, recipe in sorted(new))
    return (
        f"{it.recipes.total():,} images were rendered, most of them by a recipe that the other"
        f" days did not have ({named}), {_unit_text('render', it, others)}"
    )


def _images_text(_stage: str, it: Day, others: Sequence[Day]) -> str:
    return f"{it.images:,} images instead of {median(one.images for one in others):,.0f}"


def _share_text(_stage: str, it: Day, others: Sequence[Day]) -> str:
    found = _of("render", it, others, lambda shape: shape.share)
    return f"{found[0]:.0%} of the images had to be rendered instead of {found[1]:.0%}"


def _size_text(_stage: str, it: Day, others: Sequence[Day]) -> str:
    found = _of("inspect", it, others, lambda shape: shape.size)
    return f"images of {found[0]:.1f} MB each instead of {found[1]:.1f} MB"


def _workers_text(_stage: str, it: Day, others: Sequence[Day]) -> str:
    found = _of("render", it, others, lambda shape: shape.workers)
    return f"{found[0]:.1f} workers instead of {found[1]:.1f}"


def _stage_text(stage: str, it: Day, others: Sequence[Day]) -> str:
    slower = _of(stage, it, others, lambda shape: shape.unit)
    how = "slower" if slower[0] > slower[1] else "faster"
    return f"stage {stage} was {how} for the same work: {_unit_text(stage, it, others)}"


def _unit_text(stage: str, it: Day, others: Sequence[Day]) -> str:
    now, usual = _of(stage, it, others, lambda shape: shape.unit)
    per = "megabyte and worker" if stage in PARALLEL else (
        "megabyte" if stage in BY_BYTES else "image"
    )  # fmt: skip
    return f"{duration(now)} per {per} instead of {duration(usual)}"


_WORDS: Mapping[str, Callable[[str, Day, Sequence[Day]], str]] = {
    "images": _images_text,
    "share": _share_text,
    "size": _size_text,
    "workers": _workers_text,
    "stage": _stage_text,
}


def _of(
    stage: str, it: Day, others: Sequence[Day], take: Callable[[_Shape], float]
) -> tuple[float, float]:
    """A factor of a stage on the day and usually; 0 where there is none."""
    now, usual = _shape(stage, it), _usual_shape(stage, others)
    return (take(now) if now else 0.0, take(usual) if usual else 0.0)


def _wait_sentences(it: Day, others: Sequence[Day]) -> list[str]:
    """Whether uploads waited longer for their run, and for what."""
    known = [found for one in others if (found := one.of("wait").median()) is not None]
    wait, now = it.of("wait"), it.of("wait").median()
    if now is None or not known:
        return []
    usual = median(known)
    if now < SLOW_RATIO * usual or now - usual < WAIT_SECONDS:
        return []
    why = (
        "they were discovered late (the sensor, its listing or the queue of events)"
        if wait.amounts["noticing"] > wait.amounts["queueing"]
        else "their batches waited for a run (runs at a time, the daemon, or the batches before)"
    )
    return [
        f"An upload waited {duration(now)} before anything was done (median) instead of"
        f" {duration(usual)}, mostly because {why}."
    ]


def _failure_sentences(it: Day, others: Sequence[Day]) -> list[str]:
    failed = _failed(it)
    usual = median(_failed(one) for one in others)
    # One or two may fail any day without anybody being slower for it.
    if failed <= SLOW_RATIO * usual + 2:
        return []
    return [f"{failed:,.0f} uploads failed and are tried again, instead of {usual:,.0f}."]


def _failed(day: Day) -> float:
    return float(day.of("inspect").amounts["failed"])


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
