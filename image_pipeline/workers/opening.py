"""Which workers there are: processes of this machine, or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from image_pipeline.settings import Workers
from image_pipeline.workers.pool import ImageWorkers, Job, Outcome

K = TypeVar("K")
T = TypeVar("T")


class AnyWorkers(Protocol):
    """What every kind of workers does; see :class:`ImageWorkers`."""

    def __enter__(self) -> Self:
        """Return the workers."""

    def __exit__(self, *_: Any) -> None:
        """Close the workers."""

    def start(self) -> None:
        """Get ready, so that the first image need not wait for it."""

    def run(self, function: Callable[..., T], jobs: Iterable[Job[K]]) -> Iterator[Outcome[K, T]]:
        """Call ``function(data, *arguments)`` for every job; outcomes come as they finish."""

    def close(self) -> None:
        """Give everything back."""


def open_workers(settings: Workers, folder: Path | None = None) -> AnyWorkers:
    """A cluster if the settings name one, else processes with their files inside ``folder``."""
    if settings.cluster is None:
        return ImageWorkers(settings, folder)
    from image_pipeline.workers.cluster import ClusterWorkers

    return ClusterWorkers(settings)
