"""What it costs to write down how long everything takes, and to report on a million uploads."""

from __future__ import annotations

import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import sqlalchemy as sa

from benchmarks.report import Report, Row, describe_machine
from image_pipeline.catalog import timings
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.schema import timings as table
from image_pipeline.catalog.schema import uploads
from image_pipeline.catalog.timings import Timing
from image_pipeline.performance.gathering import gather
from image_pipeline.performance.history import STAGES
from image_pipeline.performance.page import report_page
from image_pipeline.performance.report import build_report
from image_pipeline.performance.timings import Watch, from_json, histogram, merge, to_json
from image_pipeline.settings import Settings

#: A million uploads in batches of 200, over eight weeks.
BATCHES, IMAGES, DAYS = 5_000, 200, 56

STATEMENTS = 20_000
ROUNDS = 5


def measure(images: int, photos: Path | None, quick: bool) -> Report:
    """Statements with and without the clocks; rows; and a report, beside adding up in Python."""
    batches, statements = (250, 2_000) if quick else (BATCHES, STATEMENTS)
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(f"sqlite:///{folder}/watched.db")
        bare = Catalog(f"sqlite:///{folder}/bare.db")
        for one in (catalog, bare):
            one.migrate()
        bare._slow.watch = lambda engine: None  # type: ignore[method-assign]
        watched, plain = _statements(catalog, bare, statements)
        row = _row(catalog)
        _fill(catalog, batches)
        gathered, added, memory, size = _report(catalog)
        catalog.close()
        bare.close()
    uploaded = f"{batches * IMAGES:,} uploads"
    rows = (
        Row("a statement, watched", watched, "us", plain, 1.1, "ratio"),
        Row("an image's time, counted", _counting(), "us"),
        Row("a row of a stage, with its transaction", row, "ms", goal=50),
        Row(f"the report of {uploaded}", gathered, "s", added, 30),
        Row("memory of that", memory, "MB", goal=100),
        Row("its page", size, "kB"),
    )
    notes = (
        "beside a watched statement: the same without the two looks at the clock",
        "beside the report: the rows read and their histograms alone added up in Python",
        f"{batches:,} batches of {IMAGES} images in {DAYS} days, {len(STAGES)} stages each; SQLite",
    )
    return Report(
        "recording", "Writing down what everything takes", rows, notes, describe_machine()
    )


def _statements(watched: Catalog, bare: Catalog, count: int) -> tuple[float, float]:
    """Microseconds of a statement by the primary key, in turns."""
    query = sa.select(uploads.c.id).where(uploads.c.id == 1)

    def each(catalog: Catalog) -> float:
        with catalog.read() as connection:
            return _seconds(lambda: [connection.execute(query).all() for _ in range(count)]) / count

    rounds = [(each(watched), each(bare)) for _ in range(ROUNDS)]
    return median(one for one, _ in rounds) * 1e6, median(other for _, other in rounds) * 1e6


def _counting(count: int = 200_000) -> float:
    watch = Watch()

    def add() -> None:
        for number in range(count):
            watch.add(number, 0.5)

    return _seconds(add) / count * 1e6


def _row(catalog: Catalog) -> float:
    """Milliseconds of a row with its transaction, median of 100."""

    def write() -> None:
        with catalog.write() as connection:
            timings.record(connection, timing)

    timing = _timing("render", datetime.now(UTC) - timedelta(days=365), random.Random(1))
    return median(_seconds(write) for _ in range(100)) * 1e3


def _timing(stage: str, began_at: datetime, chance: random.Random) -> Timing:
    each = [chance.lognormvariate(-0.5, 0.6) for _ in range(IMAGES)]
    worst = sorted(each)[-5:][::-1]
    return Timing(
        "photos", stage, began_at, sum(each) / 4, "batch", cpu_seconds=sum(each), workers=4,
        recipe="recipe", images=IMAGES, bytes_in=4_000_000 * IMAGES, bytes_out=900_000 * IMAGES,
        worst=worst[0], histogram=to_json(histogram(each)),
        slowest=[[n, took] for n, took in enumerate(worst)],
        amounts={f"bytes.{kind}": 1e6 for kind in ("avif", "webp", "jpeg")},
    )  # fmt: skip


def _fill(catalog: Catalog, batches: int) -> None:
    """Rows of all batches; every hundredth is thought up, the others are copies on other days."""
    chance, now = random.Random(2), datetime.now(UTC)
    models = [[_timing(stage, now, chance) for stage in STAGES] for _ in range(50)]
    with catalog.write() as connection:
        for number in range(batches):
            began_at = now - timedelta(days=number % DAYS)
            rows = [
                {name: getattr(one, name) for name in Timing.__slots__}
                | {"began_at": began_at, "day": f"{began_at:%Y-%m-%d}"}
                for one in models[number % len(models)]
            ]
            connection.execute(sa.insert(table), rows)


def _report(catalog: Catalog) -> tuple[float, float, float, float]:
    """Seconds of a report, of adding up in Python; megabytes it took, kilobytes of the page."""
    settings, pages = Settings(), []

    def make() -> None:
        measured = gather(settings, catalog, settings.now(), DAYS // 7)
        pages.append(report_page(build_report(measured)))

    def add_up() -> None:
        with catalog.read() as connection:
            merge(map(from_json, connection.execute(sa.select(table.c.histogram)).scalars()))

    took = min(_seconds(make) for _ in range(2))
    added = min(_seconds(add_up) for _ in range(2))
    tracemalloc.start()
    make()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return took, added, peak / 1e6, len(pages[-1].encode()) / 1e3


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
