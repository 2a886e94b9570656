"""Images whose published files are missing, or of an older recipe, are rendered again.

What to render is found by comparing the catalog with the newest inventory. An inventory may be
stale, so every file that it lacks is asked for once more before its row is deleted; the batch
that brought the image is then opened again, in the same transaction, and renders what has no
row. A killed run leaves nothing half done.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import housekeeping, mockups, removals
from image_pipeline.catalog import refreshing as catalog_refreshing
from image_pipeline.catalog.engine import Catalog, chunks
from image_pipeline.catalog.refreshing import File, Standing
from image_pipeline.imaging.recipe import plan_variants, recipe_fingerprint
from image_pipeline.maintenance.inventory import Listed, open_inventory
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.settings import Recipe, Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.objects import ARCHIVED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: HEAD requests at a time.
THREADS = 32

#: Why an image is rendered again, the most urgent first: visitors miss ``missing`` files now.
#: ``incomplete``: fewer files are recorded than the recipe makes; ``unpublished``: its batch
#: came to an end without a publication; ``outdated``: made with an older recipe.
Reason = Literal["missing", "incomplete", "unpublished", "outdated"]
REASONS: tuple[Reason, ...] = ("missing", "incomplete", "unpublished", "outdated")

#: Where its original is: readable, in an archive class, or nowhere.
Original = Literal["there", "archived", "gone"]


@dataclass(frozen=True, slots=True)
class Stale:
    """An image that should be rendered again, the batch that would do it, and why."""

    source: str
    image_id: str
    batch_id: str
    reason: Reason
    original: Original


@dataclass(frozen=True, slots=True)
class Choice:
    """What one run renders again: batches in order, and all their stale images.

    ``later`` are left to the next run, ``archived`` until somebody restores their originals,
    ``unrenderable`` for good: nobody has the original.
    """

    batches: list[str]
    chosen: list[Stale]
    later: list[Stale]
    archived: list[Stale]
    unrenderable: list[Stale]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What was found, and what of it was set going.

    ``files_missing`` are rows without an object, ``mockups_missing`` mockups that lack one of
    theirs, ``rows_dropped`` rows deleted for it, ``reopened`` the batches that sensors will ask
    for. Mockups are made again by their own next run.
    """

    inventory_id: str
    taken_at: datetime
    choice: Choice
    files_missing: int
    mockups_missing: int = 0
    rows_dropped: int = 0
    reopened: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers for people and plots; every reason is named, so that plots have no gaps."""
        found = Counter(one.reason for one in _all_of(self.choice))
        return {
            **{reason: found[reason] for reason in REASONS},
            "chosen": len(self.choice.chosen),
            "later": len(self.choice.later),
            "archived": len(self.choice.archived),
            "unrenderable": len(self.choice.unrenderable),
            "files_missing": self.files_missing,
            "mockups_missing": self.mockups_missing,
            "rows_dropped": self.rows_dropped,
            "batches_reopened": len(self.reopened),
        }

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per image, the most urgent first, with what becomes of it."""
        choice = self.choice
        fates = (
            ("rendered again", choice.chosen),
            ("in a later run", choice.later),
            ("original is archived", choice.archived),
            ("original is gone", choice.unrenderable),
        )
        return [
            {
                "source": one.source,
                "image_id": one.image_id,
                "batch_id": one.batch_id,
                "reason": one.reason,
                "fate": fate,
            }
            for fate, found in fates
            for one in found
        ]


def choose(stale: Iterable[Stale], max_images: int) -> Choice:
    """Whole batches, those with the most urgent images first, of up to ``max_images`` images.

    A batch renders all its stale images, so they count together; the first batch is taken
    however large it is, or it would never be. Nothing is rendered of an original that nobody
    has, and only ``missing`` files are worth a restore from an archive.
    """
    choice = Choice([], [], [], [], [])
    by_batch: dict[str, list[Stale]] = {}
    for one in stale:
        if one.original == "gone":
            choice.unrenderable.append(one)
        elif one.original == "archived" and one.reason != "missing":
            choice.archived.append(one)
        else:
            by_batch.setdefault(one.batch_id, []).append(one)
    full = False
    for batch, found in sorted(by_batch.items(), key=_urgency):
        full = full or (bool(choice.chosen) and len(choice.chosen) + len(found) > max_images)
        if full:
            choice.later.extend(found)
        else:
            choice.batches.append(batch)
            choice.chosen.extend(found)
    return choice


def _urgency(item: tuple[str, list[Stale]]) -> tuple[int, str]:
    batch, found = item
    return min(REASONS.index(one.reason) for one in found), batch


