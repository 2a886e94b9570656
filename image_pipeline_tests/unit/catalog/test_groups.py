"""Members, people's word, near pairs and reports in the catalog."""

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import batches, groups, images, near, reports, schema, uploads
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.near import Near
from image_pipeline.catalog.uploads import Decision

from .helpers import NOW, at, image_row, make_batch, upload_row, variant_row

ONE, TWO, THREE = "1a" * 32, "1b" * 32, "2c" * 32


@pytest.fixture
def story(catalog):
    """ONE stands for TWO by the picture; THREE belongs to itself; all came in one batch."""
    batch = make_batch(catalog, "one", "copy", "two", "three")
    with catalog.write() as connection:
        images.add_images(connection, [image_row(name) for name in (ONE, TWO, THREE)])
        images.add_members(
            connection,
            [
                Member("photos", ONE, ONE, None, 0, 1, batch),
                Member("photos", TWO, ONE, "picture", 3, 3, batch),
                Member("photos", THREE, THREE, None, 0, 4, batch),
                Member("products", TWO, TWO, None, 0, 9, "other"),
            ],
        )
        uploads.decide(
            connection,
            [
                Decision(1, "accepted", image_id=ONE, seconds=2.0),
                Decision(2, "duplicate", "bytes", image_id=ONE),
                Decision(3, "duplicate", "picture", image_id=TWO),
                Decision(4, "accepted", image_id=THREE, seconds=4.0),
            ],
            NOW,
        )
    return batch


def test_members_are_numbered_by_source_and_known_ones_keep_their_rows(catalog, story):
    with catalog.write() as connection:
        again = [Member("photos", TWO, TWO, None, 0, 9), Member("products", ONE, ONE, None, 0, 9)]
        images.add_members(connection, again)
        images.add_members(connection, [])
        numbers = {
            source: [
                row.number
                for row in images.members_of(connection, source, [ONE, TWO, THREE]).values()
            ]
            for source in ("photos", "products")
        }
        assert images.members_of(connection, "photos", [TWO]) == {
            TWO: Member("photos", TWO, ONE, "picture", 3, 3, story, 2)
        }
    assert {name: sorted(found) for name, found in numbers.items()} == {
        "photos": [1, 2, 3], "products": [1, 2],
    }  # fmt: skip


def test_changing_and_dropping_members(catalog, story):
    with catalog.write() as connection:
        groups.change_members(connection, [Member("photos", TWO, THREE, "pixels", 1, 0, "later")])
        assert images.members_of(connection, "photos", [TWO])[TWO] == Member(
            "photos", TWO, THREE, "pixels", 1, 3, "later", 2
        ), "the upload and the number stay"
        assert images.members_of(connection, "products", [TWO])[TWO].canonical_id == TWO
        under = groups.members_under(connection, "photos", [THREE, ONE])
        assert [row.image_id for row in under] == [ONE, TWO, THREE]
        assert [row.image_id for row in groups.members_changed_by(connection, "later")] == [TWO]
        groups.drop_member(connection, "photos", THREE)
        assert groups.fallen_canonicals(connection, "photos", [ONE, THREE]) == [(TWO, THREE)]
        assert set(images.members_of(connection, "products", [TWO])) == {TWO}


def test_a_canonical_that_is_a_duplicate_has_fallen(catalog, story):
    with catalog.write() as connection:
        assert groups.fallen_canonicals(connection, "photos", [ONE, THREE]) == []
        groups.change_members(connection, [Member("photos", ONE, THREE, "picture", 1, 0, "b")])
        assert groups.fallen_canonicals(connection, "photos", [ONE, THREE]) == [(TWO, ONE)]
        assert groups.fallen_canonicals(connection, "products", [ONE]) == []


def test_what_people_said_is_kept_in_one_form_and_can_be_forgotten(catalog, story):
    with catalog.write() as connection:
        groups.separate(connection, "photos", TWO, [ONE, THREE], NOW)
        groups.separate(connection, "photos", ONE, [TWO], NOW)
        pairs = {frozenset((ONE, TWO)), frozenset((TWO, THREE))}
        assert groups.separated(connection, "photos", [TWO]) == pairs
        assert groups.separated(connection, "photos", [ONE]) == {frozenset((ONE, TWO))}
        assert groups.separated(connection, "products", [TWO]) == set()
        stored = connection.execute(
            sa.select(schema.separations.c.one_id, schema.separations.c.other_id)
        )
        assert sorted(stored.tuples()) == [(ONE, TWO), (TWO, THREE)]
        assert groups.unite(connection, "products", TWO) == []
        assert groups.unite(connection, "photos", TWO) == [ONE, THREE]
        assert groups.separated(connection, "photos", [TWO]) == set()


@pytest.mark.parametrize(
    ("beginning", "found"),
    [
        (ONE, [("photos", ONE)]),
        ("1b1b1b1b", [("photos", TWO), ("products", TWO)]),
        ("1", []),
        ("1b1b1b1", []),
        ("1b1b1b1%", []),
        ("ffffffff", []),
        ("", []),
    ],
)
def test_members_by_the_beginning_of_their_id(catalog, story, beginning, found):
    with catalog.read() as connection:
        assert groups.members_named(connection, ["photos", "products"], beginning) == found
        one = [pair for pair in found if pair[0] == "photos"]
        assert groups.members_named(connection, ["photos"], beginning) == one


