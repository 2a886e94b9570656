"""Who is a duplicate of whom, upload by upload, batch after batch."""

import itertools
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from image_pipeline.catalog import groups, images, schema
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.groups import DamagedRowError
from image_pipeline.catalog.images import Member
from image_pipeline.settings import DuplicatePolicy, Source
from image_pipeline.stages import regrouping
from image_pipeline.stages.deduplicating import deduplicate_batch
from image_pipeline.stages.regrouping import GroupTooLargeError, canonicals_of_batch, verdicts
from image_pipeline_tests.unit.catalog.helpers import Statements
from image_pipeline_tests.unit.catalog.test_engine import (
    PATIENCE_SECONDS,
    PROCESSES,
    in_processes,
)

from .helpers import NOW, add_batch, add_images, image_row, make_tools

ALL = DuplicatePolicy()

#: Unrelated hashes: half of the 64 bits apart.
ONE, OTHER = 0x0123456789ABCDEF, 0x6E5C1A38F0D2947B


@pytest.fixture
def catalog(either_catalog):
    """An empty catalog, once on SQLite and once on Postgres."""
    return either_catalog


def upload(number, image, verdict="accepted", reason=None):
    return {"id": number, "image_id": image, "verdict": verdict, "reason": reason}


def member(image, canonical, tier, first):
    return Member("photos", image, canonical, tier, 0, first)


def short(decisions):
    return {one.upload: (one.verdict, one.reason) for one in decisions}


def test_of_the_same_bytes_the_first_upload_is_accepted():
    found = verdicts([upload(1, "a"), upload(2, "a")], {"a": member("a", "a", None, 1)}, ALL)
    assert short(found) == {2: ("duplicate", "bytes")}


def test_every_upload_of_an_alias_is_a_duplicate_also_the_first():
    found = verdicts([upload(1, "b"), upload(2, "b")], {"b": member("b", "a", "picture", 1)}, ALL)
    assert short(found) == {1: ("duplicate", "picture"), 2: ("duplicate", "picture")}


def test_bytes_that_an_earlier_batch_brought_are_a_duplicate():
    found = verdicts([upload(5, "a")], {"a": member("a", "a", None, 1)}, ALL)
    assert short(found) == {5: ("duplicate", "bytes")}


def test_a_source_that_shares_nothing_has_no_duplicates():
    known = {"a": member("a", "a", None, 1)}
    twice = [upload(1, "a", "duplicate", "bytes"), upload(2, "a", "duplicate", "bytes")]
    found = verdicts(twice, known, DuplicatePolicy(share=()))
    assert short(found) == {1: ("accepted", None), 2: ("accepted", None)}


def test_a_verdict_that_is_right_is_not_written_again():
    known = {"a": member("a", "a", None, 1), "b": member("b", "a", "pixels", 2)}
    right = [
        upload(1, "a"), upload(2, "b", "duplicate", "pixels"), upload(3, "a", "duplicate", "bytes"),
    ]  # fmt: skip
    assert verdicts(right, known, ALL) == []


def rows_of(rows):
    return {
        row["key"].rsplit("/", 1)[-1]: (row["verdict"], row["reason"], row["canonical_id"])
        for row in rows
    }


def report(catalog, *batches):
    with catalog.read() as connection:
        return rows_of(
            row for batch in batches for row in catalog_uploads.report(connection, batch)
        )


@pytest.fixture
def three_images(catalog):
    """Large and small show one picture, two bits of pHash apart; other shows another."""
    add_images(
        catalog,
        image_row("large", width=900, height=600),
        image_row("small", phash=ONE ^ 0b101, width=450, height=300),
        image_row("other", phash=OTHER),
    )


