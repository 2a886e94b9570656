"""What is rendered again, decided; and done, over the pipeline in miniature."""

import hashlib
import itertools
from datetime import timedelta

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import given

from image_pipeline.catalog import batches, removals
from image_pipeline.catalog.refreshing import Standing, reopened
from image_pipeline.catalog.schema import variants
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.maintenance.refreshing import (
    REASONS,
    Keys,
    Stale,
    choose,
    refresh,
    why_stale,
)
from image_pipeline_tests.faults.alive import Alive, check
from image_pipeline_tests.faults.miniature import (
    Meddler,
    WatchedCatalog,
    World,
    picture,
    run_in_one_thread,
)


def stale(batch, reason="missing", original="there", image="i"):
    return Stale("photos", image, batch, reason, original)


class TestChoosing:
    def test_the_most_urgent_batches_go_first(self):
        found = choose(
            [stale(batch, reason) for batch, reason in zip("dcba", REASONS, strict=True)], 9
        )
        assert found.batches == ["d", "c", "b", "a"]

    def test_a_batch_is_as_urgent_as_its_most_urgent_image(self):
        found = choose([stale("a", "outdated"), stale("b", "outdated"), stale("b", "missing")], 9)
        assert found.batches == ["b", "a"]

    def test_images_are_counted_by_whole_batches(self):
        found = choose([stale("a"), stale("b"), stale("b"), stale("c")], 2)
        assert found.batches == ["a"]
        assert [one.batch_id for one in found.later] == ["b", "b", "c"]

    def test_a_batch_larger_than_the_limit_is_not_put_off_for_ever(self):
        assert choose([stale("a"), stale("a")], 1).batches == ["a"]

    def test_nothing_is_rendered_of_an_original_that_nobody_has(self):
        found = choose([stale("a", original="gone")], 9)
        assert (found.batches, len(found.unrenderable)) == ([], 1)

    def test_only_missing_files_are_worth_a_restore_from_the_archive(self):
        found = choose([stale("a", "missing", "archived"), stale("b", "outdated", "archived")], 9)
        assert found.batches == ["a"]
        assert [one.batch_id for one in found.archived] == ["b"]

    @given(
        st.lists(
            st.builds(
                stale,
                st.sampled_from("abcd"),
                st.sampled_from(REASONS),
                st.sampled_from(["there", "archived", "gone"]),
            )
        ),
        st.integers(1, 5),
    )
    def test_every_image_has_one_fate(self, images, limit):
        found = choose(images, limit)
        fates = (found.chosen, found.later, found.archived, found.unrenderable)
        assert sorted(map(repr, itertools.chain(*fates))) == sorted(map(repr, images))
        assert {one.batch_id for one in found.chosen} == set(found.batches)
        assert not {one.batch_id for one in found.later} & set(found.batches)


@pytest.mark.parametrize(
    ("recipe", "is_open", "lacking", "is_complete", "outdated", "expected"),
    [
        ("new", False, (), True, True, None),
        ("new", False, ("new",), True, False, "missing"),
        ("old", False, ("old",), True, False, "missing"),
        # The next batch would rely on the row of a file that is not there.
        ("old", False, ("new",), True, False, "missing"),
        ("new", True, ("new",), True, False, "missing"),
        ("new", False, ("older",), True, False, None),
        ("new", False, (), False, False, "incomplete"),
        ("new", True, (), False, False, None),
        ("old", False, (), False, False, None),
        ("old", False, (), False, True, "outdated"),
        (None, False, (), True, False, "unpublished"),
        (None, True, (), True, False, None),
    ],
)
def test_why(recipe, is_open, lacking, is_complete, outdated, expected):
    image = Standing("photos", "i", recipe, 90, 60, 1, "b", is_open)
    assert why_stale(image, "new", lacking, is_complete, outdated) == expected


@given(st.sets(st.text(max_size=5)), st.text(max_size=5))
def test_a_set_of_names_knows_what_was_put_in(names, other):
    keys = Keys()
    for name in names:
        keys.add(name)
    assert all(name in keys for name in names)
    assert (other in keys) == (other in names)


@pytest.fixture
def world(tmp_path, monkeypatch):
    run_in_one_thread(monkeypatch)
    catalog = WatchedCatalog(f"sqlite:///{tmp_path / 'catalog.db'}", Meddler())
    made = World(tmp_path, catalog)
    for number in range(3):
        made.upload("photos", f"file{number}", picture(number, 2))
    process(made)
    yield made
    catalog.close()


