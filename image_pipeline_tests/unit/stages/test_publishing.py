"""What is published of a batch, and whether it is done, from a catalog filled by hand."""

import hashlib
import io
import json
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from PIL import Image

from image_pipeline.catalog import batches, groups, images, removals
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.schema import changes, publications, sightings, variants, warmth
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.settings import Delivery, Source
from image_pipeline.stages import announcing, publishing
from image_pipeline.stages.caching import Cached
from image_pipeline.stages.publishing import finish_batch, publish_batch
from image_pipeline.stages.rendering import expected_keys
from image_pipeline.store import layout

from .helpers import NOW, RECIPE, add_batch, add_images, image_row, make_tools, variant_rows

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
    recipe = tools.recipe("photos")
    keys = expected_keys(image, 90, 60, recipe)
    keys = dict(sorted(keys.items())[leave_out:])
    for key, plan in keys.items():
        data = io.BytesIO()
        Image.new("RGB", (plan.width, plan.height), "#405060").save(data, "WEBP")
        tools.bucket.put(key, data.getvalue(), "image/webp", layout.IMMUTABLE)
    with tools.catalog.write() as connection:
        rows = variant_rows(image, keys)
        fingerprint = recipe_fingerprint(recipe)
        images.add_variants(connection, [{**row, "recipe": fingerprint} for row in rows])


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


def count_puts(tools, monkeypatch, *, fail=""):
    """The keys put from now on; a put of a key with ``fail`` in it ends the process, as it were."""
    put, keys = tools.bucket.put, []

    def counted(key, *arguments, **options):
        if fail and fail in key:
            raise KeyboardInterrupt(key)
        keys.append(key)
        return put(key, *arguments, **options)

    monkeypatch.setattr(tools.bucket, "put", counted)
    return keys


def published_rows(tools):
    with tools.catalog.read() as connection:
        rows = connection.execute(sa.select(publications)).mappings().all()
    return {row["image_id"]: row for row in rows}


def urls(tools, *pictures):
    """The URLs of the files of images."""
    recipe = tools.recipe("photos")
    keys = (key for image in pictures for key in expected_keys(image, 90, 60, recipe))
    return sorted(f"{tools.bucket.url}/{key}" for key in keys)


def delta(tools, batch):
    return json.loads(tools.bucket.get(layout.delta_key(batch)))


def stand_for(tools, batch, **canonicals):
    """Let members of a batch be stood for by others, by the names above."""
    names = {"alias": (ALIAS, 2), "canonical": (CANONICAL, 1)}
    rows = []
    for name, by in canonicals.items():
        image, number = names[name]
        rows.append(
            Member("photos", image, by, None if by == image else "picture", 1, number, batch)
        )
    with tools.catalog.write() as connection:
        groups.change_members(connection, rows)


@pytest.fixture
def group(tools):
    """A canonical with an alias, rendered; the batch that brought both."""
    render(tools, CANONICAL)
    return add_batch(
        tools.catalog,
        ("a.jpg", "accepted", None, CANONICAL),
        ("b.jpg", "duplicate", "picture", ALIAS),
    )


def test_what_is_published_is_said_in_the_catalog(tools, group):
    published = publish_batch(tools, group)
    rows = published_rows(tools)
    assert set(rows) == {CANONICAL, ALIAS}
    for image, row in rows.items():
        data = tools.bucket.get(layout.image_manifest_key("photos", image))
        assert row["digest"] == hashlib.sha256(data).hexdigest()
        assert (row["canonical_id"], row["recipe"]) == (CANONICAL, recipe_fingerprint(RECIPE))
        assert (row["version"], row["batch_id"], row["published_at"]) == (1, group, NOW)
    assert (published.manifests, published.added, published.replaced) == (2, 3, 0)


def test_what_is_published_was_never_seen_unneeded(tools, group):
    """Its grace begins anew, should it be superseded once more before the next inventory."""
    (key, *_) = expected_keys(CANONICAL, 90, 60, tools.recipe("photos"))
    seen = {"etag": "e", "size": 1, "reason": "superseded_variant", "last_modified": NOW,
            "first_at": NOW, "last_at": NOW, "inventory_id": "i"}  # fmt: skip
    with tools.catalog.write() as connection:
        connection.execute(
            sa.insert(sightings), [{"key": one, **seen} for one in (key, "variants/another")]
        )
    publish_batch(tools, group)
    with tools.catalog.read() as connection:
        left = connection.execute(sa.select(sightings.c.key)).scalars().all()
    assert left == ["variants/another"]


