"""What a hostile reader of housekeeping found: ways to lose what is alive, or keep what is dead."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import removals
from image_pipeline.catalog.housekeeping import InventoryRow, Sighting
from image_pipeline.catalog.schema import publications
from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.maintenance.inventory import Listed
from image_pipeline.maintenance.liveness import Liveness
from image_pipeline.maintenance.orphans import kept_by, rules_of, sighted
from image_pipeline.maintenance.plans import PlanRefused, newest_plan
from image_pipeline.maintenance.trash import purge_trash, restore_plan
from image_pipeline.settings import Cleanup, Discovery
from image_pipeline.store import layout
from image_pipeline.store.layout import trash_key

from .filled import LONG_AGO, NOW, listed
from .planned import World


@pytest.fixture
def world(catalog):
    return World(catalog)


def parts(world):
    return world.bucket, world.catalog, world.settings, world.clock


def by(world, key, **values):
    liveness = Liveness(world.bucket, world.settings, world.clock)
    with world.catalog.read() as connection:
        (found,) = liveness.classify(connection, [listed(key, **values)])
    return found.by


def test_what_a_manifest_names_stays_although_the_catalog_has_lost_its_row(world):
    """Its row was dropped as missing; the batch that made it anew was killed and given up."""
    lost = world.filled.variant(world.image, recipe="r0", mark="77")
    name = layout.image_manifest_key("photos", world.image)
    with world.catalog.write() as connection:
        connection.exec_driver_sql("DELETE FROM variants WHERE recipe = 'r0'")
    assert by(world, lost) == "unknown_variant"
    world.bucket.write(name, b'{"variants": [{"key": "%s"}]}' % lost.encode())
    assert by(world, lost) == "manifest"
    world.bucket.write(name, b'{"variants": []}')
    assert by(world, lost) == "unknown_variant"


def test_an_upload_is_known_by_whatever_name_its_source_had(world):
    """The source was called otherwise before; the one of now has not found it yet."""
    world.filled.batch("holiday-20260101-120000-abc123")
    batch = "holiday-20260101-120000-abc123"
    key = world.filled.upload("uploads/photos/x.jpg", source="holiday", batch=batch)
    assert by(world, key) == "upload"
    assert by(world, key, etag="another") == "unknown_upload"


def test_who_slept_for_hours_does_not_delete_what_others_rely_on_since(world):
    """Its announcement counts for nothing after an hour, and the name was published again."""
    key = world.superseded()
    plan = world.plan([key])

    def sleep(call, name):
        if call == "page" and name.startswith("trash/"):
            world.bucket.before = lambda *_: None
            world.clock.advance(hours=2)
            with world.catalog.write() as connection:
                removals.hold(connection)
                assert not removals.being_removed(connection, [key], world.clock())
            world.filled.variant(world.image, recipe="r0", mark="0a1b2cff")
            world.filled.publication(world.image, recipe="r0", source="shop")

    world.bucket.before = sleep
    with pytest.raises(PlanRefused) as refusal:
        apply_plan(*parts(world), plan, threads=1)
    assert refusal.value.code == "taken_over"
    assert key in world.stored()
    done = apply_plan(*parts(world), plan, threads=1)
    assert done.counts == {"skipped_now_live": 1}
    assert world.announced() == set()


def test_the_trash_that_somebody_wants_back_is_kept_anew(world):
    """It comes back from the archive in hours; its time would be over before."""
    (key,) = world.orphans(1)
    plan = world.plan([key], archive=True)
    apply_plan(*parts(world), plan, threads=1)
    world.clock.advance(days=89)
    assert restore_plan(*parts(world), plan, threads=1).counts == {"thawing": 1}
    world.clock.advance(days=2)
    assert purge_trash(*parts(world)).plans == []
    world.bucket.thaw()
    assert restore_plan(*parts(world), plan, threads=1).counts == {"restored": 1}
    world.clock.advance(days=90)
    assert purge_trash(*parts(world)).plans == [plan]


def test_what_is_restored_while_other_trash_is_emptied_keeps_its_leftovers(world):
    """Both were due when the purge began; what could not be put back is still in the trash."""
    first, second = world.orphans(2)
    plans = [world.plan([first])]
    # Of one second, they would be purged in either order.
    world.clock.advance(minutes=1)
    plans.append(world.plan([second]))
    for plan in plans:
        apply_plan(*parts(world), plan, threads=1)
        world.clock.advance(minutes=1)
    world.bucket.write(second, b"somebody else's")
    world.clock.advance(days=31)

    def restored_meanwhile(call, key):
        if call == "delete" and key.startswith(trash_key(plans[0], "")):
            world.bucket.before = lambda *_: None
            done = restore_plan(*parts(world), plans[1], threads=1)
            assert done.counts == {"conflict": 1}

    world.bucket.before = restored_meanwhile
    assert purge_trash(*parts(world)).plans == [plans[0]]
    assert trash_key(plans[1], second) in world.stored()
    assert world.state(plans[1]) == "restored"


@pytest.mark.parametrize("state", ["planned", "applying"])
def test_a_plan_of_a_rehearsal_is_not_applied_in_earnest(world, state):
    """For it, everything was months older than it is."""
    (key,) = world.orphans(1)
    world.clock.advance(days=60)
    plan = world.plan([key], state=state)
    world.clock.advance(days=-60)
    with pytest.raises(PlanRefused) as refusal:
        apply_plan(*parts(world), plan, threads=1)
    assert refusal.value.code == "plan_ahead"
    assert key in world.stored()
    assert newest_plan(world.catalog, "orphans", world.clock()) is None
    world.clock.advance(days=60)
    assert apply_plan(*parts(world), plan, threads=1).counts == {"trashed": 1}


def test_what_was_published_again_since_the_plan_is_not_removed_by_it(world):
    """The recipe went back and forth: until a moment ago manifests named the old files."""
    key = world.superseded()
    plan = world.plan([key])
    world.clock.advance(days=2)
    with world.catalog.write() as connection:
        connection.execute(sa.update(publications).values(published_at=world.clock()))
    done = apply_plan(*parts(world), plan, threads=1)
    assert done.counts == {"skipped_changed": 1}
    assert key in world.stored()
    assert key in world.variant_keys()


def test_an_object_of_a_report_was_needed_until_it_was_asked_about():
    """The report is of the day before; a batch has superseded the file since."""
    taken = NOW - timedelta(hours=20)
    report = InventoryRow("i", taken, 1, 1, "s3-inventory", complete=True)
    found = Listed(
        "variants/x", "e", 1, LONG_AGO, "STANDARD", "variant", "superseded_variant", True
    )
    rules = rules_of(Cleanup(grace_days=1), NOW + timedelta(hours=23), {})
    first = sighted(found, None, report, NOW)
    assert first.first_at == NOW
    later = replace(report, taken_at=NOW + timedelta(hours=22))
    assert kept_by(sighted(found, first, later, rules.now), "", rules) == "lately_needed"


def test_where_events_tell_of_uploads_the_sweep_is_waited_for():
    """An upload whose event was lost waits for a sweep, which comes every ten days here."""
    key, written = "uploads/photos/a.jpg", NOW - timedelta(days=40)
    one = Sighting(key, "e", 1, "unknown_upload", written, NOW - timedelta(days=3), NOW, "i")
    events = Discovery(queue_url="https://sqs/queue", reconcile_minutes=10 * 24 * 60)
    known = {"photos": written + timedelta(days=19)}
    rules = rules_of(Cleanup(), NOW, known, None, events)
    assert kept_by(one, "photos", rules) == "not_swept"
    assert kept_by(one, "photos", rules_of(Cleanup(), NOW, known, None, Discovery())) is None
    known = {"photos": written + timedelta(days=21)}
    assert kept_by(one, "photos", rules_of(Cleanup(), NOW, known, None, events)) is None
