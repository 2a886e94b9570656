"""What is published of a batch, and whether it is done, from a catalog filled by hand."""

import io
import json

import pytest
import sqlalchemy as sa
from PIL import Image

from image_pipeline.catalog import batches, groups, images
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.schema import warmth
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.settings import Delivery
from image_pipeline.stages.publishing import finish_batch, publish_batch
from image_pipeline.stages.rendering import expected_keys
from image_pipeline.store import layout

from .helpers import RECIPE, add_batch, add_images, image_row, make_tools, variant_rows

CANONICAL, ALIAS, OTHER = "a1" * 32, "b2" * 32, "c3" * 32


@pytest.fixture
def tools(catalog, tmp_path, bucket):
    add_images(catalog, image_row(CANONICAL), image_row(ALIAS), image_row(OTHER))
    with catalog.write() as connection:
        images.add_members(
            connection,
            [
                Member("photos", CANONICAL, CANONICAL, None, 0, 1),
                Member("photos", ALIAS, CANONICAL, "picture", 1, 2),
                Member("photos", OTHER, OTHER, None, 0, 3),
            ],
        )
    return make_tools(catalog, tmp_path, bucket)


def render(tools, image, leave_out=0):
    """Put the files of an image into the bucket and the catalog, but for some."""
    keys = expected_keys(image, 90, 60, RECIPE)
    keys = dict(sorted(keys.items())[leave_out:])
    for key, plan in keys.items():
        data = io.BytesIO()
        Image.new("RGB", (plan.width, plan.height), "#405060").save(data, "WEBP")
        tools.bucket.put(key, data.getvalue(), "image/webp", layout.IMMUTABLE)
    with tools.catalog.write() as connection:
        images.add_variants(connection, variant_rows(image, keys))


def state(tools, batch):
    with tools.catalog.read() as connection:
        return batches.get(connection, batch).state


def manifest(tools, image):
    key = layout.image_manifest_key("photos", image)
    return json.loads(tools.bucket.get(key)) if tools.bucket.head(key) else None


def test_a_batch_is_finished_when_everything_is_published_or_rejected(tools):
    batch = add_batch(
        tools.catalog,
        ("a.jpg", "accepted", None, CANONICAL),
        ("b.jpg", "duplicate", "picture", ALIAS),
        ("c.jpg", "rejected", "truncated", None),
    )
    render(tools, CANONICAL)
    published = publish_batch(tools, batch)
    assert published.unfinished == []
    assert state(tools, batch) == "waiting"
    assert finish_batch(tools, batch, published)
    assert state(tools, batch) == "done"
    assert (published.images, published.variants, published.urls) == (1, 3, 3)
    assert published.contact_sheet[8:12] == b"WEBP"
    found = manifest(tools, CANONICAL)
    assert found["aliases"] == [ALIAS]
    assert found["uploads"] == ["uploads/photos/a.jpg", "uploads/photos/b.jpg"]
    assert manifest(tools, ALIAS) == {**found, "id": ALIAS}
    assert manifest(tools, OTHER) is None


@pytest.mark.parametrize(
    ("verdict", "reason", "image"),
    [
        (None, None, None),
        ("failed", "storage_error", None),
        ("accepted", None, OTHER),
        ("duplicate", "bytes", OTHER),
    ],
    ids=["undecided", "failed", "accepted but not rendered", "its canonical is not rendered"],
)
def test_one_unfinished_upload_keeps_the_batch_open_and_the_rest_is_published(
    tools, verdict, reason, image
):
    batch = add_batch(
        tools.catalog,
        ("a.jpg", "accepted", None, CANONICAL),
        ("odd.jpg", verdict, reason, image),
    )
    render(tools, CANONICAL)
    published = publish_batch(tools, batch)
    assert [row["key"] for row in published.unfinished] == ["uploads/photos/odd.jpg"]
    assert state(tools, batch) == "waiting"
    assert manifest(tools, CANONICAL)["uploads"] == ["uploads/photos/a.jpg"]
    assert manifest(tools, OTHER) is None
    listed = json.loads(tools.bucket.get(layout.batch_manifest_key(batch)))
    assert listed["totals"]["uploads"] == 2
    assert listed["totals"]["accepted"] == 1 + (verdict == "accepted")


def test_a_manifest_never_names_a_file_that_is_not_there(tools):
    batch = add_batch(tools.catalog, ("a.jpg", "accepted", None, CANONICAL))
    render(tools, CANONICAL, leave_out=1)
    published = publish_batch(tools, batch)
    assert (published.images, published.urls, len(published.unfinished)) == (0, 0, 1)
    assert published.contact_sheet == b""
    assert manifest(tools, CANONICAL) is None
    render(tools, CANONICAL)
    assert publish_batch(tools, batch).unfinished == []
    assert len(manifest(tools, CANONICAL)["variants"]) == 3


def test_variants_of_a_former_recipe_are_not_published(tools):
    batch = add_batch(tools.catalog, ("a.jpg", "accepted", None, CANONICAL))
    former = RECIPE.model_copy(update={"background": "#000000"})
    keys = expected_keys(CANONICAL, 90, 60, former)
    rows = [{**row, "recipe": recipe_fingerprint(former)} for row in variant_rows(CANONICAL, keys)]
    with tools.catalog.write() as connection:
        images.add_variants(connection, rows)
    assert publish_batch(tools, batch).images == 0


