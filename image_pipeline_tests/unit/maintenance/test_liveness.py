"""Who refers to an object, on both databases: nothing that is needed is ever an orphan."""

import pytest

from image_pipeline.maintenance.liveness import (
    ORPHAN_REASONS,
    SUPERSEDED,
    Liveness,
    Place,
    Reference,
    place_of,
)
from image_pipeline.store import layout
from image_pipeline.store.bucket import ObjectGoneError, StoreError
from image_pipeline_tests.unit.catalog.helpers import Statements

from .filled import BATCH, NOW, Filled, days_ago, image_id, listed, settings_of

OTHER_BATCH = "photos-20260201-120000-def456"


class Pointers:
    """A bucket of which only the indexes are read."""

    def __init__(self, **texts):
        self.texts = texts
        self.asked = []

    def get(self, key):
        self.asked.append(key)
        text = self.texts.get(key.split("/")[1])
        if text is None:
            raise ObjectGoneError(key)
        return text.encode()


@pytest.fixture
def catalog(either_catalog):
    return either_catalog


@pytest.fixture
def filled(catalog):
    made = Filled(catalog)
    made.batch()
    return made


def classify(filled, *keys, bucket=None, settings=None, **changes):
    liveness = Liveness(bucket or Pointers(), settings or settings_of(), lambda: NOW)
    with filled.catalog.read() as connection:
        found = liveness.classify(connection, [listed(key, **changes) for key in keys])
    return found[0] if len(keys) == 1 else found


def by(filled, key, **options):
    reference = classify(filled, key, **options)
    assert reference.orphan == (reference.by in ORPHAN_REASONS)
    return reference.by


def test_an_upload_is_known_by_its_key_and_version(filled):
    key = filled.upload("uploads/photos/a.jpg")
    assert by(filled, key) == "upload"
    assert by(filled, key, etag="another") == "unknown_upload"
    assert by(filled, "uploads/photos/b.jpg") == "unknown_upload"
    assert by(filled, "uploads/shop/a.jpg") == "unknown_upload", "the other source's"


def test_a_file_is_needed_by_the_publication_of_its_image_and_recipe(filled):
    image, key = filled.published("a")
    old = filled.variant(image, "r0", mark="00ff")
    assert classify(filled, key) == Reference("variant", "publication")
    assert by(filled, old) == "superseded_variant"


def test_a_file_is_needed_if_any_source_publishes_it(filled):
    image, key = filled.published("a", recipe="r2")
    other = filled.variant(image, "r1", mark="00ff")
    assert by(filled, other) == "superseded_variant"
    filled.member(image, source="shop")
    filled.publication(image, recipe="r1", source="shop")
    assert by(filled, other) == "publication"
    assert by(filled, key) == "publication"


def test_an_alias_needs_the_files_of_its_canonical(filled):
    image, key = filled.published("a")
    alias = filled.image("b")
    own = filled.variant(alias)
    filled.member(alias, image)
    filled.publication(alias, canonical=image)
    assert by(filled, key) == "publication"
    assert by(filled, own) == "superseded_variant", "it no longer stands for itself"


def test_files_are_needed_by_what_is_published_whatever_was_regrouped_since(filled):
    image, _ = filled.published("a")
    alias = filled.image("b")
    own = filled.variant(alias)
    filled.member(alias, image)
    filled.publication(alias, canonical=alias)
    assert by(filled, own) == "publication", "its manifest names its own files until rewritten"


def test_a_row_that_is_young_is_on_its_way_to_a_publication(filled):
    image, _ = filled.published("a")
    young = filled.variant(image, "r2", mark="01", created_at=days_ago(13.9))
    old = filled.variant(image, "r2", mark="02", created_at=days_ago(14.1))
    assert by(filled, young) == "young_row"
    assert by(filled, old) == "superseded_variant"


def test_files_of_open_batches_are_left_alone(filled):
    image, _ = filled.published("a")
    old = filled.variant(image, "r0", mark="00ff")
    unknown = layout.variant_key(image, "small", 320, 213, "ffff", "webp")
    assert (by(filled, old), by(filled, unknown)) == ("superseded_variant", "unknown_variant")
    filled.batch(OTHER_BATCH, "running")
    filled.upload("uploads/photos/again.jpg", image, batch=OTHER_BATCH)
    assert (by(filled, old), by(filled, unknown)) == ("open_batch", "open_batch")


