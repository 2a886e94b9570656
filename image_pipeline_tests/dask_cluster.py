"""A real Dask cluster: a scheduler and workers as processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


class DaskCluster:
    """A scheduler on a free port, and workers with one thread each; a context manager."""

    def __init__(self, folder: Path, workers: int = 2):
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.workers = []
        self._wanted = workers

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.scheduler = self._start(
            "scheduler", "--port", "0", "--host", "127.0.0.1",
            "--scheduler-file", str(self.file), "--no-dashboard", "--no-jupyter",
        )  # fmt: skip
        self.address = self._address()
        for _ in range(self._wanted):
            self.add_worker()
        return self

    def __exit__(self, *_):
        for process in (*self.workers, self.scheduler):
            end(process, signal.SIGKILL)

    def add_worker(self):
        """Start one more worker; it registers a moment later."""
        process = self._start(
            "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--host", "127.0.0.1", "--local-directory", str(self.folder / "local"),
        )  # fmt: skip
        self.workers.append(process)
        return process

    def end_scheduler(self):
        """Kill the scheduler; its workers follow by themselves."""
        end(self.scheduler, signal.SIGKILL)

    def _start(self, *command):
        log = (self.folder / f"{command[0]}.log").open("ab")
        environment = {**os.environ, "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]"}
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip

    def _address(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.scheduler.poll() is not None:
                raise RuntimeError((self.folder / "scheduler.log").read_text())
            try:
                return json.loads(self.file.read_text())["address"]
            except (OSError, ValueError):
                time.sleep(0.05)
        raise TimeoutError("the scheduler did not start")


def end(process, number):
    """Signal a process and all it started, and wait for it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait(20)
