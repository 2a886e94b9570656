"""The page of a source, from a catalog filled by hand and a real bucket."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import images, schema, showing, uploads
from image_pipeline.catalog.images import Member
from image_pipeline.delivery.urls import url_builder
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.stages import source_gallery
from image_pipeline.stages.rendering import plan_work
from image_pipeline.stages.source_gallery import write_source_gallery
from image_pipeline.store import layout

from .helpers import NOW, RECIPE, add_batch, image_row, make_tools, variant_rows

CDN = url_builder("https://cdn.test", "")


@pytest.fixture
def tools(either_catalog, tmp_path, bucket):
    return make_tools(either_catalog, tmp_path, bucket)


def page_of(tools):
    write_source_gallery(tools, "photos", CDN)
    return tools.bucket.get(layout.source_gallery_key("photos")).decode()


def set_state(tools, batch, state, created_at=NOW):
    with tools.catalog.write() as connection:
        connection.execute(
            sa.update(schema.batches)
            .where(schema.batches.c.id == batch)
            .values(state=state, attempt=1, created_at=created_at)
        )


def add_published(tools, *names, published=None, batch_state="done", created_at=NOW):
    """A batch that brought images of these names and published them, or only some; its id."""
    batch = add_batch(tools.catalog, *((f"{name}.jpg", "accepted", None, name) for name in names))
    set_state(tools, batch, batch_state, created_at)
    with tools.catalog.write() as connection:
        images.add_images(connection, [image_row(name) for name in names])
        found = {one.image_id: one.id for one in uploads.of_batch(connection, batch)}
        rows = [Member("photos", name, name, None, 0, found[name], batch) for name in names]
        images.add_members(connection, rows)
        for work in plan_work(connection, names, RECIPE):
            images.add_variants(connection, variant_rows(work.image, work.keys))
        publish(connection, batch, {name: name for name in published or names})
    return batch


def publish(connection, batch, canonicals):
    rows = [
        {
            "source": "photos", "image_id": image, "canonical_id": canonical,
            "recipe": recipe_fingerprint(RECIPE), "digest": "", "version": 1, "batch_id": batch,
            "published_at": NOW,
        }
        for image, canonical in canonicals.items()
    ]  # fmt: skip
    connection.execute(sa.insert(schema.publications), rows)


def in_order(page, *words):
    places = [page.find(word) for word in words]
    return -1 not in places and places == sorted(places)


def test_the_newest_pictures_come_first_with_their_files_and_batches(tools):
    old = add_published(tools, "aa", "bb", created_at=NOW - timedelta(hours=1))
    new = add_published(tools, "cc")
    page = page_of(tools)
    assert in_order(page, ">cc.jpg<", ">bb.jpg<", ">aa.jpg<")
    with tools.catalog.read() as connection:
        keys = [row["key"] for row in images.variants_of(
            connection, ["cc"], recipe_fingerprint(RECIPE))["cc"]]  # fmt: skip
    assert len(keys) == 3
    for key in keys:
        assert CDN(key) in page
    assert in_order(page, CDN(layout.gallery_key(new)), CDN(layout.gallery_key(old)))
    head = tools.bucket.head(layout.source_gallery_key("photos"))
    assert head.content_type == "text/html; charset=utf-8"
    assert head.cache_control == layout.SHORT_LIVED


def test_only_published_canonicals_are_shown(tools):
    batch = add_published(tools, "aa", "bb", "cc", published=["aa", "bb"])
    with tools.catalog.write() as connection:
        row = (schema.members.c.image_id == "bb") & (schema.members.c.source == "photos")
        connection.execute(sa.update(schema.members).where(row).values(canonical_id="aa"))
    page = page_of(tools)
    assert ">aa.jpg<" in page
    assert ">bb.jpg<" not in page
    assert ">cc.jpg<" not in page
    assert batch in page


def test_files_of_another_recipe_are_not_shown(tools):
    batch = add_published(tools, "aa")
    with tools.catalog.write() as connection:
        (row,) = variant_rows("aa", {"variants/aa/old.webp": next(
            iter(plan_work(connection, ["aa"], RECIPE)[0].keys.values()))})  # fmt: skip
        images.add_variants(connection, [{**row, "recipe": "another"}])
        dropped = {**row, "key": "variants/aa/dropped.webp", "dropped": True}
        images.add_variants(connection, [dropped])
    page = page_of(tools)
    assert batch in page
    assert "old.webp" not in page
    assert "dropped.webp" not in page


def test_totals_are_those_of_the_whole_source(tools, monkeypatch):
    monkeypatch.setattr(source_gallery, "NEWEST_IMAGES", 1)
    monkeypatch.setattr(source_gallery, "NEWEST_BATCHES", 1)
    add_published(tools, "aa", "bb", created_at=NOW - timedelta(hours=1))
    add_published(tools, "cc")
    with tools.catalog.read() as connection:
        totals = showing.source_totals(connection, "photos")
    assert totals == showing.SourceTotals(batches=2, uploads=3, bytes=3000, files=3)
    page = page_of(tools)
    assert ">cc.jpg<" in page
    assert ">bb.jpg<" not in page
    assert "1 earlier batch is not listed here." in page


def test_a_batch_counts_its_verdicts(tools):
    batch = add_batch(
        tools.catalog,
        ("a.jpg", "accepted", None, "aa"),
        ("b.jpg", "rejected", "too_large", None),
        ("c.jpg", "rejected", "not_an_image", None),
        ("d.jpg", None, None, None),
    )
    set_state(tools, batch, "done")
    with tools.catalog.read() as connection:
        (found,) = showing.newest_batches(connection, "photos", 5)
    assert (found.id, found.uploads, found.bytes) == (batch, 4, 4000)
    assert found.verdicts == {"accepted": 1, "rejected": 2}


def test_a_batch_at_work_is_linked_once_it_has_a_page(tools):
    waiting = add_published(tools, "aa", batch_state="waiting")
    running = add_published(tools, "bb", batch_state="running")
    failed = add_published(tools, "cc", batch_state="given_up")
    tools.bucket.put(layout.gallery_key(running), b"", "text/html", layout.SHORT_LIVED)
    lines = page_of(tools).split("<tbody>")[1:]
    listed = [one for one in (waiting, running, failed) if any(f">{one}</a></th>" in line
                                                             for line in lines)]  # fmt: skip
    assert listed == [running]


def test_a_source_without_anything_has_a_page(tools):
    page = page_of(tools)
    assert "Nothing to show." in page


def test_other_sources_are_left_out(tools):
    add_published(tools, "aa")
    other = add_batch(tools.catalog, ("z.jpg", "accepted", None, "zz"), source="others")
    page = page_of(tools)
    assert "z.jpg" not in page
    assert other not in page
    with tools.catalog.read() as connection:
        assert catalog_batches.get(connection, other).source == "others"
        assert showing.source_totals(connection, "photos").uploads == 1


def test_it_asks_the_same_however_much_there_is(tools, monkeypatch):
    monkeypatch.setattr(source_gallery, "NEWEST_IMAGES", 2)

    def statements():
        seen = []
        sa.event.listen(tools.catalog.engine, "before_cursor_execute",
                        lambda *arguments: seen.append(arguments[2]))  # fmt: skip
        page_of(tools)
        return len(seen)

    add_published(tools, "a0", "a1")
    few = statements()
    for number in range(5):
        add_published(tools, *(f"b{number}{place}" for place in range(9)))
    assert 0 < few == statements()
