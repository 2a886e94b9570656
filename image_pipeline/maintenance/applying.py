"""Carrying out a plan of orphans: nothing that anybody refers to is ever removed.

Every chunk of a thousand entries is asked about once more, in the transaction that announces
its removal; from then on nobody can come to rely on an object of it. Then each object is looked
at, copied to the trash, and deleted if it still is the version that was planned on. Killed at
any point, the next call goes on with the chunk that was under way and ends as one call would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import housekeeping, removals
from image_pipeline.catalog.engine import Catalog, chunks
from image_pipeline.catalog.schema import variants
from image_pipeline.maintenance.holding import Attempt, held
from image_pipeline.maintenance.liveness import Liveness
from image_pipeline.maintenance.plans import (
    Entry,
    Plan,
    PlanRefused,
    check_applicable,
    read_entries,
    read_plan,
)
from image_pipeline.maintenance.removing import (
    THREADS,
    Outcome,
    Removed,
    Remover,
    TooManyErrors,
)
from image_pipeline.settings import EMBEDDED, Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import trash_key

Progress = Callable[[str, int, int], None]

#: A removal stops after this many errors, or this share of its entries if that is more: what
#: fails so often is not about single objects.
ERRORS = 10
ERROR_SHARE = 0.01

#: Errors that a report quotes.
_QUOTED = 20

#: What became of entries that are not in their places any more because of a plan.
REMOVED: tuple[Outcome, ...] = ("trashed", "archived")

#: After these an object is not where it was seen, and what was seen of it is forgotten.
_FORGOTTEN: tuple[Outcome, ...] = (*REMOVED, "gone", "skipped_now_live", "skipped_changed")


@dataclass(frozen=True, slots=True)
class Applied:
    """What a plan did. ``counts`` by outcome, ``bytes`` removed by it, ``errors`` quotes some.

    ``stopped`` says why it did not come to its end; the plan can be applied further then.
    """

    plan: str
    counts: Mapping[str, int]
    bytes: int
    errors: Sequence[str] = ()
    stopped: str = ""

    @property
    def removed(self) -> int:
        """Objects that were moved away."""
        return sum(self.counts.get(outcome, 0) for outcome in REMOVED)

    @property
    def now_live(self) -> int:
        """Objects that somebody refers to again since the plan was made: it was about to err."""
        return self.counts.get("skipped_now_live", 0)


@dataclass(slots=True)
class _Ledger:
    """What was done so far, kept with the plan so that the next attempt goes on behind it."""

    chunks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    errors: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, results: Mapping[str, Any] | None) -> _Ledger:
        kept = results or {}
        return cls(
            kept.get("chunks", 0),
            Counter(kept.get("counts", {})),
            kept.get("bytes", 0),
            list(kept.get("errors", ())),
        )

    @property
    def entries(self) -> int:
        return self.counts.total()

    @property
    def failed(self) -> int:
        return self.counts["failed"] + self.counts["unclear"]

    def add(self, results: Iterable[Removed]) -> None:
        """Count a chunk that is done."""
        self.chunks += 1
        for one in results:
            self.counts[one.outcome] += 1
            if one.outcome in REMOVED:
                self.bytes += one.entry.size
            self.quote(one)

    def quote(self, one: Removed) -> None:
        if one.error and len(self.errors) < _QUOTED:
            self.errors.append(f"{one.entry.key}: {one.error}"[:500])

    def as_json(self) -> dict[str, Any]:
        return {
            "chunks": self.chunks,
            "counts": dict(self.counts),
            "bytes": self.bytes,
            "errors": self.errors,
        }


def apply_plan(
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    plan_id: str,
    *,
    confirm: str | None = None,
    progress: Progress | None = None,
    threads: int = THREADS,
) -> Applied:
    """Move the orphans of a plan to the trash, or to the archive if the plan says so.

    ``confirm`` is the plan's own id where the plan is large. Raises :class:`PlanRefused` before
    anything is touched. Too many errors end it early: see :attr:`Applied.stopped`. Raises
    ``StoreError`` where the store cannot even be asked; called again, it goes on.
    """
    plan = read_plan(catalog, plan_id)
    _check(bucket, settings, plan, clock(), confirm)
    with held(catalog, clock, plan.id) as hold:
        # Whoever held the plan before may have done more of it, or all.
        plan = read_plan(catalog, plan_id)
        _check(bucket, settings, plan, clock(), confirm)
        with catalog.read() as connection:
            row = housekeeping.get_plan(connection, plan.id) or {}
        ledger = _Ledger.read(row.get("results"))
        return _Work(bucket, catalog, settings, clock, plan, hold, ledger).run(progress, threads)


def _check(
    bucket: Bucket, settings: Settings, plan: Plan, now: datetime, confirm: str | None
) -> None:
    if plan.kind != "orphans":
        raise PlanRefused("wrong_kind", f"plan {plan.id} is one of {plan.kind}, not of orphans")
    # Settings refuse this too; a clock that is ahead makes everything look old.
    if settings.ahead_days and bucket.settings.endpoint_url != EMBEDDED:
        raise PlanRefused("rehearsal", "a rehearsal removes nothing from a bucket elsewhere")
    rules = settings.maintenance.cleanup
    check_applicable(plan, now, rules.plan_hours, confirm)
    if plan.state != "applying" and plan.share > rules.max_share and confirm != plan.id:
        raise PlanRefused(
            "needs_confirmation",
            f"plan {plan.id} wants {plan.entries:,} objects ({plan.share:.1%} of the bucket;"
            f" {rules.max_share:.1%} need no confirmation): look at it, then confirm it by its id",
        )


@dataclass(frozen=True, slots=True)
class _Work(Attempt):
    """Removing what a plan names. ``ledger`` counts what became of it, over all attempts."""

    ledger: _Ledger

    def run(self, progress: Progress | None, threads: int) -> Applied:
        """Every chunk that is not done yet."""
        allowed = max(ERRORS, int(self.plan.entries * ERROR_SHARE))
        remover = Remover(
            self.bucket,
            partial(trash_key, self.plan.id),
            archive=self.plan.archive,
            still_mine=self.hold.renew,
            surely_mine=self.hold.prove,
            threads=threads,
        )
        for number, entries in enumerate(read_entries(self.bucket, self.plan)):
            if number < self.ledger.chunks:
                continue
            self.hold.prove()
            try:
                self._remove(remover, entries, allowed - self.ledger.failed)
            except TooManyErrors as error:
                return self._stop(error.failed)
            if progress is not None:
                progress("removed", self.ledger.entries, self.plan.entries)
            if self.ledger.failed > allowed:
                return self._stop([])
        with self.catalog.write() as connection:
            housekeeping.set_plan_state(
                connection,
                self.plan.id,
                "applied",
                applied_at=self.clock(),
                results=self.ledger.as_json(),
            )
        return self._report()

    def _remove(self, remover: Remover, entries: Sequence[Entry], errors_left: int) -> None:
        """One chunk, from the question who refers to it to the record of what was done."""
        going, results = self._announce(entries)
        try:
            results += remover.remove(going, errors_left)
        except TooManyErrors:
            self._undo(entries, going)
            raise
        self._conclude(results)

    def _announce(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Removed]]:
        """Decide what goes, and say so in the same transaction."""
        liveness = Liveness(self.bucket, self.settings, self.clock)
        protected = self.settings.maintenance.cleanup.protected
        going: list[Entry] = []
        results: list[Removed] = []
        superseded: list[str] = []
        with self.catalog.write() as connection:
            removals.hold(connection)
            housekeeping.set_plan_state(connection, self.plan.id, "applying")
            references = liveness.classify(connection, entries)
            renewed = self._published_since(connection, liveness, entries)
            for entry, reference in zip(entries, references, strict=True):
                if not reference.orphan or entry.key.startswith(protected):
                    results.append(Removed(entry, "skipped_now_live"))
                elif reference.by != "superseded_variant":
                    going.append(entry)
                elif entry.row is None or liveness.place_of(entry.key).id in renewed:
                    # Without a row when it was planned it was made anew, and is another file. What
                    # was published since may have named it until a moment ago.
                    results.append(Removed(entry, "skipped_changed"))
                else:
                    going.append(entry)
                    superseded.append(entry.key)
            keys = (entry.key for entry in going)
            ours = removals.begin(connection, self.hold.name, keys, self.clock())
            results += [Removed(entry, "skipped_busy") for entry in going if entry.key not in ours]
            _delete_rows(connection, ours.intersection(superseded))
        return [entry for entry in going if entry.key in ours], results

    def _published_since(
        self, connection: sa.Connection, liveness: Liveness, entries: Sequence[Entry]
    ) -> set[str]:
        """Images of superseded entries of which something was published since the plan."""
        images = {liveness.place_of(entry.key).id for entry in entries if entry.row is not None}
        names = {*housekeeping.sources(connection), *self.settings.sources}
        return housekeeping.published_since(
            connection, sorted(names), sorted(images), self.plan.created_at
        )

    def _conclude(self, results: Sequence[Removed]) -> None:
        """Write down what was done; nothing of the chunk is announced any more.

        What a request that broke off may still delete stays announced until that is surely over.
        """
        self.ledger.add(results)
        stays = [one.entry for one in results if one.outcome == "failed"]
        rows = self._rows_of_present(stays)
        with self.catalog.write() as connection:
            housekeeping.restore_variants(connection, rows)
            clear = (one.entry.key for one in results if one.outcome != "unclear")
            removals.end(connection, self.hold.name, clear)
            forgotten = (one.entry.key for one in results if one.outcome in _FORGOTTEN)
            housekeeping.forget_sightings(connection, forgotten)
            housekeeping.set_plan_state(
                connection, self.plan.id, "applying", results=self.ledger.as_json()
            )

    def _undo(self, entries: Sequence[Entry], going: Sequence[Entry]) -> None:
        """A chunk of which nothing was deleted is as it was before."""
        rows = self._rows_of_present(going)
        with self.catalog.write() as connection:
            housekeeping.restore_variants(connection, rows)
            removals.end(connection, self.hold.name, (entry.key for entry in entries))

    def _rows_of_present(self, entries: Iterable[Entry]) -> list[Mapping[str, Any]]:
        """Rows of objects that are there: a row without its object would be a lie."""
        return [
            entry.row
            for entry in entries
            if entry.row is not None and self.bucket.head(entry.key) is not None
        ]

    def _stop(self, failed: Iterable[Removed]) -> Applied:
        for one in failed:
            self.ledger.quote(one)
        why = (
            f"more than {max(ERRORS, int(self.plan.entries * ERROR_SHARE))} of"
            f" {self.plan.entries:,} objects failed; {self.ledger.entries:,} are done. Find out"
            " why, then apply the plan again: it goes on where it stopped"
        )
        return self._report(why)

    def _report(self, stopped: str = "") -> Applied:
        ledger = self.ledger
        counts = dict(sorted(ledger.counts.items()))
        return Applied(self.plan.id, counts, ledger.bytes, tuple(ledger.errors), stopped)


def _delete_rows(connection: sa.Connection, keys: Iterable[str]) -> None:
    for part in chunks(sorted(keys)):
        connection.execute(sa.delete(variants).where(variants.c.key.in_(part)))
