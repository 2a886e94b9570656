"""Inventory and plan of a bucket of a million objects: memory and processor time.

``python -m benchmarks.housekeeping CONFIG`` takes the inventory and makes the plan in a
process of its own, whose memory is measured, and prints a :class:`Housekeeping` as JSON.
"""

# ruff: noqa: PLC0415 - each process loads only what it needs: its memory is measured

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import bucket_server
from benchmarks.bucket_server import BATCH_IMAGES, FORMATS, OBJECTS, SOURCE
from benchmarks.list_server import PAST, SIZE
from benchmarks.look import peak_bytes, resident_bytes
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.catalog.engine import Catalog, chunks, insert_new
from image_pipeline.catalog.schema import batches, images, members, publications, uploads, variants
from image_pipeline.settings import load_settings

KEYS = 1_000_000
QUICK_KEYS = 50_000

#: Of the process that does it, for any number of objects.
GOAL_MEGABYTES = 300.0

#: Processor time of inventory and plan of a million objects together.
GOAL_SECONDS = 600.0

#: A busy machine takes a few times as long; more is a fault.
PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """What inventory and plan took: seconds on the clock and of processors, resident bytes.

    ``idle`` are the resident bytes when everything is imported and nothing is read yet;
    ``planned`` is how many orphans a second inventory, a month later, made a plan of.
    """

    inventory_seconds: float
    inventory_cpu: float
    plan_seconds: float
    plan_cpu: float
    objects: int
    planned: int
    idle: int
    peak: int


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Inventory and plan of as many images as leave a million objects."""
    from benchmarks.project import new_project

    machine = describe_machine()
    keys = QUICK_KEYS if quick else KEYS
    pictures = keys // OBJECTS
    with new_project({"bucket": {"addressing": "path"}}, serve=False) as project:
        print(f"housekeeping: a catalog of {pictures:,} images", file=sys.stderr)
        _fill_catalog(project.catalog, pictures)
        with _bucket_server(pictures) as url:
            print(f"housekeeping: a bucket of about {keys:,} objects", file=sys.stderr)
            found = _run(project.config, {**project.environment, **_credentials(url)})
    return Report(
        "housekeeping",
        f"Inventory and plan of a bucket of {found.objects:,} objects",
        tuple(_rows(found, GOAL_SECONDS * found.objects / KEYS)),
        (
            "a catalog on SQLite of the same size: of every image an upload, 15 files, a manifest"
            " and a publication; one file in a hundred is an orphan",
            "the listing is answered by a server of the benchmarks from a sorted list, in pages of"
            " 1,000 keys, as the embedded server takes too long for so many; processor time is the"
            " client's, of all its threads",
            "the goal of ten minutes is of a million objects, and smaller for fewer",
        ),
        machine,
    )


def _rows(found: Housekeeping, goal_seconds: float) -> Iterator[Row]:
    cpu = found.inventory_cpu + found.plan_cpu
    yield Row("inventory, on the clock", found.inventory_seconds, "s")
    yield Row("inventory, processor time", found.inventory_cpu, "s")
    yield Row("plan, on the clock", found.plan_seconds, "s")
    yield Row("plan, processor time", found.plan_cpu, "s")
    yield Row("both, processor time", cpu, "s", None, goal_seconds)
    yield Row(
        "objects that an hour of processor time is enough for", 3600 * found.objects / cpu, ""
    )
    yield Row("orphans planned", found.planned, "")
    yield Row("peak memory of the process", found.peak / 1e6, "MB", None, GOAL_MEGABYTES)
    yield Row("of it, grown while at work", (found.peak - found.idle) / 1e6, "MB")


def _run(config: Path, variables: Mapping[str, str]) -> Housekeeping:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.housekeeping", str(config)]
    answer = subprocess.run(
        command,
        env=dict(variables),
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return Housekeeping(**json.loads(answer.stdout))


def _credentials(url: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "IMAGE_PIPELINE_BUCKET__ENDPOINT_URL": url,
    }


@contextmanager
def _bucket_server(pictures: int) -> Iterator[str]:
    """The URL of the server, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bucket_server", str(pictures)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as server:  # fmt: skip
        # Leaving closes its standard input, which ends it.
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"


def _fill_catalog(catalog: Catalog, pictures: int) -> None:
    """The rows of so many images, long done."""
    for numbers in chunks(range(pictures), BATCH_IMAGES):
        batch = bucket_server.batch_of(numbers[0])
        with catalog.write() as connection:
            insert_new(connection, batches, [_batch_row(batch, len(numbers))])
            for table, row_of in _ROWS.items():
                insert_new(connection, table, [row_of(n, batch) for n in numbers])
            rows = [row for n in numbers for row in _variant_rows(n)]
            insert_new(connection, variants, rows)
    catalog.close()


