"""Thousands of small uploads that keep arriving while everything runs on one machine."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
import sqlalchemy as sa

from benchmarks.latency import running_dev, wait_for_bucket, wait_until
from benchmarks.photos import write_photograph
from benchmarks.project import SOURCE, Project, new_project
from benchmarks.report import FOLDER, Grid, Report, Row, describe_machine
from image_pipeline.catalog.schema import batches, publications, uploads
from image_pipeline.commands.display import progress_bar
from image_pipeline.store.bucket import Bucket

#: What arrives, and in how many seconds; ``--quick`` brings a tenth of the time and less.
UPLOADS, SECONDS = 5000, 600.0
QUICK_UPLOADS, QUICK_SECONDS = 300, 60.0

#: Pixels of an upload: so small that two cores can keep up with eight a second.
WIDTH, HEIGHT = 320, 240

#: After the last upload, for all that still waits.
PATIENCE_SECONDS = 1200.0

#: Between two looks at processes, catalog and UI.
SAMPLE_SECONDS = 2.0

#: What a page of the UI may take for people to call it quick (Nielsen, "Response Times", 1993).
GOAL_UI_MILLISECONDS = 1000.0

#: Growth of a server's memory from the second quarter to the last: more would be a leak that
#: ends a server of 1 GB within a week of such load.
GOAL_GROWTH_MEGABYTES = 30.0

#: Dagster's servers, by a word of their command lines.
SERVERS = {"daemon": "dagster._daemon", "code server": "api", "web server": "dagster_webserver"}

#: What the page of runs asks for, every few seconds.
QUESTION = """{
  runsOrError(limit: 25) { ... on Runs { results { runId status startTime endTime tags { key } } } }
  assetNodes { id assetMaterializations(limit: 1) { timestamp } }
}"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look, ``at`` seconds after the first upload.

    ``waiting`` uploads are in no batch yet, ``queued`` batches were asked for or wait for
    another attempt. ``megabytes`` are resident memory by server, ``milliseconds`` the UI's answer.
    """

    at: float
    sent: int
    discovered: int
    published: int
    waiting: int
    queued: int
    megabytes: Mapping[str, float]
    milliseconds: float


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Send uploads at an even pace to a running ``image-pipeline dev``, and look on."""
    machine = describe_machine()
    count, seconds = (QUICK_UPLOADS, QUICK_SECONDS) if quick else (UPLOADS, SECONDS)
    files = _photographs(count)
    with new_project({}, serve=False) as project, running_dev(project) as port:
        bucket = wait_for_bucket(project)
        wait_until(lambda: _answers(port), "the UI does not answer")
        with _watched(project, port) as watch:
            lag = _send(bucket, project, files, seconds, watch)
            arrived = time.monotonic() - watch.began
            wait_until(
                lambda: watch.is_done(count), "not everything is published", PATIENCE_SECONDS
            )
        failed = _failed(project)
    return Report(
        "load",
        f"{count} uploads in {seconds:g} s",
        _rows(watch.samples, arrived, count, failed),
        (
            f"photographs of {WIDTH} x {HEIGHT} pixels, all different, under"
            f" `image-pipeline dev` with the settings of the checkout; the sender was at most"
            f" {lag:.1f} s late",
            "a manifest counts from its announcement in the catalog; the UI is asked for its"
            " page of runs and all assets",
            "growth is from the median of the second quarter of the time to that of the last",
        ),
        machine,
        (_grid(watch.samples),),
    )


def _photographs(count: int) -> list[Path]:
    """Generated once and kept."""
    paths = [FOLDER / "small" / f"{seed:05}.jpg" for seed in range(count)]
    missing = [(seed, path) for seed, path in enumerate(paths) if not path.is_file()]
    if missing:
        seeds, names = zip(*missing, strict=True)
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool, progress_bar() as bar:
            task = bar.add_task("generating", total=len(missing))
            sizes = [WIDTH] * len(missing), [HEIGHT] * len(missing)
            for _ in pool.map(write_photograph, names, seeds, *sizes, chunksize=20):
                bar.advance(task)
    return paths


class _Watch:
    """Looks at everything again and again, in a thread of its own."""

    def __init__(self, project: Project, port: int) -> None:
        self.project = project
        self.port = port
        self.began = time.monotonic()
        self.sent = 0
        self.samples: list[Sample] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            self.samples.append(self._look())

    def is_done(self, count: int) -> bool:
        """Whether so many uploads are in batches that have all come to an end."""
        last = self.samples[-1:]
        return bool(last) and (last[0].discovered, last[0].waiting, last[0].queued) == (count, 0, 0)

    def _look(self) -> Sample:
        with self.project.catalog.read() as connection:
            found = _counts(connection)
        began = time.perf_counter()
        _ask(self.port)
        took = (time.perf_counter() - began) * 1000
        at = time.monotonic() - self.began
        return Sample(at, self.sent, *found, _megabytes(self.project), took)