def test_an_unchanged_manifest_is_not_put_again(tools, group, monkeypatch):
    publish_batch(tools, group)
    keys = count_puts(tools, monkeypatch)
    published = publish_batch(tools, group)
    assert not [key for key in keys if key.startswith(("manifests/photos/", "indexes/"))]
    assert (published.manifests, published.index_pages) == (0, 0)
    # Another batch brings a file of the group: its manifests change, and their versions.
    later = add_batch(tools.catalog, ("c.jpg", "duplicate", "bytes", ALIAS))
    publish_batch(tools, later)
    assert {row["version"] for row in published_rows(tools).values()} == {2}
    assert {row["batch_id"] for row in published_rows(tools).values()} == {later}


def test_a_manifest_that_was_announced_but_not_put_is_put_by_the_next_attempt(
    tools, group, monkeypatch
):
    with monkeypatch.context() as patch:
        count_puts(tools, patch, fail=f"manifests/photos/{ALIAS}")
        with pytest.raises(KeyboardInterrupt):
            publish_batch(tools, group)
    before = published_rows(tools)
    assert set(before) == {CANONICAL, ALIAS}
    assert manifest(tools, ALIAS) is None
    published = publish_batch(tools, group)
    assert manifest(tools, ALIAS)["canonical"] == CANONICAL
    assert published.manifests >= 1
    assert published_rows(tools) == before
    assert [page["images"] for page in index(tools)["pages"]] == [2]


def test_a_replaced_manifest_that_was_announced_but_not_put_is_put(tools, group, monkeypatch):
    """The old manifest is still there: its name alone says nothing."""
    publish_batch(tools, group)
    later = add_batch(tools.catalog, ("c.jpg", "duplicate", "bytes", ALIAS))
    with monkeypatch.context() as patch:
        count_puts(tools, patch, fail="manifests/photos/")
        with pytest.raises(KeyboardInterrupt):
            publish_batch(tools, later)
    assert len(manifest(tools, CANONICAL)["uploads"]) == 2
    publish_batch(tools, later)
    assert len(manifest(tools, CANONICAL)["uploads"]) == 3
    assert len(manifest(tools, ALIAS)["uploads"]) == 3


def test_a_slower_process_that_overwrites_a_manifest_is_overwritten_again(
    tools, group, monkeypatch
):
    """It writes what it has read before ours, and dies: its batch comes to it again."""
    publish_batch(tools, group)
    old = tools.bucket.get(layout.image_manifest_key("photos", CANONICAL))
    later = add_batch(tools.catalog, ("c.jpg", "duplicate", "bytes", ALIAS))
    publish_batch(tools, later)
    tools.bucket.put(layout.image_manifest_key("photos", CANONICAL), old, "application/json")
    publish_batch(tools, group)
    assert len(manifest(tools, CANONICAL)["uploads"]) == 3


def test_the_delta_of_new_images_names_what_was_added(tools, group):
    publish_batch(tools, group)
    assert delta(tools, group) == {
        "schema_version": 1, "batch": group, "source": "photos",
        "added": urls(tools, CANONICAL), "replaced": [], "removed": [],
    }  # fmt: skip


def test_a_duplicate_of_what_was_there_adds_nothing(tools):
    render(tools, CANONICAL)
    publish_batch(tools, add_batch(tools.catalog, ("a.jpg", "accepted", None, CANONICAL)))
    later = add_batch(tools.catalog, ("b.jpg", "duplicate", "picture", ALIAS))
    published = publish_batch(tools, later)
    found = delta(tools, later)
    assert (found["added"], found["replaced"], found["removed"]) == ([], [], [])
    assert (published.added, published.replaced, published.removed) == (0, 0, 0)


def test_the_delta_of_a_better_picture_says_what_took_whose_place(tools, group):
    publish_batch(tools, group)
    render(tools, OTHER)
    later = add_batch(tools.catalog, ("c.jpg", "accepted", None, OTHER))
    stand_for(tools, later, canonical=OTHER, alias=OTHER)
    published = publish_batch(tools, later)
    found = delta(tools, later)
    assert found["added"] == urls(tools, OTHER)
    assert found["removed"] == urls(tools, CANONICAL)
    assert found["replaced"] == [
        {"images": [CANONICAL, ALIAS], "old": urls(tools, CANONICAL), "new": urls(tools, OTHER)}
    ]
    assert (published.added, published.replaced, published.removed) == (3, 2, 3)
    # The former batch tells of its own time.
    assert delta(tools, group)["added"] == urls(tools, CANONICAL)


