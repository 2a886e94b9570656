"""Faults at random moments of a batch's life, the same ones for the same seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from .oracle import Oracle
from .processes import Driver, log_of
from .project import Project, Upload, encoded, uploads

#: Moments of each kind; another seed gives others.
MOMENTS = 20
SEED = 7


def at_random_moments(
    driver: Driver, project: Project, strike: Callable[[int], bool], codes: tuple[int, ...]
) -> int:
    """Twenty times: new uploads, a process that works on them, and ``strike`` at some moment.

    ``strike`` gets the pid of the process and says whether it met what it looks for; ``codes``
    are the exit codes that are right for it. After each, everything must be done by a process
    that nothing happens to, and be right. Returns at how many moments there was something.
    """
    expected = project.send(*uploads())
    began = time.monotonic()
    driver.run(project)
    seconds = time.monotonic() - began
    moments = random.Random(SEED)
    struck = 0
    for number in range(MOMENTS):
        seeds = (100 + 2 * number, 101 + 2 * number)
        expected |= project.send(*(Upload(f"r{seed}.jpg", encoded(seed)) for seed in seeds))
        pid = driver.start(project)
        time.sleep(moments.uniform(0, seconds))
        struck += strike(pid)
        assert driver.wait(pid) in codes, log_of(project)
        found = Oracle(project)
        found.check_what_is_visible()
        check_nobody_is_blamed(found)
        settle(driver, project)
        Oracle(project).check_uploads(expected)
    found = Oracle(project)
    found.check_what_is_visible()
    found.check_variants()
    found.check_manifests()
    found.check_index()
    found.check_batches()
    return struck


def settle(driver: Driver, project: Project) -> None:
    """Let a process bring everything to its end.

    A run killed between its record and its first step is waited for by the ledger for longer
    than a child may take.
    """
    for _ in range(4):
        project.let_time_pass()
        if driver.wait(driver.start(project)) == 0:
            return
    raise AssertionError(log_of(project))


def check_nobody_is_blamed(found: Oracle) -> None:
    """What happens to our machines says nothing about a picture."""
    rejected = {row["key"] for row in found.upload_rows if row["verdict"] == "rejected"}
    assert all(key.endswith("/letter.jpg") for key in rejected), rejected


def workers_of(pid: int) -> list[psutil.Process]:
    """Processes that were started by one, and by those."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []
