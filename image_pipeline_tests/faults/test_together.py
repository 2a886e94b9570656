"""Several processes at work on the same batch, or on the same catalog, at once."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from .driver import WRITES, Fault
from .oracle import Oracle, runs
from .processes import Driver, log_of, wait_until
from .project import Project, uploads
from .proxy import FaultProxy
from .test_kills import DESK, GET, PUT

pytestmark = pytest.mark.faults

BOTH = pytest.mark.parametrize("catalog_url", ["sqlite", "postgres"], indirect=True)
BOTH_IF_THERE_IS_TIME = pytest.mark.parametrize(
    "catalog_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture
def catalog_url(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "sqlite:///catalog.db"


@BOTH
def test_two_runs_of_a_batch_at_once_do_no_harm(driver: Driver, project: Project) -> None:
    expected = project.send(*uploads())
    driver.run(project, "look")
    (batch,) = project.rows("SELECT id FROM batches")
    both = [driver.start(project, "run", partition=batch["id"]) for _ in range(2)]
    assert [driver.wait(pid) for pid in both] == [0, 0], log_of(project)
    assert runs(project) == ["SUCCESS", "SUCCESS"]
    with closing(sqlite3.connect(project.home / "history" / "runs.db")) as connection:
        spans = list(connection.execute("SELECT start_time, end_time FROM runs"))
    assert max(start for start, _ in spans) < min(end for _, end in spans), "not at once"
    Oracle(project).check_all(expected)


@BOTH_IF_THERE_IS_TIME
def test_two_sensors_at_once_claim_every_upload_once(driver: Driver, project: Project) -> None:
    expected = project.send(*uploads())
    both = [driver.start(project) for _ in range(2)]
    assert [driver.wait(pid) for pid in both] == [0, 0], log_of(project)
    Oracle(project).check_all(expected)


@BOTH
def test_the_same_picture_in_several_batches_at_once_is_one_image(
    driver: Driver, project: Project
) -> None:
    project.environment["IMAGE_PIPELINE_BATCHES__MAX_IMAGES"] = "1"
    expected = project.send(*(one for one in uploads() if one.name.startswith("a")))
    driver.run(project, "look")
    batches = [row["id"] for row in project.rows("SELECT id FROM batches")]
    together = [driver.start(project, "run", partition=batch) for batch in batches]
    assert [driver.wait(pid) for pid in together] == [0] * 3, log_of(project)
    project.let_time_pass()
    driver.run(project)
    Oracle(project).check_all(expected)


@BOTH_IF_THERE_IS_TIME
@pytest.mark.parametrize(
    ("pause", "method", "key"),
    [
        (Fault(GET, match="1.jpg", act="pause"), "GET", "uploads/"),
        (Fault(PUT, match="/small-", act="pause"), "PUT", "variants/"),
    ],
    ids=["inspecting", "rendering"],
)
def test_a_slow_run_cannot_spoil_what_another_has_finished(
    driver: Driver, proxy: FaultProxy, proxied: Project, pause: Fault, method: str, key: str
) -> None:
    """The slow one then meets an error; the uploads are done all the same, and stay so."""
    expected = proxied.send(*uploads())
    driver.run(proxied, "look")
    (batch,) = proxied.rows("SELECT id FROM batches")
    slow = driver.start(proxied, "run", pause, partition=batch["id"])
    wait_until((proxied.folder / "paused").exists, "the pause")
    driver.run(proxied, "run", partition=batch["id"])
    before = Oracle(proxied)
    before.check_uploads(expected)
    proxy.trouble(method, key, 403)
    (proxied.folder / "resume").touch()
    assert driver.wait(slow) == 0
    assert proxy.failed.total() > 0
    proxy.calm()
    after = Oracle(proxied)
    after.check_all(expected)
    kept = ("id", "verdict", "reason", "image_id")
    assert [[row[name] for name in kept] for row in after.upload_rows] == [
        [row[name] for name in kept] for row in before.upload_rows
    ]


@BOTH
def test_writers_of_the_catalog_wait_for_each_other(driver: Driver, project: Project) -> None:
    writers = [driver.start(project, "write") for _ in range(6)]
    assert [driver.wait(pid) for pid in writers] == [0] * 6, log_of(project)
    rows = project.rows("SELECT key, etag FROM uploads ORDER BY id")
    assert len({row["key"] for row in rows}) == 6 * WRITES
    # Each has seen all that was written before it: none worked on a stale count.
    assert [row["etag"] for row in rows] == [str(n) for n in range(6 * WRITES)]


@BOTH_IF_THERE_IS_TIME
def test_a_run_whose_catalog_fails_is_tried_again(driver: Driver, project: Project) -> None:
    expected = project.send(*uploads())
    driver.run(project, "cycle", Fault(f"{DESK}.commit", nth=2, act="lock"))
    assert runs(project) == ["FAILURE", "SUCCESS"]
    Oracle(project).check_all(expected)


@BOTH_IF_THERE_IS_TIME
def test_a_lease_outlives_a_renewal_that_failed(driver: Driver, project: Project) -> None:
    expected = project.send(*uploads())
    renewal = Fault("image_pipeline.resources:Lease._renew", nth=2, act="lock")
    slow = driver.start(project, "cycle", Fault(GET, act="pause"), renewal)
    wait_until((project.folder / "paused").exists, "the pause")

    seen: set[str] = set()

    def renewals() -> int:
        seen.add(project.rows("SELECT due_at FROM batches")[0]["due_at"])
        return len(seen) - 1

    wait_until(lambda: renewals() == 2, "two renewals", 20)
    (project.folder / "resume").touch()
    assert driver.wait(slow) == 0
    assert runs(project) == ["SUCCESS"]
    Oracle(project).check_all(expected)
