"""Rows as discovery, inspection and rendering write them."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from image_pipeline.catalog import batches, uploads

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds):
    return NOW + timedelta(seconds=seconds)


def upload_row(key, etag="e", source="photos", size=1000, **changes):
    return {
        "source": source, "key": key, "etag": etag, "size": size, "last_modified": NOW,
        "discovered_at": NOW, **changes,
    }  # fmt: skip


def image_row(image, **changes):
    return {
        "id": image, "bytes": 1000, "format": "jpeg", "width": 900, "height": 600,
        "orientation": 1, "mode": "RGB", "has_alpha": False, "animated": False,
        "lossless": False, "flags": ["animated"], "phash64": -1, "phash256": "0" * 64,
        "dhash64": 1, "texture": 50.0, "dominant_color": "#102030", "placeholder": "data:,",
        "created_at": NOW, "b0": 0, "b1": 1, "b2": 2, "b3": 3, "b4": 4, **changes,
    }  # fmt: skip


def variant_row(key, image, **changes):
    return {
        "key": key, "image_id": image, "recipe": "r1", "role": "responsive", "size": "small",
        "format": "webp", "width": 320, "height": 213, "quality": 80, "bytes": 100,
        "sha256": "ab", "metadata": [], "created_at": NOW, **changes,
    }  # fmt: skip


def discover(catalog, *keys, source="photos"):
    """Record uploads; their ids in the order of ``keys``."""
    with catalog.write() as connection:
        uploads.add(connection, [upload_row(key, source=source) for key in keys])
        rows = uploads.newest(connection, source, keys)
    return sorted(row["id"] for row in rows)


def by_count(count):
    """A way to split waiting uploads: full batches only."""
    return lambda waiting: [
        waiting[n : n + count] for n in range(0, len(waiting), count)
    ]  # fmt: skip


def make_batch(catalog, *keys, source="photos", now=NOW):
    """Discover uploads and put all that wait into one batch; its id."""
    discover(catalog, *keys, source=source)
    with catalog.write() as connection:
        (batch,) = batches.form(connection, source, now, 1000, lambda waiting: [list(waiting)])
    return batch


class Statements:
    """How many statements an engine was sent while this was open."""

    def __init__(self, engine):
        self.engine = engine
        self.count = 0

    def __enter__(self):
        sa.event.listen(self.engine, "before_cursor_execute", self._seen)
        return self

    def __exit__(self, *error):
        sa.event.remove(self.engine, "before_cursor_execute", self._seen)

    def _seen(self, *_arguments):
        self.count += 1
