"""Histories made by hand: what took how long is known because it was put there."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta

from image_pipeline.performance.history import Day, StageDay
from image_pipeline.performance.report import Measured
from image_pipeline.performance.timings import histogram

#: A Thursday; the Tuesday that is slow lies two days before.
TODAY = date(2026, 11, 19)
TUESDAY = date(2026, 11, 17)
NOW = datetime(2026, 11, 19, 9, 30, tzinfo=UTC)


def make_day(
    images=100,
    *,
    megabytes=2.0,
    new=1.0,
    workers=2.0,
    inspect=0.1,
    render=0.5,
    fetch=0.01,
    publish=0.05,
    wait=10.0,
    noticing=0.5,
    recipe="usual",
    retries=0,
    retry_seconds=0.0,
    failed=0,
    duplicates=0,
):
    """A day of so many images: seconds of each stage are the product that the explanation takes.

    ``inspect`` and ``render`` are worker seconds per megabyte, ``fetch`` seconds per megabyte,
    ``publish`` seconds per image; ``new`` is the share that is rendered.
    """
    size = megabytes * 1e6
    rendered = round(images * new)

    def stage(count, seconds, at_work=1.0, **more):
        each = histogram([seconds * at_work / count] * count) if count else Counter()
        return StageDay(
            runs=1, seconds=seconds, cpu_seconds=seconds * at_work,
            worker_seconds=seconds * at_work, images=count, bytes_in=round(count * size),
            buckets=each, **more,
        )  # fmt: skip

    amounts = Counter({
        "bytes.avif": rendered * 100_000, "own.avif": rendered * 100_000,
        "bytes.jpeg": rendered * 250_000, "jpeg.avif": rendered * 250_000,
    })  # fmt: skip
    stages = {
        "wait": StageDay(
            runs=1, seconds=wait, images=images, buckets=histogram([wait] * images),
            amounts=Counter({
                "noticing": images * wait * noticing, "queueing": images * wait * (1 - noticing),
            }),
        ),
        "fetch": stage(images, images * megabytes * fetch),
        "inspect": stage(
            images, images * megabytes * inspect / workers, workers,
            amounts=Counter({"accepted": images - failed, "failed": failed}),
        ),
        "dedupe": stage(
            images, images * 0.001, amounts=Counter({"duplicates.picture": duplicates})
        ),
        "render": stage(
            rendered, rendered * megabytes * render / workers, workers, amounts=amounts,
            bytes_out=rendered * 350_000,
        ),
        "publish": stage(images, images * publish),
    }  # fmt: skip
    if retries:
        again = stages["publish"]
        again.again, again.again_seconds = retries, retry_seconds
        again.seconds += retry_seconds
    return Day(stages, Counter({("photos", recipe): rendered}))


def make_history(days=14, **changed):
    """Equal days that end with today, and a Tuesday on which something was ``changed``."""
    history = {TODAY - timedelta(days=n): make_day() for n in range(days)}
    return history | {TUESDAY: make_day(**changed)}


def make_measured(history, **changes):
    return Measured(
        **{
            "now": NOW, "weeks": 2, "history": history, "slowest": [], "slow_queries": [],
            "edge": [], "redis": None, "slow_milliseconds": 100.0, **changes,
        }
    )  # fmt: skip
