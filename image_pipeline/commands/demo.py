"""``image-pipeline demo``: the main job, once, with the real sensor and a real Dagster instance."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from image_pipeline.catalog import batches, uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.near import near_of
from image_pipeline.commands.dedupe import in_words
from image_pipeline.commands.display import print_table, progress_bar, size
from image_pipeline.commands.files import find_files
from image_pipeline.commands.local import dagster_home, environment, local_bucket, project_folder
from image_pipeline.commands.upload import Sent, send
from image_pipeline.delivery.gallery import portable_page
from image_pipeline.delivery.wording import visible
from image_pipeline.samples import write_samples
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import gallery_key

if TYPE_CHECKING:
    import dagster as dg

#: The demo gives up if the sensor asks for nothing and nothing gets done for this long.
PATIENCE_SECONDS = 180.0


#: Every tier as a sentence between two names, the surest evidence first.
SENTENCES = {
    "bytes": "is the same file as",
    "pixels": "has the same pixels as",
    "picture": "shows the same picture as",
    "near": "resembles",
}

#: Sentences printed of each tier: with one's own photographs there may be thousands.
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Repeat:
    """An upload that repeats another one: its name, by which tier, and the other's name."""

    name: str
    tier: str
    of: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rows of the demo's own uploads, and how much of it was done before."""

    rows: list[dict[str, Any]]
    repeats: list[Repeat]
    new_batches: int
    seconds: float


def run_demo(settings: Settings, config: Path | None, photos: Path | None) -> int:
    """Run the demo. Exit code 0 when every upload has a final verdict."""
    folder = project_folder(config)
    source = next(iter(settings.sources))
    with local_bucket(settings) as bucket:
        files = list(find_files([photos or _samples(folder)]))
        if not files:
            raise click.ClickException(f"there are no files in {photos}")
        sent = send(bucket, settings.sources[source].prefix, files, limits=None)
        catalog = Catalog(settings.catalog.url)
        home = dagster_home(folder)
        os.environ.update(environment(config, home))
        outcome = _process(settings, catalog, source, sent, home)
        galleries = _save_galleries(bucket, outcome.rows, folder / ".data" / "galleries")
    _print(outcome, sent, galleries)
    return 1 if any(row["verdict"] in (None, "failed") for row in outcome.rows) else 0


def _samples(folder: Path) -> Path:
    samples = folder / ".data" / "samples"
    with progress_bar() as progress:
        task = progress.add_task("generating photographs", total=None)
        write_samples(
            samples,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    return samples


def _process(
    settings: Settings, catalog: Catalog, source: str, sent: list[Sent], home: Path
) -> Outcome:
    """Let the sensor look and run what it asks for, until every upload has its verdict."""
    from dagster import DagsterInstance

    started = time.monotonic()
    keys = [one.key for one in sent if one.outcome != "failed"]
    new_batches = 0
    with DagsterInstance.from_config(str(home)) as instance, _watched(catalog, source, keys):
        sensor = _Sensor(settings, source, instance)
        last_progress = time.monotonic()
        while not _is_done(catalog, source, keys):
            requests = sensor.look()
            for request in requests:
                _run(request, instance)
                new_batches += 1
            if requests:
                last_progress = time.monotonic()
            elif time.monotonic() - last_progress > PATIENCE_SECONDS:
                raise click.ClickException(
                    "nothing moves: see 'image-pipeline status' and the runs in 'make dev'"
                )
            else:
                time.sleep(0.5)  # an upload may be a moment too young for its batch to close
    rows = _rows(catalog, source, keys)
    repeats = _repeats(catalog, source, rows)
    return Outcome(rows, repeats, new_batches, round(time.monotonic() - started, 1))


class _Sensor:
    """The upload sensor of the code location, evaluated as the daemon would."""

    def __init__(self, settings: Settings, source: str, instance: dg.DagsterInstance) -> None:
        from image_pipeline.definitions import pipeline

        self.definitions = pipeline()
        self.sensor = self.definitions.resolve_sensor_def(f"{source}_uploads")
        self.instance = instance
        self.cursor: str | None = None

    def look(self) -> list[dg.RunRequest]:
        """One tick: new partitions are added, the run requests returned."""
        import dagster as dg

        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(
            cursor=self.cursor,
            repository_def=repository,
            instance_ref=self.instance.get_ref(),
            resources=dict(self.definitions.resources or {}),
        )
        with context:
            tick = self.sensor.evaluate_tick(context)
        self.cursor = tick.cursor
        for request in tick.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, list(request.partition_keys)
            )
        return list(tick.run_requests or ())