def refresh(
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    *,
    dry_run: bool,
    outdated: bool | None = None,
    source: str | None = None,
    max_objects: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Refreshed:
    """Find what should be rendered again; unless ``dry_run``, let sensors ask for it.

    ``outdated`` also renders images of older recipes (None: as the settings say), ``source``
    looks at one source only, ``max_objects`` images at most are set going (and no more than the
    settings allow). Memory grows with the objects of the bucket by 8 bytes each.

    Raises :class:`PlanRefused` (``no_inventory``, ``inventory_gone``, ``other_bucket``,
    ``no_such_source``) and ``StoreError``.
    """
    rules = settings.maintenance
    names = _sources(settings, source)
    with catalog.read() as connection:
        newest = housekeeping.newest_inventories(connection, 1)
    if not newest:
        raise PlanRefused(
            "no_inventory", "there is no inventory yet: materialize storage_inventory first"
        )
    present = _read_inventory(bucket, newest[0].id)
    missing, mockup_files = _missing_files(bucket, catalog, present, progress)
    if outdated is None:
        outdated = rules.refresh == "outdated"
    stale = _stale(catalog, settings, names, present, missing, outdated)
    limit = min(max_objects or rules.max_objects, rules.max_objects)
    choice = choose(stale, limit)
    lost = {(one.image_id, one.recipe) for one in mockup_files}
    files = _count(missing) + len(mockup_files)
    found = Refreshed(newest[0].id, newest[0].taken_at, choice, files, len(lost))
    if dry_run:
        return found
    found = replace(found, rows_dropped=_lose_mockups(catalog, clock, mockup_files))
    chosen = _set_going(catalog, clock, found, missing)
    # Of one source alone it is not known which images others need.
    return chosen if source else _forget_unneeded(catalog, clock, chosen, missing)


def _sources(settings: Settings, source: str | None) -> list[str]:
    if source is None:
        return sorted(settings.sources)
    if source not in settings.sources:
        known = ", ".join(sorted(settings.sources))
        raise PlanRefused("no_such_source", f"no source {source!r} in the settings ({known})")
    return [source]


class Keys:
    """A set of names that takes 8 bytes for each: their hashes, in order.

    Two of a million names share a 64-bit hash once in 40 million buckets; a file would then be
    taken for present that is not.
    """

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._sorted: NDArray[np.uint64] | None = None

    def add(self, name: str) -> None:
        """Put a name in."""
        self._hashes.append(_hash(name))
        self._sorted = None

    def __contains__(self, name: str) -> bool:
        import numpy as np

        if self._sorted is None:
            self._sorted = np.sort(np.frombuffer(self._hashes, dtype=np.uint64))
        value = np.uint64(_hash(name))
        at = int(np.searchsorted(self._sorted, value))
        return at < len(self._sorted) and bool(self._sorted[at] == value)


def _hash(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True, slots=True)
class _Present:
    """What an inventory has: published files by key, originals by key and version."""

    files: Keys
    originals: Keys
    archived: Keys


def _read_inventory(bucket: Bucket, inventory: str) -> _Present:
    present = _Present(Keys(), Keys(), Keys())
    with open_inventory(bucket, inventory) as file:
        if not file.is_of(bucket):
            raise PlanRefused(
                "other_bucket",
                f"inventory {inventory} was taken of another bucket: take one of this bucket",
            )
        for rows in file.rows(("upload", "variant")):
            for row in rows:
                _note(present, row)
    return present


def _note(present: _Present, row: Listed) -> None:
    if row.kind == "variant":
        present.files.add(row.key)
    else:
        place = present.archived if row.storage_class in ARCHIVED else present.originals
        place.add(_version(row.key, row.etag))


def _version(key: str, etag: str) -> str:
    return f"{etag} {key}"


def _missing_files(
    bucket: Bucket,
    catalog: Catalog,
    present: _Present,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[dict[str, list[File]], list[File]]:
    """Rows whose object neither the inventory nor the bucket has, by image; mockups' apart."""
    missing: dict[str, list[File]] = {}
    of_mockups: list[File] = []
    asked = found = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="head") as threads:
        for page in catalog_refreshing.files(catalog):
            doubtful = [one for one in page if one.key not in present.files]
            heads = threads.map(bucket.head, (one.key for one in doubtful))
            for one, head in zip(doubtful, heads, strict=True):
                if head is None:
                    is_mockup = one.role == mockups.ROLE
                    place = of_mockups if is_mockup else missing.setdefault(one.image_id, [])
                    place.append(one)
                    found += 1
            asked += len(doubtful)
            if progress is not None and doubtful:
                progress("missing", found, asked)
    return missing, of_mockups


def _count(missing: dict[str, list[File]]) -> int:
    return sum(len(found) for found in missing.values())


def _stale(
    catalog: Catalog,
    settings: Settings,
    sources: Collection[str],
    present: _Present,
    missing: dict[str, list[File]],
    outdated: bool,
) -> Iterator[Stale]:
    for source in sources:
        recipe = settings.recipe_of(source)
        fingerprint = recipe_fingerprint(recipe)
        planned = lru_cache(maxsize=4096)(partial(_planned, recipe))
        for page in catalog_refreshing.standing(catalog, source):
            with catalog.read() as connection:
                ids = [one.image_id for one in page]
                made = catalog_refreshing.counts(connection, ids, fingerprint)
                uploads = catalog_refreshing.originals(connection, ids)
            for one in page:
                lacking = {file.recipe for file in missing.get(one.image_id, ())}
                files = planned(one.width, one.height, one.frames)
                is_complete = made.get(one.image_id, 0) >= files
                reason = why_stale(one, fingerprint, lacking, is_complete, outdated)
                if reason is not None:
                    original = _original(present, uploads.get(one.image_id, ()))
                    yield Stale(source, one.image_id, one.batch_id, reason, original)


def why_stale(
    image: Standing, fingerprint: str, lacking: Collection[str], is_complete: bool, outdated: bool
) -> Reason | None:
    """Why an image should be rendered again; None if it should not.

    ``fingerprint`` is of the recipe now, ``lacking`` the recipes of its files that are missing,
    ``is_complete`` whether every file of the recipe now is recorded. An image whose batch is
    open is rendered anyway, but not files whose rows say that they are there.
    """
    if image.recipe in lacking or fingerprint in lacking:
        return "missing"
    if image.open:
        return None
    if image.recipe is None:
        return "unpublished"
    if image.recipe != fingerprint:
        return "outdated" if outdated else None
    return None if is_complete else "incomplete"


def _planned(recipe: Recipe, width: int, height: int, frames: int) -> int:
    """How many files a recipe makes of an image of this size (pixels)."""
    return len(plan_variants(recipe, width, height, frames=frames))


def _original(present: _Present, uploads: Sequence[tuple[str, str]]) -> Original:
    versions = [_version(key, etag) for key, etag in uploads]
    if any(version in present.originals for version in versions):
        return "there"
    return "archived" if any(version in present.archived for version in versions) else "gone"


def _set_going(
    catalog: Catalog,
    clock: Callable[[], datetime],
    found: Refreshed,
    missing: dict[str, list[File]],
) -> Refreshed:
    """Delete the rows of missing files and open the batches that make them, 100 at a time."""
    dropped = 0
    reopened: list[str] = []
    lacking: dict[str, list[str]] = {}
    for one in found.choice.chosen:
        keys = [file.key for file in missing.get(one.image_id, ())]
        lacking.setdefault(one.batch_id, []).extend(keys)
    for part in chunks(found.choice.batches, 100):
        with catalog.write() as connection:
            keys = [key for batch in part for key in lacking[batch]]
            dropped += _forget(connection, keys, clock())
            reopened += catalog_batches.reopen(connection, part, clock())
    return replace(found, rows_dropped=found.rows_dropped + dropped, reopened=reopened)


def _lose_mockups(catalog: Catalog, clock: Callable[[], datetime], files: Sequence[File]) -> int:
    """Let mockups that lack a file be made again, but of those that housekeeping removes now."""
    dropped = 0
    for part in chunks(files):
        with catalog.write() as connection:
            removals.hold(connection)
            busy = removals.being_removed(connection, (one.key for one in part), clock())
            lost = {(one.image_id, one.recipe) for one in part if one.key not in busy}
            dropped += mockups.lose_files(connection, lost)
    return dropped


def _forget_unneeded(
    catalog: Catalog,
    clock: Callable[[], datetime],
    found: Refreshed,
    missing: dict[str, list[File]],
) -> Refreshed:
    """Delete rows of missing files that nobody is shown: one day somebody would rely on them."""
    needed = {one.image_id for one in _all_of(found.choice)}
    keys = [one.key for image, files in missing.items() if image not in needed for one in files]
    dropped = 0
    for part in chunks(keys):
        with catalog.write() as connection:
            dropped += _forget(connection, part, clock())
    return replace(found, rows_dropped=found.rows_dropped + dropped)


def _forget(connection: sa.Connection, keys: Sequence[str], now: datetime) -> int:
    """Delete rows, except of what housekeeping is removing now: it deletes them itself."""
    removals.hold(connection)
    busy = removals.being_removed(connection, keys, now)
    return catalog_refreshing.drop_files(connection, [key for key in keys if key not in busy])


def _all_of(choice: Choice) -> list[Stale]:
    return [*choice.chosen, *choice.later, *choice.archived, *choice.unrenderable]
