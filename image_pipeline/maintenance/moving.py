"""Moving originals to colder classes of storage: the plan, and applying it.

A move is a copy of an object onto itself. It may change the ETag, which together with the key is
what the catalog knows a version by; so every move is announced in the catalog before, and its
new ETag is written in the transaction that ends the announcement. Discovery and readers leave
announced objects alone. What a killed process has left announced is finished by whoever comes
next: discovery, another plan, or the same plan applied again.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal, Self

import sqlalchemy as sa

from image_pipeline.catalog import housekeeping, originals, removals
from image_pipeline.catalog.engine import Catalog, chunks
from image_pipeline.catalog.originals import Moved, Version
from image_pipeline.maintenance.classes import (
    EXPLANATIONS,
    WATERFALL,
    Move,
    Original,
    Stay,
    decide,
)
from image_pipeline.maintenance.holding import Hold, held
from image_pipeline.maintenance.inventory import Listed, open_inventory
from image_pipeline.maintenance.lifecycle import old_version_days
from image_pipeline.maintenance.orphans import refuse_inventory
from image_pipeline.maintenance.plans import (
    EntriesFile,
    Entry,
    Plan,
    PlanRefused,
    check_applicable,
    plan_id,
    read_entries,
    read_plan,
)
from image_pipeline.maintenance.pricing import early_deletion_cost
from image_pipeline.settings import Classes, Settings
from image_pipeline.store.bucket import (
    Bucket,
    Head,
    ObjectArchivedError,
    ObjectChangedError,
    ObjectGoneError,
)

#: Copies at a time: each is one request that the store works on by itself.
THREADS = 16

#: Objects that are announced, copied and written down together.
CHUNK = 250

#: Applying stops when so many objects failed and they are that share of those tried: then it is
#: the store, or a missing right, and not the objects.
ERRORS = 20
ERROR_SHARE = 0.05

#: Objects with errors that are named to people.
SHOWN_ERRORS = 50

Outcome = Literal["moved", "already", "changed", "gone", "in_use", "archived", "error"]

Progress = Callable[[str, int, int], None]


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(slots=True)
class Sum:
    """Objects, bytes, and USD: saved by the month, and paid once.

    ``requests`` includes reading from the old class; ``left_behind`` is for old versions.
    """

    objects: int = 0
    bytes: int = 0
    monthly_saving: float = 0.0
    requests: float = 0.0
    left_behind: float = 0.0

    @property
    def once(self) -> float:
        """All that is paid once."""
        return self.requests + self.left_behind

    def add(self, entry: Listed | Entry) -> None:
        """Count one more object, with its money if it is planned."""
        self.objects += 1
        self.bytes += entry.size
        money = (entry.row or {}) if isinstance(entry, Entry) else {}
        self.monthly_saving += money.get("monthly_saving", 0.0)
        self.requests += money.get("requests", 0.0)
        self.left_behind += money.get("left_behind", 0.0)


@dataclass(slots=True)
class Planned:
    """A plan of moves: how many from which class to which, and why the others stay.

    ``early_deletion`` is what it would cost (USD) to move those at once that wait for the end of
    their minimum duration; ``versioned`` whether the bucket keeps old versions.
    """

    plan: Plan
    moves: dict[tuple[str, str], Sum]
    stays: dict[Stay, Sum]
    early_deletion: float
    versioned: bool


@dataclass(slots=True)
class Applied:
    """What became of a plan of moves: entries by outcome, and what it brings (USD).

    ``stopped`` says why not everything was tried, empty if it was.
    """

    plan: str
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    moves: dict[tuple[str, str], Sum] = field(default_factory=dict)
    errors: list[tuple[str, str]] = field(default_factory=list)
    stopped: str = ""


def plan_classes(
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    *,
    source: str | None = None,
    older_than_days: float | None = None,
    max_objects: int | None = None,
    progress: Progress = quiet,
) -> Planned:
    """Decide about every original of the newest inventory, and record the plan.

    ``older_than_days`` can only make the rules' waiting times longer, ``max_objects`` only lower
    the limit of the settings; where there are more moves, those that save the most are planned.
    Raises :class:`PlanRefused` without an inventory of the last day, and ``StoreError``.
    """
    now = clock()
    if housekeeping.migrations_pending(catalog):
        raise PlanRefused("migrations_pending", "the catalog has another schema: migrate it first")
    if source is not None and source not in settings.sources:
        raise PlanRefused("no_such_source", f"no source {source!r} in the settings")
    heal(bucket, catalog, now)
    with catalog.read() as connection:
        newest = housekeeping.newest_inventories(connection, 1, complete_only=False)
    inventory = refuse_inventory(newest[0] if newest else None, now)
    limit = min(max_objects or settings.maintenance.max_objects, settings.maintenance.max_objects)
    planner = _Planner(bucket, catalog, settings, now, older_than_days, limit)
    seen = 0
    with open_inventory(bucket, inventory.id) as file:
        for rows in file.rows(kinds=("upload",)):
            planner.look_at([row for row in rows if _is_of(row, settings, source)])
            seen += len(rows)
            progress("storage_class_plan", seen, max(seen, inventory.objects))
    return planner.record(inventory.id, max(inventory.objects, 1), max(inventory.bytes, 1))


def apply_moves(
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    plan: str,
    *,
    max_objects: int | None = None,
    progress: Progress = quiet,
) -> Applied:
    """Move what a plan names, each object only if it still is as it was planned.

    May be killed and called again: what was done is recognised. Raises :class:`PlanRefused`
    where the plan cannot be applied, or the store does not keep the class that it is told.
    """
    planned = read_plan(catalog, plan)
    if planned.kind != "classes":
        raise PlanRefused("wrong_kind", f"plan {plan} is one of {planned.kind}, not of classes")
    hours = settings.maintenance.cleanup.plan_hours
    check_applicable(planned, clock(), hours)
    with held(catalog, clock, plan) as hold:
        # Whoever held the plan before may have done more of it, or all.
        check_applicable(read_plan(catalog, plan), clock(), hours)
        heal(bucket, catalog, clock(), hold.name)
        with catalog.write() as connection:
            housekeeping.set_plan_state(connection, plan, "applying", applied_at=clock())
        most = settings.maintenance.max_objects
        with _Mover(bucket, catalog, clock, plan, hold) as mover:
            return _carry_out(mover, planned, min(max_objects or most, most), progress)


def _carry_out(mover: _Mover, plan: Plan, left: int, progress: Progress) -> Applied:
    done = 0
    parts = (part for many in read_entries(mover.bucket, plan) for part in chunks(many, CHUNK))
    for entries in parts:
        room = left - mover.begun
        mover.move(entries[:room])
        done += len(entries[:room])
        progress("storage_class_moves", done, plan.entries)
        if room <= len(entries) or mover.gives_up():
            break
    mover.collect()
    if mover.gives_up():
        return mover.applied
    if done < plan.entries:
        mover.applied.stopped = (
            f"max_objects ({left}) is reached: apply the plan again for the rest"
        )
        return mover.applied
    with mover.catalog.write() as connection:
        results = {"counts": dict(mover.applied.outcomes)}
        housekeeping.set_plan_state(connection, plan.id, "applied", results=results)
    return mover.applied


def move_rows(moves: Mapping[tuple[str, str], Sum]) -> list[dict[str, Any]]:
    """Moves by the way they go, the largest saving first."""
    rows = [
        {
            "from": way[0],
            "to": way[1],
            "objects": total.objects,
            "bytes": total.bytes,
            "monthly_saving_usd": round(total.monthly_saving, 6),
            "once_usd": round(total.once, 6),
        }
        for way, total in moves.items()
    ]
    return sorted(rows, key=lambda row: (-row["monthly_saving_usd"], row["from"], row["to"]))


def stay_rows(planned: Planned) -> list[dict[str, Any]]:
    """Why originals stay, the commonest reason first."""
    rows = [
        {
            "reason": str(reason),
            "objects": total.objects,
            "bytes": total.bytes,
            "why": EXPLANATIONS[reason],
        }
        for reason, total in planned.stays.items()
    ]
    return sorted(rows, key=lambda row: (-row["objects"], row["reason"]))


def totals(moves: Mapping[tuple[str, str], Sum]) -> dict[str, int | float]:
    """Objects, bytes and USD of all ways together, for plots."""
    return {
        "objects": sum(total.objects for total in moves.values()),
        "bytes": sum(total.bytes for total in moves.values()),
        "monthly_saving_usd": round(sum(total.monthly_saving for total in moves.values()), 6),
        "request_usd": round(sum(total.requests for total in moves.values()), 6),
        "left_behind_usd": round(sum(total.left_behind for total in moves.values()), 6),
        # Nothing leaves its class before the time is over that is paid for anyway.
        "early_deletion_usd": 0.0,
    }


def heal(bucket: Bucket, catalog: Catalog, now: datetime, holder: str | None = None) -> int:
    """Finish what killed processes had announced more than an hour ago; how many that were.

    Of ``holder``, who has taken a plan over, also what was announced since.
    Raises ``StoreError``; the rest is then left to the next one who comes.
    """
    with catalog.read() as connection:
        left = originals.announcements(connection, now - removals.ABANDONED, holder)
    for announced_by, key in left:
        head = bucket.head(key)
        with catalog.write() as connection:
            removals.hold(connection)
            if head is not None:
                _catch_up(connection, key, head)
            removals.end(connection, announced_by, [key])
    return len(left)


def _catch_up(connection: sa.Connection, key: str, head: Head) -> None:
    """Tell the catalog of a move that it was not told of."""
    if head.storage_class == "STANDARD":
        return
    versions = originals.versions_of(connection, [key]).get(key, [])
    was = originals.left_by_a_move(versions, head.etag, head.size, head.storage_class)
    moved = Moved(key, was.etag if was else head.etag, head.etag, head.storage_class)
    originals.follow(connection, [moved], head.last_modified)


def _is_of(row: Listed, settings: Settings, source: str | None) -> bool:
    return source is None or row.key.startswith(settings.sources[source].prefix)


class _Planner:
    """Rows of an inventory in, a plan out. Holds no more than the moves that are planned."""

    def __init__(
        self,
        bucket: Bucket,
        catalog: Catalog,
        settings: Settings,
        now: datetime,
        older_than_days: float | None,
        limit: int,
    ) -> None:
        self.bucket = bucket
        self.catalog = catalog
        self.now = now
        self.limit = limit
        self.rules = with_older(settings.maintenance.classes, older_than_days)
        self.protected = settings.maintenance.cleanup.protected
        self.versioned = bucket.versioned
        self.left_behind_days = float(old_version_days(settings)) if self.versioned else 0.0
        self.stays: dict[Stay, Sum] = {}
        self.early_deletion = 0.0
        self._best: list[tuple[float, int, Entry]] = []
        self._number = count()

    def look_at(self, rows: Sequence[Listed]) -> None:
        """Decide about up to 1,000 objects, and write down classes that nobody told us of."""
        if not rows:
            return
        keys = [row.key for row in rows]
        with self.catalog.read() as connection:
            known = originals.versions_of(connection, keys)
            images = {one.image_id for many in known.values() for one in many if one.image_id}
            rendered = originals.last_rendered(connection, images)
            open_images = housekeeping.images_in_open_batches(connection, images)
            busy_keys = removals.being_removed(connection, keys, self.now)
            busy_keys |= originals.announced(connection, keys).keys()
        notes: dict[int, tuple[str, datetime]] = {}
        for row in rows:
            versions = [one for one in known.get(row.key, ()) if one.etag == row.etag]
            if row.key.startswith(self.protected):
                self._stay(row, Stay.PROTECTED)
            elif row.key in busy_keys:
                self._stay(row, Stay.IN_USE)
            elif not versions:
                self._stay(row, Stay.NOT_CATALOGUED)
            elif since := class_since(row, versions, self.now):
                original = original_of(row, versions, since, rendered, open_images)
                self._decide(row, original)
            else:
                notes.update({one.id: (row.storage_class, self.now) for one in versions})
                self._stay(row, Stay.CLASS_JUST_SEEN)
        if notes:
            with self.catalog.write() as connection:
                originals.note_classes(connection, notes)

    def record(self, inventory: str, objects: int, size: int) -> Planned:
        """Write the plan."""
        moves: dict[tuple[str, str], Sum] = {}
        with EntriesFile() as file:
            for _, _, entry in sorted(self._best, key=lambda one: one[2].key):
                file.add(entry)
                moves.setdefault((entry.storage_class, entry.reason), Sum()).add(entry)
            plan = Plan(
                id=plan_id("classes", self.now),
                kind="classes",
                created_at=self.now,
                inventory_id=inventory,
                digest="",
                entries=0,
                bytes=0,
                share=max(file.entries / objects, file.bytes / size),
                archive=False,
                state="planned",
            )
            plan = file.record(self.bucket, self.catalog, plan)
        return Planned(plan, moves, self.stays, self.early_deletion, self.versioned)

    def _decide(self, row: Listed, original: Original) -> None:
        decided = decide(original, self.rules, self.now, left_behind_days=self.left_behind_days)
        if isinstance(decided, Move):
            self._plan(row, decided)
            return
        if decided is Stay.MINIMUM_DURATION:
            days = (self.now - original.class_since) / timedelta(days=1)
            self.early_deletion += early_deletion_cost(row.size, row.storage_class, days)
        self._stay(row, decided)

    def _plan(self, row: Listed, move: Move) -> None:
        entry = Entry(
            key=row.key,
            etag=row.etag,
            size=row.size,
            last_modified=row.last_modified,
            storage_class=row.storage_class,
            reason=move.to,
            first_at=self.now,
            last_at=self.now,
            row={
                "monthly_saving": move.estimate.monthly_saving,
                "requests": move.estimate.request_cost,
                "left_behind": move.estimate.left_behind_cost,
            },
        )
        ranked = (move.estimate.monthly_saving, -next(self._number), entry)
        if len(self._best) < self.limit:
            heapq.heappush(self._best, ranked)
        else:
            left_out = heapq.heappushpop(self._best, ranked)[2]
            self._stay(left_out, Stay.OVER_LIMIT)

    def _stay(self, row: Listed | Entry, reason: Stay) -> None:
        self.stays.setdefault(reason, Sum()).add(row)


def with_older(rules: Classes, older_than_days: float | None) -> Classes:
    """The rules with waiting times of at least so many days."""
    if older_than_days is None:
        return rules
    longer = tuple(
        rule.model_copy(update={"after_days": max(rule.after_days, older_than_days)})
        for rule in rules.rules
    )
    return rules.model_copy(update={"rules": longer})


def class_since(row: Listed, versions: Sequence[Version], now: datetime) -> datetime | None:
    """Since when an object is in its class for certain; None if somebody else put it there.

    In Standard since it was written. In another class since we moved it, or since it was
    written there: a copy has a time of its own. A transition by the bucket's own rules leaves
    no trace of when it was, and neither shows an object that was sent into its class.
    """
    if row.storage_class == "STANDARD" or row.storage_class not in WATERFALL:
        return row.last_modified
    moved = [one.moved_at for one in versions if one.storage_class == row.storage_class]
    if moved and all(moved):
        return max(moment for moment in moved if moment)
    known_until = max(one.moved_at or one.last_modified for one in versions)
    # Listings may have whole seconds where the catalog has more.
    return row.last_modified if row.last_modified > known_until + timedelta(seconds=1) else None


def original_of(
    row: Listed,
    versions: Sequence[Version],
    since: datetime,
    rendered: dict[str, datetime],
    open_images: set[str],
) -> Original:
    """What is decided about: an object, and all that the catalog knows of this version of it."""
    uses = [one.last_modified for one in versions]
    uses += [one.decided_at for one in versions if one.decided_at]
    uses += [rendered[one.image_id] for one in versions if one.image_id in rendered]
    return Original(
        key=row.key,
        size=row.size,
        storage_class=row.storage_class,
        finished=is_finished(versions, open_images),
        canonical=any(one.canonical for one in versions),
        used_at=max(uses),
        class_since=since,
    )


def is_finished(versions: Sequence[Version], open_images: set[str]) -> bool:
    """Whether nothing is to be done any more with any upload of an object, or with its image."""
    return all(
        one.verdict not in (None, "failed")
        and not one.batch_open
        and not one.group_open
        and one.image_id not in open_images
        for one in versions
    )


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of an entry.

    ``etag`` is set where it now is in its new class, or in the class ``to`` instead. What is
    not ``certain`` could not be looked at, and stays announced.
    """

    entry: Entry
    outcome: Outcome
    etag: str = ""
    message: str = ""
    certain: bool = True
    to: str = ""


