"""The index of a source in the bucket: pages first, then the pointer that names them.

One process at a time writes the index of a source. A page is made from the catalog, so whoever
comes last lists what all have published; but the catalog knows of a publication before its
manifest is put, so what others have announced is listed only once it is in the bucket.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import publications as catalog_publications
from image_pipeline.catalog import removals as catalog_removals
from image_pipeline.catalog.publications import Files
from image_pipeline.delivery.index import (
    Entry,
    Page,
    best_thumbnail,
    index_page,
    numbers_of,
    page_of,
    pages_of,
    source_index,
)
from image_pipeline.delivery.manifest import to_json
from image_pipeline.stages.announcing import REMOVAL_LOOKS, THREADS, await_removal
from image_pipeline.stages.tools import Tools
from image_pipeline.store.bucket import ObjectGoneError, StoreError
from image_pipeline.store.layout import (
    IMMUTABLE,
    SHORT_LIVED,
    image_manifest_key,
    index_key,
    index_page_key,
)


@dataclass(frozen=True, slots=True)
class IndexUpdate:
    """The bytes of the pointer as it is now, and how many pages were written for it."""

    pointer: bytes
    pages: int


def update_index(
    tools: Tools, source: str, published: Collection[str], url_of: Callable[[str], str]
) -> IndexUpdate:
    """List what was published. Reads and writes the pages of these images, and no others.

    ``published`` are images of the source whose manifests are in the bucket. Where there is no
    index, or a damaged one, every page is made.
    """
    with catalog_publications.alone(tools.catalog, f"index {source}"):
        return _Index(tools, source, frozenset(published), url_of).update()


class _Index:
    def __init__(
        self,
        tools: Tools,
        source: str,
        published: frozenset[str],
        url_of: Callable[[str], str],
    ) -> None:
        self.tools = tools
        self.source = source
        self.published = published
        self.url_of = url_of

    def update(self) -> IndexUpdate:
        before = self._get(index_key(self.source))
        pages = _pages_of(before)
        changed = 0
        for number in self._numbers(complete=not pages):
            page, data = self._page(number, pages.get(number))
            if pages.get(number) != page:
                if page.images:
                    self._put_page(self._key_of(number, page), data)
                    changed += 1
                pages[number] = page
        pointer = to_json(source_index(self.source, pages, self._key_of, self.url_of))
        if pointer != before:
            self.tools.bucket.put(index_key(self.source), pointer, "application/json", SHORT_LIVED)
        return IndexUpdate(pointer, changed)

    def _numbers(self, *, complete: bool) -> list[int]:
        """The pages to look at."""
        with self.tools.catalog.read() as connection:
            if complete:
                last = catalog_publications.last_number(connection, self.source)
                return list(range(page_of(last) + 1))
            members = catalog_images.members_of(connection, self.source, self.published)
        return sorted({page_of(row.number) for row in members.values()})

    def _page(self, number: int, before: Page | None) -> tuple[Page, bytes]:
        """A page as it should be; the same as ``before`` if nothing on it has changed."""
        entries = self._entries(number)
        page = index_page(self.source, number, entries)
        if page[0] == before:
            return page
        there = self._in_bucket(entries, number, before)
        kept = [entry for entry in entries if entry.id in there]
        return page if len(kept) == len(entries) else index_page(self.source, number, kept)

    def _entries(self, number: int) -> list[Entry]:
        with self.tools.catalog.read() as connection:
            rows = catalog_publications.listed(connection, self.source, numbers_of(number))
            canonicals = sorted({row["canonical_id"] for row in rows})
            thumbnails = catalog_publications.thumbnails_of(connection, canonicals)
            counts = catalog_publications.upload_counts(connection, self.source, canonicals)
        best = {files: best_thumbnail(found) for files, found in thumbnails.items()}
        return [
            Entry(
                id=row["image_id"],
                canonical=row["canonical_id"],
                manifest=self.url_of(image_manifest_key(self.source, row["image_id"])),
                width=row["width"],
                height=row["height"],
                dominant_color=row["dominant_color"],
                thumbnail=self._thumbnail(best.get(Files(row["canonical_id"], row["recipe"]))),
                uploads=counts.get(row["canonical_id"], 0),
            )
            for row in rows
        ]

    def _thumbnail(self, key: str | None) -> str | None:
        return None if key is None else self.url_of(key)

    def _in_bucket(
        self, entries: Sequence[Entry], number: int, before: Page | None
    ) -> frozenset[str]:
        """Those of these images whose manifests are in the bucket."""
        others = {entry.id for entry in entries} - self.published
        listed: set[str] = set()
        if others and before:
            stored = self._get(self._key_of(number, before))
            listed = {entry["id"] for entry in json.loads(stored)["images"]} if stored else set()
        unknown = sorted(others - listed)
        keys = [image_manifest_key(self.source, image) for image in unknown]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="head") as threads:
            heads = list(threads.map(self.tools.bucket.head, keys))
        found = {image for image, head in zip(unknown, heads, strict=True) if head is not None}
        return self.published | listed | found

    def _put_page(self, key: str, data: bytes) -> None:
        """Put a page. One that was in use before may be on its way out: then once more.

        A removal that has ended by the time the catalog is asked may have met this very object:
        so it is looked for. One that begins later finds it younger than what it is to remove.
        """
        for _ in range(REMOVAL_LOOKS):
            self.tools.bucket.put(key, data, "application/json", IMMUTABLE)
            with self.tools.catalog.write() as connection:
                catalog_removals.hold(connection)
                now = self.tools.clock()
                going = catalog_removals.being_removed(connection, [key], now)
            if not going and self.tools.bucket.head(key) is not None:
                return
            await_removal()
        raise StoreError(f"{key}: housekeeping has been removing it for too long; try again later")

    def _key_of(self, number: int, page: Page) -> str:
        return index_page_key(self.source, number, page.name)

    def _get(self, key: str) -> bytes | None:
        try:
            return self.tools.bucket.get(key)
        except ObjectGoneError:
            return None


def _pages_of(pointer: bytes | None) -> dict[int, Page]:
    """The pages of a pointer; none if there is none, or what is there is not one."""
    if pointer is None:
        return {}
    try:
        document: dict[str, Any] = json.loads(pointer)
        return pages_of(document)
    except (ValueError, KeyError, TypeError):
        return {}