def _batch_row(batch: str, count: int) -> dict[str, Any]:
    return {
        "id": batch, "source": SOURCE, "created_at": PAST, "uploads": count,
        "bytes": SIZE * count, "state": "done", "attempt": 1, "finished_at": PAST,
    }  # fmt: skip


def _upload_row(number: int, batch: str) -> dict[str, Any]:
    one = bucket_server.upload_of(number)
    return {
        "source": SOURCE, "key": one.key, "etag": one.etag, "size": SIZE, "last_modified": PAST,
        "discovered_at": PAST, "batch_id": batch, "image_id": bucket_server.image_of(number),
        "verdict": "accepted",
    }  # fmt: skip


def _image_row(number: int, batch: str) -> dict[str, Any]:
    return {
        "id": bucket_server.image_of(number), "bytes": SIZE, "format": "jpeg", "width": 4000,
        "height": 3000, "orientation": 1, "mode": "RGB", "has_alpha": False, "animated": False,
        "lossless": False, "flags": [], "phash64": number, "phash256": "0" * 64, "dhash64": 0,
        "texture": 50.0, "dominant_color": "#102030", "placeholder": "data:,", "created_at": PAST,
        **{f"b{band}": number >> 13 * band & 0x1FFF for band in range(5)},
    }  # fmt: skip


def _member_row(number: int, batch: str) -> dict[str, Any]:
    image = bucket_server.image_of(number)
    return {
        "source": SOURCE, "image_id": image, "canonical_id": image, "distance": 0,
        "upload_id": number + 1, "number": number + 1, "batch_id": batch,
    }  # fmt: skip


def _publication_row(number: int, batch: str) -> dict[str, Any]:
    image = bucket_server.image_of(number)
    return {
        "source": SOURCE, "image_id": image, "canonical_id": image, "recipe": "r",
        "digest": "0" * 64, "version": 1, "batch_id": batch, "published_at": PAST,
    }  # fmt: skip


#: In the order in which one refers to another.
_ROWS: dict[Any, Callable[[int, str], dict[str, Any]]] = {
    uploads: _upload_row,
    images: _image_row,
    members: _member_row,
    publications: _publication_row,
}


def _variant_rows(number: int) -> list[dict[str, Any]]:
    return [
        {
            "key": key, "image_id": bucket_server.image_of(number), "recipe": "r",
            "role": "responsive", "size": "small", "format": FORMATS[n % len(FORMATS)],
            "width": 640, "height": 480, "quality": 80, "bytes": SIZE, "sha256": "0" * 64,
            "metadata": [], "created_at": PAST,
        }
        for n, key in enumerate(bucket_server.files_of(number))
    ]  # fmt: skip


def housekeep(config: str) -> Housekeeping:
    """An inventory, the plan from it, and the same again a month later."""
    from image_pipeline.maintenance.inventory import take_inventory
    from image_pipeline.maintenance.planning import plan_orphans
    from image_pipeline.store.bucket import Bucket

    settings = load_settings(config)
    bucket, catalog = Bucket(settings.bucket), Catalog(settings.catalog.url)
    bucket.client.list_buckets  # noqa: B018 - made on first use, which is not the listing's cost
    catalog.migrate()
    idle = resident_bytes()

    def now() -> datetime:
        return settings.now()

    def later() -> datetime:
        return settings.now() + timedelta(days=31)

    take_inventory(bucket, catalog, settings, now)
    plan_orphans(bucket, catalog, settings, now)
    second = _timed(lambda: take_inventory(bucket, catalog, settings, later))
    plan = _timed(lambda: plan_orphans(bucket, catalog, settings, later))
    catalog.close()
    return Housekeeping(
        inventory_seconds=second[1],
        inventory_cpu=second[2],
        plan_seconds=plan[1],
        plan_cpu=plan[2],
        objects=second[0].objects,
        planned=plan[0].entries,
        idle=idle,
        peak=peak_bytes(),
    )


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, and the seconds it took on the clock and of processors."""
    started, spent = time.perf_counter(), sum(os.times()[:2])
    result = work()
    return result, time.perf_counter() - started, sum(os.times()[:2]) - spent


if __name__ == "__main__":
    print(json.dumps(asdict(housekeep(sys.argv[1]))))
