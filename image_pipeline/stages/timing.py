"""How long the stages of a batch take, written down with the work itself.

A stage keeps two clocks and a histogram, and writes one row when it ends. That costs a
transaction per stage and nothing per image that could be measured beside decoding it.

Where a stage waits for the bucket while workers work, that time is a stage of its own (``fetch``,
``store``): only so can one tell a slow bucket from slow workers. All stages of a batch together
are the time of its run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import timings as catalog_timings
from image_pipeline.catalog.slow_queries import doing
from image_pipeline.catalog.timings import Timing
from image_pipeline.performance.timings import SLOWEST, Watch, to_json
from image_pipeline.stages.tools import Tools

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Stage:
    """What a stage says of itself while it runs; see :class:`Timing` for the fields.

    ``images`` 0 means that there was nothing to do: that is not written down. ``elsewhere`` are
    seconds of it that belong to another stage.
    """

    name: str
    source: str = ""
    images: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    workers: int = 1
    recipe: str = ""
    watch: Watch = field(default_factory=Watch)
    amounts: dict[str, float] = field(default_factory=dict)
    elsewhere: float = 0.0
    uses_workers: bool = False


@contextmanager
def timed(tools: Tools, name: str, batch: str | None, source: str = "") -> Iterator[Stage]:
    """Take the time of a stage of a batch, or of a pass over a source, and write it down.

    A stage that raises is not written down: its time says nothing about images. Nothing that goes
    wrong in writing down reaches the stage.
    """
    stage = Stage(name, source)
    began_at, began, cpu = tools.clock(), time.monotonic(), time.process_time()
    with doing(name, batch):
        yield stage
    seconds = max(time.monotonic() - began - stage.elsewhere, 0.0)
    if stage.images:
        busy = time.process_time() - cpu
        record(tools, batch, _timing(tools, stage, began_at, seconds, busy))


def record(tools: Tools, batch: str | None, timing: Timing) -> None:
    """Write a row, if it is wanted and the catalog takes it."""
    if not tools.settings.performance.enabled:
        return
    try:
        with tools.catalog.write() as connection:
            found = catalog_batches.get(connection, batch) if batch else None
            # Batches that people run by hand were never asked for.
            attempt = max(1, found.attempt) if found else 1
            catalog_timings.record(connection, replace(timing, batch_id=batch, attempt=attempt))
    except SQLAlchemyError as error:
        _log.warning("the time of stage %s was not written down: %s", timing.stage, error)


def record_part(
    tools: Tools,
    batch: str,
    stage: Stage,
    name: str,
    watch: Watch,
    began_at: datetime,
) -> None:
    """Write the time that a stage spent waiting for the bucket as a stage of its own."""
    if watch.buckets:
        timing = Timing(
            stage.source,
            name,
            began_at,
            round(stage.elsewhere, 4),
            images=watch.buckets.total(),
            bytes_in=stage.bytes_in,
            bytes_out=stage.bytes_out,
            **_of_watch(watch),
        )
        record(tools, batch, timing)


def record_wait(tools: Tools, batch: str, source: str) -> None:
    """Write how long the uploads of a batch waited for its run, before it begins.

    From when they were written or discovered, whichever was earlier: clocks differ. Only those that
    nobody has looked into: what is tried again has waited before. ``noticing`` are the seconds
    until they were discovered, ``queueing`` those after that.
    """
    if not tools.settings.performance.enabled:
        return
    with tools.catalog.read() as connection:
        arrived = catalog_timings.arrivals(connection, batch)
    if not arrived:
        return
    now = tools.clock()
    watch, noticing, queueing = Watch(), 0.0, 0.0
    for one in arrived:
        since = min(one.last_modified, one.discovered_at)
        waited = max(0.0, (now - since).total_seconds())
        watch.add(one.upload, waited)
        noticing += max(0.0, (one.discovered_at - since).total_seconds())
        queueing += max(0.0, (now - one.discovered_at).total_seconds())
    timing = Timing(
        source,
        "wait",
        now,
        round(watch.slowest[0][1], 4),
        images=len(arrived),
        amounts={"noticing": round(noticing, 3), "queueing": round(queueing, 3)},
        **_of_watch(watch),
    )
    record(tools, batch, timing)


def weigh(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What published files weigh, as ``amounts``: by format, and beside JPEG.

    ``bytes.<format>`` are all files of a format. ``own.<format>`` and ``jpeg.<format>`` are the
    files of a format, and those of JPEG, of pictures and sizes that have both.
    """
    found: dict[str, float] = {}
    by_size: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        if not row["dropped"]:
            kind = row["format"]
            found[f"bytes.{kind}"] = found.get(f"bytes.{kind}", 0) + row["bytes"]
            by_size.setdefault((row["image_id"], row["size"]), {})[kind] = row["bytes"]
    for files in by_size.values():
        for kind in files.keys() - {"jpeg"} if "jpeg" in files else ():
            found[f"own.{kind}"] = found.get(f"own.{kind}", 0) + files[kind]
            found[f"jpeg.{kind}"] = found.get(f"jpeg.{kind}", 0) + files["jpeg"]
    return found


def _timing(
    tools: Tools, stage: Stage, began_at: datetime, seconds: float, busy: float
) -> Timing:  # fmt: skip
    watch, rules = stage.watch, tools.settings.workers
    workers = 1
    if stage.uses_workers:
        # How many a cluster has changes all the time; how many worked is known afterwards.
        at_work = round(watch.total / seconds) if seconds else 1
        workers = rules.count if rules.cluster is None else max(1, at_work)
        busy += watch.total
    if not watch.buckets:
        watch.spread(stage.images, seconds)
    return Timing(
        stage.source,
        stage.name,
        began_at,
        round(seconds, 4),
        cpu_seconds=round(busy, 4),
        workers=workers,
        recipe=stage.recipe,
        images=stage.images,
        bytes_in=stage.bytes_in,
        bytes_out=stage.bytes_out,
        amounts=stage.amounts,
        **_of_watch(watch),
    )


def _of_watch(watch: Watch) -> dict[str, Any]:
    slowest = watch.slowest[:SLOWEST]
    return {
        "histogram": to_json(watch.buckets),
        "slowest": slowest,
        "worst": slowest[0][1] if slowest else 0.0,
    }
