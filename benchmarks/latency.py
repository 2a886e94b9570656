"""How long an upload waits for its manifest, and how much of that is not image work."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

import psutil
import sqlalchemy as sa
from dagster import DagsterInstance, RunsFilter

from benchmarks.photos import write_photograph
from benchmarks.ports import free_port
from benchmarks.project import CHECKOUT, SOURCE, Project, RunTimes, new_project, run_times
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.catalog import batches
from image_pipeline.catalog.schema import uploads
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import image_manifest_key

#: Seconds for everything but the image work of a batch of one, and from upload to manifest.
GOAL_FIXED = 3.0
GOAL_MANIFEST = 10.0

UPLOADS = 7

#: Uploads come at any moment of the daemon's interval of five seconds.
PAUSE_SECONDS = (0.0, 10.0)

#: The manifest is looked for this often: a share of a percent of what is measured.
LOOK_SECONDS = 0.05

#: Dagster's first start on a loaded machine takes half a minute.
PATIENCE_SECONDS = 180.0

#: `image-pipeline dev` gives its processes 10 s, then the bucket 8 s.
STOP_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Journey:
    """Where one upload was when, in seconds after its PUT was answered.

    ``discovered`` by the sensor, ``enqueued`` as a run, ``launched`` by the daemon, ``started``
    as a run whose code is loaded, ``published`` its manifest seen in the bucket, ``reported``
    the asset of manifests in Dagster. ``worked`` are seconds of image work.
    """

    discovered: float
    enqueued: float
    launched: float
    started: float
    published: float
    reported: float
    worked: float

    @property
    def fixed(self) -> float:
        """Seconds from the start of the run to the end of its last asset, without image work."""
        return self.reported - self.started - self.worked


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Upload single small photographs to a running ``image-pipeline dev``."""
    machine = describe_machine()
    count = 2 if quick else UPLOADS
    # One more than is counted: the first run also waits for what is loaded only once.
    with new_project({}, serve=False) as project:
        paths = [project.folder / f"{number}.jpg" for number in range(count + 1)]
        for seed, path in enumerate(paths):
            write_photograph(path, seed, 640, 480)
        with running_dev(project):
            first, *journeys = list(_journeys(project, paths))
    return Report(
        "latency",
        "A single small photograph, from upload to manifest",
        _rows(journeys),
        (
            f"{count} uploads of 640 x 480 pixels under `image-pipeline dev` at random moments;"
            f" medians, of {', '.join(f'{one.published:.1f}' for one in journeys)} s",
            f"the first upload after the start is not counted: {first.published:.1f} s",
            "the daemon looks every five seconds, so an upload waits 2.5 s on average before it"
            " is noticed",
        ),
        machine,
    )


def _rows(journeys: Sequence[Journey]) -> tuple[Row, ...]:
    middle = Journey(
        *(median(getattr(one, field.name) for one in journeys) for field in fields(Journey))
    )
    fixed = median(one.fixed for one in journeys)
    slowest = max(one.published for one in journeys)
    return (
        Row("from object to manifest", middle.published, "s", None, GOAL_MANIFEST),
        Row("from object to manifest, slowest", slowest, "s"),
        Row("run start to manifests, without image work", fixed, "s", None, GOAL_FIXED),
        Row("object to discovery", middle.discovered, "s"),
        Row("discovery to a run in the queue", middle.enqueued - middle.discovered, "s"),
        Row("in the queue", middle.launched - middle.enqueued, "s"),
        Row("launch to start of the run", middle.started - middle.launched, "s"),
        Row("start of the run to manifest", middle.published - middle.started, "s"),
        Row("of which image work", middle.worked, "s"),
        Row("manifest to end of the last asset", middle.reported - middle.published, "s"),
    )


def _journeys(project: Project, paths: Sequence[Path]) -> Iterator[Journey]:
    bucket = wait_for_bucket(project)
    with project.instance() as instance:
        for number, path in enumerate(paths):
            print(f"latency: upload {number + 1} of {len(paths)}", file=sys.stderr)
            yield _journey(project, instance, bucket, path)
            time.sleep(random.uniform(*PAUSE_SECONDS))


def _journey(project: Project, instance: DagsterInstance, bucket: Bucket, path: Path) -> Journey:
    data = path.read_bytes()
    manifest = image_manifest_key(SOURCE, hashlib.sha256(data).hexdigest())
    key = project.settings.sources[SOURCE].prefix + path.name
    bucket.put(key, data, "image/jpeg")
    put = time.time()
    wait_until(lambda: bucket.head(manifest) is not None, f"no manifest of {key}")
    published = time.time()
    query = sa.select(uploads.c.batch_id, uploads.c.discovered_at).where(uploads.c.key == key)
    with project.catalog.read() as connection:
        batch, discovered = connection.execute(query).one()
    wait_until(lambda: _is_done(project, batch), f"batch {batch} is not done")
    times = _times_of(instance, batch)
    return Journey(
        discovered.timestamp() - put,
        (times.enqueued or 0) - put,
        (times.launched or 0) - put,
        times.started - put,
        published - put,
        times.published - put,
        project.worker_seconds(batch),
    )


def _times_of(instance: DagsterInstance, batch: str) -> RunTimes:
    only = RunsFilter(tags={"dagster/partition": batch})
    wait_until(
        lambda: all(run.is_finished for run in instance.get_runs(only)), "the run does not end"
    )
    (run,) = instance.get_runs(only)
    return run_times(instance, run.run_id)


def _is_done(project: Project, batch: str) -> bool:
    with project.catalog.read() as connection:
        found = batches.get(connection, batch)
    return found is not None and found.state == "done"


def wait_for_bucket(project: Project) -> Bucket:
    """The bucket of a project whose server is being started."""
    # The port is known, and the bucket there, only once the server has started.
    port = project.settings.bucket.data / "port"
    wait_until(port.is_file, "the embedded server did not start")
    project.bucket.create_if_missing()
    return project.bucket


def wait_until(done: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Poll until ``done``; raises ``TimeoutError`` with ``what`` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} after {seconds:g} s")
        time.sleep(LOOK_SECONDS)


@contextmanager
def running_dev(project: Project) -> Iterator[int]:
    """``image-pipeline dev`` and the port of its UI.

    It is ended as by Ctrl-C; whatever is left of it after that is killed.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "image_pipeline.cli", "dev", "--port", str(port)),
        *("--config", str(project.config)),
    ]
    with (project.folder / "dev.log").open("wb") as log:
        process = psutil.Popen(
            command, cwd=CHECKOUT, env=project.environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield port
        except BaseException:
            print((project.folder / "dev.log").read_text(errors="replace")[-3000:], file=sys.stderr)
            raise
        finally:
            _stop(process)


def _stop(process: psutil.Popen) -> None:
    tree = [process, *process.children(recursive=True)]
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)
    _, left = psutil.wait_procs(tree, timeout=STOP_SECONDS)
    if left:
        print(f"latency: {len(left)} processes outlived image-pipeline dev", file=sys.stderr)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left)
