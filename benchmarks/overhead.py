"""What Dagster, bucket and catalog cost on top of the image work."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.photos import photographs
from benchmarks.project import (
    ONE_BATCH,
    RunTimes,
    new_project,
    only_run,
    quiet_process,
    run_command,
)
from benchmarks.report import FOLDER, Report, Row, describe_machine
from image_pipeline.commands.files import LocalFile
from image_pipeline.settings import Workers

#: `image-pipeline process` is the image work alone; more than a quarter on top of it would
#: mean that the pipeline and not the codecs decides how long a batch takes.
GOAL = 1.25

PAIRS = 2


@dataclass(frozen=True, slots=True)
class Used:
    """Wall and CPU seconds of a process with all that it started, from its start to its end."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class BatchRun:
    """One batch through Dagster. ``worker_seconds`` is what the catalog counts of image work."""

    times: RunTimes
    used: Used
    worker_seconds: float

    @property
    def run_seconds(self) -> float:
        """From the start of the run to its end."""
        return self.times.ended - self.times.started


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Measure ``process`` and a batch through Dagster in turns, on the same photographs."""
    machine = describe_machine()
    files = photographs(images, folder)
    workers = Workers().count
    alone: list[Used] = []
    batches: list[BatchRun] = []
    for pair in range(1 if quick else PAIRS):
        print(f"overhead: pair {pair + 1}, {len(files)} photographs", file=sys.stderr)
        alone.append(_process(files, workers))
        batches.append(_run_batch(files, workers))
    return Report(
        "overhead",
        f"A batch of {len(files)} photographs, beside `image-pipeline process` on the same files",
        _rows(alone, batches, len(files), workers),
        _notes(files, workers, alone, batches),
        machine,
    )


def _process(files: Sequence[LocalFile], workers: int) -> Used:
    with tempfile.TemporaryDirectory(prefix="variants-", dir=FOLDER) as out:
        command = [
            *(sys.executable, "-m", "image_pipeline.cli", "process", "--out", out),
            *("--workers", str(workers), *(str(file.path.resolve()) for file in files)),
        ]
        return _use(command, os.environ)


def _run_batch(files: Sequence[LocalFile], workers: int) -> BatchRun:
    with new_project({**ONE_BATCH, "workers": {"processes": workers}}) as project:
        batch = project.new_batch(files)
        used = _use(run_command(batch), project.environment)
        return BatchRun(only_run(project), used, project.worker_seconds(batch))


def _use(command: Sequence[str], variables: Mapping[str, str]) -> Used:
    """Run a command to its end."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with quiet_process(command, variables):
        pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Used(time.perf_counter() - started, cpu)


def _rows(alone: list[Used], batches: list[BatchRun], count: int, workers: int) -> tuple[Row, ...]:
    base = median(used.wall for used in alone)
    run = median(batch.run_seconds for batch in batches)
    whole = median(batch.used.wall for batch in batches)
    cpu = median(batch.used.cpu for batch in batches), median(used.cpu for used in alone)
    busy = median(batch.worker_seconds for batch in batches) / workers
    rows = [
        Row("run, start to end", run, "s", base, GOAL, "ratio"),
        Row("its process, with the start of Python", whole, "s", base, GOAL, "ratio"),
        Row("CPU of its process and workers", cpu[0], "s", cpu[1]),
        Row("photographs per second", count / run, "", count / base),
        Row("image work in the run, per worker", busy, "s", base),
    ]
    for step in batches[0].times.steps:
        seconds = median(batch.times.steps[step] for batch in batches)
        rows.append(Row(f"asset {step}", seconds, "s"))
    in_steps = median(sum(batch.times.steps.values()) for batch in batches)
    rows.append(Row("in the run but in no asset", run - in_steps, "s"))
    return tuple(rows)


def _notes(
    files: Sequence[LocalFile], workers: int, alone: list[Used], batches: list[BatchRun]
) -> tuple[str, ...]:
    megabytes = sum(file.path.stat().st_size for file in files) / 1e6
    pairs = ", ".join(
        f"{batch.run_seconds:.1f} / {used.wall:.1f} s = {batch.run_seconds / used.wall:.2f}"
        for used, batch in zip(alone, batches, strict=True)
    )
    return (
        f"{len(files)} photographs, {megabytes:.0f} MB, {workers} workers on both sides; medians"
        f" of {len(alone)} pairs measured in turns: {pairs}",
        "the embedded S3 server takes its part of the same cores (not counted as CPU of the run);"
        " catalog, bucket and Dagster home are new for every batch",
    )
