"""A bucket and a catalog as batches leave them, and an SFTP server beside them."""

import hashlib
import itertools
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from image_pipeline.catalog.schema import batches, mirrored, uploads, variants
from image_pipeline.mirror.naming import path_of
from image_pipeline.mirror.running import mirror
from image_pipeline.settings import Settings, Source, Workers
from image_pipeline_tests.unit.maintenance.filled import Filled

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def noise(seed, size):
    """So many bytes that nobody can guess or compress."""
    return random.Random(seed).randbytes(size)


class World:
    """What a pipeline has published, a mirror for it, and a clock that the test moves."""

    def __init__(self, bucket, catalog, server, spool):
        self.bucket = bucket
        self.catalog = catalog
        self.server = server
        self.filled = Filled(catalog)
        self.now = START
        self.root = server.folder / "mirror"
        self.settings = Settings(
            bucket=bucket.settings,
            sources={
                "photos": Source(prefix="uploads/photos/"),
                "shop": Source(prefix="uploads/shop/"),
            },
            workers=Workers(spool=spool),
        )
        self._numbers = itertools.count(1)

    def batch(self, contents, source="photos", verdict="accepted"):
        """A batch that is done, of uploads by their names; their keys."""
        name = f"{source}-{self.now:%Y%m%d-%H%M%S}-{next(self._numbers):06x}"
        self.filled.batch(name)
        keys = []
        for file, data in contents.items():
            key = f"uploads/{source}/{file}"
            self.bucket.put(key, data, "image/jpeg")
            self.filled.upload(key, hashlib.sha256(data).hexdigest(), self.bucket.head(key).etag,
                               source, name)  # fmt: skip
            keys.append(key)
        with self.catalog.write() as connection:
            mine = batches.c.id == name
            connection.execute(sa.update(batches).where(mine).values(finished_at=self.now))
            connection.execute(
                sa.update(uploads).where(uploads.c.batch_id == name).values(verdict=verdict)
            )
            for key, data in zip(keys, contents.values(), strict=True):
                is_it = (uploads.c.batch_id == name) & (uploads.c.key == key)
                connection.execute(sa.update(uploads).where(is_it).values(size=len(data)))
        return keys

    def publish(self, name, data, size, batch_source="photos", **values):
        """A published file of an image, in a batch of its own; its key."""
        image = self.filled.image(name)
        batch = f"{batch_source}-{self.now:%Y%m%d-%H%M%S}-{next(self._numbers):06x}"
        self.filled.batch(batch)
        key = self.filled.variant(
            image, size=size, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), **values
        )
        self.filled.publication(image, source=batch_source, batch=batch)
        self.bucket.put(key, data, "image/webp")
        with self.catalog.write() as connection:
            connection.execute(
                sa.update(batches).where(batches.c.id == batch).values(finished_at=self.now)
            )
            connection.execute(sa.update(variants).where(variants.c.key == key).values(size=size))
        return key

    def run(self, source=None, connect=None, **changes):
        """One run of the mirror, an hour after whatever was before."""
        self.now += timedelta(hours=1)
        rules = self.server.settings(**changes)
        settings = self.settings.model_copy(update={"mirror": rules})
        return mirror(
            settings, self.bucket, self.catalog, lambda: self.now, source=source, connect=connect
        )

    def files(self):
        """What lies on the server: bytes by path below the mirror's folder."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file()
        }

    def rows(self):
        """What the catalog knows of the server, by key."""
        with self.catalog.read() as connection:
            found = connection.execute(sa.select(mirrored)).mappings()
            return {row["key"]: dict(row) for row in found}

    def part_of(self, key):
        """The temporary files of an upload."""
        path = Path(self.root, path_of(key))
        return list(path.parent.glob(f".{path.name}.*.part"))