def _run(request: dg.RunRequest, instance: dg.DagsterInstance) -> None:
    from image_pipeline.definitions import pipeline

    job = pipeline().resolve_job_def("process_batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ResourceWarning)
        job.execute_in_process(
            instance=instance,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


def _is_done(catalog: Catalog, source: str, keys: Iterable[str]) -> bool:
    """Whether no upload of these keys waits and none of their batches is still open."""
    with catalog.read() as connection:
        rows = uploads.newest(connection, source, keys)
        open_batches = set(batches.open_ids(connection))
    return len(rows) == len(set(keys)) and not any(
        row["batch_id"] is None or row["batch_id"] in open_batches for row in rows
    )


def _rows(catalog: Catalog, source: str, keys: list[str]) -> list[dict[str, Any]]:
    """Report rows of the demo's uploads, with the bytes of each format of their canonical."""
    with catalog.read() as connection:
        wanted = {row["id"]: row["batch_id"] for row in uploads.newest(connection, source, keys)}
        found = []
        for batch in dict.fromkeys(wanted.values()):
            rows = uploads.report(connection, batch)
            found += [{**row, "batch_id": batch} for row in rows if row["id"] in wanted]
        by_format = uploads.bytes_by_format(connection, (row["canonical_id"] for row in found))
    return [{**row, "out": by_format.get(row["canonical_id"], {})} for row in found]


def _repeats(catalog: Catalog, source: str, rows: list[dict[str, Any]]) -> list[Repeat]:
    """What the demo's uploads repeat: duplicates, then what is only near."""
    images = {row["image_id"] for row in rows if row["image_id"]}
    duplicates = [row for row in rows if row["verdict"] == "duplicate"]
    with catalog.read() as connection:
        pairs = near_of(connection, source, images)
        others = {row["canonical_id"] for row in duplicates}
        others |= {image for pair in pairs for image in (pair.image_id, pair.canonical_id)}
        first = uploads.originals(connection, sorted(others))
    names = {image: _name(known[0].key) for image, known in first.items()}
    names |= {row["image_id"]: _name(row["key"]) for row in rows if row["verdict"] == "accepted"}
    return [
        *(
            Repeat(_name(row["key"]), row["reason"], names[row["canonical_id"]])
            for row in duplicates
        ),
        *(
            Repeat(
                names[pair.image_id],
                "near",
                names[pair.canonical_id],
                in_words(pair.found_by, pair.transform),
            )
            for pair in pairs
        ),
    ]


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1]


@contextmanager
def _watched(catalog: Catalog, source: str, keys: list[str]) -> Iterator[None]:
    """Show progress from the catalog while runs do their work."""
    ended = threading.Event()

    def watch() -> None:
        with progress_bar() as progress:
            inspected = progress.add_task("checked", total=len(set(keys)))
            rendered = progress.add_task("images rendered", total=None)
            last = False
            while not last:
                last = ended.wait(0.3)
                with catalog.read() as connection:
                    rows = uploads.newest(connection, source, keys)
                    images = {row["image_id"] for row in rows if row["verdict"] == "accepted"}
                    done = len(uploads.bytes_by_format(connection, images))
                decided = sum(row["verdict"] is not None for row in rows)
                progress.update(inspected, completed=decided)
                progress.update(rendered, completed=done, total=len(images) or None)

    thread = threading.Thread(target=watch, name="progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _save_galleries(bucket: Bucket, rows: Iterable[dict[str, Any]], folder: Path) -> list[Path]:
    """The gallery page of every batch, where a browser can open it without the bucket."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for batch in dict.fromkeys(row["batch_id"] for row in rows):
        page = folder / f"{batch}.html"
        text = bucket.get(gallery_key(batch)).decode()
        page.write_text(portable_page(text, bucket.get), encoding="utf-8")
        saved.append(page)
    return saved


def _print(outcome: Outcome, sent: list[Sent], galleries: list[Path]) -> None:
    if not outcome.new_batches:
        print("Everything was done already: nothing new in the bucket, nothing to render.\n")
    rows = []
    for row in outcome.rows:
        out = row["out"] if row["verdict"] == "accepted" else {}
        rows.append(
            (
                _name(row["key"]),
                row["verdict"] or "unfinished",
                row["reason"],
                f"{row['width']}x{row['height']}" if row["width"] else "-",
                size(row["bytes"]),
                *(size(out.get(kind)) for kind in ("avif", "webp", "jpeg")),
                f"{row['seconds']:.1f} s",
            )
        )
    columns = ("upload", "verdict", "reason", "pixels", "in", "AVIF", "WebP", "JPEG", "time")
    print_table(columns, rows, numbers=columns[3:])
    _print_totals(outcome, sent)
    _print_repeats(outcome.repeats)
    for gallery in galleries:
        print(f"Look at it      {gallery.as_uri()}")
    print("In the UI       make dev, then http://127.0.0.1:3000")


def _print_totals(outcome: Outcome, sent: list[Sent]) -> None:
    counted = {
        verdict: sum(row["verdict"] == verdict for row in outcome.rows)
        for verdict in ("accepted", "duplicate", "rejected", "failed")
    }
    accepted = [row for row in outcome.rows if row["verdict"] == "accepted"]
    bytes_in = sum(row["bytes"] for row in outcome.rows)
    bytes_out = sum(sum(row["out"].values()) for row in accepted)
    verdicts = ", ".join(f"{count} {name}" for name, count in counted.items())
    print(f"\n{len(outcome.rows)} uploads: {verdicts}")
    print(f"{size(bytes_in)} in, {size(bytes_out)} out in all sizes and formats", end="")
    plural = "" if outcome.new_batches == 1 else "es"
    print(f", {outcome.seconds} s in {outcome.new_batches} new batch{plural}\n")
    for one in sent:
        if one.outcome == "failed":
            print(f"Not uploaded: {one.path}: {one.message}")


def _print_repeats(repeats: list[Repeat]) -> None:
    """What was found by each tier, in words."""
    for tier, words in SENTENCES.items():
        found = [one for one in repeats if one.tier == tier]
        for one in found[:EXAMPLES]:
            how = ", ".join(filter(None, (one.how, "only reported" if tier == "near" else "")))
            end = f" ({how})" if how else ""
            print(f"{tier:<15} {visible(one.name)} {words} {visible(one.of)}{end}")
        if len(found) > EXAMPLES:
            print(f"{'':<15} and {len(found) - EXAMPLES} more")
    if repeats:
        print()
