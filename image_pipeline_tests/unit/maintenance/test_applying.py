"""Carrying out a plan: only what still is as planned and still needed by nobody goes."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import removals
from image_pipeline.catalog.schema import sightings, uploads, variants
from image_pipeline.maintenance import applying
from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.maintenance.plans import PlanRefused, plan_key
from image_pipeline.settings import Cleanup, Maintenance
from image_pipeline.store.bucket import StoreError
from image_pipeline.store.layout import trash_key

from .filled import NOW
from .planned import World


@pytest.fixture
def world(catalog):
    return World(catalog)


def apply(world, plan, **options):
    return apply_plan(
        world.bucket, world.catalog, world.settings, world.clock, plan, threads=1, **options
    )


class Killed(BaseException):
    """The process is no more."""


def test_orphans_go_to_the_trash_and_nothing_else_is_touched(world):
    keys = [*world.orphans(3), world.superseded()]
    bodies = {key: world.bucket.objects[key].data for key in keys}
    world.sight([*keys, "another"])
    rows = world.variant_keys()
    plan = world.plan(keys)
    done = apply(world, plan)
    assert done.counts == {"trashed": 4}
    assert done.bytes == sum(map(len, bodies.values()))
    assert (done.removed, done.now_live, done.stopped, done.errors) == (4, 0, "", ())
    assert world.stored() == {world.live_key, plan_key(plan), *(trash_key(plan, k) for k in keys)}
    assert {k: world.bucket.objects[trash_key(plan, k)].data for k in keys} == bodies
    assert world.variant_keys() == rows - {keys[-1]} == {world.live_key}
    assert [row["key"] for row in world.rows(sightings)] == ["another"]
    assert world.announced() == set()
    assert world.state(plan) == "applied"


def test_an_archiving_plan_keeps_its_objects_in_glacier(world):
    (key,) = world.orphans(1)
    plan = world.plan([key], archive=True)
    assert apply(world, plan).counts == {"archived": 1}
    assert world.bucket.objects[trash_key(plan, key)].storage_class == "GLACIER"
    assert key not in world.stored()


def test_what_somebody_refers_to_by_now_stays_and_is_told(world):
    orphan, superseded = world.orphans(1)[0], world.superseded()
    upload = world.long_ago("uploads/photos/late.jpg", b"late")
    plan = world.plan([orphan, superseded, upload])
    world.filled.publication(world.image, recipe="r0", source="shop")
    world.filled.upload(upload, etag=world.bucket.head(upload).etag)
    done = apply(world, plan)
    assert done.counts == {"skipped_now_live": 2, "trashed": 1}
    assert done.now_live == 2
    assert {superseded, upload, world.live_key} <= world.stored()
    assert superseded in world.variant_keys()


def test_what_came_under_protection_since_stays(world):
    key, other = world.orphans(2)
    plan = world.plan([key, other])
    cleanup = Cleanup(protected=(key,))
    world.settings = world.settings.model_copy(update={"maintenance": Maintenance(cleanup=cleanup)})
    assert apply(world, plan).counts == {"skipped_now_live": 1, "trashed": 1}
    assert key in world.stored()


def test_only_the_object_that_was_planned_goes(world):
    rewritten, replaced, longer, gone, same = world.orphans(5)
    plan = world.plan([rewritten, replaced, longer, gone, same])
    world.bucket.write(rewritten, rewritten.encode())  # the same bytes, now
    world.long_ago(replaced, b"x" * len(replaced))
    world.long_ago(longer, b"much longer" * 50)
    del world.bucket.objects[gone]
    done = apply(world, plan)
    assert done.counts == {"gone": 1, "skipped_changed": 3, "trashed": 1}
    assert {rewritten, replaced, longer} <= world.stored()
    assert world.stored("trash/") == {trash_key(plan, same)}


def test_what_changes_between_the_copy_and_the_delete_stays(world):
    (key,) = world.orphans(1)
    plan = world.plan([key])
    world.bucket.before = lambda call, _: call == "delete" and world.bucket.write(key, b"new")
    assert apply(world, plan).counts == {"skipped_changed": 1}
    assert world.bucket.objects[key].data == b"new"


def test_a_copy_that_is_not_there_keeps_its_original(world):
    keys = world.orphans(3)
    plan = world.plan(keys)

    def lose(call, key):
        if call == "page" and key.startswith("trash/"):
            world.bucket.objects.pop(trash_key(plan, keys[1]))

    world.bucket.before = lose
    done = apply(world, plan)
    assert done.counts == {"failed": 1, "trashed": 2}
    assert keys[1] in world.stored()
    assert done.errors == (f"{keys[1]}: its copy is not in the trash",)


def test_archived_objects_are_left_alone(world):
    (key,) = world.orphans(1)
    world.bucket.objects[key] = replace(world.bucket.objects[key], storage_class="DEEP_ARCHIVE")
    assert apply(world, world.plan([key])).counts == {"skipped_archived": 1}
    assert key in world.stored()


def test_a_row_made_anew_under_the_name_keeps_its_object(world):
    """It was planned without a row; one of a cold recipe has come since, and is old enough."""
    key = world.superseded()
    with world.catalog.write() as connection:
        (row,) = connection.execute(sa.select(variants).where(variants.c.key == key)).mappings()
        connection.execute(sa.delete(variants).where(variants.c.key == key))
    plan = world.plan([key])
    with world.catalog.write() as connection:
        connection.execute(sa.insert(variants).values(**row))
    assert apply(world, plan).counts == {"skipped_changed": 1}
    assert key in world.stored()
    assert key in world.variant_keys()


def test_more_than_a_chunk_and_the_progress_told(world):
    keys = world.orphans(2005)
    told = []
    done = apply(world, world.plan(keys), progress=lambda *values: told.append(values))
    assert done.counts == {"trashed": 2005}
    assert world.stored() & set(keys) == set()
    assert told == [("removed", 1000, 2005), ("removed", 2000, 2005), ("removed", 2005, 2005)]


def code_of(world, plan, **options):
    before = world.snapshot()
    with pytest.raises(PlanRefused) as refusal:
        apply(world, plan, **options)
    assert world.snapshot() == before
    return refusal.value.code


def test_plans_that_are_refused(world, monkeypatch):
    keys = world.orphans(2)
    assert code_of(world, "orphans-20260101-000000-abcdef") == "no_such_plan"
    late = world.plan(keys)
    world.clock.advance(hours=73)
    assert code_of(world, late) == "plan_expired"
    large = world.plan(keys, share=0.021)
    assert code_of(world, large) == "needs_confirmation"
    assert code_of(world, large, confirm=late) == "wrong_confirmation"
    doubtful = world.plan(keys, state="needs_confirmation")
    assert code_of(world, doubtful) == "needs_confirmation"
    edited = world.plan(keys)
    world.bucket.objects[plan_key(edited)] = world.bucket.objects[plan_key(late)]
    world.bucket.write(plan_key(edited), world.bucket.objects[plan_key(late)].data + b" ")
    assert code_of(world, edited) == "plan_changed"
    assert world.state(edited) == "planned"
    lost = world.plan(keys)
    del world.bucket.objects[plan_key(lost)]
    assert code_of(world, lost) == "plan_gone"
    assert code_of(world, world.plan(keys, kind="classes")) == "wrong_kind"
    ahead = world.settings
    world.settings = world.settings.model_copy(update={"ahead_days": 30.0})
    assert code_of(world, large, confirm=large) == "rehearsal"
    world.settings = ahead
    assert apply(world, large, confirm=large).counts == {"trashed": 2}
    assert code_of(world, large, confirm=large) == "plan_spent"


def test_deletes_that_fail_leave_object_and_row(world):
    keys = [*world.orphans(4), world.superseded()]
    rows = world.variant_keys()
    plan = world.plan(keys)
    world.sight(keys)
    world.bucket.refuse = {keys[0], keys[-1]}
    done = apply(world, plan)
    assert done.counts == {"failed": 2, "trashed": 3}
    assert sorted(done.errors) == sorted(
        f"{key}: InternalError: We encountered an internal error." for key in world.bucket.refuse
    )
    assert world.bucket.refuse <= world.stored()
    assert world.variant_keys() == rows
    assert {row["key"] for row in world.rows(sightings)} == world.bucket.refuse
    assert world.announced() == set()


def test_too_many_errors_stop_it_and_it_can_go_on(world):
    keys = world.orphans(1500)
    plan = world.plan(keys)

    def fail(call, key):
        if call == "copy" and key >= keys[1000]:
            raise StoreError("SlowDown")

    world.bucket.before = fail
    done = apply(world, plan)
    # 1 % of 1,500 are 15 errors: the sixteenth stops it, before the second chunk loses anything.
    assert done.counts == {"trashed": 1000}
    assert "more than 15 of 1,500 objects failed; 1,000 are done" in done.stopped
    assert len(done.errors) == 16
    assert set(keys[1000:]) <= world.stored()
    assert world.announced() == set()
    assert world.state(plan) == "applying"
    world.bucket.before = lambda *_: None
    world.clock.advance(days=30)
    done = apply(world, plan)
    assert (done.counts, done.stopped) == ({"trashed": 1500}, "")
    assert world.state(plan) == "applied"


def test_a_request_to_delete_that_breaks_off_stays_announced(world):
    keys = [*world.orphans(1), world.superseded()]
    plan = world.plan(keys)

    def fail(call, _):
        if call == "delete":
            raise StoreError("timed out")

    world.bucket.after = fail
    assert apply(world, plan).counts == {"unclear": 2}
    # It may be carried out late: nobody may rely on these names for an hour.
    assert world.announced() == set(keys)
    assert keys[1] not in world.variant_keys(), "a row without its object would be a lie"
    with world.catalog.write() as connection:
        assert removals.being_removed(connection, keys, world.clock()) == set(keys)
        later = world.clock() + timedelta(hours=1)
        assert removals.being_removed(connection, keys, later) == set()


def kill_at(world, number):
    """Let the process end before or after its request of this number; False if it has fewer."""
    counted = [0]

    def count(*_):
        counted[0] += 1
        if counted[0] == number:
            raise Killed

    world.bucket.before = world.bucket.after = count
    return counted


def finished(catalog, restart):
    """The end state of a plan of one try, or of one that was killed at every point in turn."""
    world = World(catalog)
    keys = [*world.orphans(2), world.superseded()]
    world.sight(keys)
    plan = world.plan(keys)
    restart(world, plan)
    objects, rows, seen = world.snapshot()
    named = {key.replace(plan, "PLAN"): value for key, value in objects.items()}
    named.pop("plans/PLAN.parquet")
    counts = next(row["results"]["counts"] for row in world.rows(applying_plans()))
    return named, rows, seen, world.state(plan), world.announced(), counts


def applying_plans():
    from image_pipeline.catalog.schema import plans

    return plans


@pytest.mark.parametrize("number", range(1, 23))
def test_killed_at_any_request_and_run_again_it_ends_the_same(tmp_path, number):
    from image_pipeline.catalog.engine import Catalog

    ends = []
    for name, restart in (
        ("once", apply),
        ("killed", lambda world, plan: killed_and_again(world, plan, number)),
    ):
        catalog = Catalog(f"sqlite:///{tmp_path / name}.db")
        ends.append(finished(catalog, restart))
        catalog.close()
    assert ends[0] == ends[1]
    assert ends[0][-1] == {"trashed": 3}


def killed_and_again(world, plan, number):
    kill_at(world, number)
    with pytest.raises(Killed):
        apply(world, plan)
    world.bucket.before = world.bucket.after = lambda *_: None
    assert world.live_key in world.stored()
    apply(world, plan)


@pytest.mark.parametrize("step", ["_announce", "_conclude"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_around_its_transactions_it_ends_the_same(world, monkeypatch, step, after):
    keys = [*world.orphans(2), world.superseded()]
    plan = world.plan(keys)
    real = getattr(applying._Work, step)

    def killed(work, *arguments):
        if after:
            real(work, *arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(applying._Work, step, killed)
        with pytest.raises(Killed):
            apply(world, plan)
    assert apply(world, plan).counts == {"trashed": 3}
    assert world.stored("variants/") == {world.live_key}
    assert world.announced() == set()
    assert world.state(plan) == "applied"


def test_a_process_that_said_nothing_before_it_died_is_waited_for(world):
    """Nobody gave the plan back: it is free when the holder's time is over, no sooner."""
    keys = world.orphans(1)
    plan = world.plan(keys)
    with world.catalog.write() as connection:
        removals.take(connection, plan_key(plan), f"{plan} dead", NOW)
        removals.begin(connection, f"{plan} dead", keys, NOW)
    world.clock.advance(seconds=119)
    assert code_of(world, plan) == "being_carried_out"
    world.clock.advance(seconds=1)
    assert apply(world, plan).counts == {"trashed": 1}
    assert world.announced() == set()


