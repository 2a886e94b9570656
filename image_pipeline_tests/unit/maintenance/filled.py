"""A catalog and objects as months of batches leave them, row by row."""

import hashlib
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from image_pipeline.catalog.schema import (
    batches,
    changes,
    images,
    members,
    publications,
    uploads,
    variants,
)
from image_pipeline.settings import Settings, Source
from image_pipeline.store import layout
from image_pipeline.store.bucket import Object
from image_pipeline_tests.unit.catalog.helpers import image_row, variant_row

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=200)
BATCH = "photos-20260101-120000-abc123"


def days_ago(days):
    return NOW - timedelta(days=days)


def image_id(name):
    return hashlib.sha256(str(name).encode()).hexdigest()


def variant_key(image, size="small", mark="0a1b2c"):
    return layout.variant_key(image, size, 320, 213, mark, "webp")


def listed(key, etag="e", size=100, modified=LONG_AGO, storage_class="STANDARD"):
    return Object(key, etag, size, modified, storage_class)


def settings_of(**parts):
    sources = {
        "photos": Source(prefix="uploads/photos/"),
        "shop": Source(prefix="uploads/shop/"),
    }
    return Settings(**{"sources": sources, **parts})


class Filled:
    """Writes rows, each function one kind. Everything is long done unless told otherwise."""

    def __init__(self, catalog):
        self.catalog = catalog
        self._numbers = 0

    def _insert(self, table, **values):
        with self.catalog.write() as connection:
            connection.execute(sa.insert(table).values(values))

    def batch(self, name=BATCH, state="done"):
        source = name.rsplit("-", 3)[0]
        self._insert(
            batches, id=name, source=source, created_at=LONG_AGO, uploads=1, bytes=1, state=state,
            attempt=1,
        )  # fmt: skip
        return name

    def upload(self, key, image=None, etag="e", source="photos", batch=BATCH, discovered=LONG_AGO):
        self._insert(
            uploads, source=source, key=key, etag=etag, size=100, last_modified=LONG_AGO,
            discovered_at=discovered, batch_id=batch, image_id=image,
            verdict="accepted" if image else None,
        )  # fmt: skip
        return key

    def image(self, name):
        image = image_id(name)
        self._insert(images, **image_row(image))
        return image

    def member(self, image, canonical=None, source="photos", batch=BATCH):
        self._numbers += 1
        self._insert(
            members, source=source, image_id=image, canonical_id=canonical or image, distance=0,
            upload_id=1, number=self._numbers, batch_id=batch,
        )  # fmt: skip

    def variant(self, image, recipe="r1", mark="0a1b2c", size="small", **values):
        key = variant_key(image, size, mark)
        row = variant_row(key, image, recipe=recipe, **{"created_at": LONG_AGO, **values})
        self._insert(variants, **row)
        return key

    def publication(self, image, canonical=None, recipe="r1", source="photos", batch=BATCH):
        self._insert(
            publications, source=source, image_id=image, canonical_id=canonical or image,
            recipe=recipe, digest="d", version=1, batch_id=batch, published_at=LONG_AGO,
        )  # fmt: skip

    def change(self, image, canonical, recipe, batch=BATCH):
        self._insert(
            changes, batch_id=batch, image_id=image, old_canonical_id=canonical, old_recipe=recipe
        )

    def published(self, name, recipe="r1", source="photos"):
        """An image with an upload, a file and everything that names it; id and key of the file."""
        image = self.image(name)
        self.upload(f"uploads/{source}/{name}.jpg", image, source=source)
        self.member(image, source=source)
        key = self.variant(image, recipe)
        self.publication(image, recipe=recipe, source=source)
        return image, key
