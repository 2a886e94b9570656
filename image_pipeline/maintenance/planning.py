"""Making a plan of orphans from the newest inventory.

Nothing is removed here. What would be is written down, with its reasons, and applied apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import sqlalchemy as sa

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.housekeeping import InventoryRow, Sighting
from image_pipeline.maintenance.inventory import (
    InventoryFile,
    Listed,
    Progress,
    Total,
    open_inventory,
    quiet,
)
from image_pipeline.maintenance.liveness import Liveness
from image_pipeline.maintenance.orphans import (
    CLOCK_DIFFERENCE,
    Rules,
    doubts,
    kept_by,
    refuse_clock,
    refuse_inventory,
    refuse_unknown_batches,
    rules_of,
    sighted,
)
from image_pipeline.maintenance.plans import EntriesFile, Entry, Plan, PlanRefused, plan_id
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.errors import translated

#: Entries of a plan that are shown to people.
SHOWN = 50

#: What tells that a batch was once known: its list is written before it runs, its manifest and
#: its part of the ledger after.
_WITNESSES = ("batches/", "manifests/batches/", "ledger/")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a plan is to be about. Empty fields mean: as the settings say.

    ``older_than_days`` can only make the grace periods longer, ``max_objects`` only the plan
    smaller.
    """

    older_than_days: float | None = None
    source: str | None = None
    max_objects: int | None = None
    archive: bool = False


@dataclass(slots=True)
class Planned:
    """A plan, and how it came about.

    ``by_reason`` counts its entries, ``kept`` orphans that are not in it by the guard (or
    ``other_source``, ``left_for_later``, ``referred_to_again``) that keeps them. ``doubts`` say why
    it has to be confirmed.
    """

    plan: Plan
    by_reason: dict[str, Total] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)
    shown: list[Entry] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def plan_orphans(
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    *,
    older_than_days: float | None = None,
    source: str | None = None,
    max_objects: int | None = None,
    archive: bool = False,
) -> Plan:
    """Plan the removal of what nobody refers to; see :func:`look_for_orphans`."""
    scope = Scope(older_than_days, source, max_objects, archive)
    return look_for_orphans(bucket, catalog, settings, clock, scope).plan


def look_for_orphans(
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    scope: Scope,
    progress: Progress = quiet,
) -> Planned:
    """Plan the removal of what nobody refers to, from the newest inventory, and record the plan.

    Objects that the inventory found without anybody are asked about again now, and their
    sightings are kept. Those that every guard of :mod:`orphans` lets go become entries. A plan of
    too large a share, or from an inventory that shrank, is recorded as one to be confirmed.

    Raises :class:`PlanRefused`, and then records nothing, where the catalog, the inventory or
    the clock cannot be relied on; ``StoreError`` if the bucket fails.
    """
    if housekeeping.migrations_pending(catalog):
        raise PlanRefused(
            "migrations_pending",
            "the catalog's schema is not the one of this version: run a batch, or any command"
            " that opens the catalog, with this version first",
        )
    if scope.source is not None and scope.source not in settings.sources:
        raise PlanRefused("no_such_source", f"no source {scope.source!r} in the settings")
    now = clock()
    _refuse_clock(bucket, settings)
    newest, before = _inventories(catalog, now)
    with open_inventory(bucket, newest.id) as file:
        if not file.is_of(bucket):
            raise PlanRefused(
                "other_bucket",
                f"the newest inventory is not one of the bucket {bucket.name!r}: correct the"
                " settings, or take an inventory of this bucket",
            )
        liveness = Liveness(bucket, settings, clock)
        _refuse_unknown_batches(catalog, liveness, file)
        planner = _Planner(catalog, settings, liveness, scope, newest, now)
        return planner.plan(bucket, file, before, progress)


def server_time(bucket: Bucket) -> datetime:
    """What time the store has, by its own answer (UTC, whole seconds). Raises ``StoreError``."""
    with translated(bucket.name):
        answer = bucket.client.head_bucket(Bucket=bucket.name)
    date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
    return parsedate_to_datetime(date).astimezone(UTC)


def _refuse_clock(bucket: Bucket, settings: Settings) -> None:
    # In a rehearsal the clock is ahead on purpose, of a bucket that is for rehearsals.
    if not settings.ahead_days:
        refuse_clock(settings.now(), server_time(bucket))


def _inventories(catalog: Catalog, now: datetime) -> tuple[InventoryRow, InventoryRow | None]:
    """The inventory to work with and the complete one before it."""
    # Inventories of rehearsals are of times to come.
    until = now + CLOCK_DIFFERENCE
    with catalog.read() as connection:
        if housekeeping.is_empty(connection):
            raise PlanRefused(
                "catalog_empty",
                "the catalog knows no upload and no batch: is catalog.url right? A new catalog"
                " has to be filled first",
            )
        every = housekeeping.newest_inventories(connection, 1, until=until, complete_only=False)
        complete = housekeeping.newest_inventories(connection, 2, until=until)
    newest = refuse_inventory(every[0] if every else None, now)
    return newest, complete[1] if len(complete) > 1 else None


def _refuse_unknown_batches(catalog: Catalog, liveness: Liveness, file: InventoryFile) -> None:
    unknown, first = 0, ""
    for part in file.rows(kinds=("batch", "ledger")):
        batches = {
            one.key: liveness.place_of(one.key).id for one in part if one.key.startswith(_WITNESSES)
        }
        with catalog.read() as connection:
            known = housekeeping.known_batches(connection, set(batches.values()))
        for key, batch in batches.items():
            if batch and batch not in known:
                unknown, first = unknown + 1, first or key
    refuse_unknown_batches(unknown, first)


