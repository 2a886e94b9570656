"""Being the only one who works on a plan."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from image_pipeline.catalog import removals
from image_pipeline.catalog.engine import Catalog
from image_pipeline.maintenance.plans import Plan, PlanRefused
from image_pipeline.maintenance.removing import RENEW_SECONDS
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import plan_key


class Hold:
    """The right to carry out a plan. ``name`` is what its rows of ``removals`` bear."""

    def __init__(self, catalog: Catalog, clock: Callable[[], datetime], plan: str) -> None:
        self.catalog = catalog
        self.clock = clock
        self.plan = plan
        self.name = f"{plan} {secrets.token_hex(4)}"
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Say that the work goes on, every :data:`RENEW_SECONDS` at most."""
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            self.prove()

    def prove(self) -> None:
        """Raises :class:`PlanRefused` (``taken_over``) where somebody else has taken over."""
        with self.catalog.write() as connection:
            mine = removals.renew(connection, self.name, self.clock())
        if not mine:
            raise PlanRefused(
                "taken_over", f"plan {self.plan} is being carried out by another process by now"
            )
        self._renewed = time.monotonic()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a plan that is held, and what it works with."""

    bucket: Bucket
    catalog: Catalog
    settings: Settings
    clock: Callable[[], datetime]
    plan: Plan
    hold: Hold


@contextmanager
def held(catalog: Catalog, clock: Callable[[], datetime], plan: str) -> Iterator[Hold]:
    """Hold a plan; at the end it is free again.

    If the work breaks off, what was being removed stays announced for whoever goes on with it.
    Raises :class:`PlanRefused` (``being_carried_out``) while somebody else holds it.
    """
    hold, key = Hold(catalog, clock, plan), plan_key(plan)
    with catalog.write() as connection:
        until = removals.take(connection, key, hold.name, clock())
    if until is not None:
        raise PlanRefused(
            "being_carried_out",
            f"another process is at plan {plan}; if it was killed, the plan is free from"
            f" {until:%H:%M:%S} UTC on",
        )
    try:
        yield hold
    except BaseException:
        with catalog.write() as connection:
            removals.give_back(connection, key, hold.name, clock())
        raise
    with catalog.write() as connection:
        removals.finish(connection, key, hold.name)