def test_files_that_another_image_still_has_are_not_removed(tools, group):
    publish_batch(tools, group)
    finish_batch(tools, group, publish_batch(tools, group))
    render(tools, ALIAS)
    with tools.catalog.write() as connection:
        batches.reopen(connection, [group], NOW)
    stand_for(tools, group, alias=ALIAS)
    publish_batch(tools, group)
    found = delta(tools, group)
    assert (found["added"], found["removed"]) == (urls(tools, ALIAS), [])
    assert found["replaced"] == [
        {"images": [ALIAS], "old": urls(tools, CANONICAL), "new": urls(tools, ALIAS)}
    ]


def with_recipe(tools, **changes):
    """The same tools after somebody has edited the recipe."""
    recipes = {"web": RECIPE.model_copy(update=changes)}
    settings = tools.settings.model_copy(update={"recipes": recipes})
    return replace(tools, settings=settings)


def test_the_delta_of_a_new_recipe_has_old_and_new_files(tools, group):
    finish_batch(tools, group, publish_batch(tools, group))
    later = with_recipe(tools, background="#000000")
    render(later, CANONICAL)
    publish_batch(later, group)
    found = delta(tools, group)
    assert found["added"] == urls(later, CANONICAL) != urls(tools, CANONICAL)
    assert found["removed"] == urls(tools, CANONICAL)
    (replaced,) = found["replaced"]
    assert replaced["images"] == [CANONICAL, ALIAS]
    assert (replaced["old"], replaced["new"]) == (urls(tools, CANONICAL), urls(later, CANONICAL))
    # Done, and then run again: nothing has changed since, and it goes on to say what did.
    finish_batch(later, group, publish_batch(later, group))
    publish_batch(later, group)
    assert delta(tools, group) == found


@pytest.mark.parametrize(
    "fail", ["manifests/photos/", "indexes/", "manifests/deltas/", "manifests/batches/"]
)
def test_the_delta_of_a_second_attempt_is_that_of_the_first(tools, group, monkeypatch, fail):
    publish_batch(tools, group)
    render(tools, OTHER)
    later = add_batch(tools.catalog, ("c.jpg", "accepted", None, OTHER))
    stand_for(tools, later, canonical=OTHER, alias=OTHER)
    with monkeypatch.context() as patch:
        count_puts(tools, patch, fail=fail)
        with pytest.raises(KeyboardInterrupt):
            publish_batch(tools, later)
    publish_batch(tools, later)
    first = delta(tools, later)
    assert (first["added"], first["removed"]) == (urls(tools, OTHER), urls(tools, CANONICAL))
    publish_batch(tools, later)
    assert delta(tools, later) == first


def test_a_batch_that_is_done_forgets_what_was_before(tools, group):
    finish_batch(tools, group, publish_batch(tools, group))
    with tools.catalog.read() as connection:
        assert connection.execute(sa.select(changes)).all() == []


def test_a_batch_of_rejects_has_a_delta_and_its_source_an_index(tools):
    batch = add_batch(tools.catalog, ("x.jpg", "rejected", "not_an_image", None))
    publish_batch(tools, batch)
    assert (delta(tools, batch)["added"], index(tools)["pages"]) == ([], [])


@pytest.fixture
def removal(tools, monkeypatch):
    """Begin and end a removal of a key; ``pauses`` has what happens in each pause of waiting."""

    class Removal:
        def __init__(self):
            self.pauses = []

        def begin(self, key, now=NOW):
            with tools.catalog.write() as connection:
                removals.begin(connection, "plan", [key], now)

        def end(self, key):
            with tools.catalog.write() as connection:
                removals.end(connection, "plan", [key])

        def wait(self):
            assert self.pauses, "waited too long"
            self.pauses.pop(0)()

    made = Removal()
    monkeypatch.setattr(publishing, "await_removal", made.wait)
    return made


def a_key(image):
    return min(expected_keys(image, 90, 60, RECIPE))


@pytest.mark.parametrize("what", ["file", "manifest"])
def test_what_is_being_removed_is_waited_for(tools, group, removal, what):
    key = a_key(CANONICAL) if what == "file" else layout.image_manifest_key("photos", ALIAS)
    removal.begin(key)

    def look():
        assert manifest(tools, CANONICAL) is None
        assert published_rows(tools) == {}

    removal.pauses = [look, lambda: removal.end(key)]
    assert publish_batch(tools, group).unfinished == []
    assert removal.pauses == []
    assert manifest(tools, CANONICAL)["aliases"] == [ALIAS]