def test_the_large_picture_stands_for_the_small_one_whichever_came_first(
    catalog, tmp_path, three_images
):
    batch = add_batch(
        catalog,
        ("s.jpg", "accepted", None, "small"),
        ("l.jpg", "accepted", None, "large"),
        ("l2.jpg", "accepted", None, "large"),
        ("o.jpg", "accepted", None, "other"),
        ("bad.jpg", "rejected", "truncated", None),
        ("later.jpg", "failed", "storage_error", None),
    )
    rows = deduplicate_batch(make_tools(catalog, tmp_path), batch)
    assert rows_of(rows) == {
        "s.jpg": ("duplicate", "picture", "large"),
        "l.jpg": ("accepted", None, "large"),
        "l2.jpg": ("duplicate", "bytes", "large"),
        "o.jpg": ("accepted", None, "other"),
        "bad.jpg": ("rejected", "truncated", None),
        "later.jpg": ("failed", "storage_error", None),
    }
    assert [row["distance"] for row in rows] == [2, 0, 0, 0, None, None]
    assert deduplicate_batch(make_tools(catalog, tmp_path), batch) == rows, "a second look"


def test_a_better_picture_takes_over_what_an_earlier_batch_published(
    catalog, tmp_path, three_images
):
    tools = make_tools(catalog, tmp_path)
    early = add_batch(catalog, ("s.jpg", "accepted", None, "small"))
    deduplicate_batch(tools, early)
    assert report(catalog, early) == {"s.jpg": ("accepted", None, "small")}
    late = add_batch(catalog, ("l.jpg", "accepted", None, "large"))
    assert rows_of(deduplicate_batch(tools, late)) == {"l.jpg": ("accepted", None, "large")}
    assert report(catalog, early) == {"s.jpg": ("duplicate", "picture", "large")}
    with catalog.read() as connection:
        changed = groups.members_changed_by(connection, late)
        assert [row.image_id for row in changed] == ["small", "large"], "late publishes both"
        assert groups.members_changed_by(connection, early) == []
        assert canonicals_of_batch(connection, "photos", late) == {"large"}


def test_who_loses_an_alias_is_published_anew_as_well(catalog, tmp_path):
    """Middle lies within reach of both ends, and is nearer to the one that comes later."""
    add_images(
        catalog,
        image_row("left", phash=ONE, width=900, height=600),
        image_row("middle", phash=ONE ^ 0b11111, width=450, height=300),
        image_row("right", phash=ONE ^ 0b11111111, width=600, height=400),
    )
    tools = make_tools(catalog, tmp_path)
    early = add_batch(
        catalog, ("l.jpg", "accepted", None, "left"), ("m.jpg", "accepted", None, "middle")
    )
    deduplicate_batch(tools, early)
    assert report(catalog, early)["m.jpg"] == ("duplicate", "picture", "left")
    late = add_batch(catalog, ("r.jpg", "accepted", None, "right"))
    deduplicate_batch(tools, late)
    assert report(catalog, early, late) == {
        "l.jpg": ("accepted", None, "left"),
        "m.jpg": ("duplicate", "picture", "right"),
        "r.jpg": ("accepted", None, "right"),
    }
    with catalog.read() as connection:
        assert canonicals_of_batch(connection, "photos", late) == {"left", "right"}


def test_equal_pixels_are_their_own_tier_also_without_any_texture(catalog, tmp_path):
    flat = {"texture": 0.0, "pixels": "5" * 64}
    add_images(
        catalog,
        image_row("one", phash=0, **flat, quality=90),
        image_row("two", phash=0, **flat, quality=80),
        # As flat and with the same hash, but of another colour.
        image_row("three", phash=0, texture=0.0, pixels="6" * 64),
    )
    tools = make_tools(catalog, tmp_path)
    made = [add_batch(catalog, (f"{n}.jpg", "accepted", None, n)) for n in ("two", "three", "one")]
    for batch in made:
        deduplicate_batch(tools, batch)
    assert report(catalog, *made) == {
        "one.jpg": ("accepted", None, "one"),
        "two.jpg": ("duplicate", "pixels", "one"),
        "three.jpg": ("accepted", None, "three"),
    }


