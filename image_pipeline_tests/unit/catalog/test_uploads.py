"""Uploads, images and variants in the catalog, and what people read of them."""

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import images, schema, uploads
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.uploads import Decision

from .helpers import (
    NOW,
    Statements,
    at,
    discover,
    image_row,
    make_batch,
    upload_row,
    variant_row,
)


def test_discovering_again_changes_nothing(catalog):
    with catalog.write() as connection:
        uploads.add(connection, [upload_row("a"), upload_row("b")])
        uploads.decide(connection, [Decision(1, "accepted")], NOW)
        uploads.add(connection, [upload_row("a", size=5), upload_row("a", "other version")])
        rows = connection.execute(
            sa.select(schema.uploads.c.key, schema.uploads.c.etag, schema.uploads.c.size,
                      schema.uploads.c.verdict).order_by(schema.uploads.c.id)
        ).all()  # fmt: skip
    assert rows == [
        ("a", "e", 1000, "accepted"), ("b", "e", 1000, None), ("a", "other version", 1000, None),
    ]  # fmt: skip


def test_the_same_key_in_two_sources_is_two_uploads(catalog):
    discover(catalog, "a", source="photos")
    discover(catalog, "a", source="products")
    with catalog.read() as connection:
        assert uploads.known(connection, "photos", ["a", "b"]) == {("a", "e")}
        assert [row["source"] for row in uploads.counts(connection)] == ["photos", "products"]


def test_verdicts_are_written_in_bulk(catalog):
    discover(catalog, "a", "b", "c")
    with catalog.write() as connection:
        uploads.decide(
            connection,
            [
                Decision(1, "accepted", image_id="i1", seconds=1.5),
                Decision(2, "rejected", "truncated", "ends at 60 %"),
            ],
            NOW,
        )
        uploads.decide(connection, [Decision(1, "duplicate", "picture", seconds=0.25)], at(1))
        uploads.decide(connection, [], NOW)
        uploads.add_seconds(connection, {1: 1.0, 2: 0.5})
        uploads.add_seconds(connection, {})
        found = connection.execute(sa.select(schema.uploads).order_by(schema.uploads.c.id)).all()
    one, two, three = found
    assert (one.verdict, one.reason, one.message) == ("duplicate", "picture", None)
    assert one.image_id == "i1", "a later verdict does not forget the image"
    assert (one.seconds, one.decided_at) == (2.75, at(1))
    assert (two.verdict, two.reason, two.message) == ("rejected", "truncated", "ends at 60 %")
    assert (two.seconds, two.decided_at) == (0.5, NOW)
    assert (three.verdict, three.seconds, three.decided_at) == (None, 0.0, None)


def test_a_slower_run_does_not_take_back_what_is_final(catalog):
    discover(catalog, "a", "b", "c")
    with catalog.write() as connection:
        decided = [Decision(1, "accepted"), Decision(2, "failed", "storage_error")]
        uploads.decide(connection, decided, NOW)
        late = [Decision(n, "rejected", "timeout") for n in (1, 2, 3)]
        uploads.decide(connection, late, at(9), only_open=True)
        verdicts = connection.execute(
            sa.select(schema.uploads.c.verdict).order_by(schema.uploads.c.id)
        ).scalars()
        assert list(verdicts) == ["accepted", "rejected", "rejected"]
        uploads.decide(connection, late[:1], at(9))
        first = connection.execute(sa.select(schema.uploads.c.verdict).limit(1)).scalar_one()
        assert first == "rejected"


@pytest.mark.parametrize("count", [1, 200])
def test_a_batch_of_200_takes_as_many_statements_as_one_upload(catalog, count):
    rows = [upload_row(f"k{n}") for n in range(count)]
    decisions = [Decision(n, "accepted", image_id=f"i{n}") for n in range(1, count + 1)]
    members = [Member("photos", f"i{n}", f"i{n}", None, 0, n) for n in range(count)]
    made = [image_row(f"i{n}") for n in range(count)]
    variants = [variant_row(f"v{n}", f"i{n}") for n in range(count)]
    everyone = [f"i{n}" for n in range(count)]
    calls = {
        "add": lambda connection: uploads.add(connection, rows),
        "known": lambda connection: uploads.known(connection, "photos", [r["key"] for r in rows]),
        "decide": lambda connection: uploads.decide(connection, decisions, NOW),
        "add_seconds": lambda connection: uploads.add_seconds(
            connection, dict.fromkeys(range(1, count + 1), 1.0)
        ),
        "add_images": lambda connection: images.add_images(connection, made),
        "get_images": lambda connection: images.get_images(connection, everyone),
        "add_members": lambda connection: images.add_members(connection, members),
        "members_of": lambda connection: images.members_of(connection, "photos", everyone),
        "add_variants": lambda connection: images.add_variants(connection, variants),
        "variants_of": lambda connection: images.variants_of(connection, everyone, "r1"),
        "originals": lambda connection: uploads.originals(connection, everyone),
        "keys_of_canonicals": lambda connection: uploads.keys_of_canonicals(
            connection, "photos", everyone
        ),
    }
    sent = {}
    with catalog.write() as connection:
        for name, call in calls.items():
            with Statements(catalog.engine) as statements:
                call(connection)
            sent[name] = statements.count
        assert len(uploads.known(connection, "photos", [r["key"] for r in rows])) == count
    # The number of the last member is read before others are added; the members of a group
    # before their uploads.
    assert sent == {**dict.fromkeys(calls, 1), "add_members": 2, "keys_of_canonicals": 2}


