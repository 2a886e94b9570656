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
from datetime import datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa

from image_pipeline.catalog import originals, removals, uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.originals import Moved
from image_pipeline.settings import Discovery
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


def encode_cursor(after: str, swept_at: datetime | None = None) -> str:
    """The sensor cursor: small, versioned JSON. It only saves work; losing it loses nothing.

    ``swept_at`` is when the last whole sweep ended, where anybody asks for that.
    """
    value = {"v": CURSOR_VERSION, "after": after}
    return json.dumps(value | {"swept_at": swept_at.isoformat()} if swept_at else value)


def decode_cursor(cursor: str | None) -> str:
    """The key behind which to go on; empty (from the start) for anything not understood."""
    after = _fields(cursor).get("after", "")
    return after if isinstance(after, str) else ""


def sweep_is_due(cursor: str | None, rules: Discovery, now: datetime) -> bool:
    """Whether the prefix is to be swept: always, unless events tell of uploads.

    Then a sweep only looks for what no event told: when one is unfinished, or the last is long
    ago.
    """
    if rules.queue_url is None or decode_cursor(cursor):
        return True
    swept_at = last_sweep(cursor)
    # In both directions: a clock that was ahead must not put sweeps off.
    return swept_at is None or abs(now - swept_at) >= timedelta(minutes=rules.reconcile_minutes)


def last_sweep(cursor: str | None) -> datetime | None:
    """When the last whole sweep ended; None if that is not known."""
    try:
        moment = datetime.fromisoformat(_fields(cursor)["swept_at"])
    except (KeyError, TypeError, ValueError):
        return None
    return moment if moment.tzinfo else None


def _fields(cursor: str | None) -> dict[str, Any]:
    try:
        value = json.loads(cursor or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) and value.get("v") == CURSOR_VERSION else {}


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
    if not new:
        return 0
    with catalog.write() as connection:
        # An object that is being moved has an ETag that the catalog does not know yet. It is
        # told apart in the transaction that records, as the move ends in one with its new ETag.
        removals.hold(connection)
        busy = removals.being_removed(connection, (one.key for one in new), now)
        new = _without_moved(connection, source, [one for one in new if one.key not in busy])
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
        uploads.add(connection, rows)
    return len(new)


def _without_moved(connection: sa.Connection, source: str, objects: list[Object]) -> list[Object]:
    """Finish for the catalog what killed moves began; returns what really is new."""
    plans = originals.announced(connection, (one.key for one in objects))
    if not plans:
        return objects
    versions = originals.versions_of(connection, plans)
    new = []
    for one in objects:
        known = [was for was in versions.get(one.key, ()) if was.source == source]
        was = originals.left_by_a_move(known, one.etag, one.size, one.storage_class)
        if was is None or one.key not in plans:
            new.append(one)
        else:
            moved = Moved(one.key, was.etag, one.etag, one.storage_class)
            originals.follow(connection, [moved], one.last_modified)
    for key, plan in plans.items():
        removals.end(connection, plan, [key])
    return new
