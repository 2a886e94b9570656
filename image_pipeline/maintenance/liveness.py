"""Who refers to an object of the bucket now.

Whatever is not surely ours and surely unneeded is referred to, or foreign: nothing here ever
guesses in favour of removing. The same answer is given when a plan is made and again, under
:func:`image_pipeline.catalog.removals.hold`, when it is applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

import sqlalchemy as sa

from image_pipeline.catalog import housekeeping, mockups, uploads
from image_pipeline.catalog.housekeeping import VariantRow
from image_pipeline.settings import OWN_PREFIXES, Settings
from image_pipeline.store.bucket import Bucket, ObjectGoneError
from image_pipeline.store.layout import image_manifest_key, index_key, mockup_manifest_key

Kind = Literal[
    "upload", "variant", "manifest", "batch", "ledger", "index", "gallery", "table", "plan",
    "inventory", "trash", "foreign",
]  # fmt: skip

#: Why nobody refers to an object. Objects that are not of our layout never have one.
ORPHAN_REASONS = (
    "unknown_upload",  # under a source's prefix, but the catalog has no such version
    "unknown_variant",  # no row: a run was killed between writing and committing
    "dropped_variant",  # its row says that it was not worth publishing
    "superseded_variant",  # has a row, but no publication and no mockup names it
    "unknown_manifest",  # of an image, or a mockup, that its source does not have
    "unknown_batch",  # a list, manifest or page of a batch that the catalog does not have
    "superseded_index",  # a page that its source's index does not name any more
    "unknown_plan",
    "old_inventory",
)

#: Reasons that say nothing about the age of the object: it is old, and was needed until lately.
#: These are dated from their first sighting.
SUPERSEDED = ("superseded_variant", "superseded_index", "unknown_manifest", "old_inventory")

FOREIGN: Literal["foreign"] = "foreign"


class ObjectLike(Protocol):
    """What has to be known of an object."""

    @property
    def key(self) -> str:
        """Its name."""

    @property
    def etag(self) -> str:
        """Its version, without quotes."""

    @property
    def size(self) -> int:
        """Its size in bytes."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Who refers to an object, or why nobody does.

    ``by`` is one of :data:`ORPHAN_REASONS` if ``orphan``; else a word for who refers to it.
    """

    kind: Kind
    by: str
    orphan: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """What the name of an object says: its kind, its source if it has one, and whose it is.

    ``id`` is that of the image, batch, plan or inventory; of a page of an index its digest.
    ``template`` is that of a mockup, of its files and of its manifest.
    """

    kind: Kind
    source: str = ""
    id: str = ""
    template: str = ""


_IMAGE = r"[0-9a-f]{64}"
#: Also of the name of a size.
_SOURCE = r"[a-z0-9][a-z0-9_]{0,30}"
_TEMPLATE = r"(?P<template>[a-z0-9][a-z0-9_-]{0,30})"
_BATCH = rf"(?P<source>{_SOURCE})-\d{{8}}-\d{{6}}-[0-9a-f]{{6}}"

#: Names as :mod:`image_pipeline.store.layout` makes them, and nothing else: a file that somebody
#: put into one of our folders is not ours to remove.
_SHAPES: tuple[tuple[Kind, str], ...] = (
    ("variant", rf"variants/(?P<id>{_IMAGE})/{_SOURCE}-\d+x\d+\.[0-9a-f]+\.[a-z0-9]+"),
    (
        "variant",
        rf"variants/(?P<id>{_IMAGE})/{_TEMPLATE}-{_SOURCE}-\d+x\d+\.[0-9a-f]+\.[a-z0-9]+",
    ),
    ("manifest", rf"manifests/(?P<source>{_SOURCE})/(?P<id>{_IMAGE})\.json"),
    ("manifest", rf"manifests/(?P<source>{_SOURCE})/mockups/{_TEMPLATE}/(?P<id>{_IMAGE})\.json"),
    ("batch", rf"manifests/(?:batches|warm|deltas)/(?P<id>{_BATCH})\.json"),
    ("batch", rf"batches/(?P<id>{_BATCH})\.json"),
    ("ledger", rf"ledger/(?P<id>{_BATCH})\.json\.gz"),
    ("ledger", rf"ledger/separations/(?P<source>{_SOURCE})\.json\.gz"),
    ("batch", rf"galleries/(?P<id>{_BATCH})\.html"),
    ("gallery", rf"galleries/sources/(?P<source>{_SOURCE})\.html"),
    ("index", rf"indexes/(?P<source>{_SOURCE})/index\.json"),
    ("index", rf"indexes/(?P<source>{_SOURCE})/\d{{6,}}\.(?P<id>[0-9a-f]{{8,64}})\.json"),
    ("table", r"tables/.+"),
    ("plan", r"plans/(?P<id>[a-z0-9][a-z0-9-]*)\.parquet"),
    ("inventory", r"plans/inventories/(?P<id>[a-z0-9][a-z0-9-]*)\.parquet"),
    ("trash", r"trash/.+"),
)
_PATTERNS = tuple((kind, re.compile(shape)) for kind, shape in _SHAPES)


def place_of(key: str, prefixes: Sequence[tuple[str, str]]) -> Place:
    """Read the name of an object. ``prefixes`` are pairs (prefix, source) of the settings."""
    if not key.startswith(OWN_PREFIXES):
        for prefix, source in prefixes:
            if key.startswith(prefix) and not key.endswith("/"):
                return Place("upload", source)
        return Place(FOREIGN)
    for kind, pattern in _PATTERNS:
        found = pattern.fullmatch(key)
        if found:
            named = found.groupdict()
            return Place(
                kind,
                named.get("source") or "",
                named.get("id") or "",
                named.get("template") or "",
            )
    return Place(FOREIGN)


class Liveness:
    """Tells who refers to objects.

    It reads the index of a source once: make a new one for every run, and for every chunk of a
    plan that is applied. ``clock`` is housekeeping's.
    """

    def __init__(self, bucket: Bucket, settings: Settings, clock: Callable[[], datetime]) -> None:
        self.bucket = bucket
        self.settings = settings
        self.clock = clock
        self._prefixes = [(one.prefix, name) for name, one in settings.sources.items()]
        self._indexes: dict[str, str | None] = {}
        self._manifests: dict[str, str] = {}

    def classify(self, connection: sa.Connection, objects: Sequence[ObjectLike]) -> list[Reference]:
        """Who refers to each of up to 1,000 objects now, in their order.

        Raises ``StoreError`` if the index of a source, or a manifest, cannot be read.
        """
        self._manifests.clear()
        places = [self.place_of(one.key) for one in objects]
        groups: dict[tuple[Kind, str], list[_Named]] = {}
        for one, place in zip(objects, places, strict=True):
            groups.setdefault((place.kind, place.source), []).append(_Named(one, place))
        found: dict[str, Reference] = {}
        for (kind, source), named in groups.items():
            found.update(self._classify_alike(connection, kind, source, named))
        return [found[one.key] for one in objects]

    def place_of(self, key: str) -> Place:
        """What the name of an object says, with the sources of the settings."""
        return place_of(key, self._prefixes)

    def _classify_alike(
        self, connection: sa.Connection, kind: Kind, source: str, named: Sequence[_Named]
    ) -> dict[str, Reference]:
        """Of objects of one kind and source."""
        match kind:
            case "upload":
                return _uploads(connection, source, named)
            case "variant":
                return self._variants(connection, named)
            case "manifest":
                return _manifests(connection, source, named)
            case "index":
                return self._index_pages(source, named)
            case "batch" | "plan" | "inventory":
                return _by_id(connection, kind, named)
            case _:
                return _all(named, Reference(kind, _KEPT[kind]))

    def _variants(self, connection: sa.Connection, named: Sequence[_Named]) -> dict[str, Reference]:
        rows = housekeeping.variants_of_keys(connection, (one.key for one in named))
        published = housekeeping.published_recipes(
            connection, {row.image_id for row in rows.values() if not row.dropped}
        )
        found = {
            key: Reference("variant", "publication")
            for key, row in rows.items()
            if not row.dropped and (row.image_id, row.recipe) in published
        }
        found |= _on_templates(connection, named, rows)
        rest = [one for one in named if one.key not in found]
        if rest:
            surroundings = self._surroundings(connection, rest)
            for one in rest:
                found[one.key] = self._unpublished(one, rows.get(one.key), surroundings)
        return found

    def _surroundings(self, connection: sa.Connection, rest: Sequence[_Named]) -> _Surroundings:
        """What else may need these files: asked only of the few that nothing published names."""
        images = {one.place.id for one in rest}
        on_templates = {one.place.id for one in rest if one.place.template}
        names = sorted({*housekeeping.sources(connection), *self.settings.sources})
        busy = housekeeping.images_in_open_batches(connection, images)
        unpublished: set[str] = set()
        for member in housekeeping.neighbours(connection, names, images):
            both = {member.image_id, member.canonical_id}
            if member.open:
                busy |= both
            if not member.published:
                unpublished |= both
        return _Surroundings(
            busy,
            unpublished,
            housekeeping.publishing_sources(connection, names, images),
            housekeeping.recipes_being_replaced(connection, images),
            mockups.unsettled(connection, on_templates),
            self.clock() - timedelta(days=self.settings.maintenance.cleanup.grace_days),
        )

    def _unpublished(self, one: _Named, row: VariantRow | None, around: _Surroundings) -> Reference:
        """Of a variant that no publication and no mockup names."""
        image = one.place.id
        if image in around.busy:
            return Reference("variant", "open_batch")
        if row is None or row.dropped:
            sources = around.sources.get(image, ())
            named = row is None and self._is_in_a_manifest(one, sources)
            return _without_row(row, named=named)
        if row.created_at > around.young_after:
            return Reference("variant", "young_row")
        # Published before publications were recorded: any of its files may be in a manifest.
        if image in around.unpublished:
            return Reference("variant", "member")
        if (image, row.recipe) in around.being_replaced or self._is_unsettled(one, around):
            return Reference("variant", "unfinished_change")
        return Reference("variant", "superseded_variant", orphan=True)

    def _is_unsettled(self, one: _Named, around: _Surroundings) -> bool:
        """Whether the manifest before is still there of a mockup that was announced anew."""
        place = one.place
        sources = [
            source
            for source, image, template in sorted(around.unsettled)
            if (image, template) == (place.id, place.template)
        ]
        return self._is_in_a_manifest(one, sources)

    def _is_in_a_manifest(self, one: _Named, sources: Iterable[str]) -> bool:
        """Whether a manifest in the bucket names a variant that nothing in the catalog names.

        Its row was deleted because the file was missing, and the batch that made it anew was
        given up; or the catalog was rebuilt from an export that is older than the manifest.
        """
        image, template = one.place.id, one.place.template
        names = [
            mockup_manifest_key(source, template, image)
            if template
            else image_manifest_key(source, image)
            for source in sources
        ]
        return any(one.key in self._manifest(name) for name in names)

    def _manifest(self, name: str) -> str:
        """The text of a manifest by its key; empty if there is none."""
        if name not in self._manifests:
            try:
                text = self.bucket.get(name).decode("utf-8", "replace")
            except ObjectGoneError:
                text = ""
            self._manifests[name] = text
        return self._manifests[name]

    def _index_pages(self, source: str, named: Sequence[_Named]) -> dict[str, Reference]:
        found = {}
        for one in named:
            index = self._index(source) if one.place.id else None
            # A page is looked for by its digest, wherever the index has it. Where there is no
            # index, nobody knows which pages it named.
            orphan = index is not None and one.place.id not in index
            by = "superseded_index" if orphan else "index"
            found[one.key] = Reference("index", by, orphan)
        return found

    def _index(self, source: str) -> str | None:
        """The text of a source's index; None if there is none."""
        if source not in self._indexes:
            try:
                text = self.bucket.get(index_key(source)).decode("utf-8", "replace")
            except ObjectGoneError:
                self._indexes[source] = None
            else:
                self._indexes[source] = text
        return self._indexes[source]