def test_of_two_at_once_one_is_told_to_wait_and_nothing_is_lost(world):
    keys = world.orphans(3)
    plan = world.plan(keys)
    refused = []

    def second(call, _):
        if call == "copy":
            with pytest.raises(PlanRefused) as refusal:
                apply(world, plan)
            refused.append(refusal.value.code)

    world.bucket.before = second
    assert apply(world, plan).counts == {"trashed": 3}
    assert refused == ["being_carried_out"] * 3


def test_who_was_taken_for_dead_deletes_nothing_any_more(world, monkeypatch):
    monkeypatch.setattr("image_pipeline.maintenance.holding.RENEW_SECONDS", -1.0)
    keys = world.orphans(2)
    plan = world.plan(keys)

    def sleep(call, key):
        if call == "copy" and key == keys[1]:
            world.bucket.before = lambda *_: None
            # Time passes within the transaction, so that nobody renews in between.
            with world.catalog.write() as connection:
                world.clock.advance(minutes=3)
                assert removals.take(connection, plan_key(plan), "other", world.clock()) is None

    world.bucket.before = sleep
    with pytest.raises(PlanRefused) as refusal:
        apply(world, plan)
    assert refusal.value.code == "taken_over"
    assert set(keys) <= world.stored()


def test_what_another_plan_removes_is_left_to_it(world):
    keys = world.orphans(2)
    plan = world.plan(keys)
    with world.catalog.write() as connection:
        removals.begin(connection, "another", keys[:1], NOW)
    assert apply(world, plan).counts == {"skipped_busy": 1, "trashed": 1}
    assert keys[0] in world.stored()
    assert world.announced() == {keys[0]}
    # An announcement that nobody renewed for an hour is worth nothing.
    second = world.plan(keys[:1])
    world.clock.advance(hours=1)
    assert apply(world, second).counts == {"trashed": 1}


def test_uploads_that_arrive_in_between_are_seen(world):
    """Discovery commits between the plan and the question: the question is asked under a hold."""
    upload = world.long_ago("uploads/photos/late.jpg", b"late")
    plan = world.plan([upload])
    with world.catalog.write() as connection:
        etag = world.bucket.head(upload).etag
        connection.execute(
            sa.insert(uploads).values(
                source="photos", key=upload, etag=etag, size=4, last_modified=NOW, discovered_at=NOW
            )
        )
    assert apply(world, plan).counts == {"skipped_now_live": 1}
    assert upload in world.stored()