def test_a_later_batch_adds_its_alias_to_the_manifest_that_is_there(tools):
    render(tools, CANONICAL)
    publish_batch(tools, add_batch(tools.catalog, ("a.jpg", "accepted", None, CANONICAL)))
    before = manifest(tools, CANONICAL)
    later = add_batch(tools.catalog, ("b.jpg", "duplicate", "picture", ALIAS))
    published = publish_batch(tools, later)
    after = manifest(tools, CANONICAL)
    assert before["uploads"] == ["uploads/photos/a.jpg"]
    assert after["uploads"] == ["uploads/photos/a.jpg", "uploads/photos/b.jpg"]
    assert after["variants"] == before["variants"]
    assert [row["image_id"] for row in published.rows] == [CANONICAL]


def test_an_alias_that_arrives_while_a_manifest_is_written_is_not_lost(tools, monkeypatch):
    """Another batch adds an alias between our reading and our writing."""
    render(tools, CANONICAL)
    batch = add_batch(tools.catalog, ("a.jpg", "accepted", None, CANONICAL))
    put = tools.bucket.put
    meanwhile = []

    def slow_put(key, *arguments, **options):
        if not meanwhile:
            meanwhile.append(key)
            add_batch(tools.catalog, ("late.jpg", "duplicate", "picture", ALIAS))
        return put(key, *arguments, **options)

    monkeypatch.setattr(tools.bucket, "put", slow_put)
    publish_batch(tools, batch)
    assert meanwhile == [layout.image_manifest_key("photos", CANONICAL)]
    assert manifest(tools, CANONICAL)["uploads"] == [
        "uploads/photos/a.jpg", "uploads/photos/late.jpg",
    ]  # fmt: skip
    assert manifest(tools, ALIAS)["canonical"] == CANONICAL


def wanted_warm(tools):
    with tools.catalog.read() as connection:
        rows = connection.execute(sa.select(warmth.c.image_id, warmth.c.key)).all()
    return {(image, key) for image, key in rows}


def test_the_warmer_is_told_of_the_files_there_are_and_of_no_others(
    catalog, tmp_path, bucket, tools
):
    """Of a canonical that another picture took the place of, nothing is asked for any more."""
    delivery = Delivery(base_url="https://cdn.test")
    cached = make_tools(catalog, tmp_path, bucket, delivery=delivery)
    render(cached, ALIAS)
    with catalog.write() as connection:
        groups.change_members(connection, [Member("photos", ALIAS, ALIAS, None, 0, 2, "b")])
    first = add_batch(catalog, ("a.jpg", "accepted", None, ALIAS))
    publish_batch(cached, first)
    assert wanted_warm(cached) == {(ALIAS, key) for key in expected_keys(ALIAS, 90, 60, RECIPE)}
    render(cached, CANONICAL)
    with catalog.write() as connection:
        row = Member("photos", ALIAS, CANONICAL, "picture", 1, 2, "b")
        groups.change_members(connection, [row])
    second = add_batch(catalog, ("b.jpg", "accepted", None, CANONICAL))
    publish_batch(cached, second)
    ours = {(CANONICAL, key) for key in expected_keys(CANONICAL, 90, 60, RECIPE)}
    assert wanted_warm(cached) == ours


def test_without_an_edge_nothing_is_wanted_warm(tools):
    render(tools, CANONICAL)
    publish_batch(tools, add_batch(tools.catalog, ("a.jpg", "accepted", None, CANONICAL)))
    assert wanted_warm(tools) == set()


def test_a_batch_of_rejects_has_a_gallery_and_a_manifest_too(tools):
    batch = add_batch(tools.catalog, ("x.jpg", "rejected", "not_an_image", None))
    published = publish_batch(tools, batch)
    assert (published.images, published.contact_sheet, published.unfinished) == (0, b"", [])
    assert "x.jpg" in tools.bucket.get(layout.gallery_key(batch)).decode()
    assert json.loads(tools.bucket.get(layout.warm_list_key(batch)))["urls"] == []
    head = tools.bucket.head(layout.gallery_key(batch))
    assert (head.content_type, head.cache_control) == (
        "text/html; charset=utf-8", "public, max-age=60",
    )  # fmt: skip


def test_publishing_again_gives_the_same_bytes(tools):
    batch = add_batch(tools.catalog, ("a.jpg", "accepted", None, CANONICAL))
    render(tools, CANONICAL)
    keys = [
        layout.image_manifest_key("photos", CANONICAL), layout.batch_manifest_key(batch),
        layout.warm_list_key(batch), layout.gallery_key(batch),
    ]  # fmt: skip
    publish_batch(tools, batch)
    first = [tools.bucket.get(key) for key in keys]
    publish_batch(tools, batch)
    assert [tools.bucket.get(key) for key in keys] == first


def test_a_batch_that_is_finished_is_not_due_any_more(tools):
    batch = add_batch(tools.catalog, ("a.jpg", "rejected", "truncated", None))
    finish_batch(tools, batch, publish_batch(tools, batch))
    with tools.catalog.read() as connection:
        found = batches.get(connection, batch)
    assert (found.state, found.due_at, found.lease_owner) == ("done", None, None)


def test_an_unknown_batch_is_an_error(tools):
    with pytest.raises(LookupError, match="no batch 'nothing'"):
        publish_batch(tools, "nothing")