def test_uploads_by_their_key_the_newest_of_each(catalog, story):
    with catalog.write() as connection:
        uploads.add(connection, [upload_row("one", "second version")])
        found = groups.uploads_named(connection, {"photos": ["one", "copy", "?"], "products": []})
    rows = {row["key"]: (row["image_id"], row["verdict"], row["reason"]) for row in found}
    assert rows == {"one": (None, None, None), "copy": (ONE, "duplicate", "bytes")}


def pair(image, canonical, score=0.9):
    return Near(image, canonical, "phash", "identity", 6, score)


def test_near_pairs_are_recorded_once_and_turned_where_the_better_picture_changed(catalog, story):
    with catalog.write() as connection:
        near.record_near(connection, "photos", [pair(THREE, ONE)], NOW)
        near.record_near(connection, "photos", [pair(THREE, ONE, 0.1)], at(1))
        assert near.near_of(connection, "photos", [THREE]) == [pair(THREE, ONE)]
        near.record_near(connection, "photos", [pair(ONE, THREE)], at(2))
        assert near.near_of(connection, "photos", [ONE]) == [pair(ONE, THREE)]
        assert near.count_near(connection, "photos") == 1
        assert near.newest_near(connection, "photos", 9) == [pair(ONE, THREE)]
        assert near.near_of(connection, "products", [ONE]) == []
        near.forget_near(connection, "photos", [TWO])
        assert near.count_near(connection, "photos") == 1
        near.forget_near(connection, "photos", [ONE])
        assert near.count_near(connection, "photos") == 0


def test_near_pairs_of_duplicates_and_of_separated_pictures_are_not_told(catalog, story):
    with catalog.write() as connection:
        near.record_near(connection, "photos", [pair(TWO, THREE), pair(THREE, ONE)], NOW)
        assert near.newest_near(connection, "photos", 9) == [pair(THREE, ONE)], (
            "TWO is no canonical"
        )
        groups.separate(connection, "photos", ONE, [THREE], NOW)
        assert near.newest_near(connection, "photos", 9) == []
        groups.unite(connection, "photos", ONE)
        assert near.count_near(connection, "photos") == 1


def test_reports_of_groups(catalog, story):
    with catalog.read() as connection:
        assert reports.canonicals_with_duplicates(connection, "photos", None, 9) == [ONE]
        assert reports.canonicals_with_duplicates(connection, "photos", "pixels", 9) == []
        (group,) = reports.groups_of(connection, "photos", [THREE, ONE])
        assert reports.count_duplicates(connection, "photos") == {
            "bytes": (1, 1000), "picture": (1, 1000),
        }  # fmt: skip
    assert (group.canonical_id, group.key) == (ONE, "one")
    found = {one.key: (one.tier, one.distance, one.evidence) for one in group.duplicates}
    assert found == {
        "copy": ("bytes", 0, "equal bytes"),
        "two": ("picture", 3, "3 of 64 bits of pHash, size and 256-bit hash agree"),
    }


def test_a_group_whose_canonical_is_being_tried_again_is_told_all_the_same(catalog, story):
    with catalog.write() as connection:
        uploads.decide(connection, [Decision(1, "failed", "storage_error")], NOW)
        (group,) = reports.groups_of(connection, "photos", [ONE])
    assert (group.key, len(group.duplicates)) == (f"image {ONE[:12]}", 2)


def test_the_mean_effort_counts_what_was_rendered_and_stored(catalog, story):
    with catalog.write() as connection:
        assert reports.mean_effort(connection, "photos") is None
        rows = [
            variant_row("v1", ONE, bytes=100),
            variant_row("v2", ONE, bytes=50),
            {**variant_row("v3", ONE, bytes=999), "dropped": True},
        ]
        for row in rows:
            images.add_variants(connection, [row])
        assert reports.mean_effort(connection, "photos") == reports.Effort(2.0, 150.0)
        images.add_variants(connection, [variant_row("v4", THREE, bytes=10)])
        assert reports.mean_effort(connection, "photos") == reports.Effort(3.0, 80.0)
        assert reports.mean_effort(connection, "products") is None


def test_a_batch_that_is_reopened_has_every_attempt_again_under_new_numbers(catalog, story):
    with catalog.write() as connection:
        for _ in range(4):
            number = batches.request(connection, story, at(0))
        assert number == 4
        assert batches.reopen(connection, [story], at(1)) == [], "open already"
        batches.give_up(connection, story, at(2))
        assert batches.reopen(connection, [story, "unknown"], at(3)) == [story]
        found = batches.get(connection, story)
        assert (found.state, found.attempt, found.due_at) == ("retry", 0, at(3))
        assert [batch.id for batch in batches.due(connection, "photos", at(3), 9)] == [story]
        assert batches.request(connection, story, at(9)) == 5
        assert batches.get(connection, story).attempt == 1
