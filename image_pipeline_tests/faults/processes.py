"""The tests' side of :mod:`.driver`, and waiting with a deadline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

from .driver import Fault, Order
from .project import REPOSITORY, Project


class Driver:
    """One driver program; its children are started, killed and waited for by their pids."""

    def __init__(self) -> None:
        self._alive: set[int] = set()
        self._program = subprocess.Popen(
            [sys.executable, "-m", "image_pipeline_tests.faults.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    def start(
        self, project: Project, task: str = "cycle", *faults: Fault, partition: str = ""
    ) -> int:
        """Start a child; its pid, which is also its process group."""
        order = Order(str(project.folder), project.environment, task, partition, faults)
        pid = self._ask({"start": order.to_json()})
        self._alive.add(pid)
        return pid

    def wait(self, pid: int) -> int:
        """The exit code of a child; a child ends itself when it takes too long."""
        code = self._ask({"wait": pid})
        self._alive.discard(pid)
        return code

    def run(
        self, project: Project, task: str = "cycle", *faults: Fault, partition: str = ""
    ) -> None:
        """Start a child and expect it to end well."""
        code = self.wait(self.start(project, task, *faults, partition=partition))
        assert code == 0, f"exit code {code}\n{log_of(project)}"

    def run_into(self, project: Project, fault: Fault) -> None:
        """Start a child and expect it to be killed by ``fault``."""
        code = self.wait(self.start(project, "cycle", fault))
        assert code == -signal.SIGKILL, f"{fault} was never reached ({code})\n{log_of(project)}"

    def close(self) -> None:
        """End the program and whatever it still has."""
        for pid in self._alive:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._program.communicate(timeout=20)

    def _ask(self, question: dict[str, object]) -> int:
        assert self._program.stdin
        assert self._program.stdout
        self._program.stdin.write(json.dumps(question) + "\n")
        self._program.stdin.flush()
        return int(json.loads(self._program.stdout.readline()))


def log_of(project: Project) -> str:
    """The end of what the children of a project wrote."""
    log = project.folder / "driver.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-60:]) if log.exists() else ""


def wait_until(
    done: Callable[[], object], what: str, seconds: float = 60.0, every: float = 0.02
) -> None:
    """Poll until ``done``; ``what`` is said if it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(every)


def kill(pids: Iterable[int]) -> None:
    """``kill -9``, each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end(processes: Iterable[psutil.Process]) -> None:
    """``kill -9``, and wait until none of them writes any more."""
    every = list(processes)
    kill(process.pid for process in every)
    psutil.wait_procs(every, timeout=10)