def test_an_older_upload_of_known_bytes_can_change_who_stands(catalog, tmp_path):
    """Of two pictures that are equally good the older stands, whenever that becomes known."""
    add_images(catalog, image_row("a"), image_row("b", phash=ONE ^ 1))
    tools = make_tools(catalog, tmp_path)
    early = add_batch(catalog, ("a.jpg", "accepted", None, "a"), ("b.jpg", "accepted", None, "b"))
    deduplicate_batch(tools, early)
    assert report(catalog, early)["b.jpg"] == ("duplicate", "picture", "a"), "by its id"
    late = add_batch(catalog, ("old.jpg", "accepted", None, "b"), modified=NOW - timedelta(days=9))
    deduplicate_batch(tools, late)
    assert report(catalog, early, late) == {
        "a.jpg": ("duplicate", "picture", "b"),
        "b.jpg": ("accepted", None, "b"),
        "old.jpg": ("duplicate", "bytes", "b"),
    }


def test_sources_do_not_share(catalog, tmp_path, three_images):
    sources = {name: Source(prefix=f"uploads/{name}/") for name in ("photos", "products")}
    tools = make_tools(catalog, tmp_path, sources=sources)
    for source in sources:
        batch = add_batch(catalog, ("a.jpg", "accepted", None, "large"), source=source)
        assert rows_of(deduplicate_batch(tools, batch)) == {"a.jpg": ("accepted", None, "large")}


@pytest.mark.parametrize(
    ("share", "small", "copy"),
    [
        (("bytes",), ("accepted", None, "small"), ("duplicate", "bytes", "large")),
        (("picture",), ("duplicate", "picture", "large"), ("accepted", None, "large")),
        (("pixels",), ("accepted", None, "small"), ("accepted", None, "large")),
        ((), ("accepted", None, "small"), ("accepted", None, "large")),
    ],
)
def test_a_source_says_which_tiers_share(catalog, tmp_path, three_images, share, small, copy):
    source = Source(prefix="uploads/photos/", duplicates=DuplicatePolicy(share=share))
    batch = add_batch(
        catalog,
        ("l.jpg", "accepted", None, "large"),
        ("copy.jpg", "accepted", None, "large"),
        ("s.jpg", "accepted", None, "small"),
    )
    tools = make_tools(catalog, tmp_path, sources={"photos": source})
    found = rows_of(deduplicate_batch(tools, batch))
    assert (found["s.jpg"], found["copy.jpg"]) == (small, copy)


def test_people_know_better_and_are_not_asked_again(catalog, tmp_path, three_images):
    tools = make_tools(catalog, tmp_path)
    with catalog.write() as connection:
        groups.separate(connection, "photos", "small", ["large"], NOW)
    made = [
        add_batch(catalog, ("s.jpg", "accepted", None, "small")),
        add_batch(catalog, ("l.jpg", "accepted", None, "large")),
    ]
    for batch in [*made, *made]:
        deduplicate_batch(tools, batch)
    assert report(catalog, *made) == {
        "s.jpg": ("accepted", None, "small"), "l.jpg": ("accepted", None, "large"),
    }  # fmt: skip


def test_a_policy_that_changed_leaves_nobody_under_a_fallen_canonical(catalog, tmp_path):
    """Stood for by pixels and by the picture; then pictures are no longer shared."""
    add_images(
        catalog,
        image_row("best", width=900, height=600, quality=90, pixels="1" * 64),
        image_row("same", width=900, height=600, quality=80, pixels="1" * 64),
        image_row("small", phash=ONE ^ 1, width=450, height=300),
    )
    made = [
        add_batch(catalog, (f"{n}.jpg", "accepted", None, n)) for n in ("same", "small", "best")
    ]
    for batch in made[:2]:
        deduplicate_batch(make_tools(catalog, tmp_path), batch)
    assert report(catalog, made[1]) == {"small.jpg": ("duplicate", "picture", "same")}
    strict = Source(prefix="uploads/photos/", duplicates=DuplicatePolicy(share=("pixels",)))
    deduplicate_batch(make_tools(catalog, tmp_path, sources={"photos": strict}), made[2])
    assert report(catalog, *made) == {
        "best.jpg": ("accepted", None, "best"),
        "same.jpg": ("duplicate", "pixels", "best"),
        "small.jpg": ("accepted", None, "small"),
    }


