"""Last stage: manifests, index, delta, warm list and gallery of a batch.

Every document is written only when all that it names is in the bucket: manifests after their
files, the index after the manifests. Documents are overwritten; what they name never changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import publications as catalog_publications
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog import warmth as catalog_warmth
from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.publications import Change, Files
from image_pipeline.catalog.warmth import Wanted
from image_pipeline.delivery.gallery import GalleryItem, gallery_page
from image_pipeline.delivery.manifest import (
    SCHEMA_VERSION,
    BatchUpload,
    PublishedImage,
    Replacement,
    Variant,
    WarmEntry,
    alias_manifest,
    batch_delta,
    batch_manifest,
    image_manifest,
    to_json,
    warm_list,
)
from image_pipeline.delivery.urls import url_builder
from image_pipeline.imaging.contact_sheet import contact_sheet
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.stages.announcing import REMOVAL_LOOKS, Manifests, await_removal
from image_pipeline.stages.caching import Cached, publish_to_redis
from image_pipeline.stages.indexing import update_index
from image_pipeline.stages.regrouping import canonicals_of_batch
from image_pipeline.stages.rendering import plan_work
from image_pipeline.stages.source_gallery import write_source_gallery
from image_pipeline.stages.timing import timed
from image_pipeline.stages.tools import PUBLISHED, Tools
from image_pipeline.store.bucket import ObjectGoneError
from image_pipeline.store.layout import (
    SHORT_LIVED,
    batch_manifest_key,
    delta_key,
    gallery_key,
    image_manifest_key,
    source_gallery_key,
    warm_list_key,
)

THREADS = 12

#: Thumbnails embedded in the gallery page of a private source, whose URLs show nothing without a
#: signature: 100 of 20 kB make a page of about 3 MB.
EMBEDDED_THUMBNAILS = 100
CONTACT_SHEET_PICTURES = 24


@dataclass(frozen=True, slots=True)
class Publication:
    """What a batch published. ``unfinished`` uploads are failed or still undecided.

    ``images`` and what is counted with them are those of the groups that the batch looks after;
    ``groups`` the (image id, canonical id) pairs that were its task when it was published.
    ``manifests`` and ``index_pages`` are those that were not in the bucket as they should be;
    ``added`` and ``removed`` are URLs, ``replaced`` images whose files are others than before;
    ``cached`` is what became of it in Redis.
    """

    source: str
    rows: list[dict[str, Any]]
    images: int
    variants: int
    bytes_out: int
    urls: int
    unfinished: list[dict[str, Any]]
    contact_sheet: bytes
    gallery_url: str
    groups: frozenset[tuple[str, str]]
    manifests: int
    index_pages: int
    added: int
    replaced: int
    removed: int
    cached: Cached


def publish_batch(tools: Tools, batch: str) -> Publication:
    """Write the manifests of a batch, the index of its source, its delta, warm list and gallery.

    Manifests are written of every group that the batch has to do with, for its canonical and
    for every alias: where a better picture took the place of a canonical, the manifests of
    other batches' images follow it here.

    Two batches that publish the same group at once write its manifests from what each has
    read. So each looks again after writing, at everything it has written of, and writes again
    what differs: whoever looks last has seen both.

    Images that need a file which housekeeping is removing wait for the end of that, and are
    left unfinished if it takes too long.
    """
    with tools.catalog.read() as connection:
        record = catalog_batches.get(connection, batch)
        if record is None:
            raise LookupError(f"the catalog has no batch {batch!r}")
    with timed(tools, "publish", batch, record.source) as stage:
        published = _publish(tools, batch, record.source)
        stage.images = published.images
        stage.amounts["manifests"] = published.manifests
    return published


def _publish(tools: Tools, batch: str, source: str) -> Publication:
    url_of = url_builder(tools.settings.base_url_of(source), tools.bucket.url)
    manifests = Manifests(tools, source, batch)
    looks = 0
    left_out: set[str] = set()
    while True:
        view = _look(tools, source, batch, manifests.written, left_out)
        documents = _documents(view.images, url_of, tools.settings.delivery.sizes)
        held = manifests.publish(documents)
        if held is None:
            break
        if held:
            looks += 1
            await_removal()
            left_out |= held if looks >= REMOVAL_LOOKS else set()
    return _write_batch(tools, batch, view, documents, manifests, url_of)


@dataclass(frozen=True, slots=True)
class _View:
    """The catalog at one moment, as far as a batch publishes it.

    ``images`` are complete canonicals, with everything that is to be known of them; ``groups``
    (image id, canonical id) pairs that are the batch's task; ``left_out`` canonicals that are
    not published although they are complete.
    """

    report: list[dict[str, Any]]
    canonicals: set[str]
    images: list[PublishedImage]
    groups: frozenset[tuple[str, str]]
    waiting: list[dict[str, Any]]
    left_out: frozenset[str]


def _look(
    tools: Tools, source: str, batch: str, written: Iterable[str], left_out: Collection[str]
) -> _View:
    """What there is to publish now, also of every image of which a manifest was written."""
    with tools.catalog.read() as connection:
        report = catalog_uploads.report(connection, batch)
        canonicals = canonicals_of_batch(connection, source, batch)
        groups = groups_of_batch(connection, batch)
        again = catalog_images.members_of(connection, source, written)
        wanted = canonicals | {row.canonical_id for row in again.values()}
        complete = published_images(connection, tools, source, wanted)
        images = [image for image in complete if image.id not in left_out]
        missing = canonicals - {image.id for image in images}
        elsewhere = missing - {row["canonical_id"] for row in report}
        waiting = [
            row
            for row in catalog_groups.uploads_of(connection, source, sorted(elsewhere))
            if row["verdict"] in PUBLISHED
        ]
    return _View(report, canonicals, images, groups, waiting, frozenset(left_out))


def groups_of_batch(connection: sa.Connection, batch: str) -> frozenset[tuple[str, str]]:
    """Who stands for whom among the members that a batch was the last to change."""
    rows = catalog_groups.members_changed_by(connection, batch)
    return frozenset((row.image_id, row.canonical_id) for row in rows)


def finish_batch(tools: Tools, batch: str, published: Publication) -> bool:
    """Mark a batch done: everything of it is published, and nobody needs to come back.

    False, and the batch stays open, if its groups were changed since they were published: by
    people, while the batch ran. The ledger then asks for it again.
    """
    with tools.catalog.write() as connection:
        if not groups_of_batch(connection, batch) <= published.groups:
            return False
        catalog_batches.finish(connection, batch, tools.clock())
        catalog_publications.settle(connection, batch)
        return True


def published_images(
    connection: sa.Connection, tools: Tools, source: str, canonicals: Iterable[str]
) -> list[PublishedImage]:
    """Canonical images of a source with everything published for them, complete ones only."""
    canonicals = set(canonicals)
    recipe = tools.recipe(source)
    rows = catalog_images.get_images(connection, canonicals)
    variants = catalog_images.variants_of(connection, canonicals, recipe_fingerprint(recipe))
    keys = catalog_uploads.keys_of_canonicals(connection, source, canonicals)
    access = tools.source(source).access
    found = []
    for work in plan_work(connection, canonicals, recipe):
        mine = [row for row in variants.get(work.image, ()) if row["key"] in work.keys]
        if len(mine) == len(work.keys):
            kept = [row for row in mine if not row["dropped"]]
            pairs = keys.get(work.image, [])
            aliases = {image for image, _ in pairs} - {work.image}
            uploads = [key for _, key in pairs]
            found.append(
                PublishedImage.from_rows(source, access, rows[work.image], kept, uploads, aliases)
            )
    return sorted(found, key=lambda image: image.id)


def _documents(
    images: Sequence[PublishedImage], url_of: Callable[[str], str], sizes: str
) -> dict[str, dict[str, Any]]:
    """The manifest of every image and of every alias, by its id."""
    documents = {image.id: image_manifest(image, url_of, sizes) for image in images}
    for image in images:
        documents.update(
            (alias, alias_manifest(documents[image.id], alias)) for alias in image.aliases
        )
    return documents


def _write_batch(
    tools: Tools,
    batch: str,
    view: _View,
    documents: Mapping[str, Mapping[str, Any]],
    manifests: Manifests,
    url_of: Callable[[str], str],
) -> Publication:
    source = manifests.source
    index = update_index(tools, source, manifests.written, url_of)
    changes = _write_delta(tools, batch, source, url_of)
    # Groups that this batch has left behind are somebody else's by now.
    images = [image for image in view.images if image.id in view.canonicals]
    warm = warm_list(images, url_of)
    _want_warm(tools, source, images, warm)
    is_private = tools.source(source).access == "private"
    shown = EMBEDDED_THUMBNAILS if is_private else CONTACT_SHEET_PICTURES
    thumbnails = _thumbnails(tools, images[:shown])
    page = gallery_page(
        batch,
        _gallery_items(view.report, documents, thumbnails),
        generated_at=tools.clock(),
        source_url=url_of(source_gallery_key(source)),
    )
    _put_json(tools, warm_list_key(batch), _warm_document(batch, source, warm))
    _put(tools, gallery_key(batch), page.encode(), "text/html; charset=utf-8")
    _put_json(tools, batch_manifest_key(batch), _batch_document(batch, source, view, images))
    cached = _publish_to_redis(tools, manifests, documents, index.pointer)
    write_source_gallery(tools, source, url_of)
    pictures = [data for data, _ in thumbnails.values()][:CONTACT_SHEET_PICTURES]
    return Publication(
        source=source,
        rows=[_row(source, image) for image in images],
        images=len(images),
        variants=sum(len(image.variants) for image in images),
        bytes_out=sum(variant.bytes for image in images for variant in image.variants),
        urls=len(warm),
        unfinished=_unfinished(view, {image.id for image in images}),
        contact_sheet=contact_sheet(pictures) if pictures else b"",
        gallery_url=url_of(gallery_key(batch)),
        groups=view.groups,
        manifests=manifests.puts,
        index_pages=index.pages,
        added=len(changes["added"]),
        replaced=sum(len(one["images"]) for one in changes["replaced"]),
        removed=len(changes["removed"]),
        cached=cached,
    )


def _row(source: str, image: PublishedImage) -> dict[str, Any]:
    return {
        "image_id": image.id,
        "manifest": image_manifest_key(source, image.id),
        "uploads": len(image.uploads),
        "aliases": len(image.aliases),
        "variants": len(image.variants),
        "bytes": sum(variant.bytes for variant in image.variants),
    }


def _unfinished(view: _View, complete: set[str]) -> list[dict[str, Any]]:
    removing = "housekeeping is removing a file of it, which is made again after that"
    waiting = "not rendered, although other pictures wait for it"
    return [
        {**row, "message": removing} if row["canonical_id"] in view.left_out else row
        for row in view.report
        if _is_unfinished(row, complete)
    ] + [{**row, "message": waiting} for row in view.waiting]


def _write_delta(
    tools: Tools, batch: str, source: str, url_of: Callable[[str], str]
) -> dict[str, Any]:
    """Write what the batch changed since it was last done; nothing changed leaves it as it is."""
    with tools.catalog.read() as connection:
        changes = catalog_publications.changes_of(connection, source, batch)
        old = {one.old for one in changes if one.old}
        # Whoever stands for itself and was not changed had its files before the batch.
        ids = {one.image_id for one in changes}
        known = {one.new for one in changes if one.new.canonical_id not in ids}
        still = catalog_publications.named(connection, source, old)
        keys = catalog_publications.keys_of(connection, old | {one.new for one in changes})
    delta = batch_delta(
        batch,
        source,
        _replacements(changes, keys),
        [key for files in known for key in keys[files]],
        [key for files in still for key in keys[files]],
        url_of,
    )
    if changes or tools.bucket.head(delta_key(batch)) is None:
        _put_json(tools, delta_key(batch), delta)
    return delta


def _replacements(
    changes: Iterable[Change], keys: Mapping[Files, Sequence[str]]
) -> list[Replacement]:
    """Images that changed in the same way together: a canonical and its aliases."""
    together: dict[tuple[Files | None, Files], list[str]] = defaultdict(list)
    for one in changes:
        together[one.old, one.new].append(one.image_id)
    return [
        Replacement(tuple(images), tuple(keys[old]) if old else (), tuple(keys[new]))
        for (old, new), images in together.items()
    ]


def _warm_document(batch: str, source: str, warm: Sequence[WarmEntry]) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "batch": batch, "source": source, "urls": warm}


def _batch_document(
    batch: str, source: str, view: _View, images: Iterable[PublishedImage]
) -> dict[str, Any]:
    uploads = [_batch_upload(row) for row in view.report]
    brought = {row["canonical_id"] for row in view.report}
    own = [image for image in images if image.id in brought]
    return batch_manifest(
        batch, source, own, uploads, lambda image: image_manifest_key(source, image)
    )


def _publish_to_redis(
    tools: Tools,
    manifests: Manifests,
    documents: Mapping[str, Mapping[str, Any]],
    index: bytes,
) -> Cached:
    """Publish in parts, so that memory does not grow with a group of thousands; the index last."""
    parts = list(chunks(documents)) or [[]]
    told = [
        publish_to_redis(
            tools,
            manifests.source,
            manifests.documents(part, documents),
            index if part is parts[-1] else None,
        )
        for part in parts
    ]
    return Cached(
        sum(one.published for one in told),
        sum(one.failed for one in told),
        sum(one.dropped for one in told),
        "; ".join(dict.fromkeys(one.reason for one in told if one.reason)),
    )


def _want_warm(
    tools: Tools, source: str, images: Sequence[PublishedImage], warm: Sequence[WarmEntry]
) -> None:
    """Tell the warmer what there is now; where no edge is configured there is none."""
    if tools.settings.base_url_of(source) is None:
        return
    wanted = [Wanted(one["key"], one["image"], one["rank"]) for one in warm]
    with tools.catalog.write() as connection:
        # Aliases as well: what stood for itself until now has no files of its own any more.
        ids = [one for image in images for one in (image.id, *image.aliases)]
        catalog_warmth.replace(connection, source, ids, wanted, tools.clock())


def _is_unfinished(row: Mapping[str, Any], complete: set[str]) -> bool:
    if row["verdict"] in PUBLISHED:
        return row["canonical_id"] not in complete
    return bool(row["verdict"] != "rejected")


def _thumbnails(tools: Tools, images: Sequence[PublishedImage]) -> dict[str, tuple[bytes, str]]:
    """The thumbnail of each image and its format: WebP if there is one, every browser reads it."""
    chosen: dict[str, Variant] = {}
    for image in images:
        candidates = [one for one in image.variants if one.role == "thumbnail"]
        for kind in ("avif", "jpeg", "webp"):
            chosen.update((image.id, one) for one in candidates if one.format == kind)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="thumbnail") as threads:
        loaded = threads.map(lambda one: _if_there(tools, one.key), chosen.values())
        return {
            image: (data, one.format)
            for (image, one), data in zip(chosen.items(), loaded, strict=True)
            if data
        }


def _if_there(tools: Tools, key: str) -> bytes:
    """A file that was lost is no reason to publish nothing: ``renditions_refresh`` mends it."""
    try:
        return tools.bucket.get(key)
    except ObjectGoneError:
        return b""


def _gallery_items(
    report: Iterable[Mapping[str, Any]],
    manifests: Mapping[str, Mapping[str, Any]],
    thumbnails: Mapping[str, tuple[bytes, str]],
) -> list[GalleryItem]:
    nothing: dict[str, tuple[bytes | None, str]] = defaultdict(lambda: (None, ""))
    nothing.update(thumbnails)
    return [
        GalleryItem(
            key=row["key"],
            verdict=row["verdict"] or "failed",
            reason=row["reason"] or "",
            message=row["message"] or "",
            width=row["width"] or 0,
            height=row["height"] or 0,
            bytes_in=row["bytes"],
            seconds=row["seconds"],
            manifest=manifests.get(row["canonical_id"]),
            thumbnail=nothing[row["canonical_id"]][0],
            thumbnail_format=nothing[row["canonical_id"]][1],
        )
        for row in report
    ]


def _batch_upload(row: Mapping[str, Any]) -> BatchUpload:
    return BatchUpload(
        row["key"],
        row["etag"],
        row["bytes"],
        row["verdict"] or "failed",
        row["reason"],
        row["message"],
        row["image_id"],
    )


def _put_json(tools: Tools, key: str, document: Mapping[str, Any]) -> None:
    _put(tools, key, to_json(document), "application/json")


def _put(tools: Tools, key: str, data: bytes, content_type: str) -> None:
    tools.bucket.put(key, data, content_type, SHORT_LIVED)