def process(world):
    world.advance(minutes=2)
    asked = world.look("photos")
    for batch in asked:
        world.run(batch)
    return asked


def things(world):
    return world.bucket, world.catalog, world.settings(), world.clock


def run_refresh(world, **options):
    world.advance(hours=1)
    take_inventory(*things(world))
    return refresh(*things(world), **{"dry_run": False, **options})


def files_of(world, number):
    image = hashlib.sha256(picture(number, 2)).hexdigest()
    return sorted(key for key in world.bucket.objects if key.startswith(f"variants/{image}/"))


def rows(world):
    with world.catalog.read() as connection:
        return set(connection.execute(sa.select(variants.c.key)).scalars())


def test_nothing_is_to_be_done_where_all_is_there(world):
    found = run_refresh(world, outdated=True)
    assert not any(found.counts.values())


def test_files_that_vanished_are_made_again_by_the_next_run_of_their_batch(world):
    before = {key: stored.data for key, stored in world.bucket.objects.items()}
    lost = [files_of(world, 0)[0], files_of(world, 2)[1]]
    for key in lost:
        world.lose(key)
    found = run_refresh(world)
    assert (found.counts["missing"], found.counts["rows_dropped"]) == (2, 2)
    assert not rows(world) & set(lost)
    asked = process(world)
    assert sorted(asked) == sorted(found.reopened)
    assert {key: world.bucket.objects[key].data for key in lost} == {
        key: before[key] for key in lost
    }
    assert rows(world).issuperset(lost)
    check(world)
    assert not any(run_refresh(world).counts.values())


def test_a_dry_run_changes_nothing(world):
    world.lose(files_of(world, 0)[0])
    before = rows(world)
    found = run_refresh(world, dry_run=True)
    assert found.counts["chosen"] == 1
    assert (found.counts["batches_reopened"], rows(world), process(world)) == (0, before, [])


def test_a_stale_inventory_alone_convicts_nobody(world):
    key = files_of(world, 0)[0]
    kept = world.bucket.objects.pop(key)
    world.advance(hours=1)
    take_inventory(*things(world))
    world.bucket.objects[key] = kept
    assert refresh(*things(world), dry_run=False).files_missing == 0
    assert key in rows(world)


def test_what_is_being_removed_keeps_its_row(world):
    key = files_of(world, 0)[0]
    world.lose(key)
    with world.catalog.write() as connection:
        removals.begin(connection, "a plan", [key], world.clock() + timedelta(hours=1))
    assert run_refresh(world).counts["rows_dropped"] == 0


def test_an_older_recipe_is_replaced_where_that_is_wanted(world):
    old = rows(world)
    world.change_recipe("photos", 60)
    assert run_refresh(world).counts["outdated"] == 0
    assert run_refresh(world, outdated=True).counts["outdated"] == 3
    process(world)
    assert len(rows(world) - old) == len(old)
    check(world)
    published = [key for key in Alive(world).wanted() if key.startswith("variants/")]
    assert not set(published) & old
    assert run_refresh(world, outdated=True).counts["outdated"] == 0


def test_an_image_whose_original_is_gone_keeps_what_it_has(world):
    world.delete("uploads/photos/file0.jpg")
    world.change_recipe("photos", 60)
    found = run_refresh(world, outdated=True)
    assert (found.counts["unrenderable"], found.counts["chosen"]) == (1, 2)


def test_rows_that_nobody_is_shown_go_without_rendering(world):
    old = files_of(world, 0)
    world.change_recipe("photos", 60)
    run_refresh(world, outdated=True)
    process(world)
    for key in old:
        world.lose(key)
    found = run_refresh(world)
    with_object = [key for key in old if key in rows(world)]
    assert (found.counts["rows_dropped"], found.reopened) == (len(old), [])
    assert [key for key in with_object if key not in world.lost] == []


def test_batches_that_were_opened_again_are_known_as_such(world):
    world.lose(files_of(world, 0)[0])
    found = run_refresh(world)
    with world.catalog.write() as connection:
        assert reopened(connection, ["another", *found.reopened]) == set(found.reopened)
        fresh = batches.batch_id("photos", world.clock())
        assert reopened(connection, [fresh]) == set()


def test_without_an_inventory_nothing_is_concluded(world):
    with pytest.raises(PlanRefused, match="no_inventory"):
        refresh(*things(world), dry_run=False)


def test_a_source_that_does_not_exist_is_refused(world):
    with pytest.raises(PlanRefused, match="no_such_source"):
        refresh(*things(world), dry_run=False, source="other")
