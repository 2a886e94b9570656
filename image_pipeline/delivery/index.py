"""The index of a source: immutable pages that list its images, and the pointer that names them.

An image has its place by its number in the source, so a page once full changes only when one of
its own images does. The pointer carries what is to be known of every page: whoever writes one
page anew reads the pointer and no other page. Everything here is a function of its arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from image_pipeline.delivery.manifest import SCHEMA_VERSION, to_json

#: Images of one page: about 450 kB of JSON, and a pointer of 350 kB for a million images.
PAGE_IMAGES = 1000

#: Hexadecimal digits of a page's SHA-256 in its name: 64 bits tell every version from another.
_NAME_DIGITS = 16

#: Thumbnails by how good they are in a list: every browser reads WebP, every program JPEG.
_THUMBNAILS = ("webp", "jpeg", "avif")


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of an index. ``width`` and ``height`` are its canonical's, in pixels, upright.

    ``manifest`` and ``thumbnail`` are URLs, the latter None where the recipe makes none;
    ``uploads`` is how many uploaded files the canonical stands for.
    """

    id: str
    canonical: str
    manifest: str
    width: int
    height: int
    dominant_color: str
    thumbnail: str | None
    uploads: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page as the pointer knows it: SHA-256 of its bytes in hex, images and groups of them.

    ``canonicals`` counts the images that stand for themselves.
    """

    digest: str
    images: int
    canonicals: int

    @property
    def name(self) -> str:
        """The part of the digest that stands in the page's key."""
        return self.digest[:_NAME_DIGITS]


def page_of(number: int) -> int:
    """The page of the image with this number; both count from their first, 1 and 0."""
    return (number - 1) // PAGE_IMAGES


def numbers_of(page: int) -> range:
    """The numbers of the images that have their place on a page."""
    return range(page * PAGE_IMAGES + 1, (page + 1) * PAGE_IMAGES + 1)


def index_page(source: str, number: int, entries: Sequence[Entry]) -> tuple[Page, bytes]:
    """A page and its bytes. ``entries`` are in the order of their images' numbers."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "page": number,
        "images": [_entry(entry) for entry in entries],
    }
    data = to_json(document)
    canonicals = sum(entry.id == entry.canonical for entry in entries)
    return Page(hashlib.sha256(data).hexdigest(), len(entries), canonicals), data


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "canonical": entry.canonical,
        "manifest": entry.manifest,
        "width": entry.width,
        "height": entry.height,
        "aspect_ratio": round(entry.width / entry.height, 4),
        "dominant_color": entry.dominant_color,
        "thumbnail": entry.thumbnail,
        "uploads": entry.uploads,
    }


def source_index(
    source: str,
    pages: Mapping[int, Page],
    key_of: Callable[[int, Page], str],
    url_of: Callable[[str], str],
) -> dict[str, Any]:
    """The pointer, ready for :func:`~image_pipeline.delivery.manifest.to_json`.

    ``key_of`` gives the object key of a page; pages without images are left out.
    """
    kept = {number: page for number, page in sorted(pages.items()) if page.images}
    keys = {number: key_of(number, page) for number, page in kept.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "page_images": PAGE_IMAGES,
        "pages": [
            {
                "page": number,
                "key": keys[number],
                "url": url_of(keys[number]),
                "sha256": page.digest,
                "images": page.images,
                "canonicals": page.canonicals,
            }
            for number, page in kept.items()
        ],
        "totals": {
            "pages": len(kept),
            "images": sum(page.images for page in kept.values()),
            "canonicals": sum(page.canonicals for page in kept.values()),
        },
    }


def pages_of(pointer: Mapping[str, Any]) -> dict[int, Page]:
    """The pages that a pointer names, by number; none of one made for pages of another size."""
    if pointer["page_images"] != PAGE_IMAGES:
        return {}
    return {
        page["page"]: Page(page["sha256"], page["images"], page["canonicals"])
        for page in pointer["pages"]
    }


def best_thumbnail(thumbnails: Iterable[Mapping[str, Any]]) -> str | None:
    """The key of the thumbnail that a list shows: of rows with key, format and width."""
    best = min(
        thumbnails,
        key=lambda one: (_THUMBNAILS.index(one["format"]), -one["width"], one["key"]),
        default=None,
    )
    return None if best is None else str(best["key"])
