"""Pictures that resemble each other are found and recorded, whatever the index is made of."""

from itertools import combinations

import pytest
import sqlalchemy as sa
from PIL import Image, ImageOps

from image_pipeline.catalog import groups, images, schema
from image_pipeline.catalog import near as catalog_near
from image_pipeline.catalog.groups import DamagedRowError
from image_pipeline.catalog.images import Member
from image_pipeline.dedupe.grouping import MIN_TEXTURE
from image_pipeline.samples import photograph
from image_pipeline.settings import DuplicatePolicy, Source
from image_pipeline.stages import nearby
from image_pipeline.stages.deduplicating import deduplicate_batch
from image_pipeline.stages.nearby import find_near

from .helpers import NOW, add_batch, inspect, make_tools

TRANSPOSES = {
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "turned 90": Image.Transpose.ROTATE_270,
}


@pytest.fixture
def catalog(either_catalog):
    """An empty catalog, once on SQLite and once on Postgres."""
    return either_catalog


@pytest.fixture(scope="module")
def pictures():
    """A photograph, smaller copies of it mirrored, turned and framed, and another one."""
    original = photograph(480, 320, 1)
    small = original.resize((360, 240), Image.Resampling.LANCZOS)
    framed = ImageOps.expand(small, 24, "white")
    return {
        "original": original,
        "mirrored": small.transpose(TRANSPOSES["mirrored"]),
        "turned": small.transpose(TRANSPOSES["turned 90"]),
        "framed": framed,
        "another": photograph(480, 320, 4),
    }


def bring(tools, *names):
    """A batch of these images, deduplicated and searched; its id."""
    batch = add_batch(tools.catalog, *((f"{n}.jpg", "accepted", None, n) for n in names))
    deduplicate_batch(tools, batch)
    find_near(tools, batch, "photos")
    return batch


def found(catalog, *names):
    with catalog.read() as connection:
        pairs = catalog_near.near_of(connection, "photos", names or ["original"])
    return {(pair.image_id, pair.canonical_id): pair for pair in pairs}


def test_mirrored_turned_and_framed_pictures_are_near_and_nothing_else(catalog, tmp_path, pictures):
    inspect(catalog, **pictures)
    batch = bring(make_tools(catalog, tmp_path), *pictures)
    pairs = found(catalog)
    assert set(pairs) == {(name, "original") for name in ("mirrored", "turned", "framed")}
    # The transform that brings the poorer picture over the better one.
    assert pairs["mirrored", "original"].transform == "mirrored"
    assert pairs["turned", "original"].transform == "turned 270"
    assert pairs["framed", "original"].transform == "identity"
    assert found(catalog, "another") == {}
    with catalog.read() as connection:
        rows = groups.members_changed_by(connection, batch)
    assert all(row.image_id == row.canonical_id for row in rows), "nothing is acted on"


@pytest.mark.parametrize("first", ["original", "turned"])
def test_the_order_of_arrival_and_repetition_change_nothing(catalog, tmp_path, pictures, first):
    inspect(catalog, **pictures)
    tools = make_tools(catalog, tmp_path)
    names = sorted(["original", "turned"], key=lambda name: name != first)
    made = [bring(tools, name) for name in names]
    for batch in made:
        find_near(tools, batch, "photos")
    (pair,) = found(catalog)
    assert pair == ("turned", "original")
    assert found(catalog)[pair].transform == "turned 270"
    with catalog.read() as connection:
        assert catalog_near.count_near(connection, "photos") == 1


def test_a_snapshot_and_what_came_since_find_what_the_whole_catalog_finds(
    catalog, tmp_path, pictures, monkeypatch
):
    """Small limits, so that a handful of images goes the way of millions."""
    monkeypatch.setattr(nearby, "SMALL", 1)
    monkeypatch.setattr(nearby, "TAIL_SHARE", 1.0)
    inspect(catalog, **pictures)
    tools = make_tools(catalog, tmp_path)
    bring(tools, "another")
    assert files(tmp_path) == []
    bring(tools, "original")
    saved = files(tmp_path)
    assert len(saved) == 2
    bring(tools, "mirrored")
    bring(tools, "turned")
    assert files(tmp_path) == saved, "in the tail, not in the snapshot"
    assert set(found(catalog)) == {("mirrored", "original"), ("turned", "original")}
    both = {frozenset(pair) for pair in found(catalog, "turned")}
    assert frozenset(("mirrored", "turned")) in both, "the tail is searched as well"
    bring(tools, "framed")
    assert files(tmp_path) != saved, "the tail had grown too long"
    assert set(found(catalog)) == {(n, "original") for n in ("mirrored", "turned", "framed")}


