"""Finding a few new keys among very many known ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks.list_server import PAST, RECENTLY, SIZE, Listed, objects
from benchmarks.look import Look
from benchmarks.project import CHECKOUT, SOURCE, Project, new_project
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.catalog import batches, uploads
from image_pipeline.catalog.engine import Catalog, insert_new
from image_pipeline.catalog.schema import batches as batch_table
from image_pipeline.commands.local import local_bucket

KNOWN = 100_000
NEW = 100
ROUNDS = 3

#: The code server evaluates several sensors in one small process.
GOAL_MEGABYTES = 200.0

#: Where the embedded server keeps buckets: its only account.
ACCOUNT = "000000000000"

#: A listing on a loaded machine takes minutes at most.
PATIENCE_SECONDS = 600.0


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Sweep and ``get_objects`` in turns, on two servers that list the same keys."""
    machine = describe_machine()
    known, rounds = (5_000, 1) if quick else (KNOWN, ROUNDS)
    with new_project({}, serve=False) as project:
        prefix = project.settings.sources[SOURCE].prefix
        print(f"discovery: writing {known} keys", file=sys.stderr)
        listed = list(objects(known, NEW, prefix))
        _fill_catalog(project.catalog, listed[:known])
        _fill_folder(project, listed)
        rows: list[Row] = []
        with _list_server(known, prefix) as url:
            rows += _compare(project, "list server", url, rounds)
        with local_bucket(project.settings):
            rows += _compare(project, "embedded server", "embedded", rounds)
    return Report(
        "discovery",
        f"{NEW} new keys among {known:,} known ones, beside `dagster_aws.s3.sensor.get_objects`",
        tuple(rows),
        (
            f"medians of {rounds} sweeps of a sensor tick's own code, each in a process of its own"
            " with a fresh copy of the catalog; get_objects, in turns with it, is asked for what"
            " was written after the last known key",
            "list server: an HTTP server of the benchmarks that answers pages of 1,000 keys from a"
            " sorted list, so the figure is the client's; embedded server: the one of `make dev`,"
            " which sorts all keys anew for every page, so the figure is mostly the server's",
            "get_objects keeps every key in memory and leaves it to the caller to remember what it"
            " has seen; the sweep asks the catalog about each key, records the new ones and forms"
            " their batch",
        ),
        machine,
    )


def _compare(project: Project, server: str, url: str, rounds: int) -> list[Row]:
    sweeps: list[Look] = []
    others: list[Look] = []
    for number in range(rounds):
        print(f"discovery: {server}, round {number + 1} of {rounds}", file=sys.stderr)
        sweeps.append(_look(project, url))
        others.append(_look(project, url, since=RECENTLY - timedelta(seconds=1)))
    budget = project.settings.discovery.tick_seconds
    return [
        Row(
            f"{server}: one sweep of the prefix",
            median(sum(look.ticks) for look in sweeps),
            "s",
            median(sum(look.ticks) for look in others),
        ),
        Row(f"{server}: longest tick", max(max(look.ticks) for look in sweeps), "s", None, budget),
        Row(
            f"{server}: found of the {NEW} new",
            min(look.found for look in sweeps),
            "",
            min(look.found for look in others),
        ),
        Row(
            f"{server}: peak memory of the process",
            max(look.peak for look in sweeps) / 1e6,
            "MB",
            max(look.peak for look in others) / 1e6,
            GOAL_MEGABYTES,
        ),
        Row(
            f"{server}: of it, grown while listing",
            max(look.peak - look.idle for look in sweeps) / 1e6,
            "MB",
            max(look.peak - look.idle for look in others) / 1e6,
        ),
    ]


def _look(project: Project, url: str, since: datetime | None = None) -> Look:
    """One look by a new process, at a catalog that does not know the new keys."""
    kept = project.folder / "known.db"
    copy = project.folder / "catalog.db"
    shutil.copy(kept, copy)
    variables = {
        **project.environment,
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "IMAGE_PIPELINE_BUCKET__ENDPOINT_URL": url,
        "IMAGE_PIPELINE_CATALOG__URL": f"sqlite:///{copy}",
    }
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.look", str(project.config)]
    answer = subprocess.run(
        command + ([since.isoformat()] if since else []),
        env=variables,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return Look(**json.loads(answer.stdout))


def _fill_catalog(catalog: Catalog, known: list[Listed]) -> None:
    """A catalog that knows these keys as long done, kept as ``known.db``."""
    now = datetime.now(UTC)
    batch = batches.batch_id(SOURCE, PAST)
    done = {
        "id": batch, "source": SOURCE, "created_at": PAST, "uploads": len(known),
        "bytes": SIZE * len(known), "state": "done", "attempt": 1, "finished_at": PAST,
    }  # fmt: skip
    rows = [
        {
            "source": SOURCE, "key": one.key, "etag": one.etag, "size": SIZE,
            "last_modified": one.modified, "discovered_at": now, "batch_id": batch,
            "verdict": "accepted",
        }
        for one in known
    ]  # fmt: skip
    with catalog.write() as connection:
        insert_new(connection, batch_table, [done])
        uploads.add(connection, rows)
    catalog.close()
    path = Path(str(catalog.engine.url.database))
    shutil.copy(path, path.parents[1] / "known.db")


def _fill_folder(project: Project, listed: list[Listed]) -> None:
    """The same keys as files of the embedded server, which reads them when it starts."""
    bucket = project.settings.bucket
    root = bucket.data / "s3" / ACCOUNT / bucket.name
    for folder in {root / Path(one.key).parent for one in listed}:
        folder.mkdir(parents=True)
    for one in listed:
        path = root / one.key
        path.touch()
        described = {
            "content_type": "image/jpeg",
            "etag": f'"{one.etag}"',
            "size": SIZE,
            "last_modified": f"{one.modified:%Y-%m-%dT%H:%M:%S.000Z}",
        }
        path.with_name(f"{path.name}.meta.json").write_text(json.dumps(described))


@contextmanager
def _list_server(known: int, prefix: str) -> Iterator[str]:
    """The URL of a list server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.list_server", str(known), str(NEW), prefix]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        # Leaving closes its standard input, which ends it.
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