@dataclass(frozen=True, slots=True)
class _Named:
    """An object and what its name says."""

    object: ObjectLike
    place: Place

    @property
    def key(self) -> str:
        return self.object.key


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What may need files that no publication names.

    ``busy`` are images of open batches, ``unpublished`` images around which somebody has no
    publication, ``sources`` who publishes an image; ``being_replaced`` pairs (image, recipe)
    whose manifests may still be the old ones, as those of mockups in ``unsettled`` (source,
    image, template).
    """

    busy: set[str]
    unpublished: set[str]
    sources: dict[str, list[str]]
    being_replaced: set[tuple[str, str]]
    unsettled: set[tuple[str, str, str]]
    young_after: datetime


#: What keeps objects that are never orphans. What is in the trash goes by its plan; a lost
#: catalog is rebuilt from the ledger.
_KEPT: dict[Kind, str] = {
    "gallery": "source", "table": "asset", "trash": "plan", "ledger": "catalog",
    "foreign": "foreign",
}  # fmt: skip


def _all(named: Iterable[_Named], reference: Reference) -> dict[str, Reference]:
    return {one.key: reference for one in named}


def _without_row(row: VariantRow | None, *, named: bool) -> Reference:
    """Of a variant that has no row, or one that says it has no object."""
    if named:
        return Reference("variant", "manifest")
    by = "unknown_variant" if row is None else "dropped_variant"
    return Reference("variant", by, orphan=True)


def _uploads(
    connection: sa.Connection, source: str, named: Sequence[_Named]
) -> dict[str, Reference]:
    # Also as an upload of another source: one that was renamed, or had this prefix before.
    known: set[tuple[str, str]] = set()
    for name in {source, *housekeeping.sources(connection)}:
        known |= uploads.known(connection, name, (one.key for one in named))
    return {
        one.key: Reference("upload", "upload")
        if (one.key, one.object.etag) in known
        else Reference("upload", "unknown_upload", orphan=True)
        for one in named
    }


def _on_templates(
    connection: sa.Connection, named: Sequence[_Named], rows: Mapping[str, VariantRow]
) -> dict[str, Reference]:
    """Files that a mockup names."""
    mine = [one for one in named if one.place.template and one.key in rows]
    if not mine:
        return {}
    published = mockups.published_recipes(connection, {one.place.id for one in mine})
    return {
        key: Reference("variant", "mockup")
        for key, row in ((one.key, rows[one.key]) for one in mine)
        if not row.dropped and (row.image_id, row.recipe) in published
    }


def _mockup_manifests(
    connection: sa.Connection, source: str, named: Sequence[_Named]
) -> dict[str, Reference]:
    found = {}
    for template in {one.place.template for one in named}:
        mine = [one for one in named if one.place.template == template]
        ids = {one.place.id for one in mine}
        known = mockups.published(connection, source, template, ids)
        for one in mine:
            is_known = one.place.id in known
            by = "mockup" if is_known else "unknown_manifest"
            found[one.key] = Reference("manifest", by, not is_known)
    return found


def _manifests(
    connection: sa.Connection, source: str, named: Sequence[_Named]
) -> dict[str, Reference]:
    on_templates = [one for one in named if one.place.template]
    if on_templates:
        own = [one for one in named if not one.place.template]
        return _mockup_manifests(connection, source, on_templates) | _manifests(
            connection, source, own
        )
    ids = {one.place.id for one in named}
    published = housekeeping.published_images(connection, source, ids)
    known = housekeeping.member_images(connection, source, ids - published)
    found = {}
    for one in named:
        if one.place.id in published:
            found[one.key] = Reference("manifest", "publication")
        elif one.place.id in known:
            found[one.key] = Reference("manifest", "member")
        else:
            found[one.key] = Reference("manifest", "unknown_manifest", orphan=True)
    return found


def _by_id(connection: sa.Connection, kind: Kind, named: Sequence[_Named]) -> dict[str, Reference]:
    known_ids, reason = {
        "batch": (housekeeping.known_batches, "unknown_batch"),
        "plan": (housekeeping.known_plans, "unknown_plan"),
        "inventory": (housekeeping.known_inventories, "old_inventory"),
    }[kind]
    known = known_ids(connection, {one.place.id for one in named})
    return {
        one.key: Reference(kind, kind)
        if one.place.id in known
        else Reference(kind, reason, orphan=True)
        for one in named
    }
