"""A project of one's own for a benchmark: settings, bucket, catalog and Dagster home, all new."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import yaml
from dagster import DagsterEventType as Event
from dagster import DagsterInstance

from benchmarks.report import FOLDER
from image_pipeline.catalog import uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.files import LocalFile
from image_pipeline.commands.local import dagster_home, environment, local_bucket
from image_pipeline.commands.upload import send
from image_pipeline.settings import CONFIG_NAME, Settings, load_settings
from image_pipeline.stages.batching import look_at_source
from image_pipeline.store.bucket import Bucket

SOURCE = "photos"
JOB = "process_batch"

#: The checkout, whose own files a benchmark's project is made of.
CHECKOUT = Path(__file__).parents[1]

#: One batch takes everything there is at once.
ONE_BATCH = {
    "batches": {
        "max_images": 10_000,
        "max_megabytes": 1_000_000,
        "max_age_seconds": 0,
        "quiet_seconds": 0,
    }
}


@dataclass(frozen=True, slots=True)
class RunTimes:
    """When things happened in a run, in seconds since the epoch, from Dagster's event log.

    ``steps`` are seconds from start to end of each step; ``published`` is the moment at which
    the manifests were materialized.
    """

    enqueued: float | None
    launched: float | None
    started: float
    ended: float
    steps: dict[str, float]
    published: float


class Project:
    """A folder with its own settings, and what they name."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.config = folder / CONFIG_NAME
        self.settings = settings
        self.home = dagster_home(folder)
        self.catalog = Catalog(settings.catalog.url)

    @cached_property
    def bucket(self) -> Bucket:
        """The bucket; the embedded server must have been started before."""
        return Bucket(self.settings.bucket)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for processes that work on this project."""
        return {**os.environ, **environment(self.config, self.home)}

    @contextmanager
    def instance(self) -> Iterator[DagsterInstance]:
        """The Dagster instance of this project."""
        with DagsterInstance.from_config(str(self.home)) as instance:
            yield instance

    def new_batch(self, files: Sequence[LocalFile]) -> str:
        """Upload files and have the sensor's own code make one batch of them."""
        send(self.bucket, self.settings.sources[SOURCE].prefix, files, limits=None)
        look = look_at_source(
            self.settings, self.bucket, self.catalog, SOURCE, "", lambda batches: {}
        )
        (request,) = look.requests
        with self.instance() as instance:
            instance.add_dynamic_partitions("batches", [request.batch])
        return request.batch

    def worker_seconds(self, batch: str) -> float:
        """Seconds that worker processes spent on the images of a batch, as the catalog counts."""
        with self.catalog.read() as connection:
            return sum(upload.seconds for upload in uploads.of_batch(connection, batch))


@contextmanager
def new_project(changes: Mapping[str, Any], *, serve: bool = True) -> Iterator[Project]:
    """A project in a folder that is removed in the end.

    ``changes`` are laid over the checkout's ``pipeline.yaml``, part by part. With ``serve``
    its embedded S3 server runs meanwhile.
    """
    # On the disk of the checkout: /tmp may be memory, which is being measured.
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="project-", dir=FOLDER) as name:
        folder = Path(name).resolve()
        for file in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(CHECKOUT / file, folder)
        raw = yaml.safe_load((CHECKOUT / CONFIG_NAME).read_text(encoding="utf-8"))
        for part, fields in changes.items():
            raw[part] = {**raw.get(part, {}), **fields}
        config = folder / CONFIG_NAME
        config.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        project = Project(folder, load_settings(config))
        try:
            if not serve:
                yield project
            else:
                with local_bucket(project.settings):
                    yield project
        finally:
            project.catalog.close()


def run_command(batch: str) -> list[str]:
    """A command that runs one batch as Dagster's run launcher would: in a process of its own."""
    return [
        *(sys.executable, "-W", "ignore", "-m", "dagster", "job", "execute"),
        *("-m", "image_pipeline.definitions", "-j", JOB),
        *("--tags", json.dumps({"dagster/partition": batch})),
    ]


@contextmanager
def quiet_process(
    command: Sequence[str], variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process without output; leaving waits for its end, or ends it after an exception.

    Raises ``ClickException`` with the end of its output if it fails: there is nothing to
    measure then.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=dict(variables), cwd=CHECKOUT, stdout=output, stderr=output
        )
        try:
            yield process
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if code:
            output.seek(0)
            words = output.read().decode(errors="replace").splitlines()[-20:]
            raise click.ClickException("\n".join([f"exit code {code}:", *words]))


def run_times(instance: DagsterInstance, run_id: str) -> RunTimes:
    """When things happened in a run that ended."""
    at: dict[Event, float] = {}
    began: dict[str, float] = {}
    steps: dict[str, float] = {}
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is None:
            continue
        at[event.event_type] = entry.timestamp
        step = event.step_key or ""
        if event.event_type is Event.STEP_START:
            began[step] = entry.timestamp
        elif event.event_type in (Event.STEP_SUCCESS, Event.STEP_FAILURE):
            steps[step] = entry.timestamp - began[step]
    return RunTimes(
        at.get(Event.RUN_ENQUEUED),
        at.get(Event.RUN_STARTING),
        at[Event.RUN_START],
        at.get(Event.RUN_SUCCESS) or at[Event.RUN_FAILURE],
        steps,
        at[Event.ASSET_MATERIALIZATION],  # the last one: the manifests'
    )


def only_run(project: Project) -> RunTimes:
    """The times of the one run of a project."""
    with project.instance() as instance:
        (run,) = instance.get_runs()
        return run_times(instance, run.run_id)
