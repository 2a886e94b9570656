"""Last stage: manifests, warm list and gallery of a batch.

A manifest is written only when everything it names is in the bucket. Manifests are the only
objects that are ever overwritten; what they name never changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.delivery.gallery import GalleryItem, gallery_page
from image_pipeline.delivery.manifest import (
    BatchUpload,
    PublishedImage,
    Variant,
    alias_manifest,
    batch_manifest,
    image_manifest,
    to_json,
    warm_list,
)
from image_pipeline.delivery.urls import url_builder
from image_pipeline.imaging.contact_sheet import contact_sheet
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.stages.rendering import plan_work
from image_pipeline.stages.tools import PUBLISHED, Tools
from image_pipeline.store.layout import (
    SHORT_LIVED,
    batch_manifest_key,
    gallery_key,
    image_manifest_key,
    warm_list_key,
)

THREADS = 12

#: Thumbnails embedded in a gallery page, which can then be read without the bucket: 100 of
#: 20 kB make a page of about 3 MB. The rest is linked, so that the page of a large batch
#: does not grow with it in memory.
EMBEDDED_THUMBNAILS = 100
CONTACT_SHEET_PICTURES = 24


@dataclass(frozen=True, slots=True)
class Publication:
    """What a batch published. ``unfinished`` uploads are failed or still undecided."""

    rows: list[dict[str, Any]]
    images: int
    variants: int
    bytes_out: int
    urls: int
    unfinished: list[dict[str, Any]]
    contact_sheet: bytes
    gallery_url: str


def publish_batch(tools: Tools, batch: str) -> Publication:
    """Write the manifests of a batch, its warm list and its gallery.

    Two batches that publish the same canonical at once write its manifest from what each has
    read. So each looks again after writing, and writes again where the other has since added
    an alias: whoever looks last has seen both.
    """
    with tools.catalog.read() as connection:
        record = catalog_batches.get(connection, batch)
        if record is None:
            raise LookupError(f"the catalog has no batch {batch!r}")
        report = catalog_uploads.report(connection, batch)
    source = record.source
    canonicals = {
        row["canonical_id"] for row in report if row["verdict"] in PUBLISHED and row["canonical_id"]
    }
    bucket_url = tools.bucket.url
    url_of = url_builder(tools.settings.base_url_of(source), bucket_url)
    images = _complete_images(tools, source, canonicals)
    manifests = _write_manifests(tools, source, images, url_of)
    again = _complete_images(tools, source, canonicals)
    if again != images:
        images, manifests = again, _write_manifests(tools, source, again, url_of)
    return _write_batch(tools, batch, source, report, images, manifests, url_of)


def finish_batch(tools: Tools, batch: str) -> None:
    """Mark a batch done: everything of it is published, and nobody needs to come back."""
    with tools.catalog.write() as connection:
        catalog_batches.finish(connection, batch, tools.clock())


def published_images(
    connection: sa.Connection, tools: Tools, source: str, canonicals: Iterable[str]
) -> list[PublishedImage]:
    """Canonical images of a source with everything published for them, complete ones only."""
    canonicals = set(canonicals)
    recipe = tools.recipe(source)
    rows = catalog_images.get_images(connection, canonicals)
    variants = catalog_images.variants_of(connection, canonicals, recipe_fingerprint(recipe))
    keys = catalog_uploads.keys_of_canonicals(connection, source, canonicals)
    found = []
    for work in plan_work(connection, canonicals, recipe):
        mine = [row for row in variants.get(work.image, ()) if row["key"] in work.keys]
        if len(mine) == len(work.keys):
            found.append(_published(source, rows[work.image], mine, keys.get(work.image, [])))
    return sorted(found, key=lambda image: image.id)


def _complete_images(tools: Tools, source: str, canonicals: Iterable[str]) -> list[PublishedImage]:
    with tools.catalog.read() as connection:
        return published_images(connection, tools, source, canonicals)


def _published(
    source: str,
    row: Mapping[str, Any],
    variants: Sequence[Mapping[str, Any]],
    uploads: Sequence[tuple[str, str]],
) -> PublishedImage:
    fields = ("role", "size", "format", "width", "height", "bytes", "sha256", "key")
    return PublishedImage(
        id=row["id"],
        source=source,
        width=row["width"],
        height=row["height"],
        has_alpha=row["has_alpha"],
        animated=row["animated"],
        dominant_color=row["dominant_color"],
        placeholder=row["placeholder"],
        variants=tuple(Variant(*(variant[field] for field in fields)) for variant in variants),
        uploads=tuple(sorted({key for _, key in uploads})),
        aliases=tuple(sorted({image for image, _ in uploads} - {row["id"]})),
    )


def _write_manifests(
    tools: Tools, source: str, images: Sequence[PublishedImage], url_of: Callable[[str], str]
) -> dict[str, dict[str, Any]]:
    """Write the manifest of every image and alias; returns those of the canonicals by id."""
    manifests = {
        image.id: image_manifest(image, url_of, tools.settings.delivery.sizes) for image in images
    }
    documents = dict(manifests)
    for image in images:
        documents.update(
            (alias, alias_manifest(manifests[image.id], alias)) for alias in image.aliases
        )

    def write(image: str) -> None:
        _put_json(tools, image_manifest_key(source, image), documents[image])

    with ThreadPoolExecutor(THREADS, thread_name_prefix="manifest") as threads:
        list(threads.map(write, documents))
    return manifests


def _write_batch(
    tools: Tools,
    batch: str,
    source: str,
    report: list[dict[str, Any]],
    images: Sequence[PublishedImage],
    manifests: Mapping[str, Mapping[str, Any]],
    url_of: Callable[[str], str],
) -> Publication:
    complete = {image.id for image in images}
    unfinished = [row for row in report if _is_unfinished(row, complete)]
    warm = warm_list(images, url_of)
    thumbnails = _thumbnails(tools, images)
    page = gallery_page(
        batch, _gallery_items(report, manifests, thumbnails), generated_at=tools.clock()
    )
    uploads = [_batch_upload(row) for row in report]
    document = batch_manifest(
        batch, source, images, uploads, lambda image: image_manifest_key(source, image)
    )
    _put_json(tools, warm_list_key(batch), {"batch": batch, "urls": warm})
    _put(tools, gallery_key(batch), page.encode(), "text/html; charset=utf-8")
    _put_json(tools, batch_manifest_key(batch), document)
    pictures = [data for data, _ in thumbnails.values()][:CONTACT_SHEET_PICTURES]
    return Publication(
        rows=[
            {
                "image_id": image.id,
                "manifest": image_manifest_key(source, image.id),
                "uploads": len(image.uploads),
                "aliases": len(image.aliases),
                "variants": len(image.variants),
                "bytes": sum(variant.bytes for variant in image.variants),
            }
            for image in images
        ],
        images=len(images),
        variants=sum(len(image.variants) for image in images),
        bytes_out=sum(variant.bytes for image in images for variant in image.variants),
        urls=len(warm),
        unfinished=unfinished,
        contact_sheet=contact_sheet(pictures) if pictures else b"",
        gallery_url=url_of(gallery_key(batch)),
    )


def _is_unfinished(row: Mapping[str, Any], complete: set[str]) -> bool:
    if row["verdict"] in PUBLISHED:
        return row["canonical_id"] not in complete
    return bool(row["verdict"] != "rejected")


def _thumbnails(tools: Tools, images: Sequence[PublishedImage]) -> dict[str, tuple[bytes, str]]:
    """The thumbnail of each image and its format: WebP if there is one, every browser reads it."""
    chosen: dict[str, Variant] = {}
    for image in images[:EMBEDDED_THUMBNAILS]:
        candidates = [one for one in image.variants if one.role == "thumbnail"]
        for kind in ("avif", "jpeg", "webp"):
            chosen.update((image.id, one) for one in candidates if one.format == kind)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="thumbnail") as threads:
        loaded = threads.map(lambda one: tools.bucket.get(one.key), chosen.values())
        return {
            image: (data, one.format)
            for (image, one), data in zip(chosen.items(), loaded, strict=True)
        }


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
