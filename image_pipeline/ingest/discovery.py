"""Noticing uploads by a resumable listing sweep.

A sweep walks a whole prefix, page by page, and asks the catalog which objects of a page it
knows. It relies on nothing but S3's own order of keys: not on upload times (two objects may
share a second, a multipart upload carries the time it began), not on names that grow. So it
finds what arrives in any order, and an interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from image_pipeline.catalog import uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.store.bucket import Object, Page

CURSOR_VERSION = 1


class Lists(Protocol):
    """The one thing discovery needs of a bucket."""

    def page(self, prefix: str, after: str = "") -> Page:
        """The next page of keys behind ``after``."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one look at a prefix brought. ``after`` is where the next one goes on; empty, anew."""

    after: str
    complete: bool
    listed: int
    found: int


def encode_cursor(after: str) -> str:
    """The sensor cursor: small, versioned JSON. It only saves work; losing it loses nothing."""
    return json.dumps({"v": CURSOR_VERSION, "after": after})


def decode_cursor(cursor: str | None) -> str:
    """The key behind which to go on; empty (from the start) for anything not understood."""
    try:
        value = json.loads(cursor or "{}")
    except ValueError:
        return ""
    if not isinstance(value, dict) or value.get("v") != CURSOR_VERSION:
        return ""
    after = value.get("after", "")
    return after if isinstance(after, str) else ""


def is_upload(key: str, size: int) -> bool:
    """Whether an object is a file somebody sent: not the empty marker of a "folder"."""
    return not (key.endswith("/") and size == 0)


def unknown(objects: Sequence[Object], known: set[tuple[str, str]]) -> list[Object]:
    """The uploads among ``objects`` that the catalog does not have in this version."""
    return [
        one for one in objects if is_upload(one.key, one.size) and (one.key, one.etag) not in known
    ]


def sweep(
    bucket: Lists,
    catalog: Catalog,
    source: str,
    prefix: str,
    after: str,
    now: datetime,
    time_left: Callable[[], bool],
) -> Sweep:
    """List from ``after`` on and record what is new, until the end or until time is up.

    At least one page is read, so that sweeps come to an end whatever the budget.
    """
    listed = found = 0
    while True:
        page = bucket.page(prefix, after)
        listed += len(page.objects)
        found += _record(catalog, source, page.objects, now)
        if not page.more or not page.objects:
            return Sweep("", True, listed, found)
        after = page.objects[-1].key
        if not time_left():
            return Sweep(after, False, listed, found)


def _record(catalog: Catalog, source: str, objects: Sequence[Object], now: datetime) -> int:
    with catalog.read() as connection:
        known = uploads.known(connection, source, (one.key for one in objects))
    new = unknown(objects, known)
    if new:
        rows = [
            {
                "source": source,
                "key": one.key,
                "etag": one.etag,
                "size": one.size,
                "last_modified": one.last_modified,
                "discovered_at": now,
            }
            for one in new
        ]
        with catalog.write() as connection:
            uploads.add(connection, rows)
    return len(new)