class _Mover:
    """Moves the entries of a plan, a chunk at a time, with the next one already under way."""

    def __init__(
        self,
        bucket: Bucket,
        catalog: Catalog,
        clock: Callable[[], datetime],
        plan: str,
        hold: Hold,
    ) -> None:
        self.bucket = bucket
        self.catalog = catalog
        self.clock = clock
        self.hold = hold
        self.applied = Applied(plan)
        self._trusted = False
        self._under_way: list[Future[_Result]] = []

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="move")
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    @property
    def begun(self) -> int:
        """How many were moved, or are about to be."""
        return self.applied.outcomes["moved"] + len(self._under_way)

    def move(self, entries: Sequence[Entry]) -> None:
        """Announce and copy; one by one until the first has arrived where it should.

        What was begun before is written down meanwhile.
        """
        entries = list(entries)
        while entries and not self._trusted and not self.gives_up():
            for entry in self._announce([entries.pop(0)]):
                self._write_down([self._try_first(entry)])
        if entries and not self.gives_up():
            ready = self._announce(entries)
            before, self._under_way = self._under_way, []
            begun = [self._threads.submit(self._move_one, entry) for entry in ready]
            self._collect(before)
            self._under_way = begun

    def collect(self) -> None:
        """Wait for what is under way and write it down."""
        under_way, self._under_way = self._under_way, []
        self._collect(under_way)

    def _collect(self, under_way: Sequence[Future[_Result]]) -> None:
        results: list[_Result] = []
        for future in as_completed(under_way):
            results.append(future.result())
            self.hold.renew()
        self._write_down(results)

    def gives_up(self) -> bool:
        """Whether so much went wrong that the rest is not tried."""
        outcomes = self.applied.outcomes
        failed = outcomes["error"]
        if failed < ERRORS or failed < outcomes.total() * ERROR_SHARE:
            return False
        self.applied.stopped = (
            f"{failed} of {outcomes.total()} objects failed: see the first errors"
        )
        return True

    def _announce(self, entries: Sequence[Entry]) -> list[Entry]:
        """Look once more whether they may be moved, and say so; those that may."""
        keys = [entry.key for entry in entries]
        now = self.clock()
        ready = []
        with self.catalog.write() as connection:
            removals.hold(connection)
            busy = removals.being_removed(connection, keys, now)
            busy |= originals.announced(connection, keys).keys()
            known = originals.versions_of(connection, keys)
            images = {one.image_id for many in known.values() for one in many if one.image_id}
            open_images = housekeeping.images_in_open_batches(connection, images)
            for entry in entries:
                versions = known.get(entry.key, [])
                refused = _refuse(entry, versions, open_images, busy=entry.key in busy)
                if refused is None:
                    ready.append(entry)
                else:
                    self.applied.outcomes[refused] += 1
            keys = [entry.key for entry in ready]
            ours = removals.begin(connection, self.hold.name, keys, now)
        # Nobody else has announced them, or they would be busy.
        return [entry for entry in ready if entry.key in ours]

    def _try_first(self, entry: Entry) -> _Result:
        """Move one object, and see whether it now is where it was moved to.

        A store that takes the class and forgets it would be told so for ever.
        """
        result = self._move_one(entry)
        if result.outcome != "moved":
            return result
        head = self.bucket.head(entry.key)
        if head is not None and head.storage_class != entry.reason:
            self._write_down([replace(result, to=head.storage_class)])
            raise PlanRefused(
                "no_classes",
                f"{entry.key} was moved to {entry.reason}, and the store says that it is in"
                f" {head.storage_class}: it has no such class",
            )
        self._trusted = True
        return result

    def _move_one(self, entry: Entry) -> _Result:
        """Copy an object onto itself if it still is what was planned. Never raises."""
        try:
            head = self.bucket.head(entry.key)
            found = _judge(entry, head)
            if found is not None:
                return found
            etag = self.bucket.copy(
                entry.key, entry.key, etag=entry.etag, storage_class=entry.reason, known=head
            )
            return _Result(entry, "moved", etag)
        except ObjectGoneError:
            return _Result(entry, "gone")
        except ObjectChangedError:
            return _Result(entry, "changed")
        except ObjectArchivedError:
            return _Result(entry, "archived")
        except Exception as error:  # noqa: BLE001 - one object must not end the others
            return self._after_error(entry, f"{type(error).__name__}: {error}"[:300])

    def _after_error(self, entry: Entry, message: str) -> _Result:
        """A request that failed may have been carried out: look, and in doubt leave it open."""
        try:
            head = self.bucket.head(entry.key)
        except Exception:  # noqa: BLE001 - whatever it is, nothing is known of the object
            return _Result(entry, "error", message=message, certain=False)
        if head and head.storage_class == entry.reason and head.size == entry.size:
            return _Result(entry, "moved", head.etag)
        return _judge(entry, head) or _Result(entry, "error", message=message)

    def _write_down(self, results: Sequence[_Result]) -> None:
        if not results:
            return
        moves = [
            Moved(one.entry.key, one.entry.etag, one.etag, one.to or one.entry.reason)
            for one in results
            if one.etag
        ]
        with self.catalog.write() as connection:
            removals.hold(connection)
            originals.follow(connection, moves, self.clock())
            ended = [one.entry.key for one in results if one.certain]
            removals.end(connection, self.hold.name, ended)
        for one in results:
            self._count(one)

    def _count(self, result: _Result) -> None:
        entry = result.entry
        self.applied.outcomes[result.outcome] += 1
        if result.outcome == "moved":
            way = entry.storage_class, entry.reason
            self.applied.moves.setdefault(way, Sum()).add(entry)
        elif result.outcome == "error" and len(self.applied.errors) < SHOWN_ERRORS:
            self.applied.errors.append((entry.key, result.message))