class _Planner:
    """Goes through the orphans of one inventory."""

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        liveness: Liveness,
        scope: Scope,
        inventory: InventoryRow,
        now: datetime,
    ) -> None:
        self.catalog = catalog
        self.settings = settings
        self.liveness = liveness
        self.scope = scope
        self.inventory = inventory
        self.now = now
        most = settings.maintenance.max_objects
        self.max_objects = min(most, scope.max_objects or most)
        with catalog.read() as connection:
            discovered = housekeeping.discovered_until(connection)
        cleanup = settings.maintenance.cleanup
        self.rules: Rules = rules_of(
            cleanup, now, discovered, scope.older_than_days, settings.discovery
        )
        # A report of S3 is of a day before it was asked who refers to its objects.
        self.asked_at = now if inventory.origin == "s3-inventory" else None
        self.kept: Counter[str] = Counter()
        self.by_reason: dict[str, Total] = {}
        self.shown: list[Entry] = []

    def plan(
        self, bucket: Bucket, file: InventoryFile, before: InventoryRow | None, progress: Progress
    ) -> Planned:
        """Look at every orphan, and record the plan."""
        with EntriesFile() as entries:
            for part in file.rows(orphan=True):
                for entry in self._entries(part):
                    if entries.entries == self.max_objects:
                        self.kept["left_for_later"] += 1
                    else:
                        entries.add(entry)
                        self._count(entry)
                progress("orphaned_objects", entries.entries, self.max_objects)
            with self.catalog.write() as connection:
                housekeeping.forget_sightings_before(connection, self.inventory.taken_at)
            # What lies in the trash was removed before.
            whole = file.total(without=("trash",))
            share = _share(Total(entries.entries, entries.bytes), whole)
            found = doubts(
                share,
                self.settings.maintenance.cleanup.max_share,
                self.inventory.objects,
                before.objects if before else None,
            )
            plan = entries.record(bucket, self.catalog, self._draft(share, found))
        return Planned(plan, self.by_reason, self.kept, self.shown, found)

    def _draft(self, share: float, found: Sequence[str]) -> Plan:
        return Plan(
            id=plan_id("orphans", self.now),
            kind="orphans",
            created_at=self.now,
            inventory_id=self.inventory.id,
            digest="",
            entries=0,
            bytes=0,
            share=share,
            archive=self.scope.archive,
            state="needs_confirmation" if found else "planned",
        )

    def _entries(self, part: Sequence[Listed]) -> Iterator[Entry]:
        """Those of up to 1,000 orphans of the inventory that may go; sightings are kept of all."""
        with self.catalog.read() as connection:
            references = self.liveness.classify(connection, part)
            seen = housekeeping.sightings_of(connection, (one.key for one in part))
            orphans = [
                replace(one, by=reference.by)
                for one, reference in zip(part, references, strict=True)
                if reference.orphan
            ]
            sightings = [
                sighted(one, seen.get(one.key), self.inventory, self.asked_at) for one in orphans
            ]
            ripe = [
                (one, sighting)
                for one, sighting in zip(orphans, sightings, strict=True)
                if self._is_ripe(sighting)
            ]
            inside = self._in_scope(connection, [one for one, _ in ripe])
            rows = housekeeping.variant_documents(
                connection, (one.key for one, _ in ripe if one.by == "superseded_variant")
            )
        with self.catalog.write() as connection:
            alive = {one.key for one in part} - {one.key for one in orphans}
            housekeeping.forget_sightings(connection, sorted(alive & set(seen)))
            housekeeping.record_sightings(connection, sightings)
        self.kept += Counter({"referred_to_again": len(alive)})
        for one, sighting in ripe:
            if one.key in inside:
                yield _entry(one, sighting, rows.get(one.key))
            else:
                self.kept["other_source"] += 1

    def _is_ripe(self, sighting: Sighting) -> bool:
        guard = kept_by(sighting, self.liveness.place_of(sighting.key).source, self.rules)
        if guard is not None:
            self.kept[guard] += 1
        return guard is None

    def _in_scope(self, connection: sa.Connection, ripe: Sequence[Listed]) -> set[str]:
        """The keys that belong to the source that the plan is about."""
        source = self.scope.source
        if source is None:
            return {one.key for one in ripe}
        places = {one.key: self.liveness.place_of(one.key) for one in ripe}
        images = {place.id for place in places.values() if place.kind == "variant"}
        members = housekeeping.member_images(connection, source, images)
        return {
            key
            for key, place in places.items()
            if place.source == source or (place.kind == "variant" and place.id in members)
        }

    def _count(self, entry: Entry) -> None:
        self.by_reason.setdefault(entry.reason, Total()).add(entry.size)
        if len(self.shown) < SHOWN:
            self.shown.append(entry)


def _entry(one: Listed, sighting: Sighting, row: dict[str, object] | None) -> Entry:
    return Entry(
        key=one.key,
        etag=one.etag,
        size=one.size,
        last_modified=one.last_modified,
        storage_class=one.storage_class,
        reason=one.by,
        first_at=sighting.first_at,
        last_at=sighting.last_at,
        row=row,
    )


def _share(part: Total, whole: Total) -> float:
    """The larger of the shares of objects and of bytes."""
    return max(part.objects / max(whole.objects, 1), part.bytes / max(whole.bytes, 1))
