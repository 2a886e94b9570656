"""``image-pipeline dev`` itself, with daemon, web server, code server and runs, under kills."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from image_pipeline.store.bucket import StoreError
from image_pipeline_tests.ports import free_port

from .moments import MOMENTS, SEED
from .oracle import Oracle, runs
from .processes import end, kill, wait_until
from .project import REPOSITORY, Project, Upload, encoded, plain_settings, uploads
from .test_kills import large

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dev")]

#: A start takes about 8 s on two idle cores.
START_SECONDS = 60.0

#: From an upload to the end of its batch, about: servers are killed within this time.
MOMENT_SECONDS = 12.0

#: A run whose process is gone is noticed by its lease (2 s), one that was only asked for after
#: two minutes.
PATIENCE_SECONDS = 240.0


#: A word of the command line of each. The code location is a process below the code server.
SERVERS = {
    "daemon": "dagster._daemon",
    "code server": "code-server",
    "code location": "api",
    "web server": "dagster_webserver",
}


class Dev:
    """``image-pipeline dev`` on a project of its own."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def start(self) -> None:
        """Start it and wait until its bucket answers; Dagster needs some more seconds."""
        with (self.project.folder / "dev.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "image_pipeline.cli", "dev", "--port", str(self.port)],
                cwd=self.project.folder,
                env=self.project.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, "the bucket", START_SECONDS, every=0.2)

    def interrupt(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        assert self.process
        return self.process.wait(START_SECONDS)

    def run_process(self) -> int | None:
        """The process of a run that holds its batch: the spool is named after it."""
        spool = self.project.settings.workers.spool
        held = self.project.rows("SELECT id FROM batches WHERE state = 'running'")
        for folder in spool.glob("*") if held else ():
            if psutil.pid_exists(int(folder.name)):
                return int(folder.name)
        return None

    def server(self, name: str) -> int | None:
        """One of Dagster's servers, by a key of :data:`SERVERS`."""
        for process in self.project.processes():
            with suppress(psutil.NoSuchProcess):
                if SERVERS[name] in process.cmdline():
                    return process.pid
        return None

    def has_ended(self) -> bool:
        assert self.process
        return self.process.poll() is not None

    def is_up(self) -> bool:
        """Whether all of Dagster is there: the UI is started after the code location."""
        with socket.socket() as probe:
            return not probe.connect_ex(("127.0.0.1", self.port)) and bool(self.server("daemon"))

    def revive(self) -> bool:
        """Start it again if it has ended, as whatever looks after it would."""
        if self.has_ended():
            wait_until(lambda: not self.project.processes(), "the end of every process", 20)
            self.start()
        return True

    def is_idle(self, uploads: int) -> bool:
        """Whether so many uploads are in batches and every batch is done."""
        discovered = self.project.rows("SELECT count(*) AS n FROM uploads")[0]["n"]
        waiting = self.project.rows("SELECT 1 FROM uploads WHERE batch_id IS NULL")
        unfinished = self.project.rows("SELECT 1 FROM batches WHERE state != 'done'")
        return (
            discovered == uploads
            and not waiting
            and not unfinished
            and set(runs(self.project)) <= {"SUCCESS", "FAILURE", "CANCELED"}
        )

    def _answers(self) -> bool:
        with suppress(StoreError):
            # The port may be another one than before.
            self.project.__dict__.pop("bucket", None)
            self.project.bucket.create_if_missing()
            return True
        return False


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    settings = plain_settings("dev-images", "embedded")
    settings["bucket"]["data"] = "s3"
    settings["discovery"] = {"every_seconds": 1}
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    made = Dev(Project(folder, settings, environment, ".data/dagster"))
    # The command sets these by itself.
    for name in ("DAGSTER_HOME", "IMAGE_PIPELINE_CONFIG"):
        made.project.environment.pop(name)
    yield made
    end(made.project.processes())
    if made.process:
        made.process.wait()
    shutil.rmtree(tmp_path)


def slow_files(name: str) -> list[Upload]:
    """Files that keep a run busy for some seconds."""
    picture = large()
    return [
        Upload(f"{name}{n}.jpg", picture + name.encode() + bytes([n]), ("accepted", "duplicate"))
        for n in range(6)
    ]


def test_everything_is_published_whatever_is_killed(dev: Dev) -> None:
    project = dev.project
    dev.start()
    expected = project.send(*uploads(), *slow_files("first"))
    wait_until(dev.run_process, "a run", START_SECONDS)
    kill([dev.run_process() or 0])

    wait_until(lambda: dev.run_process() and dev.server("daemon"), "the second run", START_SECONDS)
    kill([dev.server("daemon") or 0])
    assert dev.wait() == 1, "dev must not go on without a daemon"
    wait_until(lambda: not project.processes(), "the end of every process", 20)

    dev.start()
    wait_until(dev.run_process, "the third run", START_SECONDS)
    kill(process.pid for process in project.processes())
    dev.wait()

    dev.start()
    wait_until(
        lambda: dev.is_idle(len(expected)), "the end of the batch", 2 * START_SECONDS, every=0.2
    )
    found = Oracle(project)
    found.check_what_is_visible()
    found.check_uploads(expected)
    found.check_variants()
    found.check_manifests()
    found.check_batches()
    assert runs(project)[-1] == "SUCCESS"

    # Ctrl-C in the middle of a run: only the first process hears of it, and ends all others.
    project.send(*slow_files("second"))
    wait_until(dev.run_process, "a run", START_SECONDS)
    dev.interrupt()
    assert dev.wait() == 0
    wait_until(lambda: not project.processes(), "the end of every process", 20)
    assert "STARTED" not in runs(project)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", SERVERS)
def test_a_server_killed_at_any_moment_loses_nothing(dev: Dev, victim: str) -> None:
    """``dev`` either ends, and is started again, or goes on by itself."""
    project, moments = dev.project, random.Random(SEED)
    expected: dict[str, tuple[str, ...]] = {}
    dev.start()
    for number in range(MOMENTS):
        wait_until(
            lambda: dev.revive() and dev.is_up() and dev.server(victim),
            victim, 2 * START_SECONDS, every=0.2,
        )  # fmt: skip
        seeds = (2 * number, 2 * number + 1)
        expected |= project.send(*(Upload(f"r{seed}.jpg", encoded(seed)) for seed in seeds))
        time.sleep(moments.uniform(0, MOMENT_SECONDS))
        kill([dev.server(victim) or 0])
        wait_until(
            lambda: dev.has_ended() or dev.is_idle(len(expected)),  # noqa: B023 - called at once
            f"life after kill {number}", PATIENCE_SECONDS, every=0.5,
        )  # fmt: skip
    wait_until(
        lambda: dev.revive() and dev.is_idle(len(expected)),
        "the end of the last batch", PATIENCE_SECONDS, every=0.5,
    )  # fmt: skip
    found = Oracle(project)
    found.check_what_is_visible()
    found.check_uploads(expected)
    found.check_variants()
    found.check_manifests()
    found.check_index()
    found.check_batches()