def files(folder):
    return sorted((path.name, path.stat().st_ino) for path in (folder / "hashes").glob("*"))


@pytest.mark.parametrize("spoil", ["cut", "no room"])
def test_a_snapshot_that_cannot_be_used_is_made_anew(
    catalog, tmp_path, pictures, monkeypatch, spoil
):
    monkeypatch.setattr(nearby, "SMALL", 1)
    inspect(catalog, **pictures)
    tools = make_tools(catalog, tmp_path)
    if spoil == "no room":
        (tmp_path / "hashes").write_text("a file where the folder should be")
    bring(tools, "another", "original")
    if spoil == "cut":
        for path in (tmp_path / "hashes").glob("*"):
            path.write_bytes(path.read_bytes()[:-100])
    bring(tools, "mirrored")
    assert set(found(catalog)) == {("mirrored", "original")}


def test_a_snapshot_is_not_believed_when_its_last_number_was_given_again(
    catalog, tmp_path, pictures, monkeypatch
):
    """The image it belonged to could not be rendered; the same happens in a catalog made anew."""
    monkeypatch.setattr(nearby, "SMALL", 1)
    inspect(catalog, **pictures)
    tools = make_tools(catalog, tmp_path)
    bring(tools, "turned", "another")
    with catalog.write() as connection:
        groups.drop_member(connection, "photos", "another")
    bring(tools, "original")
    bring(tools, "mirrored")
    assert set(found(catalog)) == {("mirrored", "original"), ("turned", "original")}


def test_who_is_no_canonical_any_more_is_near_to_nobody(catalog, tmp_path, pictures):
    """A larger original takes the place of what the mirrored one was near to."""
    larger = photograph(480, 320, 1).resize((960, 640), Image.Resampling.LANCZOS)
    inspect(catalog, mirrored=pictures["mirrored"], small=pictures["original"], large=larger)
    tools = make_tools(catalog, tmp_path)
    bring(tools, "mirrored", "small")
    assert set(found(catalog, "mirrored")) == {("mirrored", "small")}
    bring(tools, "large")
    assert set(found(catalog, "mirrored")) == {("mirrored", "large")}
    with catalog.read() as connection:
        rows = connection.execute(sa.select(schema.near.c.canonical_id)).scalars().all()
    assert rows == ["large"]


def test_pairs_that_people_separated_are_left_out(catalog, tmp_path, pictures):
    inspect(catalog, **pictures)
    tools = make_tools(catalog, tmp_path)
    bring(tools, "original", "mirrored")
    with catalog.write() as connection:
        groups.separate(connection, "photos", "original", ["mirrored", "turned"], NOW)
    assert found(catalog) == {}, "also where the pair was recorded before"
    bring(tools, "turned", "framed")
    assert set(found(catalog)) == {("framed", "original")}
    with catalog.read() as connection:
        rows = connection.execute(sa.select(schema.near.c.image_id, schema.near.c.canonical_id))
        recorded = {frozenset(row) for row in rows}
    assert frozenset(("original", "turned")) not in recorded
    assert frozenset(("mirrored", "turned")) in recorded


def test_a_source_may_not_want_to_know(catalog, tmp_path, pictures):
    inspect(catalog, **pictures)
    source = Source(prefix="uploads/photos/", duplicates=DuplicatePolicy(near=False))
    bring(make_tools(catalog, tmp_path, sources={"photos": source}), *pictures)
    assert found(catalog) == {}


