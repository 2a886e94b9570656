"""Which of the objects that nobody refers to may be removed. Decisions only.

Every guard can only keep an object. One that says no is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from image_pipeline.catalog.housekeeping import InventoryRow, Sighting
from image_pipeline.maintenance.inventory import Listed
from image_pipeline.maintenance.liveness import ORPHAN_REASONS, SUPERSEDED
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.settings import Cleanup, Discovery

#: Why an orphan is kept for now, by the guard that says so.
GUARDS = ("protected", "young", "lately_needed", "seen_once", "not_swept")

#: A sweep of a source's prefix has passed an object after so long: it takes minutes, and starts
#: over as soon as it has come to the end, or, where events tell of uploads, at its next turn.
SWEEP = timedelta(days=1)

#: An inventory says little about a bucket after that.
INVENTORY_AGE = timedelta(days=1)

#: Clocks that keep time at all differ by less; ages are told by two of them.
CLOCK_DIFFERENCE = timedelta(seconds=300)

#: A listing that shrank below this share of the last one is probably not whole. What weekly
#: cleanups remove is a fifth of that.
MIN_LISTING = 0.9


@dataclass(frozen=True, slots=True)
class Rules:
    """What the guards go by, at a moment ``now`` (UTC).

    ``discovered_until`` is when discovery last recorded an upload of a source, ``sweep`` how
    long it may take until a sweep has passed an object.
    """

    now: datetime
    grace: timedelta
    upload_grace: timedelta
    apart: timedelta
    protected: tuple[str, ...]
    discovered_until: Mapping[str, datetime]
    sweep: timedelta = SWEEP


def rules_of(
    cleanup: Cleanup,
    now: datetime,
    discovered_until: Mapping[str, datetime],
    older_than_days: float | None = None,
    discovery: Discovery | None = None,
) -> Rules:
    """The rules of the settings; ``older_than_days`` can only make the grace periods longer.

    With a queue of events, ``discovery`` may sweep seldom: the sweep after the next one is
    waited for.
    """
    longer = older_than_days or 0.0
    return Rules(
        now,
        timedelta(days=max(cleanup.grace_days, longer)),
        timedelta(days=max(cleanup.upload_grace_days, longer)),
        timedelta(hours=cleanup.sightings_hours),
        cleanup.protected,
        discovered_until,
        _longest_sweep(discovery),
    )


def _longest_sweep(discovery: Discovery | None) -> timedelta:
    if discovery is None or discovery.queue_url is None:
        return SWEEP
    return max(SWEEP, 2 * timedelta(minutes=discovery.reconcile_minutes))


def sighted(
    found: Listed,
    before: Sighting | None,
    inventory: InventoryRow,
    asked_at: datetime | None = None,
) -> Sighting:
    """What is known of an orphan now that an inventory has it.

    Another version, another reason or a first sighting that lies in the future begin anew:
    somebody had to do with the object since. ``asked_at`` is when it was asked who refers to it,
    where that was not when the inventory was taken: until then somebody may have.
    """
    first_at = asked_at or inventory.taken_at
    if before is not None and _is_same(found, before):
        first_at = min(first_at, before.first_at)
    return Sighting(
        key=found.key,
        etag=found.etag,
        size=found.size,
        reason=found.by,
        last_modified=found.last_modified,
        first_at=first_at,
        last_at=inventory.taken_at,
        inventory_id=inventory.id,
    )


def kept_by(sighting: Sighting, source: str, rules: Rules) -> str | None:
    """The first of :data:`GUARDS` that keeps an orphan; None if it may be removed.

    ``source`` is that of an unknown upload. Raises ValueError for a reason that is none of
    :data:`ORPHAN_REASONS`: such an object is no orphan.
    """
    if sighting.reason not in ORPHAN_REASONS:
        raise ValueError(f"{sighting.reason!r} is no reason to remove anything")
    is_upload = sighting.reason == "unknown_upload"
    grace = rules.upload_grace if is_upload else rules.grace
    if sighting.key.startswith(rules.protected):
        return "protected"
    if rules.now - sighting.last_modified <= grace:
        return "young"
    # The object is old, but was needed until about its first sighting.
    if sighting.reason in SUPERSEDED and rules.now - sighting.first_at <= grace:
        return "lately_needed"
    if sighting.last_at - sighting.first_at < rules.apart:
        return "seen_once"
    if is_upload and not _was_swept(sighting, rules.discovered_until.get(source), rules.sweep):
        return "not_swept"
    return None


def refuse_inventory(newest: InventoryRow | None, now: datetime) -> InventoryRow:
    """The inventory to work with; ``newest`` is the newest one, complete or not.

    Raises :class:`PlanRefused` (``no_inventory``, ``inventory_incomplete``, ``inventory_old``).
    """
    if newest is None:
        raise PlanRefused("no_inventory", "there is no inventory of the bucket: take one first")
    if not newest.complete:
        raise PlanRefused(
            "inventory_incomplete",
            f"the inventory of {_when(newest.taken_at)} is being taken or was broken off: wait for"
            " it, or take another one",
        )
    if now - newest.taken_at > INVENTORY_AGE:
        raise PlanRefused(
            "inventory_old",
            f"the newest inventory is of {_when(newest.taken_at)}, which is more than a day ago:"
            " take another one",
        )
    return newest


def refuse_clock(here: datetime, there: datetime) -> None:
    """Raises :class:`PlanRefused` (``clock_off``) if this clock and the store's differ."""
    if abs(here - there) > CLOCK_DIFFERENCE:
        raise PlanRefused(
            "clock_off",
            f"the clock here says {_when(here)}, the store's {_when(there)}: ages cannot be told;"
            " set the clock right",
        )


def refuse_unknown_batches(unknown: int, first: str) -> None:
    """Raises :class:`PlanRefused` (``unknown_batches``) if the bucket has seen other batches."""
    if unknown:
        raise PlanRefused(
            "unknown_batches",
            f"the bucket has the lists or manifests of {unknown} batches that the catalog does not"
            f" know, as {first}: the catalog is another one, new, or restored from an older copy."
            " Correct catalog.url or rebuild the catalog; if the catalog is the right one and the"
            " batches are not needed, move these objects away by hand",
        )


def doubts(share: float, max_share: float, objects: int, objects_before: int | None) -> list[str]:
    """Why a plan has to be confirmed by its id; empty if it has not.

    ``share`` is the larger of the plan's shares of the bucket's objects and bytes.
    """
    found = []
    if share > max_share:
        found.append(
            f"it wants {share:.1%} of the bucket, and without being confirmed a plan may have"
            f" {max_share:.1%} (maintenance.cleanup.max_share)"
        )
    if objects_before and objects < MIN_LISTING * objects_before:
        found.append(
            f"the inventory has {objects:,} objects, the one before had {objects_before:,}: if that"
            " many were removed on purpose, go on; else the listing was not whole"
        )
    return found


def _is_same(found: Listed, before: Sighting) -> bool:
    now = (found.etag, found.size, found.last_modified, found.by)
    return now == (before.etag, before.size, before.last_modified, before.reason)


def _was_swept(sighting: Sighting, discovered_until: datetime | None, sweep: timedelta) -> bool:
    """Whether discovery was at work after an upload came and still did not record it.

    While no sensor runs, every upload is unknown: it waits to be discovered.
    """
    return discovered_until is not None and discovered_until > sighting.last_modified + sweep


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
