"""``kill -9`` at random moments, where nobody thought of one."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress

import psutil
import pytest

from .moments import MOMENTS, SEED, at_random_moments, workers_of
from .processes import Driver
from .project import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("group", [False, True], ids=["run", "tree"])
def test_a_run_killed_at_any_moment_loses_nothing(
    driver: Driver, project: Project, group: bool
) -> None:
    def strike(pid: int) -> bool:
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(pid, signal.SIGKILL)
            return True
        return False

    killed = (0, -signal.SIGKILL)
    assert at_random_moments(driver, project, strike, killed) > MOMENTS // 2


def test_a_worker_killed_at_any_moment_loses_nothing(driver: Driver, project: Project) -> None:
    """Whichever of a run's processes: image workers, and those that look after them."""
    chosen = random.Random(SEED)

    def strike(pid: int) -> bool:
        workers = workers_of(pid)
        with suppress(psutil.NoSuchProcess):
            if workers:
                chosen.choice(workers).kill()
                return True
        return False

    assert at_random_moments(driver, project, strike, (0,)) > MOMENTS // 4
