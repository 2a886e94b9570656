"""Moving objects to the trash and deleting them, beside the same requests with nothing around."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from benchmarks.report import Report, Row, describe_machine
from image_pipeline.catalog.engine import Catalog, chunks
from image_pipeline.embedded import EmbeddedS3
from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.maintenance.plans import Entry, Plan, plan_id, write_plan
from image_pipeline.maintenance.removing import THREADS
from image_pipeline.maintenance.trash import purge_trash
from image_pipeline.settings import BucketSettings, Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import trash_key, variant_key

KEYS, QUICK_KEYS = 100_000, 2_000
ROUNDS, QUICK_ROUNDS = 3, 3

#: At least 80 % of the rate: at most so many times as long.
GOAL = 1 / 0.8

_BODY = b"x" * 1000


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds, and processor seconds of this process, for one kind of work."""

    clock: float
    cpu: float


def measure(images: int, photos: Path | None, quick: bool) -> Report:
    """Move objects to the trash and purge it, by turns with the bare requests."""
    machine = describe_machine()
    count, rounds = (QUICK_KEYS, QUICK_ROUNDS) if quick else (KEYS, ROUNDS)
    ours: list[tuple[_Times, _Times]] = []
    bare: list[tuple[_Times, _Times]] = []
    for number in range(rounds):
        # By turns, so that neither always has the warmer machine; each on a server of its own.
        for turn in (ours, bare) if number % 2 else (bare, ours):
            print(f"removal: round {number + 1} of {rounds}, {count:,} objects", file=sys.stderr)
            with _bucket() as (bucket, folder):
                keys = _fill(bucket, count)
                work = _ours if turn is ours else _bare
                turn.append(work(bucket, folder, keys))
    rows = [
        *_rows("moving to the trash", count, [o[0] for o in ours], [b[0] for b in bare]),
        *_rows("deleting for good", count, [o[1] for o in ours], [b[1] for b in bare]),
    ]
    return Report(
        "removal",
        f"{count:,} objects moved to the trash, then deleted for good",
        tuple(rows),
        (
            f"beside it: HEAD and COPY of each by {THREADS} threads of the same client, one"
            " DeleteObjects for each 1,000, and nothing else; medians of"
            f" {rounds} rounds by turns",
            "the embedded server answers both, and has the same cores: on a store elsewhere what"
            " is around the requests weighs less",
        ),
        machine,
    )


def _rows(what: str, count: int, ours: Sequence[_Times], bare: Sequence[_Times]) -> Iterator[Row]:
    mine, theirs = median(one.clock for one in ours), median(one.clock for one in bare)
    yield Row(f"{what}, on the clock", mine, "s", theirs, GOAL, "ratio")
    yield Row(f"{what}, objects a second", count / mine, "", count / theirs)
    cpu, their_cpu = median(one.cpu for one in ours), median(one.cpu for one in bare)
    yield Row(f"{what}, processor time of the client", cpu, "s", their_cpu)


def _ours(bucket: Bucket, folder: Path, keys: Sequence[str]) -> tuple[_Times, _Times]:
    settings = Settings()
    catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
    now = datetime.now(UTC)
    try:
        listed = list(bucket.list("variants/"))
        plan = Plan(plan_id("orphans", now), "orphans", now, "i", "", 0, 0, 0.0, False, "planned")
        entries = (
            Entry(one.key, one.etag, one.size, one.last_modified, one.storage_class,
                  "unknown_variant", now, now)
            for one in listed
        )  # fmt: skip
        made = write_plan(bucket, catalog, plan, entries)
        moved = _timed(lambda: apply_plan(bucket, catalog, settings, lambda: now, made.id))
        later = now + timedelta(days=settings.maintenance.cleanup.trash_days)
        purged = _timed(lambda: purge_trash(bucket, catalog, settings, lambda: later))
    finally:
        catalog.close()
    _check(bucket, keys)
    return moved, purged


def _bare(bucket: Bucket, folder: Path, keys: Sequence[str]) -> tuple[_Times, _Times]:
    client, name = bucket.client, bucket.name

    def move_one(key: str) -> None:
        client.head_object(Bucket=name, Key=key)
        source: Any = {"Bucket": name, "Key": key}
        client.copy_object(Bucket=name, Key=trash_key("bare", key), CopySource=source)

    def delete(part: Sequence[str]) -> None:
        client.delete_objects(
            Bucket=name, Delete={"Objects": [{"Key": key} for key in part], "Quiet": True}
        )

    def move() -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            for part in chunks(keys, 1000):
                list(threads.map(move_one, part))
                delete(part)

    def purge() -> None:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix="trash/")
        for page in pages:
            delete([entry["Key"] for entry in page.get("Contents", ())])

    times = _timed(move), _timed(purge)
    _check(bucket, keys)
    return times


def _timed(work: Callable[[], object]) -> _Times:
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return _Times(time.perf_counter() - clock, time.process_time() - cpu)


def _check(bucket: Bucket, keys: Sequence[str]) -> None:
    left = [*bucket.list("variants/"), *bucket.list("trash/")]
    if left:
        raise RuntimeError(f"{len(left)} of {len(keys)} objects are left: nothing was measured")


@contextmanager
def _bucket() -> Iterator[tuple[Bucket, Path]]:
    """A bucket on a server of its own, and a folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with EmbeddedS3(folder / "s3") as server, mock.patch.dict("os.environ", server.environment):
            bucket = Bucket(BucketSettings(name="removal", endpoint_url=server.endpoint_url))
            bucket.create_if_missing()
            yield bucket, folder
            bucket.client.close()


def _fill(bucket: Bucket, count: int) -> list[str]:
    """Objects as a killed run leaves them: files of images that the catalog does not have."""
    ids = (hashlib.sha256(str(number).encode()).hexdigest() for number in range(count))
    keys = sorted(variant_key(image, "small", 640, 480, "0a1b2c", "webp") for image in ids)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda key: bucket.put(key, _BODY, "image/webp"), keys))
    return keys
