"""The trash: putting back what a plan removed, or ending it for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog.engine import Catalog, chunks
from image_pipeline.maintenance.holding import Attempt, Hold, held
from image_pipeline.maintenance.plans import Entry, Plan, PlanRefused, read_entries, read_plan
from image_pipeline.maintenance.removing import THREADS
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import (
    Bucket,
    Head,
    ObjectArchivedError,
    ObjectChangedError,
    ObjectGoneError,
    StoreError,
)
from image_pipeline.store.layout import trash_key
from image_pipeline.store.objects import ARCHIVED

Progress = Callable[[str, int, int], None]

#: Glacier bills ninety days of what is deleted before: until then it may as well lie there.
ARCHIVE_DAYS = 90

#: Plans looked at for what is due: three years of weekly ones.
_PLANS = 156

#: Hours until what was asked back from Glacier can be read, by tier (S3's own upper bounds).
_HOURS = {"Expedited": 1, "Standard": 5, "Bulk": 12}

#: Name in the results of a plan of the time at which a restore was last begun.
RESTORING = "restoring_at"

#: What became of an entry that was to be put back. ``there`` was never gone, or is there again;
#: ``conflict`` is another object under its name, which is left; ``thawing`` has been asked back
#: from the archive; ``missing`` is neither in its place nor in the trash.
Return = Literal["restored", "there", "conflict", "thawing", "missing", "failed"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back. ``conflicts`` and ``errors`` name keys.

    ``again_at`` is when to call again for what is coming back from the archive; ``complete`` is
    whether the plan is undone.
    """

    plan: str
    counts: Mapping[str, int]
    conflicts: Sequence[str]
    errors: Sequence[str]
    again_at: datetime | None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be tried."""
        return self.again_at is None and not self.errors


@dataclass(frozen=True, slots=True)
class Purged:
    """Plans whose trash was emptied, and the objects and bytes that were deleted for good."""

    plans: Sequence[str]
    objects: int
    bytes: int
    errors: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Back:
    """What became of one entry."""

    entry: Entry
    outcome: Return
    error: str = ""


def restore_plan(
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    plan_id: str,
    *,
    progress: Progress | None = None,
    threads: int = THREADS,
) -> Restored:
    """Put everything back that a plan removed, rows of the catalog too.

    Nothing that is there now is overwritten. What was put back is seen as for the first time by
    the next inventory, so that it does not go again at once. What lies in an archive is asked
    back, and put back by another call later. Killed at any point, another call goes on.

    Raises :class:`PlanRefused`: no such plan, never applied, already purged, or being applied.
    """
    plan = read_plan(catalog, plan_id)
    _check_restorable(plan)
    with held(catalog, clock, plan.id) as hold:
        plan = read_plan(catalog, plan_id)
        _check_restorable(plan)
        _note_restoring(catalog, plan.id, clock())
        return _Restoring(bucket, catalog, settings, clock, plan, hold).run(progress, threads)


def _note_restoring(catalog: Catalog, plan: str, now: datetime) -> None:
    """Keep with a plan when somebody last wanted it undone: its trash is kept anew from then."""
    with catalog.write() as connection:
        row = housekeeping.get_plan(connection, plan) or {}
        results = {**(row.get("results") or {}), RESTORING: now.isoformat()}
        housekeeping.set_plan_state(connection, plan, row["state"], results=results)


def _check_restorable(plan: Plan) -> None:
    if plan.kind != "orphans":
        raise PlanRefused("wrong_kind", f"plan {plan.id} is one of {plan.kind}: nothing to restore")
    if plan.state not in ("applying", "applied", "restored"):
        raise PlanRefused("not_applied", f"plan {plan.id} is {plan.state}: nothing to restore")


class _Restoring(Attempt):
    """Putting back what a plan removed."""

    __slots__ = ()

    def run(self, progress: Progress | None, threads: int) -> Restored:
        """Every entry; then, if all are done, the plan's state."""
        counts: Counter[str] = Counter()
        conflicts: list[str] = []
        errors: list[str] = []
        for entries in read_entries(self.bucket, self.plan):
            self.hold.prove()
            for one in self._put_back(entries, threads):
                counts[one.outcome] += 1
                if one.outcome == "conflict":
                    conflicts.append(one.entry.key)
                if one.outcome == "failed":
                    errors.append(f"{one.entry.key}: {one.error}"[:500])
            if progress is not None:
                progress("restored", counts.total(), self.plan.entries)
        tier = self.settings.maintenance.classes.restore_tier
        again = self.clock() + timedelta(hours=_HOURS[tier]) if counts["thawing"] else None
        done = Restored(self.plan.id, dict(sorted(counts.items())), conflicts, errors, again)
        if done.complete:
            self._close()
        return done

    def _close(self) -> None:
        with self.catalog.write() as connection:
            housekeeping.set_plan_state(connection, self.plan.id, "restored", ended_at=self.clock())

    def _put_back(self, entries: Sequence[Entry], threads: int) -> list[_Back]:
        """One chunk: the objects, then the rows, then the trash."""
        with ThreadPoolExecutor(threads, thread_name_prefix="restore") as pool:
            done = list(pool.map(self._restore, entries))
        self.hold.prove()
        back = [one.entry for one in done if one.outcome in ("restored", "there")]
        with self.catalog.write() as connection:
            housekeeping.restore_variants(
                connection, (entry.row for entry in back if entry.row is not None)
            )
            housekeeping.forget_sightings(connection, (entry.key for entry in back))
        if back:
            # A copy that cannot be deleted is purged with the trash.
            self.bucket.delete([trash_key(self.plan.id, entry.key) for entry in back])
        return done

    def _restore(self, entry: Entry) -> _Back:
        """Copy an object back to its place, unless there is one."""
        key = trash_key(self.plan.id, entry.key)
        try:
            copy, there = self.bucket.head(key), self.bucket.head(entry.key)
            if there is not None:
                return _Back(entry, "there" if _is_it(there, entry, copy) else "conflict")
            if copy is None:
                return _Back(entry, "missing")
            wanted = None if entry.storage_class in ARCHIVED else entry.storage_class
            self.bucket.copy(key, entry.key, storage_class=wanted, known=copy, only_if_missing=True)
            return _Back(entry, "restored")
        except ObjectArchivedError:
            return self._thaw(entry, key)
        except (ObjectChangedError, ObjectGoneError):
            # Somebody was faster: with another object, or by purging.
            return _Back(entry, "conflict")
        except StoreError as error:
            return _Back(entry, "failed", str(error))

    def _thaw(self, entry: Entry, key: str) -> _Back:
        rules = self.settings.maintenance.classes
        try:
            self.bucket.restore(key, rules.restore_days, rules.restore_tier)
        except (StoreError, ObjectGoneError) as error:
            return _Back(entry, "failed", str(error))
        return _Back(entry, "thawing")