def _refuse(
    entry: Entry, versions: Sequence[Version], open_images: set[str], *, busy: bool
) -> Outcome | None:
    """Why the catalog will not have an entry moved; None if it may be."""
    if any(_was_moved(entry, one) for one in versions):
        return "already"
    current = [one for one in versions if one.etag == entry.etag]
    if not current:
        return "changed"
    return "in_use" if busy or not is_finished(current, open_images) else None


def _judge(entry: Entry, head: Head | None) -> _Result | None:
    """What an object is, compared with its entry; None if it is to be moved."""
    if head is None:
        return _Result(entry, "gone")
    if (head.size, head.etag) != (entry.size, entry.etag):
        return _Result(entry, "changed")
    if head.storage_class == entry.reason:
        return _Result(entry, "already", head.etag)
    # Sent again with the same bytes it is new, and not due. HEAD knows whole seconds only.
    written = entry.last_modified.astimezone(UTC).replace(microsecond=0)
    same = head.storage_class == entry.storage_class and head.last_modified == written
    return None if same else _Result(entry, "changed")


def _was_moved(entry: Entry, version: Version) -> bool:
    """Whether the catalog says that an entry was moved since it was planned."""
    return (
        version.storage_class == entry.reason
        and version.size == entry.size
        and version.moved_at is not None
        and version.moved_at >= entry.first_at
    )