def test_flat_pictures_are_near_to_nothing(catalog, tmp_path):
    grey = {f"grey{n}": Image.new("RGB", (300 + n, 200), (99, 99, 99 + n)) for n in range(3)}
    grey["black"] = Image.new("RGB", (300, 200))
    grey["dot"] = Image.new("RGB", (1, 1), "white")
    inspect(catalog, **grey)
    bring(make_tools(catalog, tmp_path), *grey)
    assert found(catalog, *grey) == {}


@pytest.fixture(scope="module")
def products():
    """A product as it is, and on large white pages, which have no texture as a whole."""
    product = photograph(240, 180, 20).point([116 + level // 2 for level in range(256)] * 3)
    return {
        "product": product.resize((720, 540), Image.Resampling.LANCZOS),
        "page": ImageOps.expand(product, 130, "white"),
        "mirrored page": ImageOps.expand(ImageOps.mirror(product), 120, "white"),
        "white": Image.new("RGB", (480, 360), "white"),
    }


@pytest.mark.parametrize("small", [1, 1000])
@pytest.mark.parametrize(
    "order",
    [("product", "white", "page", "mirrored page"), ("page", "mirrored page", "white", "product")],
)
def test_a_product_on_a_white_page_is_looked_up_by_its_content(
    catalog, tmp_path, products, monkeypatch, order, small
):
    """Whichever came first, with a snapshot and without."""
    monkeypatch.setattr(nearby, "SMALL", small)
    inspect(catalog, **products)
    with catalog.read() as connection:
        query = sa.select(schema.images.c.texture).where(schema.images.c.id.like("%page"))
        assert max(connection.execute(query).scalars()) < MIN_TEXTURE
    tools = make_tools(catalog, tmp_path)
    for name in order:
        bring(tools, name)
    pairs = found(catalog, *products)
    both = {frozenset(pair) for pair in pairs}
    assert both == {frozenset(pair) for pair in combinations(sorted({*products} - {"white"}), 2)}
    assert {pairs[name, "product"].found_by for name in ("page", "mirrored page")} == {"content"}
    assert pairs["mirrored page", "product"].transform == "mirrored"


def test_a_damaged_sketch_is_named(catalog, tmp_path, pictures):
    inspect(catalog, **pictures)
    tools = make_tools(catalog, tmp_path)
    bring(tools, "original")
    with catalog.write() as connection:
        connection.execute(sa.update(schema.sketches).values(luma=b"short"))
    with pytest.raises(DamagedRowError, match=r"image (original|mirrored) is damaged.*5 bytes"):
        bring(tools, "mirrored")


def test_images_from_before_there_were_sketches_are_passed_over(catalog, tmp_path, pictures):
    inspect(catalog, **pictures)
    with catalog.write() as connection:
        connection.execute(sa.delete(schema.sketches).where(schema.sketches.c.image_id == "turned"))
    bring(make_tools(catalog, tmp_path), "turned", "original", "mirrored")
    assert set(found(catalog)) == {("mirrored", "original")}


def test_of_very_many_candidates_the_nearest_are_verified(catalog, tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(nearby, "MOST_CANDIDATES", 2)
    inspect(catalog, **pictures)
    tools = make_tools(catalog, tmp_path)
    batch = bring(tools, "mirrored", "turned", "original")
    search = find_near(tools, batch, "photos")
    # Each finds itself and two more.
    assert (search.candidates, search.left_out) == (6, 3)


def test_hashes_are_read_in_pages_in_the_order_of_their_numbers(catalog, pictures):
    names = list(pictures)
    inspect(catalog, **pictures)
    batch = add_batch(catalog, *((f"{n}.jpg", "accepted", None, n) for n in names))
    with catalog.write() as connection:
        rows = [Member("photos", n, n, None, 0, place, batch) for place, n in enumerate(names)]
        images.add_members(connection, rows)
    with catalog.read() as connection:
        pages = list(catalog_near.hashes_after(connection, "photos", 1, page=2))
        assert [[row.number for row in page] for page in pages] == [[2, 3], [4, 5]]
        assert catalog_near.last_number(connection, "photos") == 5
        assert catalog_near.last_number(connection, "products") == 0
