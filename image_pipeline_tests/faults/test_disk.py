"""A full disk under the working directory, and under the catalog."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .moments import check_nobody_is_blamed
from .oracle import Oracle, runs
from .processes import Driver, log_of
from .project import Project, uploads

pytestmark = pytest.mark.faults

#: Enough for everything that the tests do.
ROOMY = 64 * 2**20


class Disk:
    """A file system of its own, in memory, whose size can be changed while it is used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount(f"size={ROOMY}")

    def leave(self, free: int) -> None:
        """Have so many bytes free from now on."""
        there = os.statvfs(self.folder)
        used = (there.f_blocks - there.f_bfree) * there.f_frsize
        # A size of 0 would mean that there is no limit.
        self._mount(f"remount,size={max(used + free, 4096)}")

    def grow(self) -> None:
        self._mount(f"remount,size={ROOMY}")

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small file system can be mounted by root only: {done.stderr.strip()}")


@pytest.fixture
def spool(project: Project) -> Iterator[Disk]:
    disk = Disk(project.folder / "spool")
    yield disk
    disk.close()


@pytest.fixture
def catalog_url() -> str:
    return "sqlite:///disk/catalog.db"


@pytest.fixture
def disk(project: Project) -> Iterator[Disk]:
    """The one that the catalog is on."""
    made = Disk(project.folder / "disk")
    yield made
    made.close()


@pytest.mark.parametrize("free", [0, pytest.param(40_000, marks=pytest.mark.slow)])
def test_a_full_working_directory_fails_uploads_and_refuses_none(
    driver: Driver, project: Project, spool: Disk, free: int
) -> None:
    expected = project.send(*uploads())
    spool.leave(free)
    driver.run(project, "once")
    assert runs(project) == ["FAILURE"], log_of(project)
    check_nobody_is_blamed(Oracle(project))
    failed = [row for row in Oracle(project).upload_rows if row["verdict"] == "failed"]
    assert {row["reason"] for row in failed} <= {"storage_error", "canonical_failed"}
    assert failed
    Oracle(project).check_what_is_visible()

    spool.grow()
    driver.run(project)
    Oracle(project).check_all(expected)


@pytest.mark.parametrize(
    "free", [30_000, *(pytest.param(free, marks=pytest.mark.slow) for free in (0, 120_000))]
)
def test_a_full_disk_under_the_catalog_stops_work_and_loses_nothing(
    driver: Driver, project: Project, disk: Disk, free: int
) -> None:
    expected = project.send(*uploads())
    driver.run(project, "look")
    (batch,) = project.rows("SELECT id FROM batches")
    disk.leave(free)
    code = driver.wait(driver.start(project, "run", partition=batch["id"]))
    assert code in (0, 1), log_of(project)
    assert runs(project) == ["FAILURE"], log_of(project)

    disk.grow()
    check_nobody_is_blamed(Oracle(project))
    Oracle(project).check_what_is_visible()
    project.let_time_pass()
    driver.run(project)
    Oracle(project).check_all(expected)
