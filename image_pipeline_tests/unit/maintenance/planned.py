"""A bucket with objects that nobody refers to, and a plan of them."""

from datetime import timedelta

import sqlalchemy as sa

from image_pipeline.catalog.schema import plans, removals, sightings, variants
from image_pipeline.maintenance.plans import Entry, Plan, plan_id, write_plan
from image_pipeline_tests.fake_bucket import FakeBucket

from .filled import LONG_AGO, NOW, Filled, image_id, settings_of, variant_key


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def advance(self, **delta):
        self.now += timedelta(**delta)


class World:
    """A bucket in memory, a catalog, a clock; objects without references, and one picture."""

    def __init__(self, catalog, bucket=None):
        self.catalog = catalog
        self.clock = Clock()
        self.settings = settings_of()
        self.bucket = bucket or FakeBucket(self.clock)
        self.filled = Filled(catalog)
        self.filled.batch()
        self.image, self.live_key = self.filled.published("alive")
        self.long_ago(self.live_key, b"alive")

    def long_ago(self, key, data):
        """An object that was written long before."""
        now, self.clock.now = self.clock.now, LONG_AGO
        self.bucket.write(key, data)
        self.clock.now = now
        return key

    def orphans(self, count, start=0):
        """Files of images that the catalog does not have; their keys in order."""
        names = sorted(variant_key(image_id(n)) for n in range(start, start + count))
        return [self.long_ago(key, key.encode()) for key in names]

    def superseded(self, mark="0a1b2c", recipe="r0"):
        """A file of a known image by a recipe that nothing names any more; its key."""
        key = self.filled.variant(self.image, recipe=recipe, mark=f"{mark}ff")
        return self.long_ago(key, b"old")

    def plan(self, keys, **values):
        """A recorded plan of these objects as they are now; its id."""
        entries = [self.entry(key) for key in keys]
        empty = Plan(
            id=plan_id("orphans", self.clock()), created_at=self.clock(),
            inventory_id="i", digest="", entries=0, bytes=0,
            **{"kind": "orphans", "share": 0.001, "archive": False, "state": "planned", **values},
        )  # fmt: skip
        return write_plan(self.bucket, self.catalog, empty, entries).id

    def entry(self, key):
        from image_pipeline.catalog.housekeeping import variant_documents

        head = self.bucket.head(key)
        with self.catalog.read() as connection:
            row = variant_documents(connection, [key]).get(key)
        return Entry(
            key, head.etag, head.size, head.last_modified, head.storage_class,
            "superseded_variant" if row else "unknown_variant", LONG_AGO, NOW, row,
        )  # fmt: skip

    def rows(self, table):
        with self.catalog.read() as connection:
            return [dict(row) for row in connection.execute(sa.select(table)).mappings()]

    def state(self, plan):
        return next(row["state"] for row in self.rows(plans) if row["id"] == plan)

    def variant_keys(self):
        return {row["key"] for row in self.rows(variants)}

    def sight(self, keys):
        """Sightings, as inventories leave them."""
        with self.catalog.write() as connection:
            connection.execute(
                sa.insert(sightings),
                [
                    {
                        "key": key, "etag": "e", "size": 1, "reason": "unknown_variant",
                        "last_modified": LONG_AGO, "first_at": LONG_AGO, "last_at": NOW,
                        "inventory_id": "i",
                    }
                    for key in keys
                ],
            )  # fmt: skip

    def announced(self):
        return {row["key"] for row in self.rows(removals)}

    def stored(self, prefix=""):
        return {key for key in self.bucket.objects if key.startswith(prefix)}

    def snapshot(self):
        """Everything that a plan may change, without the times of writing."""
        objects = {
            key: (one.data, one.content_type, one.cache_control, one.storage_class, one.metadata)
            for key, one in self.bucket.objects.items()
        }
        return objects, sorted(self.variant_keys()), sorted(map(str, self.rows(sightings)))
