"""What a sensor does with a source at one look: sweep, form batches, ask for due ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.batches import Batch
from image_pipeline.catalog.engine import Catalog, lock
from image_pipeline.delivery.manifest import to_json
from image_pipeline.ingest import batching, discovery
from image_pipeline.ingest.batching import Step
from image_pipeline.settings import Settings
from image_pipeline.stages.tools import utc_now
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import batch_key

#: From a request to the first sign of life of its run: queue, process start, imports.
REQUEST_GRACE = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class RunState:
    """The newest Dagster run of a batch: its status and how long ago it last changed."""

    run_id: str
    status: str
    age: timedelta


@dataclass(frozen=True, slots=True)
class Request:
    """Run ``batch`` as its attempt number ``attempt``."""

    batch: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a source brought.

    ``dead`` are runs that Dagster believes to be running although nobody holds their batch any
    more; ``given_up`` are batches without attempts left.
    """

    sweep: discovery.Sweep
    requests: list[Request]
    dead: list[str]
    given_up: list[str]


def look_at_source(
    settings: Settings,
    bucket: Bucket,
    catalog: Catalog,
    source: str,
    after: str,
    runs_of: Callable[[list[str]], Mapping[str, RunState]],
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
    *,
    is_swept: bool = True,
) -> Look:
    """Sweep the prefix of a source within the tick's budget, then request what is due.

    Without ``is_swept`` only what is in the catalog already is looked at.

    Where the last upload is a moment too young for its batch to close, that moment is waited
    for: the next tick comes much later.
    """
    deadline = time.monotonic() + settings.discovery.tick_seconds
    swept = discovery.Sweep(after, complete=True, listed=0, found=0)
    if is_swept:
        prefix = settings.sources[source].prefix
        swept = discovery.sweep(
            bucket, catalog, source, prefix, after, clock(), lambda: time.monotonic() < deadline
        )
    if not _form(settings, catalog, source, clock()):
        with catalog.read() as connection:
            young = catalog_batches.waiting(connection, source, settings.batches.max_images)
        pause = batching.seconds_until_quiet(young, clock(), settings.batches)
        if 0 < pause < deadline - time.monotonic():
            sleep(pause)
            _form(settings, catalog, source, clock())
    now = clock()
    with catalog.read() as connection:
        free = _free(connection, settings, source, now)
        due = catalog_batches.due(connection, source, now, free, _longest(settings))
    # Outside the transaction: asking Dagster and writing to the bucket takes its time, and a
    # tick that dies here leaves batches that are still due.
    runs = runs_of([batch.id for batch in due if batch.attempt > 0])
    with catalog.read() as connection:
        for batch in due:
            write_batch_list(connection, bucket, batch)
    with catalog.write() as connection:
        return _request(connection, settings, swept, due, runs, now)


def _free(connection: sa.Connection, settings: Settings, source: str, now: datetime) -> int:
    """How many more batches of a source may be asked for."""
    running = catalog_batches.in_flight(connection, source, now, _longest(settings))
    return max(0, settings.batches.max_running - running)


def _longest(settings: Settings) -> timedelta:
    """How far ahead a batch's time may be put; with an hour for clocks that differ a little."""
    lease = timedelta(seconds=settings.batches.lease_seconds)
    return timedelta(hours=1) + max(REQUEST_GRACE, lease, catalog_batches.LONGEST_PAUSE)


def _form(settings: Settings, catalog: Catalog, source: str, now: datetime) -> list[str]:
    """Form the batches that close now; no more than may be asked for."""
    rules = settings.batches
    with catalog.write() as connection:
        return catalog_batches.form(
            connection,
            source,
            now,
            rules.max_images * _free(connection, settings, source, now),
            lambda waiting: batching.split(waiting, now, rules),
        )


def write_batch_list(connection: sa.Connection, bucket: Bucket, batch: Batch) -> None:
    """The list of a batch's uploads, for people and for a catalog that must be rebuilt.

    Written before the batch first runs, never changed after.
    """
    if batch.attempt > 0:
        return
    document = {
        "batch": batch.id,
        "source": batch.source,
        "created_at": batch.created_at.isoformat(),
        "uploads": [
            {"key": upload.key, "etag": upload.etag, "size": upload.size}
            for upload in catalog_uploads.of_batch(connection, batch.id)
        ],
    }
    bucket.put(batch_key(batch.id), to_json(document), "application/json", only_if_missing=True)


def _request(
    connection: sa.Connection,
    settings: Settings,
    swept: discovery.Sweep,
    due: list[Batch],
    runs: Mapping[str, RunState],
    now: datetime,
) -> Look:
    lock(connection, "request")
    look = Look(swept, [], [], [])
    for batch in due:
        current = catalog_batches.get(connection, batch.id)
        if current != batch:
            continue  # another sensor or a run took it since
        run = runs.get(batch.id)
        step = batching.next_step(
            batch.attempt, settings.batches, run.status if run else None, run.age if run else None
        )
        if step is Step.WAIT:
            catalog_batches.wait(connection, batch.id, now + REQUEST_GRACE)
            continue
        if run and run.status in ("STARTED", *batching.STARTING):
            look.dead.append(run.run_id)
        if step is Step.GIVE_UP:
            catalog_batches.give_up(connection, batch.id, now)
            look.given_up.append(batch.id)
        else:
            attempt = catalog_batches.request(connection, batch.id, now + REQUEST_GRACE)
            look.requests.append(Request(batch.id, attempt))
    return look
