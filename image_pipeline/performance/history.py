"""What was measured, day by day: the material of the report. Plain records, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

from image_pipeline.performance.timings import Buckets, merge, quantile

#: What a batch goes through until it is published, in this order. ``fetch`` and ``store`` are the
#: time that a run waits for the bucket.
WORK = ("fetch", "inspect", "dedupe", "near", "render", "store", "publish")

#: Everything that is measured: before that an upload waits, and after it the edge is warmed.
STAGES = ("wait", *WORK, "warm")

#: Stages whose images are worked on by several workers side by side.
PARALLEL = frozenset({"inspect", "render"})


@dataclass(slots=True)
class StageDay:
    """A stage on a day, or over several: sums of everything that ran.

    ``seconds`` on the clock, of all its runs together; ``worker_seconds`` these times the workers
    at hand. ``again`` are runs of second and later attempts, with their seconds and images, which
    the sums contain. ``buckets`` is the histogram of seconds per image.
    """

    runs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    worker_seconds: float = 0.0
    images: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    again: int = 0
    again_seconds: float = 0.0
    again_images: int = 0
    buckets: Buckets = field(default_factory=Counter)
    amounts: Counter[str] = field(default_factory=Counter)

    def median(self) -> float | None:
        """Seconds that half of the images took at most."""
        return quantile(self.buckets, 0.5)

    def p95(self) -> float | None:
        """Seconds that 95 of 100 images took at most."""
        return quantile(self.buckets, 0.95)


@dataclass(slots=True)
class Day:
    """Everything of a day: its stages by name, and images by the recipe that rendered them.

    Recipes are known by source and fingerprint.
    """

    stages: dict[str, StageDay] = field(default_factory=dict)
    recipes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def of(self, stage: str) -> StageDay:
        """A stage, with zeros if it did not run."""
        return self.stages.get(stage) or StageDay()

    @property
    def images(self) -> int:
        """Uploads that were looked into."""
        return self.of("inspect").images

    @property
    def seconds(self) -> float:
        """Time that runs took until their batches were published."""
        return sum(self.of(name).seconds for name in WORK)

    @property
    def worker_seconds(self) -> float:
        """The same, times the workers that were at hand."""
        return sum(self.of(name).worker_seconds for name in WORK)

    @property
    def duplicates(self) -> float:
        """Uploads that were found to be duplicates."""
        amounts = self.of("dedupe").amounts
        return sum(n for name, n in amounts.items() if name.startswith("duplicates."))


History = Mapping[date, Day]


def together(days: Iterable[Day]) -> Day:
    """Several days as one."""
    whole = Day()
    for day in days:
        whole.recipes.update(day.recipes)
        for name, one in day.stages.items():
            _add(whole.stages.setdefault(name, StageDay()), one)
    return whole


def _add(whole: StageDay, one: StageDay) -> None:
    for name in (
        "runs", "seconds", "cpu_seconds", "worker_seconds", "images", "bytes_in", "bytes_out",
        "again", "again_seconds", "again_images",
    ):  # fmt: skip
        setattr(whole, name, getattr(whole, name) + getattr(one, name))
    whole.buckets = merge([whole.buckets, one.buckets])
    whole.amounts.update(one.amounts)
