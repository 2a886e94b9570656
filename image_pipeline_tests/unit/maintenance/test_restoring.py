"""Undoing a plan, and ending what lies in the trash for good."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog.schema import plans, sightings
from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.maintenance.holding import held
from image_pipeline.maintenance.plans import PlanRefused, plan_key
from image_pipeline.maintenance.trash import due_for_purge, purge_trash, restore_plan
from image_pipeline.store.bucket import StoreError
from image_pipeline.store.layout import trash_key

from .planned import World


@pytest.fixture
def world(catalog):
    return World(catalog)


def parts(world):
    return world.bucket, world.catalog, world.settings, world.clock


def apply(world, plan):
    return apply_plan(*parts(world), plan, threads=1)


def restore(world, plan):
    return restore_plan(*parts(world), plan, threads=1)


class Killed(BaseException):
    """The process is no more."""


def quiet(*_):
    pass


def test_everything_is_as_before(world):
    keys = [*world.orphans(3), world.superseded()]
    cold = world.bucket.objects[keys[0]]
    world.bucket.objects[keys[0]] = replace(
        cold, storage_class="STANDARD_IA", cache_control="max-age=5", metadata={"a": "b"}
    )
    plan = world.plan(keys)
    before = world.snapshot()
    apply(world, plan)
    assert world.snapshot() != before
    world.sight(keys)  # an inventory in between has seen them, somewhere else
    done = restore(world, plan)
    assert (done.counts, done.complete, done.conflicts) == ({"restored": 4}, True, [])
    assert world.snapshot() == before
    assert world.rows(sightings) == []
    assert world.state(plan) == "restored"
    assert world.stored("trash/") == set()


def test_what_is_there_now_is_never_overwritten(world):
    same, other, untouched = world.orphans(3)
    plan = world.plan([same, other, untouched])
    apply(world, plan)
    world.bucket.write(same, same.encode())
    world.bucket.write(other, b"somebody's")
    done = restore(world, plan)
    assert done.counts == {"conflict": 1, "restored": 1, "there": 1}
    assert done.conflicts == [other]
    assert world.bucket.objects[other].data == b"somebody's"
    assert world.stored("trash/") == {trash_key(plan, other)}
    assert done.complete


def test_what_arrives_while_it_is_put_back_is_not_overwritten(world):
    (key,) = world.orphans(1)
    plan = world.plan([key])
    apply(world, plan)
    world.bucket.before = lambda call, _: call == "copy" and world.bucket.write(key, b"new")
    assert restore(world, plan).conflicts == [key]
    assert world.bucket.objects[key].data == b"new"


def test_the_archive_is_asked_first_and_said_when_to_call_again(world):
    keys = world.orphans(2)
    plan = world.plan(keys, archive=True)
    apply(world, plan)
    done = restore(world, plan)
    assert done.counts == {"thawing": 2}
    # A Standard restore takes five hours at most.
    assert done.again_at == world.clock() + timedelta(hours=5)
    assert not done.complete
    assert world.state(plan) == "applied"
    assert restore(world, plan).counts == {"thawing": 2}, "asked twice is no error"
    world.bucket.thaw()
    assert restore(world, plan).counts == {"restored": 2}
    assert {world.bucket.objects[key].storage_class for key in keys} == {"STANDARD"}
    assert world.state(plan) == "restored"


def test_a_plan_that_stopped_half_way_can_be_undone(world):
    keys = world.orphans(3)
    plan = world.plan(keys)
    before = world.snapshot()

    def kill(call, key):
        if call == "copy" and key == keys[1]:
            raise Killed

    world.bucket.before = kill
    with pytest.raises(Killed):
        apply(world, plan)
    world.bucket.before = quiet
    assert restore(world, plan).counts == {"there": 3}
    assert world.snapshot() == before
    assert world.announced() <= set(keys)


def test_killed_at_any_request_another_call_finishes_it(world):
    """The process ends before or after its request number n, for every n it comes to."""
    keys = [*world.orphans(2), world.superseded()]
    before = world.snapshot()
    for number in range(1, 100):
        plan = world.plan(keys)
        apply(world, plan)
        calls = [0]

        def count(*_, calls=calls, number=number):
            calls[0] += 1
            if calls[0] == number:
                raise Killed

        world.bucket.before = world.bucket.after = count
        try:
            restore(world, plan)
        except Killed:
            world.bucket.before = world.bucket.after = quiet
            assert restore(world, plan).complete
        else:
            break
        finally:
            world.bucket.before = world.bucket.after = quiet
        # Also the next round's plan is of objects long written.
        for key in keys:
            world.long_ago(key, world.bucket.objects[key].data)
        world.bucket.objects.pop(plan_key(plan))
        assert world.snapshot() == before
    assert number > 20, "it had no more requests than that"
    assert world.state(plan) == "restored"


def test_what_cannot_be_put_back_now_is_tried_again(world):
    keys = world.orphans(2)
    plan = world.plan(keys)
    apply(world, plan)

    def fail(call, key):
        if call == "copy" and key.endswith(keys[0]):
            raise StoreError("SlowDown")

    world.bucket.before = fail
    done = restore(world, plan)
    assert done.counts == {"failed": 1, "restored": 1}
    assert done.errors == [f"{keys[0]}: SlowDown"]
    assert world.state(plan) == "applied"
    world.bucket.before = quiet
    assert restore(world, plan).counts == {"restored": 1, "there": 1}


@pytest.mark.parametrize("state", ["planned", "needs_confirmation", "purged"])
def test_what_was_not_applied_or_is_purged_cannot_be_restored(world, state):
    plan = world.plan(world.orphans(1), state=state)
    with pytest.raises(PlanRefused) as refusal:
        restore(world, plan)
    assert refusal.value.code == "not_applied"


def test_the_trash_is_emptied_when_its_time_is_over(world):
    old, new, planned = (world.orphans(2, start=n) for n in (0, 10, 20))
    first = world.plan(old)
    apply(world, first)
    world.clock.advance(days=29)
    second = world.plan(new)
    apply(world, second)
    never = world.plan(planned)
    world.bucket.write(f"trash/{never}/file", b"not of a plan that was applied")
    world.bucket.write("trash/by-hand/file", b"somebody's")
    assert purge_trash(*parts(world)).plans == []
    world.clock.advance(days=1)
    done = purge_trash(*parts(world))
    assert (done.plans, done.objects, done.bytes) == ([first], 2, sum(map(len, old)))
    assert world.state(first) == "purged"
    assert world.state(second) == "applied"
    assert world.stored("trash/") == {
        *(trash_key(second, key) for key in new), f"trash/{never}/file", "trash/by-hand/file",
    }  # fmt: skip
    assert set(planned) <= world.stored()
    assert purge_trash(*parts(world)).plans == []


def test_the_archive_is_kept_as_long_as_it_is_paid_for(world):
    plan = world.plan(world.orphans(1), archive=True)
    apply(world, plan)
    world.clock.advance(days=89)
    assert due_for_purge(world.catalog, world.settings, world.clock()) == []
    world.clock.advance(days=1)
    assert purge_trash(*parts(world)).plans == [plan]


def test_leftovers_of_a_restored_plan_are_purged_as_well_once(world):
    key, other = world.orphans(2)
    plan = world.plan([key, other])
    apply(world, plan)
    world.bucket.write(other, b"somebody's")
    restore(world, plan)
    world.clock.advance(days=30)
    done = purge_trash(*parts(world))
    assert (done.plans, done.objects) == ([plan], 1)
    assert world.state(plan) == "restored"
    assert world.bucket.objects[other].data == b"somebody's"
    assert purge_trash(*parts(world)).plans == []


def test_what_cannot_be_deleted_keeps_the_plan_due(world):
    keys = world.orphans(2)
    plan = world.plan(keys)
    apply(world, plan)
    world.clock.advance(days=30)
    world.bucket.refuse = {trash_key(plan, keys[0])}
    done = purge_trash(*parts(world))
    assert (done.plans, done.objects, len(done.errors)) == ([], 1, 1)
    world.bucket.refuse = set()
    assert purge_trash(*parts(world)).plans == [plan]


def test_a_plan_in_other_hands_is_not_purged(world):
    plan = world.plan(world.orphans(1))
    apply(world, plan)
    world.clock.advance(days=30)
    with held(world.catalog, world.clock, plan):
        done = purge_trash(*parts(world))
    assert done.plans == []
    assert "another process is at plan" in done.errors[0]
    assert purge_trash(*parts(world)).plans == [plan]


def test_a_plan_is_not_purged_while_it_is_restored(world):
    plan = world.plan(world.orphans(1))
    apply(world, plan)
    world.clock.advance(days=30)
    purged = []

    def purge(call, _):
        if call == "copy":
            world.bucket.before = quiet
            purged.append(purge_trash(*parts(world)))

    world.bucket.before = purge
    restore(world, plan)
    assert purged[0].plans == []
    with world.catalog.read() as connection:
        assert connection.execute(sa.select(plans.c.state)).scalars().all() == ["restored"]