@contextmanager
def _watched(project: Project, port: int) -> Iterator[_Watch]:
    watch = _Watch(project, port)
    thread = threading.Thread(target=watch.run, name="watch")
    thread.start()
    try:
        yield watch
    finally:
        watch.ended.set()
        thread.join()


def _counts(connection: sa.Connection) -> tuple[int, int, int, int]:
    """Uploads discovered, images published, uploads in no batch, batches not at their end."""
    count = sa.func.count()
    queries = (
        sa.select(count).select_from(uploads),
        sa.select(count).select_from(publications),
        sa.select(count).where(uploads.c.batch_id.is_(None)),
        sa.select(count).where(batches.c.state != "done"),
    )
    discovered, published, waiting, queued = (
        connection.execute(query).scalar_one() for query in queries
    )
    return discovered, published, waiting, queued


def _failed(project: Project) -> int:
    with project.catalog.read() as connection:
        query = sa.select(sa.func.count()).where(
            uploads.c.verdict.not_in(("accepted", "duplicate"))
        )
        return int(connection.execute(query).scalar_one())


def _megabytes(project: Project) -> dict[str, float]:
    """Resident memory of each of Dagster's servers, by the project in their environment."""
    home = str(project.home)
    found = dict.fromkeys(SERVERS, 0.0)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = process.cmdline()
            for name, word in SERVERS.items():
                if word in line and process.environ().get("DAGSTER_HOME") == home:
                    found[name] += process.memory_info().rss / 1e6
    return found


def _ask(port: int) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": QUESTION}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    if "errors" in found:
        raise RuntimeError(str(found["errors"])[:500])
    return found


def _answers(port: int) -> bool:
    try:
        return bool(_ask(port)["data"]["assetNodes"])
    except OSError:
        return False


def _send(
    bucket: Bucket, project: Project, files: Sequence[Path], seconds: float, watch: _Watch
) -> float:
    """Upload at an even pace; how late the latest was, in seconds."""
    prefix = project.settings.sources[SOURCE].prefix
    lag = 0.0
    for number, path in enumerate(files):
        due = watch.began + number * seconds / len(files)
        time.sleep(max(0.0, due - time.monotonic()))
        bucket.put(prefix + path.name, path.read_bytes(), "image/jpeg")
        watch.sent = number + 1
        lag = max(lag, time.monotonic() - due)
        if number % 100 == 0:
            print(f"load: {number} of {len(files)} sent", file=sys.stderr)
    return lag


def _rows(samples: Sequence[Sample], arrived: float, count: int, failed: int) -> tuple[Row, ...]:
    spans = [one.milliseconds for one in samples]
    backlog = [one.sent - one.published for one in samples]
    return (
        Row("uploads that were not published", failed, "uploads", None, 0),
        Row("last upload to the end of the last batch", samples[-1].at - arrived, "s"),
        Row("sent and not yet published, at most", max(backlog), "uploads"),
        Row("of them in no batch, at most", max(one.waiting for one in samples), "uploads"),
        Row("batches under way, at most", max(one.queued for one in samples), "batches"),
        Row("published", count / samples[-1].at, "uploads/s"),
        *(
            Row(f"memory of the {name}, growth", _growth(samples, name), "MB", None,
                GOAL_GROWTH_MEGABYTES)
            for name in SERVERS
        ),
        Row("answer of the UI, median", median(spans), "ms"),
        Row(
            "answer of the UI, 95 of 100", quantiles(spans, n=20)[-1], "ms", None,
            GOAL_UI_MILLISECONDS,
        ),
    )  # fmt: skip


def _growth(samples: Sequence[Sample], name: str) -> float:
    quarter = max(1, len(samples) // 4)
    values = [one.megabytes[name] for one in samples]
    return median(values[-quarter:]) - median(values[quarter : 2 * quarter] or values)


def _grid(samples: Sequence[Sample]) -> Grid:
    """The last sample of every minute."""
    rows = []
    for minute, part in groupby(samples, lambda one: int(one.at // 60)):
        every = list(part)
        last = every[-1]
        slowest = max(one.milliseconds for one in every)
        figures = (last.sent, last.discovered, last.published, last.waiting, last.queued)
        memory = (f"{last.megabytes[name]:.0f}" for name in SERVERS)
        rows.append((str(minute + 1), *map(str, figures), *memory, f"{slowest:.0f}"))
    columns = (
        "minute", "sent", "discovered", "published", "in no batch", "batches",
        *(f"{name} (MB)" for name in SERVERS), "slowest answer (ms)",
    )  # fmt: skip
    return Grid(columns, tuple(rows))
