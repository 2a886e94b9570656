"""Jobs and outcomes in short form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from image_pipeline.settings import Workers
from image_pipeline.workers.pool import ImageWorkers, Job, Outcome

PROCESSES = 2
MEMORY = 256


def settings(seconds: float = 30.0, processes: int = PROCESSES) -> Workers:
    return Workers(processes=processes, seconds_per_image=seconds, memory_megabytes=MEMORY)


def job(key: int, *arguments: Any, megapixels: float = 1.0) -> Job[int]:
    """A job whose image is as many bytes long as its key says."""
    return Job(key, lambda: bytes(key), arguments, megapixels)


def outcomes(
    workers: ImageWorkers, function: Callable[..., Any], jobs: Iterable[Job[int]]
) -> dict[int, Outcome[int, Any]]:
    found = list(workers.run(function, jobs))
    by_key = {outcome.key: outcome for outcome in found}
    assert len(by_key) == len(found)
    return by_key