@pytest.mark.parametrize("state", ["waiting", "requested", "running", "retry"])
def test_files_of_canonicals_of_open_batches_are_left_alone(filled, state):
    image, _ = filled.published("a")
    old = filled.variant(image, "r0", mark="00ff")
    filled.batch(OTHER_BATCH, state)
    duplicate = filled.image("b")
    filled.upload("uploads/photos/b.jpg", duplicate, batch=OTHER_BATCH)
    filled.member(duplicate, image)
    filled.publication(duplicate, canonical=image)
    assert by(filled, old) == "open_batch"


def test_files_of_groups_that_people_changed_are_left_alone_until_published(filled):
    image, _ = filled.published("a")
    old = filled.variant(image, "r0", mark="00ff")
    filled.batch(OTHER_BATCH, "retry")
    apart = filled.image("b")
    filled.member(apart, image, batch=OTHER_BATCH)
    filled.publication(apart, canonical=image)
    assert by(filled, old) == "open_batch"


def test_images_published_before_publications_were_recorded_keep_every_file(filled):
    image = filled.image("a")
    filled.member(image)
    keys = [filled.variant(image, recipe, mark=f"0{n}") for n, recipe in enumerate(("r0", "r1"))]
    assert [one.by for one in classify(filled, *keys)] == ["member", "member"]
    # The source publishes it now, and with r1 only.
    filled.publication(image, recipe="r1")
    assert [one.by for one in classify(filled, *keys)] == ["superseded_variant", "publication"]


def test_a_source_that_has_not_published_an_image_yet_keeps_its_files_for_all(filled):
    image, _ = filled.published("a")
    old = filled.variant(image, "r0", mark="00ff")
    filled.batch("shop-20260101-120000-abc123")
    filled.member(image, source="shop")
    assert by(filled, old) == "member"


def test_an_alias_without_publication_keeps_its_own_files_and_its_canonicals(filled):
    image, _ = filled.published("a")
    of_canonical = filled.variant(image, "r0", mark="00ff")
    alias = filled.image("b")
    of_alias = filled.variant(alias)
    filled.member(alias, image)
    assert (by(filled, of_canonical), by(filled, of_alias)) == ("member", "member")


def test_members_of_sources_that_the_settings_do_not_name_count_too(filled):
    image = filled.image("a")
    filled.batch("gone-20260101-120000-abc123")
    filled.member(image, source="gone")
    key = filled.variant(image)
    assert by(filled, key) == "member"


@pytest.mark.parametrize(
    ("state", "expected"),
    [("given_up", "unfinished_change"), ("retry", "open_batch"), ("done", "superseded_variant")],
)
def test_what_a_batch_replaced_without_writing_the_manifest_stays(filled, state, expected):
    image, _ = filled.published("a", recipe="r2")
    old = filled.variant(image, "r1", mark="00ff")
    filled.batch(OTHER_BATCH, state)
    filled.upload("uploads/photos/again.jpg", image, batch=OTHER_BATCH)
    filled.change(image, image, "r1", batch=OTHER_BATCH)
    assert by(filled, old) == expected


def test_an_object_of_a_dropped_row_is_an_orphan_and_its_row_is_not(filled):
    image, _ = filled.published("a")
    key = filled.variant(image, mark="00ff", dropped=True)
    assert by(filled, key) == "dropped_variant"


def test_manifests_are_needed_by_publications_and_members(filled):
    image, _ = filled.published("a")
    only_member = filled.image("b")
    filled.member(only_member)
    assert by(filled, layout.image_manifest_key("photos", image)) == "publication"
    assert by(filled, layout.image_manifest_key("photos", only_member)) == "member"
    assert by(filled, layout.image_manifest_key("shop", image)) == "unknown_manifest"
    unknown = layout.image_manifest_key("photos", image_id("x"))
    assert by(filled, unknown) == "unknown_manifest"


@pytest.mark.parametrize(
    "key_of",
    [
        layout.batch_key, layout.batch_manifest_key, layout.warm_list_key, layout.delta_key,
        layout.gallery_key,
    ],
)  # fmt: skip
def test_what_belongs_to_a_batch_lives_as_long_as_the_batch_is_known(filled, key_of):
    assert classify(filled, key_of(BATCH)) == Reference("batch", "batch")
    assert classify(filled, key_of(OTHER_BATCH)) == Reference("batch", "unknown_batch", True)


def test_a_page_of_an_index_is_needed_while_the_index_names_it(filled):
    pages = [layout.index_page_key("photos", n, f"{n}0123456789abcdef") for n in (1, 2)]
    pointer = layout.index_key("photos")
    named = '{"pages": [{"key": "indexes/photos/000001.10123456789abcdef.json"}]}'
    bucket = Pointers(photos=named)
    found = classify(filled, *pages, pointer, bucket=bucket)
    assert [one.by for one in found] == ["index", "superseded_index", "index"]
    assert bucket.asked == [pointer], "once, whatever the number of pages"
    # An index that names pages by number and digest, not by key, is understood as well.
    apart = Pointers(photos='{"pages": [[1, "10123456789abcdef"]]}')
    assert [one.orphan for one in classify(filled, *pages, bucket=apart)] == [False, True]