def bits(*places):
    return sum(1 << place for place in places)


@st.composite
def collections(draw):
    """Pictures on a few hashes, some bits apart, of few sizes: chains and ties are common."""
    count = draw(st.integers(2, 7))
    return [
        {
            "phash": draw(st.sampled_from([ONE, OTHER]))
            ^ bits(*draw(st.sets(st.integers(0, 7), max_size=5))),
            "scale": draw(st.sampled_from([300, 600])),
            "pixels": draw(st.sampled_from([None, "1" * 64, "2" * 64])),
            "quality": draw(st.sampled_from([None, 60, 90])),
            "texture": draw(st.sampled_from([0.0, 50.0, 50.0])),
            "age": draw(st.integers(0, 2)),
        }
        for _ in range(count)
    ]


_SOURCES = itertools.count()


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory):
    """One catalog for many examples, which have sources of their own."""
    made = Catalog(f"sqlite:///{tmp_path_factory.mktemp('orders') / 'catalog.db'}")
    yield made
    made.close()


def groups_after(catalog, folder, pictures, order, cuts):
    """Canonical and tier of each picture when they came in this order, in batches cut there."""
    source = f"s{next(_SOURCES)}"
    tools = make_tools(catalog, folder, sources={source: Source(prefix=f"uploads/{source}/")})
    add_images(
        catalog,
        *(
            image_row(
                f"{source}-{n}",
                one["phash"],
                width=3 * one["scale"],
                height=2 * one["scale"],
                pixels=one["pixels"],
                quality=one["quality"],
                texture=one["texture"],
            )
            for n, one in enumerate(pictures)
        ),
    )
    edges = [0, *sorted(cuts), len(order)]
    for start, end in itertools.pairwise(edges):
        rows = [(f"{n}.jpg", "accepted", None, f"{source}-{n}") for n in order[start:end]]
        ages = [NOW - timedelta(days=pictures[n]["age"]) for n in order[start:end]]
        if rows:
            deduplicate_batch(tools, add_batch(catalog, *rows, source=source, modified=ages))
    with catalog.read() as connection:
        ids = [f"{source}-{n}" for n in range(len(pictures))]
        found = images.members_of(connection, source, ids)
        assert groups.fallen_canonicals(connection, source, ids) == []
    return {
        row.image_id.split("-")[1]: (row.canonical_id.split("-")[1], row.tier, row.distance)
        for row in found.values()
    }


@settings(max_examples=40)
@given(pictures=collections(), data=st.data())
def test_groups_do_not_depend_on_the_order_of_arrival(sqlite, tmp_path_factory, pictures, data):
    folder = tmp_path_factory.getbasetemp()
    numbers = list(range(len(pictures)))
    at_once = groups_after(sqlite, folder, pictures, numbers, [])
    for _ in range(2):
        order = data.draw(st.permutations(numbers))
        cuts = data.draw(st.sets(st.integers(0, len(numbers)), max_size=4))
        assert groups_after(sqlite, folder, pictures, order, cuts) == at_once


def test_a_lookup_takes_as_many_statements_for_200_pictures_as_for_one(catalog, tmp_path):
    """And what does not resemble anything does not travel."""
    add_images(catalog, *(image_row(f"i{n}", phash=OTHER ^ (n << 20)) for n in range(200)))
    add_images(catalog, image_row("near", phash=ONE))
    sent = []
    for keys in (["near"], [f"i{n}" for n in range(200)]):
        with catalog.read() as connection:
            pictures = groups.get_pictures(connection, "photos", keys)
            with Statements(catalog.engine) as statements:
                assert groups.related(connection, "photos", pictures, ("pixels", "picture")) == []
            sent.append(statements.count)
    assert sent == [1, 1]


