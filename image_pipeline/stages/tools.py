"""What every stage works with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from image_pipeline.catalog.engine import Catalog
from image_pipeline.settings import Recipe, Settings, Source
from image_pipeline.store.bucket import Bucket
from image_pipeline.workers.opening import AnyWorkers, open_workers

#: Reasons of the verdict ``failed``: ours, or the network's. They are tried again.
STORAGE_ERROR = "storage_error"
INTERNAL_ERROR = "internal_error"

#: Verdicts behind which there are published variants.
PUBLISHED = ("accepted", "duplicate")


def utc_now() -> datetime:
    """The clock, unless a test brings its own."""
    return datetime.now(UTC)


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


class Spool:
    """A folder for the originals of one run, so that each is downloaded once.

    Named after the process that owns it: what a killed one left behind is removed by the next.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / str(os.getpid())

    def path(self, upload: int) -> Path:
        """Where the original of an upload lies, if it does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / str(upload)

    def clear(self) -> None:
        """Remove this run's folder and those of processes that are no more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self.root.glob("*"):
            if folder.name.isdigit() and not _is_alive(int(folder.name)):
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Tools:
    """Settings, the things they open, and a clock."""

    settings: Settings
    bucket: Bucket
    catalog: Catalog
    workers: AnyWorkers
    spool: Spool
    clock: Callable[[], datetime] = utc_now
    progress: Callable[[str, int, int], None] = quiet

    @classmethod
    def open(
        cls,
        settings: Settings,
        bucket: Bucket,
        catalog: Catalog,
        progress: Callable[[str, int, int], None],
    ) -> Self:
        """Tools whose worker processes are not started, and never are by those who need none."""
        spool = Spool(settings.workers.spool)
        workers = open_workers(settings.workers, spool.folder)
        return cls(settings, bucket, catalog, workers, spool, progress=progress)

    def source(self, name: str) -> Source:
        """The settings of a source; an error that says what to do if there is none."""
        try:
            return self.settings.sources[name]
        except KeyError:
            raise LookupError(
                f"no source {name!r} in the settings: it was renamed or removed while batches"
                " of it exist; put it back until they are done"
            ) from None

    def recipe(self, source: str) -> Recipe:
        """The recipe of a source."""
        return self.settings.recipes[self.source(source).recipe]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
