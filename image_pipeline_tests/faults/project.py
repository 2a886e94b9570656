"""A project of its own for a test: settings, photographs, catalog, Dagster home, environment."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import yaml

from image_pipeline.samples import photograph
from image_pipeline.settings import Settings, load_settings
from image_pipeline.store.bucket import Bucket

REPOSITORY = Path(__file__).parents[2]
PREFIX = "uploads/photos/"

#: Set in the environment of everything a test starts; the kernel keeps it readable for as long
#: as a process lives, also where the process has emptied its environment since.
MARKER = "FAULTS_PROJECT"

#: Sizes small enough that a whole batch takes about a second, all below the photographs' own.
RECIPE: dict[str, Any] = {
    "sizes": {
        "thumbnail": {"role": "thumbnail", "width": 64, "height": 64, "fit": "cover"},
        "small": {"width": 96, "height": 72},
        "medium": {"width": 160, "height": 120},
    },
    # Far enough apart for none to be dropped: the tests count files.
    "formats": {
        "avif": {"speed": 9, "quality": 40},
        "webp": {"method": 2, "quality": 60},
        "jpeg": {"quality": 95},
    },
}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to send, and the verdicts that are right for it."""

    name: str
    data: bytes
    verdicts: tuple[str, ...] = ("accepted",)


@lru_cache(maxsize=1)
def uploads() -> tuple[Upload, ...]:
    """Five pictures, one of them three times (same bytes, same picture), and a text."""
    first, *others = (encoded(seed) for seed in range(5))
    either = ("accepted", "duplicate")
    return (
        Upload("a.jpg", first, either),
        Upload("a-again.jpg", first, either),
        Upload("a.png", encoded(0, "PNG"), either),
        *(Upload(f"{number}.jpg", data) for number, data in enumerate(others)),
        Upload("letter.jpg", b"Dear sirs, please find no picture.", ("rejected",)),
    )


@lru_cache(maxsize=32)
def encoded(seed: int, form: str = "JPEG") -> bytes:
    """A photograph of 240 x 180 pixels as a file."""
    data = io.BytesIO()
    photograph(240, 180, seed).save(data, form)
    return data.getvalue()


class Project:
    """A folder with everything in it, and a bucket on a server that outlives what is killed."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        environment: dict[str, str],
        home: str,
        endpoint_url: str | None = None,
    ) -> None:
        self.folder = folder
        self.endpoint_url = endpoint_url
        self.config = folder / "pipeline.yaml"
        self.home = folder / home
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(settings))
        self.environment = {
            **environment,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "IMAGE_PIPELINE_CONFIG": str(self.config),
            "TMPDIR": str(self.temporary),
            MARKER: str(folder),
        }

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.config)

    @cached_property
    def bucket(self) -> Bucket:
        """The test's own way to the bucket, past any proxy."""
        settings = self.settings.bucket
        if self.endpoint_url:
            settings = settings.model_copy(update={"endpoint_url": self.endpoint_url})
        return Bucket(settings)

    def send(self, *files: Upload) -> dict[str, tuple[str, ...]]:
        """Put files under the source; returns the right verdicts by key."""
        for file in files:
            self.bucket.put(PREFIX + file.name, file.data, "image/jpeg")
        return {PREFIX + file.name: file.verdicts for file in files}

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of the catalog, by sqlite3 or psycopg2 alone."""
        with closing(self._connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def let_time_pass(self) -> None:
        """Make every lease and backoff run out now, so that no test has to wait for it."""
        self.change("UPDATE batches SET due_at = '2000-01-01' WHERE due_at IS NOT NULL")

    def change(self, statement: str) -> None:
        """Run a statement on the catalog, past the product."""
        with closing(self._connect()) as connection, connection:
            connection.cursor().execute(statement)

    def _connect(self) -> Any:
        url = self.settings.catalog.url
        if url.startswith("sqlite:///"):
            return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)
        return psycopg2.connect(url.replace("postgresql+psycopg2:", "postgresql:"))

    def processes(self) -> list[psutil.Process]:
        """What was started for this project and is alive."""
        return list(marked(str(self.folder)))


def marked(folder: str) -> Iterator[psutil.Process]:
    """Processes with the marker of a project in their environment."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == folder:
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def plain_settings(
    bucket: str, endpoint_url: str, catalog_url: str = "sqlite:///catalog.db"
) -> dict[str, Any]:
    """Settings by which a batch closes at once and may be tried as often as a test kills."""
    return {
        "bucket": {"name": bucket, "endpoint_url": endpoint_url, "addressing": "path"},
        "catalog": {"url": catalog_url},
        "sources": {"photos": {"prefix": PREFIX, "recipe": "tiny"}},
        "recipes": {"tiny": RECIPE},
        "batches": {
            "lease_seconds": 2, "retry_seconds": 0, "max_attempts": 50,
            "quiet_seconds": 0, "max_age_seconds": 0,
        },
        "workers": {"processes": 1, "spool": "spool"},
    }  # fmt: skip