def test_related_is_what_a_comparison_with_everything_gives(catalog, tmp_path):
    """Every distance from 0 to 8 bits, spread over all bands."""
    made = {
        f"{count}-{shift}": ONE ^ bits(*((shift + 9 * n) % 64 for n in range(count)))
        for count in range(9)
        for shift in range(0, 64, 5)
    }
    add_images(catalog, *(image_row(name, phash=value) for name, value in made.items()))
    batch = add_batch(catalog, *((f"{name}.jpg", "accepted", None, name) for name in made))
    with catalog.write() as connection:
        rows = [Member("photos", name, name, None, 0, n, batch) for n, name in enumerate(made)]
        images.add_members(connection, rows)
    add_images(catalog, image_row("query"))
    with catalog.read() as connection:
        (query,) = groups.get_pictures(connection, "photos", ["query"])
        found = groups.related(connection, "photos", [query], ["picture"])
    expected = {name for name, value in made.items() if (value ^ ONE).bit_count() <= 6}
    assert {one.id for one in found} == expected
    assert len(expected) == 7 * 13


def bring(number, start, url, batches):
    catalog = Catalog(url)
    catalog.migrate()
    tools = make_tools(catalog, Path())
    start.wait(PATIENCE_SECONDS)
    for batch in batches[number::PROCESSES]:
        deduplicate_batch(tools, batch)
    catalog.close()


def test_processes_that_bring_one_picture_at_once_agree_on_one_canonical(catalog, tmp_path):
    """Six sizes of one picture, each uploaded by four processes at once, in many batches."""
    sizes = range(1, 7)
    add_images(
        catalog, *(image_row(f"x{n}", phash=ONE ^ n, width=90 * n, height=60 * n) for n in sizes)
    )
    made = [
        add_batch(catalog, (f"{turn}-{n}.jpg", "accepted", None, f"x{n}"))
        for turn in range(4)
        for n in sizes
    ]
    in_processes(bring, catalog.url, made)
    found = report(catalog, *made)
    assert len(found) == 4 * 6, "no upload is lost"
    assert {canonical for _, _, canonical in found.values()} == {"x6"}
    assert [verdict for verdict, _, _ in found.values()].count("accepted") == 1
    with catalog.read() as connection:
        numbers = connection.execute(sa.select(schema.members.c.number)).scalars()
        assert sorted(numbers) == list(sizes)
        # Whoever brought the better picture publishes what it stands for since.
        rows = groups.members_under(connection, "photos", ["x6"])
        assert {row.batch_id for row in rows} <= set(made)


#: A slope of luma, and the same with a white box of 10 x 2 of its 32 x 32 cells.
SLOPE = bytes(3 * row + column for row in range(32) for column in range(32))
MARKED = bytes(
    255 if place // 32 in (28, 29) and place % 32 < 10 else level
    for place, level in enumerate(SLOPE)
)


def sketches_of(**luma):
    return [
        {"image_id": image, "luma": sketch, "content_luma": None} for image, sketch in luma.items()
    ]


@pytest.mark.parametrize("batches", [["small", "large"], ["large", "small"], ["small large"]])
def test_a_picture_with_a_logo_does_not_stand_for_the_one_without(
    catalog, tmp_path, three_images, batches
):
    """Their hashes agree; their sketches do not."""
    with catalog.write() as connection:
        images.add_sketches(connection, sketches_of(small=SLOPE, large=MARKED, other=SLOPE))
    add_images(catalog, image_row("tiny", phash=ONE ^ 0b101, width=225, height=150))
    with catalog.write() as connection:
        images.add_sketches(connection, sketches_of(tiny=SLOPE))
    tools = make_tools(catalog, tmp_path)
    for names in (*batches, "tiny"):
        rows = ((f"{name}.jpg", "accepted", None, name) for name in names.split())
        batch = add_batch(catalog, *rows)
        deduplicate_batch(tools, batch)
    with catalog.read() as connection:
        found = groups.members_under(connection, "photos", ["large", "small"])
    assert {row.image_id: row.canonical_id for row in found} == {
        "large": "large", "small": "small", "tiny": "small",
    }  # fmt: skip


