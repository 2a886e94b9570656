"""When processes start and end. No other pool may be open in here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from image_pipeline.workers.child import WorkerError
from image_pipeline.workers.pool import ImageWorkers

from . import tasks
from .helpers import PROCESSES, job, outcomes, settings


def worker_processes() -> set[psutil.Process]:
    """Children that a pool has spawned, dead ones nobody has reaped included.

    Other tests of this process may have servers running; multiprocessing's resource tracker
    serves every pool and stays.
    """
    return {child for child in psutil.Process().children() if is_worker(child)}


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return True


def assert_gone(processes: Iterable[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(list(processes), timeout=40)
    assert not alive


class TestProcesses:
    def test_processes_serve_several_runs(self) -> None:
        with ImageWorkers(settings()) as own:
            own.start()
            started = {process.pid for process in worker_processes()}
            runs = [outcomes(own, tasks.process_id, (job(n) for n in range(6))) for _ in range(2)]
        used = {outcome.value for run in runs for outcome in run.values()}
        assert used <= started

    def test_a_process_is_replaced_after_200_images(self) -> None:
        with ImageWorkers(settings(processes=1)) as own:
            found = outcomes(own, tasks.process_id, (job(n) for n in range(201)))
        pids = [outcome.value for outcome in found.values()]
        assert pids.count(pids[0]) == 200
        assert pids.count(pids[-1]) == 1

    def test_idle_workers_may_be_killed(self) -> None:
        with ImageWorkers(settings()) as own:
            for _ in range(2):
                found = outcomes(own, tasks.process_id, (job(n) for n in range(1, 9)))
                assert all(outcome.error is None for outcome in found.values())
                # Not waited for: that would take their exit status away from the pool.
                for process in worker_processes():
                    process.kill()

    def test_workers_that_cannot_start_are_an_error(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("image_pipeline.workers.child.confine", tasks.die_at_start)
        with ImageWorkers(settings()) as own, pytest.raises(WorkerError, match="stay alive"):
            list(own.run(tasks.size, [job(1)]))
        assert "cannot start" in capfd.readouterr().err


@pytest.mark.faults
class TestNothingIsLeft:
    @pytest.fixture(autouse=True)
    def folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The folder in which workers get their private ones."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return tmp_path

    def test_after_close(self, folders: Path) -> None:
        own = ImageWorkers(settings())
        outcomes(own, tasks.die, [job(1), job(2), job(3, "kill")][:2])
        started = worker_processes()
        assert len(started) >= PROCESSES
        own.close()
        own.close()
        assert worker_processes() == set()
        assert list(folders.iterdir()) == []
        with pytest.raises(RuntimeError, match="closed"):
            own.start()

    def test_when_never_used(self, folders: Path) -> None:
        with ImageWorkers(settings()):
            pass
        assert worker_processes() == set()
        assert list(folders.iterdir()) == []

    def test_files_of_a_job_go_with_its_outcome(self, folders: Path) -> None:
        with ImageWorkers(settings()) as own:
            outcomes(own, tasks.size, (job(n) for n in range(5)))
            (private,) = folders.iterdir()
            assert list(private.iterdir()) == []

    def test_after_an_exception(self, folders: Path) -> None:
        def interrupted() -> None:
            with ImageWorkers(settings()) as own:
                for _ in own.run(tasks.hang, [job(1, False), job(2, True), job(3, True)]):
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert worker_processes() == set()
        assert list(folders.iterdir()) == []

    def test_after_a_run_was_given_up(self) -> None:
        with ImageWorkers(settings()) as own:
            run = own.run(tasks.hang, [job(1, False), job(2, True), job(3, True), job(4, True)])
            assert next(run).value == 1
            run.close()  # type: ignore[attr-defined]
            assert outcomes(own, tasks.size, [job(5), job(6)])[6].value == 6
        assert worker_processes() == set()

    def test_a_run_does_not_outlive_its_workers(self) -> None:
        own = ImageWorkers(settings())
        run = own.run(tasks.hang, [job(1, False), job(2, True)])
        assert next(run).value == 1
        own.close()
        with pytest.raises(RuntimeError, match="closed"):
            next(run)
        assert worker_processes() == set()

    @pytest.mark.timeout(90)
    @pytest.mark.parametrize(("busy", "processes"), [(False, 2), (True, 1)])
    def test_after_the_parent_was_killed(self, tmp_path: Path, busy: bool, processes: int) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        script = tmp_path / "script.py"
        script.write_text(SCRIPT)
        private = tmp_path / "private"
        private.mkdir()
        parent = subprocess.Popen(
            [sys.executable, script, tasks.__name__, fifo, str(int(busy)), str(processes)],
            env={**os.environ, "TMPDIR": str(private), "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            with fifo.open() as file:
                hanging = {psutil.Process(int(file.readline())) for _ in range(processes)}
            family = set(psutil.Process(parent.pid).children(recursive=True))
            assert len(hanging) == processes
            assert hanging <= family
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
        assert_gone(family)
        assert busy or list(private.iterdir()) == []


SCRIPT = """
import importlib
import sys
from pathlib import Path

from image_pipeline.settings import Workers
from image_pipeline.workers.pool import ImageWorkers, Job

if __name__ == "__main__":
    tasks = importlib.import_module(sys.argv[1])
    arguments = (Path(sys.argv[2]), sys.argv[3] == "1")
    processes = int(sys.argv[4])
    # Long enough for the hanging ones to be met, short enough for a busy one to be waited for.
    settings = Workers(processes=processes, seconds_per_image=2, memory_megabytes=256)
    with ImageWorkers(settings) as workers:
        jobs = [Job(n, bytes, arguments, megapixels=1.0) for n in range(processes)]
        list(workers.run(tasks.report_and_hang, jobs))
"""
