"""Moves of originals on a real S3 server: what survives them, and what does not happen."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import batches, images, originals, removals, uploads
from image_pipeline.catalog.schema import members as members_table
from image_pipeline.catalog.schema import removals as removals_table
from image_pipeline.catalog.schema import uploads as uploads_table
from image_pipeline.ingest.discovery import sweep
from image_pipeline.maintenance import moving
from image_pipeline.maintenance.classes import Stay
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.maintenance.moving import apply_moves, heal, plan_classes
from image_pipeline.maintenance.plans import PlanRefused, read_entries, read_plan
from image_pipeline.settings import Classes, ClassRule, Cleanup, Maintenance, Settings, Source
from image_pipeline.store.bucket import ObjectChangedError, StoreError
from image_pipeline_tests.unit.stages.helpers import image_row

PREFIX = "uploads/photos/"
BIG = 200_000


class Clock:
    """The pipeline's clock: the machine's, some days ahead."""

    def __init__(self, days=0.0):
        self.days = days

    def __call__(self):
        return datetime.now(UTC) + timedelta(days=self.days)


def make_settings(*rules, payback_months=12.0, **changes):
    rules = rules or (("STANDARD_IA", 30), ("GLACIER", 180))
    classes = Classes(
        rules=tuple(ClassRule(to=to, after_days=days) for to, days in rules),
        payback_months=payback_months,
    )
    maintenance = {"classes": classes, **changes}
    return Settings(
        sources={"photos": Source(prefix=PREFIX)}, maintenance=Maintenance(**maintenance)
    )


class Stock:
    """A bucket and a catalog in step, and what housekeeping does with them."""

    def __init__(self, bucket, catalog, settings=None):
        self.bucket = bucket
        self.catalog = catalog
        self.settings = settings or make_settings()
        self.clock = Clock(40)

    def put(self, name, data=None, **extra):
        data = random.Random(name).randbytes(BIG) if data is None else data
        self.bucket.client.put_object(
            Bucket=self.bucket.name, Key=PREFIX + name, Body=data, **extra
        )
        return data

    def sweep(self, now=None):
        """What discovery finds: how many new uploads."""
        now = now or datetime.now(UTC)
        return sweep(self.bucket, self.catalog, "photos", PREFIX, "", now, lambda: True).found

    def process(self, verdict="accepted", image="im"):
        """Everything that waits becomes a batch that is done."""
        now = datetime.now(UTC)
        with self.catalog.write() as connection:
            formed = batches.form(connection, "photos", now, 10**6, lambda all_: [list(all_)])
            for batch in formed:
                found = uploads.of_batch(connection, batch)
                uploads.decide(
                    connection,
                    [uploads.Decision(one.id, verdict, image_id=image) for one in found],
                    now,
                )
                batches.finish(connection, batch, now)

    def stock(self, *names, **extra):
        made = {name: self.put(name, **extra) for name in names}
        self.sweep()
        self.process()
        return made

    def plan(self, **options):
        take_inventory(self.bucket, self.catalog, self.settings, self.clock)
        return plan_classes(self.bucket, self.catalog, self.settings, self.clock, **options)

    def apply(self, planned, **options):
        plan = planned.plan.id
        return apply_moves(self.bucket, self.catalog, self.settings, self.clock, plan, **options)

    def rows(self):
        with self.catalog.read() as connection:
            found = connection.execute(sa.select(uploads_table).order_by(uploads_table.c.id))
            return [dict(row) for row in found.mappings()]

    def classes(self):
        return {one.key.removeprefix(PREFIX): one.storage_class for one in self.bucket.list(PREFIX)}

    def announced(self):
        with self.catalog.read() as connection:
            keys = set(connection.execute(sa.select(removals_table.c.key)).scalars())
        return {key for key in keys if key.startswith(PREFIX)}


@pytest.fixture
def stock(bucket, catalog):
    return Stock(bucket, catalog)


def test_originals_move_and_stay_what_they_are(stock):
    data = stock.put(
        "a.jpg",
        ContentType="image/jpeg",
        CacheControl="private, max-age=5",
        ContentDisposition='attachment; filename="a.jpg"',
        Metadata={"photographer": "Ada"},
        Tagging="project=spring&paid=yes",
    )
    stock.sweep()
    stock.process()
    planned = stock.plan()
    assert planned.moves.keys() == {("STANDARD", "STANDARD_IA")}
    assert planned.moves["STANDARD", "STANDARD_IA"].objects == 1
    assert planned.moves["STANDARD", "STANDARD_IA"].monthly_saving == pytest.approx(
        BIG / 2**30 * 0.0105, rel=0.01
    )
    assert stock.classes() == {"a.jpg": "STANDARD"}, "planning moves nothing"

    applied = stock.apply(planned)
    assert applied.outcomes == {"moved": 1}
    answer = stock.bucket.client.get_object(Bucket=stock.bucket.name, Key=PREFIX + "a.jpg")
    assert answer["Body"].read() == data
    assert answer["StorageClass"] == "STANDARD_IA"
    assert answer["ContentType"] == "image/jpeg"
    assert answer["CacheControl"] == "private, max-age=5"
    assert answer["ContentDisposition"] == 'attachment; filename="a.jpg"'
    assert answer["Metadata"] == {"photographer": "Ada"}
    tags = stock.bucket.client.get_object_tagging(Bucket=stock.bucket.name, Key=PREFIX + "a.jpg")
    assert {tag["Key"]: tag["Value"] for tag in tags["TagSet"]} == {
        "project": "spring",
        "paid": "yes",
    }
    (row,) = stock.rows()
    assert row["storage_class"] == "STANDARD_IA"
    assert abs(row["moved_at"] - stock.clock()) < timedelta(minutes=1)
    assert (stock.announced(), stock.sweep()) == (set(), 0)
    with stock.catalog.read() as connection:
        assert read_plan(stock.catalog, planned.plan.id).state == "applied"
        assert originals.announcements(connection, stock.clock()) == []


def test_down_the_waterfall_as_time_goes_by(stock):
    stock.stock("a.jpg")
    # Small as they are here, moves pay back late.
    stock.settings = make_settings(
        ("STANDARD_IA", 30), ("GLACIER_IR", 60), ("DEEP_ARCHIVE", 90), payback_months=200
    )
    seen = []
    for days in (29, 40, 65, 71, 100, 162):
        stock.clock.days = days
        planned = stock.plan()
        stock.apply(planned)
        seen.append((days, stock.classes()["a.jpg"], *planned.stays))
    assert seen == [
        (29, "STANDARD", Stay.USED_LATELY),
        (40, "STANDARD_IA"),
        # It came there on day 40, and that is paid for until day 70.
        (65, "STANDARD_IA", Stay.MINIMUM_DURATION),
        (71, "GLACIER_IR"),
        (100, "GLACIER_IR", Stay.MINIMUM_DURATION),
        (162, "DEEP_ARCHIVE"),
    ]
    assert stock.sweep() == 0


def test_why_originals_stay(stock):
    stock.stock("small.jpg", "used.jpg")
    stock.put("small.jpg", b"tiny")
    stock.sweep()
    stock.process()
    stock.put("waiting.jpg")
    stock.sweep()
    with stock.catalog.write() as connection:
        batches.form(connection, "photos", datetime.now(UTC), 9, lambda all_: [list(all_)])
    stock.put("unseen.jpg")
    stock.put("tiered.jpg", StorageClass="INTELLIGENT_TIERING")
    stock.put("elsewhere.jpg", StorageClass="STANDARD_IA")
    stock.put("keep/me.jpg")
    for name in ("tiered.jpg", "elsewhere.jpg", "keep/me.jpg"):
        known(stock, name)
    with stock.catalog.write() as connection:
        images.add_images(connection, [image_row("rendered", created_at=datetime.now(UTC))])
    stock.settings = make_settings(cleanup=Cleanup(protected=(PREFIX + "keep/",)))
    planned = stock.plan()
    assert {reason: total.objects for reason, total in planned.stays.items()} == {
        Stay.TOO_SMALL: 1,
        Stay.UNFINISHED: 1,
        Stay.NOT_CATALOGUED: 1,
        Stay.MANAGED: 1,
        Stay.CLASS_JUST_SEEN: 1,
        Stay.PROTECTED: 1,
    }
    (entry,) = next(read_entries(stock.bucket, planned.plan))
    assert entry.key == PREFIX + "used.jpg"


def known(stock, name):
    """Tell the catalog of one object, as processed, whatever else lies in the bucket."""
    (found,) = stock.bucket.list(PREFIX + name)
    row = {
        "source": "photos", "key": found.key, "etag": found.etag, "size": found.size,
        "last_modified": found.last_modified, "discovered_at": datetime.now(UTC),
    }  # fmt: skip
    with stock.catalog.write() as connection:
        open_batch = batches.open_ids(connection)
        uploads.add(connection, [row])
        (batch,) = batches.form(
            connection, "photos", datetime.now(UTC), 9, lambda all_: [list(all_)]
        )
        assert batch not in open_batch
        (one,) = uploads.of_batch(connection, batch)
        uploads.decide(connection, [uploads.Decision(one.id, "rejected")], datetime.now(UTC))
        batches.finish(connection, batch, datetime.now(UTC))


def test_a_class_that_somebody_else_chose_counts_from_when_it_was_seen(stock):
    stock.settings = make_settings(payback_months=24)
    stock.put("a.jpg", StorageClass="STANDARD_IA")
    stock.sweep()
    stock.process()
    stock.clock.days = 200
    assert stock.plan().stays.keys() == {Stay.CLASS_JUST_SEEN}
    (row,) = stock.rows()
    assert row["storage_class"] == "STANDARD_IA"
    stock.clock.days = 229
    assert stock.plan().stays.keys() == {Stay.MINIMUM_DURATION}
    stock.clock.days = 231
    planned = stock.plan()
    assert planned.moves.keys() == {("STANDARD_IA", "GLACIER")}
    assert stock.apply(planned).outcomes == {"moved": 1}


def test_rendering_is_a_use(stock):
    stock.stock("a.jpg")
    with stock.catalog.write() as connection:
        images.add_images(connection, [image_row("im")])
        images.add_variants(
            connection,
            [
                {
                    "key": "v", "image_id": "im", "recipe": "r", "role": "responsive",
                    "size": "s", "format": "webp", "width": 1, "height": 1, "quality": 1,
                    "bytes": 1, "sha256": "s", "metadata": [],
                    "created_at": Clock(20)(),
                }
            ],
        )  # fmt: skip
    assert stock.plan().stays.keys() == {Stay.USED_LATELY}
    stock.clock.days = 51
    assert stock.plan().moves


def test_nothing_of_a_group_that_a_batch_is_at(stock):
    stock.stock("a.jpg")
    stock.put("b.jpg")
    stock.sweep()
    with stock.catalog.write() as connection:
        (batch,) = batches.form(
            connection, "photos", datetime.now(UTC), 9, lambda all_: [list(all_)]
        )
        images.add_images(connection, [image_row("im")])
        connection.execute(
            sa.insert(members_table).values(
                source="photos", image_id="im", canonical_id="im", distance=0, upload_id=1,
                number=1, batch_id=batch,
            )
        )  # fmt: skip
    assert stock.plan().stays[Stay.UNFINISHED].objects == 2
    with stock.catalog.write() as connection:
        batches.finish(connection, batch, datetime.now(UTC))
        (one,) = uploads.of_batch(connection, batch)
        uploads.decide(connection, [uploads.Decision(one.id, "duplicate")], datetime.now(UTC))
    assert stock.plan().moves["STANDARD", "STANDARD_IA"].objects == 2


def test_a_new_etag_is_followed(stock):
    """In parts an object gets another ETag, here as above 5 GB."""
    data = stock.stock("large.tif", Metadata={"a": "b"}, Tagging="t=1")["large.tif"]
    (before,) = stock.rows()
    stock.bucket.copy_bytes = 100_000
    assert stock.apply(stock.plan()).outcomes == {"moved": 1}
    (after,) = stock.rows()
    (there,) = stock.bucket.list(PREFIX)
    assert after["etag"] == there.etag != before["etag"]
    assert (after["id"], after["verdict"], after["image_id"]) == (before["id"], "accepted", "im")
    assert stock.bucket.get(PREFIX + "large.tif") == data
    assert stock.sweep() == 0


def test_an_etag_that_the_catalog_had_before(stock):
    """Sent in parts, then as a whole: the copy of the second is the first's twin, or the other
    way round. Both rows are of the same bytes; the one with the ETag of now gets the class."""
    data = stock.stock("a.jpg")["a.jpg"]
    parts = stock.bucket.client.create_multipart_upload(
        Bucket=stock.bucket.name, Key=PREFIX + "a.jpg"
    )["UploadId"]
    part = stock.bucket.client.upload_part(
        Bucket=stock.bucket.name, Key=PREFIX + "a.jpg", PartNumber=1, UploadId=parts, Body=data
    )
    stock.bucket.client.complete_multipart_upload(
        Bucket=stock.bucket.name, Key=PREFIX + "a.jpg", UploadId=parts,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )  # fmt: skip
    assert stock.sweep() == 1
    stock.process()
    first, second = stock.rows()
    assert second["etag"].endswith("-1")
    assert stock.apply(stock.plan()).outcomes == {"moved": 1}
    (there,) = stock.bucket.list(PREFIX)
    assert there.storage_class == "STANDARD_IA"
    rows = {row["etag"]: row for row in stock.rows()}
    assert rows.keys() == {first["etag"], second["etag"]}
    assert rows[there.etag]["storage_class"] == "STANDARD_IA"
    assert stock.sweep() == 0
    stock.clock.days = 72
    assert stock.plan().stays.keys() == {Stay.USED_LATELY}


def new_etags(stock):
    """From now on every copy changes the ETag, as encryption with keys of one's own does."""
    stock.bucket.copy_bytes = 100_000