def test_a_damaged_sketch_is_named_and_nothing_is_merged(catalog, tmp_path, three_images):
    with catalog.write() as connection:
        images.add_sketches(connection, sketches_of(small=SLOPE[:-1], large=SLOPE))
    batch = add_batch(
        catalog, ("s.jpg", "accepted", None, "small"), ("l.jpg", "accepted", None, "large")
    )
    with pytest.raises(DamagedRowError, match=r"row of image small is damaged.*1023 bytes"):
        deduplicate_batch(make_tools(catalog, tmp_path), batch)
    assert {row[0] for row in report(catalog, batch).values()} == {"accepted"}


DAMAGES = {
    "phash256": "nonsense",
    "pixels": "12",
    "chroma": "grey",
    "b2": 77,
    "width": 0,
    "texture": float("inf"),
}


@pytest.mark.parametrize("column", DAMAGES)
def test_a_damaged_row_is_named_and_nothing_is_merged(catalog, tmp_path, three_images, column):
    tools = make_tools(catalog, tmp_path)
    early = add_batch(catalog, ("s.jpg", "accepted", None, "small"))
    deduplicate_batch(tools, early)
    damage(catalog, "small", column, DAMAGES[column])
    late = add_batch(catalog, ("l.jpg", "accepted", None, "large"))
    with pytest.raises(DamagedRowError, match=r"row of image small is damaged.*restore"):
        deduplicate_batch(tools, late)
    assert report(catalog, early, late) == {
        "s.jpg": ("accepted", None, "small"),
        "l.jpg": ("accepted", None, None),
    }


def damage(catalog, image, column, value):
    table = schema.images
    with catalog.write() as connection:
        connection.execute(sa.update(table).where(table.c.id == image).values({column: value}))


def test_a_hash_that_is_no_number_is_named(tmp_path, sqlite):
    """SQLite takes anything into a column of integers."""
    tools = make_tools(sqlite, tmp_path, sources={"p": Source(prefix="uploads/p/")})
    add_images(sqlite, image_row("sound"), image_row("broken"))
    deduplicate_batch(tools, add_batch(sqlite, ("b.jpg", "accepted", None, "broken"), source="p"))
    with sqlite.write() as connection:
        connection.execute(sa.text("UPDATE images SET phash64 = 'rubbish' WHERE id = 'broken'"))
    late = add_batch(sqlite, ("s.jpg", "accepted", None, "sound"), source="p")
    with pytest.raises(DamagedRowError, match=r"image broken is damaged: phash64 is 'rubbish'"):
        deduplicate_batch(tools, late)


def test_more_connected_images_than_make_sense_are_an_error_that_says_what_to_do(
    catalog, tmp_path, three_images, monkeypatch
):
    monkeypatch.setattr(regrouping, "MAX_COMPONENT", 1)
    batch = add_batch(
        catalog, ("s.jpg", "accepted", None, "small"), ("l.jpg", "accepted", None, "large")
    )
    with pytest.raises(GroupTooLargeError, match=r"'photos'.*large.*take 'picture' out"):
        deduplicate_batch(make_tools(catalog, tmp_path), batch)


def test_an_empty_catalog_and_a_batch_of_rejects(catalog, tmp_path):
    tools = make_tools(catalog, tmp_path)
    batch = add_batch(catalog, ("bad.jpg", "rejected", "truncated", None))
    assert rows_of(deduplicate_batch(tools, batch)) == {"bad.jpg": ("rejected", "truncated", None)}


def test_a_source_that_was_removed_says_what_to_do(catalog, tmp_path, three_images):
    batch = add_batch(catalog, ("a.jpg", "accepted", None, "large"), source="former")
    with pytest.raises(LookupError, match=r"'former'.*put it back"):
        deduplicate_batch(make_tools(catalog, tmp_path), batch)
