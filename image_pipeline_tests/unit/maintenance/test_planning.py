"""Plans of orphans: what is in them, and when there is none."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.schema import sightings
from image_pipeline.maintenance import planning
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.maintenance.planning import Scope, look_for_orphans, plan_orphans
from image_pipeline.maintenance.plans import PlanRefused, read_entries, read_plan
from image_pipeline.settings import EMBEDDED, BucketSettings, Cleanup, Maintenance
from image_pipeline.store import layout
from image_pipeline.store.bucket import Bucket, StoreError

from .filled import BATCH, Filled, image_id, settings_of, variant_key

DAY = timedelta(days=1)


class House:
    """A bucket, a catalog and a clock that is moved by hand; objects are of the first day."""

    def __init__(self, bucket, catalog, **cleanup):
        self.bucket = bucket
        self.catalog = catalog
        self.filled = Filled(catalog)
        self.now = datetime.now(UTC)
        rules = Cleanup(**{"max_share": 1.0, **cleanup})
        self.settings = settings_of(bucket=bucket.settings, maintenance=Maintenance(cleanup=rules))

    def clock(self):
        return self.now

    def put(self, *keys, data=b"0123456789"):
        for key in keys:
            self.bucket.put(key, data, "text/plain")

    def pass_days(self, days):
        self.now += days * DAY

    def take(self):
        return take_inventory(self.bucket, self.catalog, self.settings, self.clock)

    def look(self, **scope):
        return look_for_orphans(
            self.bucket, self.catalog, self.settings, self.clock, Scope(**scope)
        )

    def weekly(self, **scope):
        """What the weekly jobs do, a week after the last."""
        self.pass_days(7)
        self.take()
        return self.look(**scope)

    def entries(self, planned):
        return {
            one.key: one for part in read_entries(self.bucket, planned.plan) for one in part
        }  # fmt: skip

    def refusal(self, **scope):
        with catalog_unchanged(self.catalog), pytest.raises(PlanRefused) as refused:
            self.look(**scope)
        return refused.value.code


def state_of(catalog):
    with catalog.read() as connection:
        seen = connection.execute(sa.select(sightings).order_by(sightings.c.key)).all()
        return seen, housekeeping.recent_plans(connection)


class catalog_unchanged:  # noqa: N801 - used like a function
    def __init__(self, catalog):
        self.catalog = catalog

    def __enter__(self):
        self.before = state_of(self.catalog)

    def __exit__(self, *error):
        assert state_of(self.catalog) == self.before


@pytest.fixture
def house(bucket, catalog):
    made = House(bucket, catalog)
    made.filled.batch()
    image, key = made.filled.published("a")
    made.image = image
    made.alive = [key, "uploads/photos/a.jpg", layout.batch_key(BATCH), "readme.txt"]
    made.put(*made.alive)
    # The row of the upload has another ETag in the catalog's fixture than the bucket gives.
    (listed,) = bucket.list("uploads/photos/a.jpg")
    made.filled.upload(listed.key, image, etag=listed.etag, discovered=made.now)
    return made


ORPHAN = variant_key(image_id("nobody"))


def test_an_orphan_goes_when_it_is_old_and_was_seen_twice(house):
    house.put(ORPHAN)
    house.take()
    first = house.look()
    assert (first.plan.entries, dict(first.kept)) == (0, {"young": 1})
    second = house.weekly()
    assert (second.plan.entries, dict(second.kept)) == (0, {"young": 1})
    third = house.weekly()
    assert third.plan.entries == 0, "exactly fourteen days are not more than fourteen"
    fourth = house.weekly()
    (entry,) = house.entries(fourth).values()
    assert (entry.key, entry.size, entry.reason, entry.row) == (ORPHAN, 10, "unknown_variant", None)
    assert (entry.first_at, entry.last_at) == (house.now - 21 * DAY, house.now)
    assert not fourth.kept
    assert (fourth.plan.entries, fourth.plan.bytes, fourth.plan.state) == (1, 10, "planned")
    assert {name: total.objects for name, total in fourth.by_reason.items()} == {
        "unknown_variant": 1
    }
    assert read_plan(house.catalog, fourth.plan.id) == fourth.plan
    assert [one.key for one in fourth.shown] == [ORPHAN]


def test_one_sighting_is_not_enough_however_old_the_object_is(house):
    house.put(ORPHAN)
    house.pass_days(100)
    house.take()
    assert dict(house.look().kept) == {"seen_once": 1}
    house.now += timedelta(hours=23)
    house.take()
    assert dict(house.look().kept) == {"seen_once": 1}
    house.now += timedelta(hours=1)
    house.take()
    assert list(house.entries(house.look())) == [ORPHAN]


def test_looking_twice_at_one_inventory_is_one_sighting(house):
    house.put(ORPHAN)
    house.pass_days(100)
    house.take()
    house.look()
    house.now += timedelta(hours=23, minutes=59)
    assert dict(house.look().kept) == {"seen_once": 1}


def test_a_superseded_file_takes_its_row_along(house):
    old = house.filled.variant(house.image, "r0", mark="00ff")
    house.put(old)
    house.pass_days(100)
    house.take()
    assert dict(house.look().kept) == {"lately_needed": 1}
    for _ in range(2):
        assert dict(house.weekly().kept) == {"lately_needed": 1}
    (entry,) = house.entries(house.weekly()).values()
    assert entry.reason == "superseded_variant"
    with house.catalog.write() as connection:
        documents = housekeeping.variant_documents(connection, [old])
        assert documents == {old: entry.row}
        before = housekeeping.variants_of_keys(connection, [old])
        connection.execute(sa.text("DELETE FROM variants WHERE recipe = 'r0'"))
        housekeeping.restore_variants(connection, [json.loads(json.dumps(entry.row))])
        assert housekeeping.variants_of_keys(connection, [old]) == before


def test_what_is_referred_to_again_is_forgotten(house):
    other = house.filled.image("nobody")
    house.put(ORPHAN)
    for _ in range(4):
        planned = house.weekly()
    assert list(house.entries(planned)) == [ORPHAN]
    # Between the inventory and the plan it is committed and published.
    house.pass_days(7)
    house.take()
    house.filled.variant(other)
    house.filled.publication(other)
    planned = house.look()
    assert (planned.plan.entries, dict(planned.kept)) == (0, {"referred_to_again": 1})
    assert state_of(house.catalog)[0] == []


def test_what_is_gone_is_forgotten(house):
    house.put(ORPHAN)
    house.weekly()
    assert len(state_of(house.catalog)[0]) == 1
    house.bucket.client.delete_object(Bucket=house.bucket.name, Key=ORPHAN)
    house.weekly()
    assert state_of(house.catalog)[0] == []


def test_an_object_that_was_written_anew_is_seen_for_the_first_time(house):
    house.put(ORPHAN)
    house.pass_days(100)
    house.take()
    house.look()
    house.put(ORPHAN, data=b"other")
    planned = house.weekly()
    assert dict(planned.kept) == {"seen_once": 1}


def ripe(house, *keys):
    """Put orphans that every guard lets go, and take the inventory to plan from."""
    house.put(*keys)
    for _ in range(5):
        house.weekly()


def test_foreign_objects_tables_and_trash_never_go(house):
    ripe(
        house, "notes/a.txt", "a.jpg", layout.table_key("x", None),
        layout.trash_key("orphans-1", ORPHAN), "uploads/other/a.jpg", "variants/readme.txt", ORPHAN,
    )  # fmt: skip
    assert list(house.entries(house.look())) == [ORPHAN]


def test_uploads_wait_longer_and_for_discovery(house):
    unknown = "uploads/photos/unknown.jpg"
    ripe(house, unknown)
    assert dict(house.look().kept) == {"not_swept": 1}
    house.filled.upload("uploads/photos/later.jpg", discovered=house.now)
    assert list(house.entries(house.weekly())) == [unknown]


def test_protected_prefixes_are_not_touched(bucket, catalog):
    house = House(bucket, catalog, protected=(ORPHAN[:20],))
    house.filled.batch()
    house.filled.published("a")
    ripe(house, ORPHAN)
    assert dict(house.look().kept) == {"protected": 1}


def test_a_longer_grace_can_be_asked_for_and_a_shorter_cannot(house):
    ripe(house, ORPHAN)
    assert house.look(older_than_days=36).plan.entries == 0
    assert house.look(older_than_days=34).plan.entries == 1
    young = variant_key(image_id("young"))
    house.put(young)
    assert ORPHAN in house.entries(house.look(older_than_days=0))
    assert young not in house.entries(house.weekly(older_than_days=0))


def test_at_most_so_many_objects(house):
    keys = [variant_key(image_id(n)) for n in range(5)]
    ripe(house, *keys)
    planned = house.look(max_objects=2, archive=True)
    assert (planned.plan.entries, dict(planned.kept)) == (2, {"left_for_later": 3})
    assert planned.plan.archive
    few = house.settings.maintenance.model_copy(update={"max_objects": 3})
    house.settings = house.settings.model_copy(update={"maintenance": few})
    assert house.look(max_objects=100).plan.entries == 3


def test_one_source_alone(house):
    member = house.filled.image("nobody")
    house.filled.member(member, source="shop")
    house.filled.publication(member, recipe="another", source="shop")
    manifest = layout.image_manifest_key("photos", image_id("x"))
    page = layout.gallery_key("photos-20250101-120000-abc123")
    ripe(house, ORPHAN, manifest, page)
    everything = house.look()
    assert set(house.entries(everything)) == {ORPHAN, manifest, page}
    assert set(house.entries(house.look(source="shop"))) == {ORPHAN}
    photos = house.look(source="photos")
    assert set(house.entries(photos)) == {manifest, page}
    assert dict(photos.kept) == {"other_source": 1}
    assert house.refusal(source="nowhere") == "no_such_source"


def test_a_large_share_has_to_be_confirmed(bucket, catalog):
    house = House(bucket, catalog, max_share=0.25)
    house.filled.batch()
    house.filled.published("a")
    house.put(*(f"notes/{n}" for n in range(20)))
    ripe(house, *(variant_key(image_id(n)) for n in range(10)))
    planned = house.look()
    assert planned.plan.state == "needs_confirmation"
    # 10 of 30 objects, and the inventories of the weeks before.
    assert 0.25 < planned.plan.share < 10 / 30
    (doubt,) = planned.doubts
    assert "max_share" in doubt
    assert house.look(max_objects=3).plan.state == "planned"


def test_trash_does_not_make_a_share_look_small(bucket, catalog):
    house = House(bucket, catalog, max_share=0.25)
    house.filled.batch()
    house.filled.published("a")
    house.put(*(layout.trash_key("p", f"variants/{n}") for n in range(100)))
    ripe(house, *(variant_key(image_id(n)) for n in range(10)))
    assert house.look().plan.state == "needs_confirmation"


def test_bytes_count_as_objects_do(bucket, catalog):
    house = House(bucket, catalog, max_share=0.25)
    house.filled.batch()
    house.filled.published("a")
    house.put(*(f"notes/{n}" for n in range(50)))
    house.put(ORPHAN, data=bytes(1_000_000))
    ripe(house)
    planned = house.look()
    assert planned.plan.state == "needs_confirmation"
    assert planned.plan.share > 0.9


def test_a_listing_that_shrank_has_to_be_confirmed(house):
    house.put(*(f"notes/{n}" for n in range(100)))
    ripe(house, ORPHAN)
    assert house.look().plan.state == "planned"
    for n in range(30):
        house.bucket.client.delete_object(Bucket=house.bucket.name, Key=f"notes/{n}")
    planned = house.weekly()
    assert planned.plan.state == "needs_confirmation"
    assert "listing was not whole" in planned.doubts[0]


def test_without_an_inventory_there_is_no_plan(house):
    assert house.refusal() == "no_inventory"


def test_an_old_inventory_makes_no_plan(house):
    house.take()
    house.now += timedelta(hours=24)
    house.look()
    house.now += timedelta(seconds=1)
    assert house.refusal() == "inventory_old"


def test_an_inventory_that_was_broken_off_makes_no_plan(house, monkeypatch):
    house.take()
    house.now += timedelta(hours=1)
    with monkeypatch.context() as patched:
        patched.setattr(house.bucket, "page", lambda prefix, after="": broken())
        with pytest.raises(StoreError):
            house.take()
    assert house.refusal() == "inventory_incomplete"
    house.now += timedelta(hours=1)
    house.take()
    house.look()


def broken():
    raise StoreError("listing")


def test_inventories_of_rehearsals_are_not_of_now(house):
    house.take()
    house.now += 40 * DAY
    house.take()
    house.now -= 40 * DAY
    house.look()
    with house.catalog.read() as connection:
        newest, first = housekeeping.newest_inventories(connection, 2)
        (plan,) = housekeeping.recent_plans(connection)
    assert newest.taken_at > first.taken_at
    assert plan["inventory_id"] == first.id


def test_an_inventory_whose_object_is_gone_makes_no_plan(house):
    key = house.take().key
    house.bucket.client.delete_object(Bucket=house.bucket.name, Key=key)
    assert house.refusal() == "inventory_gone"


def test_an_empty_catalog_makes_no_plan(bucket, catalog):
    house = House(bucket, catalog)
    house.put(ORPHAN)
    house.take()
    assert house.refusal() == "catalog_empty"
    house.filled.batch()
    assert house.refusal() == "catalog_empty", "batches, but no uploads"


@pytest.mark.parametrize("key_of", [layout.batch_key, layout.batch_manifest_key, layout.ledger_key])
@pytest.mark.parametrize(
    "batch", ["photos-20250101-120000-abc123", "photos-20990101-120000-abc123"]
)
def test_a_batch_that_only_the_bucket_knows_makes_no_plan(house, key_of, batch):
    house.take()
    house.look()
    house.put(key_of(batch))
    house.now += timedelta(hours=1)
    house.take()
    assert house.refusal() == "unknown_batches"
    house.filled.batch(batch)
    house.look()


def test_a_catalog_that_was_restored_after_the_inventory_makes_no_plan(house):
    """The inventory knew the batch; now the catalog does not."""
    newer = "photos-20260301-120000-abc123"
    house.filled.batch(newer)
    house.put(layout.batch_key(newer))
    house.take()
    house.look()
    with house.catalog.write() as connection:
        connection.execute(sa.text("DELETE FROM batches WHERE id = :id"), {"id": newer})
    assert house.refusal() == "unknown_batches"


def test_a_schema_of_another_version_makes_no_plan(house, tmp_path):
    house.take()
    with house.catalog.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0003'"))
    house.catalog = Catalog(house.catalog.url)
    with pytest.raises(PlanRefused, match="migrations_pending"):
        house.look()
    with house.catalog.engine.connect() as connection:
        version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    assert version == "0003", "looking does not migrate"
    house.catalog.close()
    house.catalog = Catalog(f"sqlite:///{tmp_path / 'new' / 'none.db'}")
    with pytest.raises(PlanRefused, match="migrations_pending"):
        house.look()
    assert not (tmp_path / "new").exists()


def test_a_clock_that_is_off_makes_no_plan(house, monkeypatch):
    house.take()
    there = datetime.now(UTC)
    assert abs(planning.server_time(house.bucket) - there) < timedelta(seconds=60)
    monkeypatch.setattr(planning, "server_time", lambda bucket: there - timedelta(seconds=400))
    assert house.refusal() == "clock_off"
    rehearsal = {
        "bucket": BucketSettings(endpoint_url=EMBEDDED), "ahead_days": 1.0,
    }  # fmt: skip
    house.settings = settings_of(**rehearsal, maintenance=house.settings.maintenance)
    house.look()


def test_an_inventory_of_another_bucket_makes_no_plan(house):
    found = house.take()
    other = Bucket(house.bucket.settings.model_copy(update={"name": f"{house.bucket.name}-x"}))
    other.create_if_missing()
    other.put(found.key, house.bucket.get(found.key), "text/plain")
    house.bucket = other
    assert house.refusal() == "other_bucket"
    other.client.close()


def test_the_short_form_gives_the_plan(house):
    ripe(house, ORPHAN)
    plan = plan_orphans(
        house.bucket, house.catalog, house.settings, house.clock, max_objects=5, archive=True
    )
    assert (plan.entries, plan.archive) == (1, True)
    assert read_plan(house.catalog, plan.id) == plan
