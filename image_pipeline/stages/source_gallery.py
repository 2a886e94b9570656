"""The page of a source: what it has received, its newest pictures, its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from image_pipeline.catalog import showing
from image_pipeline.catalog.showing import BatchSummary
from image_pipeline.delivery.gallery import BatchLine, GalleryItem, source_page
from image_pipeline.delivery.manifest import PublishedImage, image_manifest
from image_pipeline.stages.tools import Tools
from image_pipeline.store.layout import SHORT_LIVED, gallery_key, source_gallery_key

#: Pictures on the page: about 1 MB of HTML, and full rows in 2, 3, 4 or 5 columns.
NEWEST_IMAGES = 120

#: Batches on the page. Their verdicts are counted upload by upload, so this bounds the work.
NEWEST_BATCHES = 50

#: Questions to the bucket at a time.
THREADS = 8


def write_source_gallery(tools: Tools, source: str, url_of: Callable[[str], str]) -> None:
    """Write the page of a source anew, from what the catalog has now.

    What it costs depends on the limits above and the number of batches, not on the number of
    images. Of two batches that write it at once the last one wins, and may have looked before
    the other: then the page lacks a batch until the next one ends. It is for people to look
    at; nothing relies on it.
    """
    with tools.catalog.read() as connection:
        totals = showing.source_totals(connection, source)
        batches = showing.newest_batches(connection, source, NEWEST_BATCHES)
        images = showing.newest_images(connection, source, NEWEST_IMAGES)
    sizes, access = tools.settings.delivery.sizes, tools.source(source).access
    page = source_page(
        source,
        [_item(row, source, access, url_of, sizes) for row in images],
        totals=totals,
        batches=_lines(tools, batches, url_of),
        generated_at=tools.clock(),
    )
    key = source_gallery_key(source)
    tools.bucket.put(key, page.encode(), "text/html; charset=utf-8", SHORT_LIVED)


def _lines(
    tools: Tools, batches: list[BatchSummary], url_of: Callable[[str], str]
) -> list[BatchLine]:
    """Batches that have a page. One that is done has; of others the bucket knows."""

    def has_page(batch: BatchSummary) -> bool:
        return batch.done or tools.bucket.head(gallery_key(batch.id)) is not None

    with ThreadPoolExecutor(THREADS, thread_name_prefix="gallery") as threads:
        known = threads.map(has_page, batches)
        return [
            BatchLine(
                batch.id,
                url_of(gallery_key(batch.id)),
                batch.created_at,
                batch.uploads,
                batch.bytes,
                batch.verdicts,
            )
            for batch, shown in zip(batches, known, strict=True)
            if shown
        ]


def _item(
    row: Mapping[str, Any], source: str, access: str, url_of: Callable[[str], str], sizes: str
) -> GalleryItem:
    image = PublishedImage.from_rows(source, access, row, row["variants"], [row["key"]])
    return GalleryItem(
        key=row["key"],
        verdict="accepted",
        reason="",
        message="",
        width=row["width"],
        height=row["height"],
        bytes_in=row["size"],
        seconds=row["seconds"],
        manifest=image_manifest(image, url_of, sizes),
        batch=row["batch_id"] or "",
        batch_url=url_of(gallery_key(row["batch_id"])) if row["batch_id"] else "",
    )