def _is_it(there: Head, entry: Entry, copy: Head | None) -> bool:
    """Whether an object is the one that was removed. A copy may have an ETag of its own."""
    etags = {entry.etag} | ({copy.etag} if copy is not None else set())
    return there.size == entry.size and there.etag in etags


def purge_trash(
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    *,
    progress: Progress | None = None,
) -> Purged:
    """Delete what plans moved away more than ``trash_days`` ago, for good.

    Only under ``trash/`` and the id of a plan that the catalog knows to be applied, or restored
    (what could not be put back then). What went to the archive stays ninety days at least. On
    a versioned bucket the deletions are markers, and the lifecycle rules end the versions.
    """
    purged: list[str] = []
    objects = size = 0
    errors: list[str] = []
    for plan in due_for_purge(catalog, settings, clock()):
        try:
            with held(catalog, clock, plan.id) as hold:
                # Somebody may have restored it, or begun to, while others were emptied.
                if not _is_still_due(catalog, settings, plan.id, clock()):
                    continue
                count, total, failed = _empty(bucket, plan.id, hold, progress)
                if not failed:
                    purged.append(plan.id)
                    _mark_purged(catalog, read_plan(catalog, plan.id), clock())
        except PlanRefused as error:
            errors.append(str(error))
            continue
        objects, size = objects + count, size + total
        errors += failed
    return Purged(purged, objects, size, errors)


def due_for_purge(catalog: Catalog, settings: Settings, now: datetime) -> list[Plan]:
    """Plans whose time in the trash is over, the oldest first."""
    with catalog.read() as connection:
        rows = housekeeping.recent_plans(connection, "orphans", _PLANS)
    return [read_plan(catalog, row["id"]) for row in reversed(rows) if _is_due(row, settings, now)]


def _is_still_due(catalog: Catalog, settings: Settings, plan: str, now: datetime) -> bool:
    with catalog.read() as connection:
        row = housekeeping.get_plan(connection, plan)
    return row is not None and _is_due(row, settings, now)


def _is_due(row: Mapping[str, Any], settings: Settings, now: datetime) -> bool:
    """Whether the time of a plan's trash is over, since it was filled or was last wanted back."""
    days = settings.maintenance.cleanup.trash_days
    least = timedelta(days=max(days, ARCHIVE_DAYS) if row["archive"] else days)
    since = {"applied": row["applied_at"], "restored": _leftovers_since(row)}.get(row["state"])
    wanted = (row["results"] or {}).get(RESTORING)
    if since is not None and wanted:
        since = max(since, datetime.fromisoformat(wanted))
    return since is not None and since + least <= now


def _leftovers_since(row: Mapping[str, Any]) -> datetime | None:
    """Since when a restored plan may have left something; None once that is purged too."""
    since: datetime | None = row["ended_at"]
    return None if (row["results"] or {}).get("leftovers_purged") else since


def _mark_purged(catalog: Catalog, plan: Plan, now: datetime) -> None:
    with catalog.write() as connection:
        if plan.state == "restored":
            row = housekeeping.get_plan(connection, plan.id) or {}
            results = {**(row.get("results") or {}), "leftovers_purged": True}
            housekeeping.set_plan_state(connection, plan.id, "restored", results=results)
        else:
            housekeeping.set_plan_state(connection, plan.id, "purged", ended_at=now)


def _empty(
    bucket: Bucket, plan: str, hold: Hold, progress: Progress | None
) -> tuple[int, int, list[str]]:
    """Delete the trash of one plan: objects, bytes, errors."""
    objects = size = 0
    errors: list[str] = []
    for part in _lists(bucket, trash_key(plan, "")):
        hold.prove()
        sizes = dict(part)
        failed = bucket.delete(list(sizes))
        errors += [f"{key}: {error}" for key, error in failed.items()]
        objects += len(sizes) - len(failed)
        size += sum(length for key, length in sizes.items() if key not in failed)
        if progress is not None:
            progress("purged", objects, objects)
    return objects, size, errors


def _lists(bucket: Bucket, folder: str) -> Iterator[list[tuple[str, int]]]:
    """Keys and sizes of what lies in a folder, up to 1,000 at a time."""
    return chunks(((one.key, one.size) for one in bucket.list(folder)), 1000)