def test_more_rows_than_a_statement_has_parameters(catalog):
    keys = [f"k{n}" for n in range(6000)]
    with catalog.write() as connection:
        uploads.add(connection, [upload_row(key) for key in keys])
        assert uploads.known(connection, "photos", keys) == {(key, "e") for key in keys}
        assert uploads.counts(connection) == [
            {"source": "photos", "state": "waiting", "uploads": 6000, "bytes": 6_000_000}
        ]


@pytest.fixture
def story(catalog):
    """Image i1 stands for i2; i3 belongs to itself; one upload rejected, one undecided."""
    batch = make_batch(catalog, "first", "copy", "smaller", "other", "broken", "pending")
    with catalog.write() as connection:
        images.add_images(connection, [image_row("i1"), image_row("i2", width=450, height=300)])
        images.add_images(connection, [image_row("i3"), image_row("i1", width=1)])
        images.add_members(
            connection,
            [
                Member("photos", "i1", "i1", None, 0, 1),
                Member("photos", "i2", "i1", "picture", 3, 3),
                Member("photos", "i3", "i3", None, 0, 4),
                Member("products", "i2", "i2", None, 0, 99),
            ],
        )
        uploads.decide(
            connection,
            [
                Decision(1, "accepted", image_id="i1"),
                Decision(2, "duplicate", "bytes", image_id="i1"),
                Decision(3, "duplicate", "picture", image_id="i2"),
                Decision(4, "accepted", image_id="i3"),
                Decision(5, "rejected", "truncated", "cut off", image_id="i3"),
            ],
            NOW,
        )
        images.add_variants(
            connection,
            [
                variant_row("v1", "i1"),
                variant_row("v2", "i1", bytes=30),
                variant_row("v3", "i1", format="avif", bytes=7),
                variant_row("v4", "i1", recipe="r2", format="jpeg", bytes=11),
                variant_row("v5", "i3", bytes=1),
            ],
        )
        dropped = {**variant_row("v6", "i1", format="avif", bytes=0), "dropped": True}
        images.add_variants(connection, [dropped])
    return batch


def test_the_report_of_a_batch(catalog, story):
    with catalog.read() as connection:
        rows = uploads.report(connection, story)
        assert uploads.report(connection, "unknown") == []
    shown = [(row["key"], row["verdict"], row["reason"], row["canonical_id"]) for row in rows]
    assert shown == [
        ("first", "accepted", None, "i1"),
        ("copy", "duplicate", "bytes", "i1"),
        ("smaller", "duplicate", "picture", "i1"),
        ("other", "accepted", None, "i3"),
        ("broken", "rejected", "truncated", "i3"),
        ("pending", None, None, None),
    ]
    smaller, pending = rows[2], rows[5]
    assert (smaller["width"], smaller["tier"], smaller["distance"]) == (450, "picture", 3)
    assert (smaller["bytes"], smaller["flags"]) == (1000, ["animated"])
    assert (pending["width"], pending["flags"], pending["tier"]) == (None, None, None)


def test_a_known_image_stays_as_it_is(catalog, story):
    with catalog.read() as connection:
        found = images.get_images(connection, ["i1", "i2", "unknown"])
    assert {name: row["width"] for name, row in found.items()} == {"i1": 900, "i2": 450}
    assert found["i1"]["phash64"] == -1
    assert found["i1"]["created_at"] == NOW


def test_the_keys_a_canonical_stands_for(catalog, story):
    with catalog.read() as connection:
        found = uploads.keys_of_canonicals(connection, "photos", ["i1", "i2", "i3"])
    assert {name: sorted(pairs) for name, pairs in found.items()} == {
        "i1": [("i1", "copy"), ("i1", "first"), ("i2", "smaller")],
        "i3": [("i3", "other")],
    }, "an alias stands for nobody, and what was rejected is not published"


def test_bytes_by_format_and_variants_of_one_recipe(catalog, story):
    with catalog.read() as connection:
        bytes_of = uploads.bytes_by_format(connection, ["i1", "i3", "i2", None, "i1"])
        variants = images.variants_of(connection, ["i1", "i2"], "r1")
        totals = images.totals(connection)
    assert bytes_of == {"i1": {"webp": 130, "avif": 7, "jpeg": 11}, "i3": {"webp": 1}}
    assert {name: [row["key"] for row in rows] for name, rows in variants.items()} == {
        "i1": ["v1", "v2", "v3", "v6"]
    }
    assert totals == {"images": 3, "variants": 5, "variant_bytes": 149, "upload_bytes": 6000}


def test_originals_are_the_uploads_of_the_bytes_the_oldest_first(catalog, story):
    with catalog.read() as connection:
        found = uploads.originals(connection, ["i1", "i2", "unknown"])
    assert {name: [one.key for one in rows] for name, rows in found.items()} == {
        "i1": ["first", "copy"], "i2": ["smaller"],
    }  # fmt: skip


def test_the_newest_upload_of_a_key_counts(catalog, story):
    with catalog.write() as connection:
        uploads.add(connection, [upload_row("first", "second version")])
        rows = uploads.newest(connection, "photos", ["first", "copy", "nothing", "copy"])
        assert uploads.newest(connection, "products", ["first"]) == []
    assert sorted(
        (row["id"], row["batch_id"], row["verdict"], row["image_id"]) for row in rows
    ) == [
        (2, story, "duplicate", "i1"),
        (7, None, None, None),
    ]


def test_counts_by_state(catalog, story):
    discover(catalog, "new")
    with catalog.read() as connection:
        found = {row["state"]: (row["uploads"], row["bytes"]) for row in uploads.counts(connection)}
    assert found == {
        "accepted": (2, 2000), "duplicate": (2, 2000), "rejected": (1, 1000),
        "processing": (1, 1000), "waiting": (1, 1000),
    }  # fmt: skip
