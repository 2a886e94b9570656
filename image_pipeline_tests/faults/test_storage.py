"""S3 requests that fail: what passes is waited out, what stays is tried again later."""

from __future__ import annotations

import pytest

from .oracle import Oracle, runs
from .processes import Driver, log_of
from .project import PREFIX, Project, uploads
from .proxy import FaultProxy

pytestmark = pytest.mark.faults


def test_what_fails_for_a_moment_is_repeated(
    driver: Driver, proxy: FaultProxy, proxied: Project
) -> None:
    expected = proxied.send(*uploads())
    proxy.trouble("GET", PREFIX + "0.jpg", 500, times=1)
    proxy.trouble("GET", PREFIX + "1.jpg", "reset", times=1)
    proxy.trouble("GET", PREFIX + "2.jpg", "cut", times=1)
    proxy.trouble("PUT", "/medium-", 500, times=1)
    proxy.trouble("PUT", "/small-", "reset", times=1)
    proxy.trouble("PUT", "manifests/photos/", 503, times=1)
    driver.run(proxied, "once")
    assert proxy.failed.total() == 6
    assert runs(proxied) == ["SUCCESS"]
    Oracle(proxied).check_all(expected)


def test_what_cannot_be_downloaded_is_tried_again_alone(
    driver: Driver, proxy: FaultProxy, proxied: Project
) -> None:
    expected = proxied.send(*uploads())
    bad = PREFIX + "1.jpg"
    proxy.trouble("GET", bad, 403)
    driver.run(proxied, "once")
    _check_first_run(proxied, bad)
    before = set(Oracle(proxied).variant_rows)

    proxy.calm()
    driver.run(proxied)
    (batch,) = proxied.rows("SELECT * FROM batches")
    assert (batch["state"], batch["attempt"]) == ("done", 2)
    assert runs(proxied) == ["FAILURE", "SUCCESS"]
    assert proxy.keys("GET", PREFIX) == {bad: 1}
    _check_only_new_puts(proxy, before)
    Oracle(proxied).check_all(expected)


def test_what_cannot_be_stored_is_tried_again_alone(
    driver: Driver, proxy: FaultProxy, proxied: Project
) -> None:
    expected = proxied.send(*uploads())
    bad = PREFIX + "2.jpg"
    image = Oracle(proxied).originals[bad].sha256
    proxy.trouble("PUT", f"{image}/small-", 403)
    driver.run(proxied, "once")
    _check_first_run(proxied, bad)
    before = set(Oracle(proxied).variant_rows)
    assert not any(image in key for key in before)

    proxy.calm()
    driver.run(proxied)
    assert runs(proxied) == ["FAILURE", "SUCCESS"]
    assert proxy.keys("GET", PREFIX) == {bad: 1}
    assert set(proxy.keys("PUT", "variants/").values()) == {1}
    _check_only_new_puts(proxy, before)
    Oracle(proxied).check_all(expected)


def _check_first_run(project: Project, bad: str) -> None:
    """All but one upload are published, that one is failed, and the run is red."""
    assert runs(project) == ["FAILURE"], log_of(project)
    (batch,) = project.rows("SELECT * FROM batches")
    assert (batch["state"], batch["attempt"], batch["lease_owner"]) == ("retry", 1, None)
    rows = {row["key"]: row for row in Oracle(project).upload_rows}
    assert (rows[bad]["verdict"], rows[bad]["reason"]) == ("failed", "storage_error")
    assert {row["verdict"] for key, row in rows.items() if key != bad} == {
        "accepted", "duplicate", "rejected",
    }  # fmt: skip
    now = Oracle(project)
    now.check_what_is_visible()
    good = {row["image_id"] for row in rows.values() if row["verdict"] in ("accepted", "duplicate")}
    assert set(now.image_manifests) == good


def _check_only_new_puts(proxy: FaultProxy, before: set[str]) -> None:
    """A second run wrote no variant that was recorded before it."""
    assert not set(proxy.keys("PUT", "variants/")) & before
    assert len(proxy.keys("PUT", "variants/")) == 9


def test_a_second_run_of_a_finished_batch_does_no_work(
    driver: Driver, proxy: FaultProxy, proxied: Project
) -> None:
    expected = proxied.send(*uploads())
    driver.run(proxied)
    (batch,) = proxied.rows("SELECT id FROM batches")
    proxy.calm()
    driver.run(proxied, "run", partition=batch["id"])
    assert runs(proxied) == ["SUCCESS", "SUCCESS"]
    assert not proxy.keys("GET", PREFIX)
    assert not proxy.keys("PUT", "variants/")
    Oracle(proxied).check_all(expected)


def test_a_tick_that_cannot_list_or_write_loses_nothing(
    driver: Driver, proxy: FaultProxy, proxied: Project
) -> None:
    expected = proxied.send(*uploads())
    for method, key in (("GET", ""), ("PUT", "batches/")):
        proxy.trouble(method, key, 403)
        assert driver.wait(driver.start(proxied)) == 1
        proxy.calm()
    driver.run(proxied)
    Oracle(proxied).check_all(expected)


def test_a_table_that_cannot_be_written_is_written_by_the_next_run(
    driver: Driver, proxy: FaultProxy, proxied: Project
) -> None:
    expected = proxied.send(*uploads())
    proxy.trouble("PUT", "tables/cache_warm_manifests", 403)
    driver.run(proxied, "once")
    assert runs(proxied) == ["FAILURE"]
    proxy.calm()
    driver.run(proxied)
    assert runs(proxied) == ["FAILURE", "SUCCESS"]
    Oracle(proxied).check_all(expected)
