"""Every kind of trouble with S3 together, from the first listing to the end of a cleanup."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import pytest

from image_pipeline.catalog.engine import Catalog
from image_pipeline.maintenance.applying import Applied, apply_plan
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.maintenance.planning import plan_orphans
from image_pipeline.store.bucket import Bucket, StoreError

from .oracle import Oracle
from .processes import Driver, log_of
from .project import Project, uploads
from .proxy import FaultProxy

pytestmark = pytest.mark.faults

T = TypeVar("T")

#: Of all requests, whatever they ask for: one in seven fails.
SHARES: dict[int | str, float] = {503: 0.10, "reset": 0.02, "cut": 0.02, "stall": 0.005}

#: Files that nobody knows.
ORPHANS = 5

#: Each draws another weather.
SEEDS = range(1, 11)

#: Runs of a batch in such weather: more than one may fail, four in a row hardly ever do.
RUNS = 8

#: How often a person begins a housekeeping again that an error has ended.
ATTEMPTS = 20


def test_a_batch_and_a_cleanup_in_bad_weather(
    driver: Driver, proxy: FaultProxy, proxied: Project
) -> None:
    check(driver, proxy, proxied, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_and_a_cleanup_in_all_weathers(
    driver: Driver, proxy: FaultProxy, proxied: Project, seed: int
) -> None:
    check(driver, proxy, proxied, seed)


def check(driver: Driver, proxy: FaultProxy, project: Project, seed: int) -> None:
    expected = project.send(*uploads())
    proxy.storm(seed, SHARES)
    for _ in range(RUNS):
        code = driver.wait(driver.start(project))
        assert code in (0, 1), log_of(project)
        if code == 0:
            break
        project.let_time_pass()
    # About 120 requests.
    assert proxy.hows.total() >= 5, proxy.hows
    Oracle(project).check_all(expected)

    left_over = plant(project)
    everything = {one.key for one in project.bucket.list("")} - left_over
    assert clean_up(project).now_live == 0
    now = {one.key for one in project.bucket.list("")}
    assert not now & left_over
    assert everything <= now, "a cleanup removed what is alive"
    Oracle(project).check_all(expected)


def plant(project: Project) -> set[str]:
    """Files in the bucket that nobody knows."""
    keys = {f"variants/{n:064x}/small-96x72.0123456789ab.webp" for n in range(ORPHANS)}
    for key in keys:
        project.bucket.put(key, b"left over", "image/webp")
    return keys


def clean_up(project: Project) -> Applied:
    """Look twice, plan and apply, through the weather."""
    settings = project.settings
    catalog, bucket = Catalog(settings.catalog.url), Bucket(settings.bucket)

    def then() -> datetime:
        return datetime.now(UTC) + timedelta(days=20)

    def apply(plan: str) -> Applied:
        applied = apply_plan(bucket, catalog, settings, then, plan, confirm=plan)
        if applied.stopped:
            raise StoreError(applied.stopped)
        return applied

    try:
        for clock in (settings.now, then):
            again(partial(take_inventory, bucket, catalog, settings, clock))
            plan = again(partial(plan_orphans, bucket, catalog, settings, clock))
        assert plan.entries == ORPHANS
        return again(partial(apply, plan.id))
    finally:
        catalog.close()
        bucket.client.close()


def again(act: Callable[[], T]) -> T:
    for left in reversed(range(ATTEMPTS)):
        try:
            return act()
        except StoreError:
            if not left:
                raise
    raise AssertionError("the last attempt returns or raises")