def test_without_an_index_every_page_is_kept(filled):
    assert by(filled, layout.index_page_key("photos", 1, "0123456789abcdef")) == "index"


def test_an_index_that_cannot_be_read_is_an_error_and_no_orphan(filled):
    class Broken:
        def get(self, key):
            raise StoreError(key)

    with pytest.raises(StoreError):
        classify(filled, layout.index_page_key("photos", 1, "0123456789abcdef"), bucket=Broken())


def test_plans_and_inventories_live_as_long_as_the_catalog_has_them(filled):
    assert by(filled, layout.plan_key("orphans-1")) == "unknown_plan"
    assert by(filled, layout.inventory_key("20260101-1")) == "old_inventory"


NEVER = [
    layout.table_key("raw_uploads", BATCH),
    layout.trash_key("orphans-1", "variants/x"),
    layout.trash_key("orphans-1", "uploads/photos/unknown.jpg"),
    layout.source_gallery_key("photos"),
    layout.index_key("shop"),
    layout.ledger_key(BATCH), layout.ledger_key("photos-20250101-120000-abc123"),
    layout.separations_key("photos"),
    "", "a.jpg", "uploads/elsewhere/a.jpg", "uploads/photos/", "uploads/photos/folder/",
    "variants/", "variants/readme.txt", f"variants/{image_id('x')}/", "VARIANTS/x",
    f"variants/{image_id('x')}/small-320x213.webp",
    f"variants/{image_id('x')}/small-320x213.0a1b.webp.bak",
    f"variants/{image_id('x')}/small-320x213.0a1b.webp\n",
    f"variants/{image_id('x').upper()}/small-320x213.0a1b.webp",
    f"manifests/{image_id('x')}.json", "manifests/photos/notes.json", "manifests/photos/a/b.json",
    "batches/notes.json", "batches/photos-2026-1-1.json", "galleries/my page.html",
    "indexes/photos/backup.json", "plans/notes.txt", "plans/inventories/x.csv",
    "plans/../uploads/x.parquet", "other/variants/x", "夕焼け/ü.jpg", "a//b", "%2F",
]  # fmt: skip


@pytest.mark.parametrize("key", NEVER)
def test_what_is_not_ours_or_never_goes_is_no_orphan(filled, key):
    assert not classify(filled, key).orphan


def test_a_source_is_the_one_whose_prefix_it_is():
    prefixes = [("uploads/a/", "a"), ("uploads/ab/", "ab"), ("in/", "in")]
    assert place_of("uploads/ab/x", prefixes) == Place("upload", "ab")
    assert place_of("in/2026/x", prefixes) == Place("upload", "in")
    assert place_of("uploads/x", prefixes) == Place("foreign")


def test_names_that_could_be_two_things_are_told_apart_by_their_ids():
    """A source may be called ``batches`` or ``warm``."""
    image = image_id("x")
    assert place_of(f"manifests/batches/{image}.json", []) == Place("manifest", "batches", image)
    batch = place_of(f"manifests/batches/{BATCH}.json", [])
    assert batch == Place("batch", "photos", BATCH)


def test_a_thousand_keys_take_a_few_statements(filled):
    image, key = filled.published("a")
    keys = [layout.variant_key(image, "small", n + 1, 1, "0a", "webp") for n in range(990)]
    others = [f"uploads/photos/{n}.jpg" for n in range(9)]
    liveness = Liveness(Pointers(), settings_of(), lambda: NOW)
    objects = [listed(one) for one in (key, *keys, *others)]
    with filled.catalog.read() as connection, Statements(filled.catalog.engine) as sent:
        found = liveness.classify(connection, objects)
    assert [one.orphan for one in found] == [False] + [True] * 999
    assert sent.count < 15


def test_answers_come_in_the_order_of_the_questions(filled):
    image, key = filled.published("a")
    keys = ["x", key, layout.batch_key(BATCH), "y", layout.image_manifest_key("photos", image)]
    assert [one.kind for one in classify(filled, *keys)] == [
        "foreign", "variant", "batch", "foreign", "manifest",
    ]  # fmt: skip


def test_superseded_reasons_are_reasons():
    assert set(SUPERSEDED) < set(ORPHAN_REASONS)