def test_a_sweep_between_copy_and_commit_finds_nothing_new(stock, monkeypatch):
    stock.stock("a.jpg", "b.jpg")
    planned = stock.plan()
    new_etags(stock)
    copy, seen = stock.bucket.copy, []

    def copy_and_sweep(*arguments, **options):
        etag = copy(*arguments, **options)
        seen.append(stock.sweep(stock.clock()))
        return etag

    monkeypatch.setattr(stock.bucket, "copy", copy_and_sweep)
    assert stock.apply(planned).outcomes == {"moved": 2}
    assert seen == [0, 0]
    assert len(stock.rows()) == 2
    assert stock.sweep(stock.clock()) == 0


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it is done."""


def kill_at(monkeypatch, stock, number):
    """Apply dies instead of writing down what it did, for the ``number``-th time."""
    write_down, calls = moving._Mover._write_down, []

    def dying(self, results):
        calls.append(results)
        if len(calls) == number:
            raise Killed
        write_down(self, results)

    monkeypatch.setattr(moving._Mover, "_write_down", dying)


@pytest.mark.parametrize("with_new_etags", [True, False])
@pytest.mark.parametrize("number", [1, 2])
def test_killed_between_copy_and_commit_and_applied_again(
    stock, monkeypatch, number, with_new_etags
):
    stock.stock(*(f"{n}.jpg" for n in range(5)))
    planned = stock.plan()
    if with_new_etags:
        new_etags(stock)
    with monkeypatch.context() as patched:
        kill_at(patched, stock, number)
        with pytest.raises(Killed):
            stock.apply(planned)
    left = {1: 1, 2: 4}[number]
    assert len(stock.announced()) == left
    assert stock.sweep(stock.clock()) == 0, "announced objects are left alone"
    assert stock.apply(planned).outcomes.total() == 5
    assert set(stock.classes().values()) == {"STANDARD_IA"}
    listed = {one.key: one.etag for one in stock.bucket.list(PREFIX)}
    assert {row["key"]: row["etag"] for row in stock.rows()} == listed
    assert {row["storage_class"] for row in stock.rows()} == {"STANDARD_IA"}
    assert (stock.announced(), stock.sweep(stock.clock())) == (set(), 0)
    assert read_plan(stock.catalog, planned.plan.id).state == "applied"


def test_killed_and_found_by_discovery(stock, monkeypatch):
    """Nobody applies the plan again; after an hour discovery finishes what was begun."""
    stock.stock("a.jpg", "b.jpg")
    planned = stock.plan()
    new_etags(stock)
    kill_at(monkeypatch, stock, 2)
    with pytest.raises(Killed):
        stock.apply(planned)
    assert stock.announced() == {PREFIX + "b.jpg"}
    assert stock.sweep(stock.clock()) == 0
    assert stock.announced() == {PREFIX + "b.jpg"}
    assert stock.sweep(stock.clock() + timedelta(minutes=61)) == 0
    assert stock.announced() == set()
    listed = {one.key: one.etag for one in stock.bucket.list(PREFIX)}
    rows = stock.rows()
    assert {row["key"]: row["etag"] for row in rows} == listed
    assert {row["verdict"] for row in rows} == {"accepted"}
    assert rows[1]["storage_class"] == "STANDARD_IA"


def test_killed_and_found_by_the_next_plan(stock, monkeypatch):
    stock.stock("a.jpg")
    planned = stock.plan()
    new_etags(stock)
    with monkeypatch.context() as patched:
        kill_at(patched, stock, 1)
        with pytest.raises(Killed):
            stock.apply(planned)
    stock.clock.days = 40.1
    again = stock.plan()
    assert (again.moves, stock.announced()) == ({}, set())
    (row,) = stock.rows()
    assert row["storage_class"] == "STANDARD_IA"
    assert [one.etag for one in stock.bucket.list(PREFIX)] == [row["etag"]]


@pytest.mark.parametrize(("size", "storage_class"), [(BIG, "STANDARD"), (BIG + 1, "STANDARD_IA")])
def test_what_somebody_sent_after_a_kill_is_new(stock, monkeypatch, size, storage_class):
    """The key was announced, but what lies there now is another file."""
    stock.stock("a.jpg")
    planned = stock.plan()
    kill_at(monkeypatch, stock, 1)
    with pytest.raises(Killed):
        stock.apply(planned)
    stock.put("a.jpg", bytes(size), StorageClass=storage_class)
    assert stock.sweep(stock.clock() + timedelta(minutes=61)) == 1
    first, second = stock.rows()
    assert (first["verdict"], second["verdict"]) == ("accepted", None)
    assert stock.announced() == set()


def test_a_plan_is_applied_by_one_at_a_time(stock, monkeypatch):
    stock.stock("a.jpg")
    planned = stock.plan()
    copy = stock.bucket.copy

    def copy_and_meet(*arguments, **options):
        with pytest.raises(PlanRefused, match="another process is at plan"):
            stock.apply(planned)
        return copy(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(stock.bucket, "copy", copy_and_meet)
        assert stock.apply(planned).outcomes == {"moved": 1}


def test_what_changed_since_the_plan_is_not_touched(stock, monkeypatch):
    names = ["replaced.jpg", "gone.jpg", "again.jpg", "in-use.jpg", "moved.jpg", "fine.jpg"]
    made = stock.stock(*names)
    planned = stock.plan()
    stock.put("replaced.jpg", bytes(BIG))
    stock.bucket.delete([PREFIX + "gone.jpg"])
    stock.bucket.copy(PREFIX + "moved.jpg", PREFIX + "moved.jpg", storage_class="STANDARD_IA")
    with stock.catalog.write() as connection:
        (row,) = connection.execute(
            sa.select(uploads_table).where(uploads_table.c.key == PREFIX + "in-use.jpg")
        )
        uploads.decide(connection, [uploads.Decision(row.id, "failed")], datetime.now(UTC))
    head = stock.bucket.head

    def head_later(key):
        """The same bytes were sent once more: the ETag is the same, and the time is not."""
        found = head(key)
        if not key.endswith("again.jpg"):
            return found
        return replace(found, last_modified=found.last_modified + timedelta(seconds=5))

    monkeypatch.setattr(stock.bucket, "head", head_later)
    applied = stock.apply(planned)
    assert applied.outcomes == {"changed": 2, "gone": 1, "in_use": 1, "already": 1, "moved": 1}
    assert stock.bucket.get(PREFIX + "replaced.jpg") == bytes(BIG)
    assert stock.bucket.get(PREFIX + "again.jpg") == made["again.jpg"]
    classes = stock.classes()
    assert [classes.get(name, "-") for name in names] == [
        "STANDARD", "-", "STANDARD", "STANDARD", "STANDARD_IA", "STANDARD_IA",
    ]  # fmt: skip
    assert stock.announced() == set()


def test_what_somebody_else_removes_is_left_to_him(stock):
    stock.stock("a.jpg", "b.jpg")
    planned = stock.plan()
    with stock.catalog.write() as connection:
        removals.begin(connection, "orphans-1", [PREFIX + "a.jpg"], stock.clock())
    assert stock.apply(planned).outcomes == {"in_use": 1, "moved": 1}
    assert stock.announced() == {PREFIX + "a.jpg"}
    stock.clock.days = 40.01
    assert stock.plan().stays[Stay.IN_USE].objects == 1


def test_no_more_than_allowed_and_the_largest_savings_first(stock):
    for n in range(1, 6):
        stock.put(f"{n}.jpg", random.Random(n).randbytes(n * 150_000))
    stock.sweep()
    stock.process()
    planned = stock.plan(max_objects=3)
    entries = next(read_entries(stock.bucket, planned.plan))
    assert [entry.key for entry in entries] == [f"{PREFIX}{n}.jpg" for n in (3, 4, 5)]
    assert planned.stays[Stay.OVER_LIMIT].bytes == 450_000
    new_etags(stock)
    applied = stock.apply(planned, max_objects=2)
    assert applied.outcomes == {"moved": 2}
    assert "max_objects (2)" in applied.stopped
    assert read_plan(stock.catalog, planned.plan.id).state == "applying"
    assert stock.apply(planned).outcomes == {"already": 2, "moved": 1}
    with pytest.raises(PlanRefused, match="plan_spent"):
        stock.apply(planned)


def test_the_settings_limit_is_never_raised(stock):
    stock.settings = make_settings(max_objects=1)
    stock.stock("a.jpg", "b.jpg")
    assert stock.plan(max_objects=99).plan.entries == 1


def test_older_than_days_only_makes_it_longer(stock):
    stock.stock("a.jpg")
    assert stock.plan(older_than_days=41).stays.keys() == {Stay.USED_LATELY}
    stock.clock.days = 40.1
    assert stock.plan(older_than_days=1).moves


def test_one_source(stock):
    sources = {"photos": Source(prefix=PREFIX), "other": Source(prefix="uploads/other/")}
    stock.settings = stock.settings.model_copy(update={"sources": sources})
    stock.stock("a.jpg")
    stock.bucket.put("uploads/other/b.jpg", bytes(BIG), "image/jpeg")
    planned = stock.plan(source="photos")
    assert planned.plan.entries == 1
    assert not planned.stays


def test_a_store_that_fails_is_not_asked_for_ever(stock, monkeypatch):
    stock.stock(*(f"{n}.jpg" for n in range(40)))
    planned = stock.plan()
    tried = []

    def refuse(key, *arguments, **options):
        tried.append(key)
        raise StoreError(f"{key}: AccessDenied")

    monkeypatch.setattr(stock.bucket, "copy", refuse)
    applied = stock.apply(planned)
    assert applied.outcomes == {"error": 20}
    assert "20 of 20 objects failed" in applied.stopped
    assert applied.errors[0] == (tried[0], f"StoreError: {tried[0]}: AccessDenied")
    assert len(tried) == 20
    assert (stock.announced(), set(stock.classes().values())) == (set(), {"STANDARD"})


def test_an_answer_that_was_lost(stock, monkeypatch):
    """The copy was made, and the connection broke off before that was said."""
    stock.stock("a.jpg", "b.jpg", "c.jpg")
    planned = stock.plan()
    new_etags(stock)
    copy = stock.bucket.copy

    def lose(key, *arguments, **options):
        copy(key, *arguments, **options)
        raise StoreError("connection reset")

    monkeypatch.setattr(stock.bucket, "copy", lose)
    assert stock.apply(planned).outcomes == {"moved": 3}
    assert stock.sweep(stock.clock()) == 0


def test_what_nobody_can_look_at_stays_announced(stock, monkeypatch):
    stock.stock("a.jpg")
    planned = stock.plan()
    new_etags(stock)
    copy, head = stock.bucket.copy, stock.bucket.head

    def copy_and_break(key, *arguments, **options):
        copy(key, *arguments, **options)
        monkeypatch.setattr(stock.bucket, "head", fail)
        raise StoreError("connection reset")

    def fail(key):
        raise StoreError("connection refused")

    monkeypatch.setattr(stock.bucket, "copy", copy_and_break)
    assert stock.apply(planned).outcomes == {"error": 1}
    assert stock.announced() == {PREFIX + "a.jpg"}
    monkeypatch.setattr(stock.bucket, "head", head)
    assert heal(stock.bucket, stock.catalog, stock.clock()) == 0, "not before an hour is over"
    assert heal(stock.bucket, stock.catalog, stock.clock() + timedelta(minutes=61)) == 1
    assert stock.sweep(stock.clock()) == 0
    assert len(stock.rows()) == 1


def test_a_store_without_classes_is_noticed(stock, monkeypatch):
    stock.stock("a.jpg", "b.jpg")
    planned = stock.plan()
    new_etags(stock)
    copy = stock.bucket.copy

    def forgetful(key, to, *, storage_class, **options):
        return copy(key, to, storage_class="STANDARD", **options)

    monkeypatch.setattr(stock.bucket, "copy", forgetful)
    with pytest.raises(PlanRefused, match="it has no such class"):
        stock.apply(planned)
    assert stock.announced() == set()
    assert stock.sweep(stock.clock()) == 0, "its new ETag was followed all the same"


def test_what_is_sent_while_it_is_copied_is_kept(stock, monkeypatch):
    """The copy must not win over a file that arrived under its key meanwhile."""
    stock.stock("a.jpg")
    planned = stock.plan()
    copy = stock.bucket.copy

    def overtaken(key, *arguments, **options):
        stock.put("a.jpg", b"new" * BIG)
        return copy(key, *arguments, **options)

    monkeypatch.setattr(stock.bucket, "copy", overtaken)
    assert stock.apply(planned).outcomes == {"changed": 1}
    assert stock.bucket.get(PREFIX + "a.jpg") == b"new" * BIG
    with pytest.raises(ObjectChangedError):
        copy(PREFIX + "a.jpg", PREFIX + "a.jpg", etag="0" * 32)


def test_plans_that_cannot_be_made_or_applied(stock):
    with stock.catalog.read():
        pass
    with pytest.raises(PlanRefused, match="no_inventory"):
        plan_classes(stock.bucket, stock.catalog, stock.settings, stock.clock)
    stock.stock("a.jpg")
    planned = stock.plan()
    stock.clock.days = 42
    with pytest.raises(PlanRefused, match="inventory_old"):
        plan_classes(stock.bucket, stock.catalog, stock.settings, stock.clock)
    stock.clock.days = 44
    with pytest.raises(PlanRefused, match="plan_expired"):
        stock.apply(planned)
    with pytest.raises(PlanRefused, match="no_such_source"):
        stock.plan(source="typo")
    with pytest.raises(PlanRefused, match="no_such_plan"):
        apply_moves(stock.bucket, stock.catalog, stock.settings, stock.clock, "classes-0")


def test_a_bucket_that_keeps_versions_pays_for_the_old_ones(stock):
    stock.bucket.client.put_bucket_versioning(
        Bucket=stock.bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    stock.stock("a.jpg")
    planned = stock.plan()
    assert planned.versioned
    # 60 days of 200,000 bytes in Standard, and the request.
    left_behind = BIG / 2**30 * 0.023 * 60 * 12 / 365
    assert planned.moves["STANDARD", "STANDARD_IA"].once == pytest.approx(left_behind + 1e-5)


def test_the_catalog_on_postgres_says_the_same(bucket, either_catalog):
    stock = Stock(bucket, either_catalog)
    stock.stock("a.jpg", "b.jpg")
    new_etags(stock)
    assert stock.apply(stock.plan()).outcomes == {"moved": 2}
    assert stock.sweep(stock.clock()) == 0
    assert {row["etag"] for row in stock.rows()} == {one.etag for one in bucket.list(PREFIX)}