def test_what_is_removed_for_too_long_is_left_unfinished(tools, group, removal, monkeypatch):
    monkeypatch.setattr(publishing, "REMOVAL_LOOKS", 3)
    removal.begin(a_key(CANONICAL))
    removal.pauses = [lambda: None] * 3
    render(tools, OTHER)
    add_batch(tools.catalog, ("c.jpg", "accepted", None, OTHER))
    batch = add_batch(
        tools.catalog,
        ("d.jpg", "duplicate", "bytes", CANONICAL), ("e.jpg", "duplicate", "bytes", OTHER),
    )  # fmt: skip
    published = publish_batch(tools, batch)
    (row,) = published.unfinished
    assert (row["key"], "housekeeping" in row["message"]) == ("uploads/photos/d.jpg", True)
    assert manifest(tools, CANONICAL) is None
    assert manifest(tools, OTHER)["id"] == OTHER
    assert [row["image_id"] for row in published.rows] == [OTHER]
    removal.end(a_key(CANONICAL))
    assert publish_batch(tools, batch).unfinished == []


def test_a_removal_that_nobody_goes_on_with_holds_nothing_up(tools, group, removal):
    removal.begin(a_key(CANONICAL), NOW - timedelta(hours=1, seconds=1))
    assert publish_batch(tools, group).unfinished == []


def test_a_file_whose_row_goes_between_looking_and_announcing_is_not_named(
    tools, group, removal, monkeypatch
):
    publish = announcing.Manifests.publish
    gone = []

    def late(self, documents):
        if not gone:
            gone.append(a_key(CANONICAL))
            with tools.catalog.write() as connection:
                connection.execute(sa.delete(variants).where(variants.c.key == gone[0]))
        return publish(self, documents)

    monkeypatch.setattr(announcing.Manifests, "publish", late)
    removal.pauses = [lambda: None]
    published = publish_batch(tools, group)
    assert len(published.unfinished) == 2
    assert manifest(tools, CANONICAL) is None


def test_a_group_that_changes_between_looking_and_announcing_is_looked_at_again(
    tools, group, removal, monkeypatch
):
    """What is announced last is what is so, whoever of two batches comes last."""
    publish_batch(tools, group)
    render(tools, OTHER)
    later = add_batch(tools.catalog, ("c.jpg", "accepted", None, OTHER))
    publish, announce = announcing.Manifests.publish, announcing.catalog_publications.announce
    regrouped, said = [], []

    def late(self, documents):
        if not regrouped:
            regrouped.append(True)
            stand_for(tools, later, canonical=OTHER, alias=OTHER)
        return publish(self, documents)

    def recorded(connection, source, batch, rows, now):
        said.extend((row.image_id, row.files.canonical_id) for row in rows)
        return announce(connection, source, batch, rows, now)

    monkeypatch.setattr(announcing.Manifests, "publish", late)
    monkeypatch.setattr(announcing.catalog_publications, "announce", recorded)
    removal.pauses = [lambda: None]
    batch = add_batch(tools.catalog, ("d.jpg", "duplicate", "bytes", ALIAS))
    publish_batch(tools, batch)
    assert set(said) == {(CANONICAL, OTHER), (ALIAS, OTHER), (OTHER, OTHER)}
    assert manifest(tools, ALIAS)["canonical"] == OTHER


def test_manifests_of_a_private_source_say_so_and_are_not_signed(catalog, tmp_path, bucket, tools):
    render(tools, CANONICAL)
    sources = {"photos": Source(prefix="uploads/photos/", access="private")}
    private = make_tools(catalog, tmp_path, bucket, sources=sources)
    publish_batch(private, add_batch(catalog, ("a.jpg", "accepted", None, CANONICAL)))
    found = manifest(tools, CANONICAL)
    assert found["access"] == "private"
    assert not any("?" in one["url"] for one in found["variants"])


def test_redis_is_told_of_everything_when_it_is_in_the_bucket(tools, group, monkeypatch):
    told = []

    def publish(tools, source, documents, index):
        assert tools.bucket.head(layout.batch_manifest_key(group)) is not None
        told.append((source, dict(documents), index))
        return Cached(len(documents), 0, 0, "out of order" if index else "")

    monkeypatch.setattr(publishing, "publish_to_redis", publish)
    published = publish_batch(tools, group)
    stored = {
        image: (1, tools.bucket.get(layout.image_manifest_key("photos", image)))
        for image in (CANONICAL, ALIAS)
    }
    pointer = tools.bucket.get(layout.index_key("photos"))
    assert told == [("photos", stored, pointer)]
    assert published.cached == Cached(2, 0, 0, "out of order")
    # A large group goes in parts, the index with the last of them.
    told.clear()
    monkeypatch.setattr(publishing, "chunks", lambda rows: ([row] for row in rows))
    assert publish_batch(tools, group).cached == Cached(2, 0, 0, "out of order")
    assert [(len(documents), index) for _, documents, index in told] == [(1, None), (1, pointer)]


def index(tools):
    return json.loads(tools.bucket.get(layout.index_key("photos")))
