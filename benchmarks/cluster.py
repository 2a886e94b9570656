"""Image work on a Dask cluster beside processes of one machine, and what of it stays serial."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.photos import photographs
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.commands.files import LocalFile
from image_pipeline.imaging.rendering import process_image
from image_pipeline.settings import Limits, Recipe, Workers
from image_pipeline.workers.opening import AnyWorkers, open_workers
from image_pipeline.workers.pool import Job
from image_pipeline_tests.dask_cluster import DaskCluster

#: Dask workers, one thread each. More than there are cores shows what the cluster itself costs.
COUNTS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Pass:
    """Seconds for all images, and CPU seconds of the run's own process and of the scheduler."""

    seconds: float
    own: float
    scheduler: float


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Process the same photographs with local processes and with 1, 2 and 4 Dask workers."""
    machine = describe_machine()
    files = photographs(max(4, images // 4), folder)
    local = {count: _locally(files, count) for count in COUNTS[:2]}
    spread = {count: _on_cluster(files, count) for count in COUNTS}
    number = len(files)
    rows = [
        Row(
            f"{count} Dask workers, beside {min(count, 2)} processes of this machine",
            found.seconds, "s", local[min(count, 2)].seconds, 1.1, "ratio",
        )
        for count, found in spread.items()
    ]  # fmt: skip
    two = spread[2]
    rows += [
        Row("2 Dask workers beside 1", two.seconds, "s", spread[1].seconds),
        Row("the run's own process, per image", two.own / number * 1000, "ms CPU",
            local[2].own / number * 1000),
        Row("the scheduler, per image", two.scheduler / number * 1000, "ms CPU"),
        Row("image work, per image", local[1].seconds / number * 1000, "ms"),
    ]  # fmt: skip
    serial = max(two.own, two.scheduler) / number
    return Report(
        "cluster",
        f"{number} photographs on a Dask cluster",
        tuple(rows),
        (
            "scheduler, workers and the run share the cores of this machine, so four workers show"
            " what a cluster costs and not what it gains",
            f"one run feeds about {local[1].seconds / number / serial:.0f} cores before its own"
            " process or the scheduler is busy all the time: image work over the larger of the two",
        ),
        machine,
    )


def _locally(files: Sequence[LocalFile], count: int) -> Pass:
    with open_workers(Workers(processes=count)) as workers:
        return _timed(workers, files, None)


def _on_cluster(files: Sequence[LocalFile], count: int) -> Pass:
    print(f"cluster: {count} workers", file=sys.stderr)
    with (
        tempfile.TemporaryDirectory(prefix="dask-") as folder,
        DaskCluster(Path(folder), count) as dask,
        open_workers(Workers(cluster=dask.address)) as workers,
    ):
        return _timed(workers, files, psutil.Process(dask.scheduler.pid))


def _timed(
    workers: AnyWorkers, files: Sequence[LocalFile], scheduler: psutil.Process | None
) -> Pass:
    # Imports and the start of processes are paid once for a run, not for an image.
    for _ in workers.run(process_image, _jobs(files[:4])):
        pass
    started, own = time.perf_counter(), time.process_time()
    others = _cpu(scheduler)
    for outcome in workers.run(process_image, _jobs(files)):
        if outcome.error is not None:
            raise outcome.error
    return Pass(time.perf_counter() - started, time.process_time() - own, _cpu(scheduler) - others)


def _cpu(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


def _jobs(files: Sequence[LocalFile]) -> list[Job[int]]:
    recipe, limits = Recipe(), Limits()
    return [
        Job(number, file.path.read_bytes, (recipe, limits), 12.0)
        for number, file in enumerate(files)
    ]
