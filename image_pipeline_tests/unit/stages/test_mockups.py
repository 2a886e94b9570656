"""Mockups, from templates and designs to manifests: what is made, what is left, what goes."""

import base64
import io
import json
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
import sqlalchemy as sa
from PIL import Image

from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import mockups as catalog_mockups
from image_pipeline.catalog import removals
from image_pipeline.catalog import warmth as catalog_warmth
from image_pipeline.catalog.schema import warmth
from image_pipeline.settings import Source
from image_pipeline.stages import mockups, storing
from image_pipeline.stages.fetching import load_original
from image_pipeline.stages.forgetting import forget
from image_pipeline.stages.mockups import StateRun, current_state, is_unfinished, why_run
from image_pipeline.stages.warming import catch_up
from image_pipeline.store.bucket import StoreError
from image_pipeline.store.layout import mockup_manifest_key
from image_pipeline_tests.shop import BASE, FILES, KilledError, Shop, png, with_edge

SCHEMA = Path(__file__).parents[3] / "docs/schemas/mockup-manifest.schema.json"


@pytest.fixture
def shop(either_catalog, tmp_path):
    return Shop(either_catalog, tmp_path)


@pytest.fixture
def small_shop(catalog, tmp_path):
    """On SQLite only, for what is no question to the database."""
    return Shop(catalog, tmp_path)


@pytest.fixture
def filled(small_shop):
    """Three designs on two templates, made."""
    small_shop.ids = [small_shop.design(name, name) for name in ("red", "green", "blue")]
    small_shop.template("mug")
    small_shop.template("poster-a2", colour="black")
    tally = small_shop.make()
    assert (tally.rendered, tally.published, tally.failed, tally.later) == (6, 6, 0, 0)
    small_shop.workers.composed = 0
    return small_shop


def manifest(shop, image, template, source="photos"):
    return json.loads(shop.bucket.get(mockup_manifest_key(source, template, image)))


def test_every_design_is_on_every_template(shop):
    ids = [shop.design(name, name) for name in ("red", "green", "blue")]
    shop.template("mug")
    shop.template("poster-a2", colour="black")
    tally = shop.make()
    assert (tally.templates, tally.due, tally.rendered, tally.published) == (2, 6, 6, 6)
    assert (tally.files, tally.failed, tally.later, tally.problems) == (6 * FILES, 0, 0, {})
    assert tally.bytes_out == sum(len(data) for data in shop.stored("variants/").values())
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for image in ids:
        for template in ("mug", "poster-a2"):
            found = manifest(shop, image, template)
            validator.validate(found)
            assert (found["id"], found["template"]) == (image, template)
            assert (found["width"], found["height"]) == BASE
            assert {one["size"] for one in found["variants"]} == {"thumb", "small"}
            for one in found["variants"]:
                prefix = f"variants/{image}/{template}-{one['size']}-{one['width']}x"
                assert one["key"].startswith(prefix)
                assert len(shop.bucket.get(one["key"])) == one["bytes"]
    assert all(row["settled"] for row in shop.rows())
    assert shop.files() == set(shop.stored("variants/"))
    assert shop.stages[-1] == ("mockups of photos", 6, 6)


def test_a_mockup_shows_the_design_on_the_product(filled):
    (small,) = [
        one for one in manifest(filled, filled.ids[0], "mug")["variants"] if one["size"] == "small"
    ]
    picture = Image.open(io.BytesIO(filled.bucket.get(small["key"]))).convert("RGB")
    # The box is (10, 10, 40, 30) of a base of 80 x 60, shown at half its size.
    assert picture.size == (40, 30)
    inside, outside = picture.getpixel((15, 12)), picture.getpixel((35, 25))
    assert inside[0] > 200
    assert max(inside[1:]) < 60
    assert min(outside) > 240


def test_its_placeholder_is_of_the_composed_picture(filled):
    text = manifest(filled, filled.ids[0], "poster-a2")["placeholder"].partition("base64,")[2]
    small = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
    # The design ends at the middle; right of it there is but the base, which is black.
    assert max(small.getpixel((small.width - 1, small.height - 1))) < 60


def test_what_is_made_is_not_made_again(shop):
    shop.design("a")
    shop.template("mug")
    shop.make()
    puts = []
    shop.bucket.before = lambda call, key: puts.append(key) if call == "put" else None
    tally = shop.make()
    assert (tally.due, tally.rendered, tally.published, puts) == (0, 0, 0, [])


def test_a_changed_template_costs_its_own_mockups_only(shop):
    ids = [shop.design(name, name) for name in ("red", "green", "blue")]
    shop.template("mug")
    shop.template("shirt", colour="black")
    shop.make()
    shop.workers.composed = 0
    mug, shirt = shop.files("mug"), shop.files("shirt")
    shop.template("mug", box=(20, 20, 40, 30))
    tally = shop.make()
    assert (tally.due, tally.rendered, shop.workers.composed) == (3, 3, 3)
    assert shop.files("shirt") == shirt
    new = shop.files("mug") - mug
    assert len(new) == 3 * FILES
    named = {one["key"] for image in ids for one in manifest(shop, image, "mug")["variants"]}
    assert named == new


def test_a_template_that_is_written_anew_as_it_was_costs_nothing(filled):
    before = filled.stored("")
    filled.template("mug")
    assert filled.make().due == 0
    assert filled.stored("") == before


def test_a_template_that_comes_back_as_it_was_is_not_composed_again(filled):
    first = filled.files("mug")
    filled.template("mug", colour="gray")
    filled.make()
    filled.template("mug")
    filled.workers.composed = 0
    tally = filled.make()
    assert (tally.published, filled.workers.composed) == (3, 0)
    named = {one["key"] for one in manifest(filled, filled.ids[0], "mug")["variants"]}
    assert named <= first


def test_a_broken_template_is_told_of_and_the_others_go_on(filled):
    before = filled.row(filled.ids[0], "mug")
    filled.bucket.put("templates/mug/template.yaml", b"base: [", "text/yaml")
    filled.template("new", colour="gray")
    tally = filled.make()
    assert list(tally.problems) == ["mug"]
    assert "mug" in tally.problems["mug"]
    assert (tally.rendered, tally.withdrawn) == (3, 0)
    assert filled.row(filled.ids[0], "mug") == before, "what is published on it stays"


@pytest.mark.parametrize("file", ["base.png", "template.yaml"])
def test_a_template_with_a_broken_or_missing_picture_is_told_of(small_shop, file):
    small_shop.design("a")
    small_shop.template("mug")
    small_shop.template("other")
    if file == "base.png":
        small_shop.bucket.put("templates/mug/base.png", b"no picture", "image/png")
    else:
        small_shop.set_mockups(("mug", "other"))
        small_shop.bucket.delete(["templates/mug/template.yaml"])
    tally = small_shop.make()
    assert list(tally.problems) == ["mug"]
    assert [row["template"] for row in small_shop.rows()] == ["other"]


def test_a_template_that_is_too_large_is_not_read(small_shop, monkeypatch):
    monkeypatch.setattr("image_pipeline.stages.templates.FILE_BYTES", 10)
    small_shop.template("mug")
    reads = []
    small_shop.bucket.before = lambda call, key: reads.append(key) if call == "get" else None
    assert "more than" in small_shop.make().problems["mug"]
    assert reads == ["templates/mug/template.yaml"]


def test_a_template_that_is_gone_takes_its_mockups_along(shop):
    image = shop.design("a")
    shop.template("mug")
    shop.template("shirt")
    shop.make()
    shop.remove_template("mug")
    tally = shop.make()
    assert (tally.withdrawn, tally.problems) == (1, {})
    assert [row["template"] for row in shop.rows()] == ["shirt"]
    assert manifest(shop, image, "shirt")["template"] == "shirt"


def test_only_templates_that_a_source_wants_are_made(filled):
    filled.set_mockups(("mug",))
    assert filled.make().withdrawn == 3
    assert {row["template"] for row in filled.rows()} == {"mug"}
    filled.set_mockups(())
    assert filled.make().withdrawn == 3
    assert filled.rows() == []


def test_a_bad_design_is_recorded_and_holds_up_nobody(shop):
    good = [shop.design(name, name) for name in ("red", "green")]
    bad = shop.design("bad", data=b"this is no picture, whatever its name says")
    shop.template("mug")
    tally = shop.make()
    assert (tally.published, tally.failed) == (2, 1)
    row = shop.row(bad, "mug")
    assert (row["verdict"], row["recipe"], row["settled"]) == ("rejected", None, False)
    assert row["reason"]
    assert tally.failures[0]["image_id"] == bad
    assert {row["image_id"] for row in shop.rows() if row["recipe"]} == set(good)
    again = shop.make()
    assert (again.due, again.failed) == (0, 0), "not tried again"
    shop.template("mug", colour="gray")
    assert shop.make().failed == 1, "but with another template"


def test_a_failure_of_ours_is_tried_again_by_the_next_run(filled):
    image = filled.ids[0]
    filled.template("mug", colour="gray")

    def fail(call, key):
        if call == "download" and key.endswith("red.png"):
            raise StoreError("503")

    filled.bucket.before = fail
    before = filled.row(image, "mug")
    tally = filled.make()
    assert (tally.failed, tally.published) == (1, 2)
    row = filled.row(image, "mug")
    assert (row["verdict"], row["reason"]) == ("failed", "storage_error")
    assert row["recipe"] == before["recipe"], "what was published of it stays"
    filled.bucket.before = lambda *_: None
    filled.now += timedelta(minutes=1)
    assert filled.make().published == 1
    row = filled.row(image, "mug")
    assert (row["verdict"], row["tried"], row["settled"]) == (None, None, True)


def test_a_design_whose_original_is_gone_is_made_when_it_is_sent_anew(shop):
    data = png((40, 30), "red")
    image = shop.design("red")
    shop.bucket.delete(["uploads/photos/red.png"])
    shop.template("mug")
    assert shop.make().failed == 1
    assert (shop.row(image, "mug")["verdict"], shop.row(image, "mug")["reason"]) == (
        "rejected", "gone",
    )  # fmt: skip
    shop.pass_days(1)
    assert shop.make().due == 0
    shop.send_again("again", data)
    assert is_unfinished(shop.settings, shop.bucket, shop.catalog, shop.now)
    assert shop.make().published == 1


def kill_at(monkeypatch, owner, name, nth=1, after=False):
    """End the process at the n-th call of a function."""
    real, calls = getattr(owner, name), []

    def killed(*arguments, **options):
        calls.append(1)
        if len(calls) == nth and not after:
            raise KilledError
        result = real(*arguments, **options)
        if len(calls) == nth:
            raise KilledError
        return result

    monkeypatch.setattr(owner, name, killed)


@pytest.mark.parametrize(
    ("owner", "name", "after", "composed"),
    [
        (catalog_images, "add_variants", False, 3),  # objects without rows
        (mockups._Studio, "_publish", False, 1),  # rows that nothing names
        (catalog_mockups, "announce", True, 1),  # inside the transaction
        (mockups._Studio, "_put", False, 1),  # announced, without a manifest
        (mockups._Studio, "_put", True, 1),
        (catalog_mockups, "settle", False, 1),
    ],
)
def test_a_killed_run_is_gone_on_with(small_shop, monkeypatch, owner, name, after, composed):
    ids = [small_shop.design(colour, colour) for colour in ("red", "green", "blue")]
    small_shop.template("mug")
    with monkeypatch.context() as patched:
        kill_at(patched, owner, name, after=after)
        with pytest.raises(KilledError):
            small_shop.make()
    small_shop.workers.composed = 0
    tally = small_shop.make()
    assert (tally.published, small_shop.workers.composed) == (3, composed)
    assert {row["image_id"] for row in small_shop.rows() if row["settled"]} == set(ids)
    assert small_shop.files() == set(small_shop.stored("variants/"))
    for image in ids:
        assert manifest(small_shop, image, "mug")["id"] == image


def test_a_run_that_is_killed_keeps_the_chunks_before(small_shop, monkeypatch):
    for colour in ("red", "green", "blue", "gray", "pink"):
        small_shop.design(colour, colour)
    small_shop.template("mug")
    with monkeypatch.context() as patched:
        kill_at(patched, mockups._Studio, "_make", nth=3)
        with pytest.raises(KilledError):
            small_shop.make()
    assert len(small_shop.rows()) == 4, "two chunks of two"
    assert small_shop.make().rendered == 1


def test_nothing_is_made_of_who_stands_for_nobody(filled):
    image = filled.ids[0]
    filled.dissolve(image)
    tally = filled.make()
    assert (tally.withdrawn, tally.rendered) == (2, 0)
    assert {row["image_id"] for row in filled.rows()} == set(filled.ids[1:])


def test_nothing_is_announced_of_who_stood_for_somebody_when_it_was_composed(
    small_shop, monkeypatch
):
    image = small_shop.design("red")
    small_shop.template("mug")
    documents = mockups._Studio._documents

    def late(studio, files):
        small_shop.dissolve(image)
        return documents(studio, files)

    monkeypatch.setattr(mockups._Studio, "_documents", late)
    small_shop.make()
    assert small_shop.rows() == []
    assert not list(small_shop.bucket.list("manifests/"))


def test_another_source_shares_the_files_of_the_same_design(filled):
    filled.set_mockups("all", "shop")
    image = filled.design("red", "red", source="shop")
    assert image == filled.ids[0]
    tally = filled.make()
    assert (tally.published, filled.workers.composed) == (2, 0)
    one, other = manifest(filled, image, "mug"), manifest(filled, image, "mug", "shop")
    assert one["variants"] == other["variants"]


def test_a_new_address_is_a_new_manifest_and_no_new_picture(filled):
    filled.set(delivery=with_edge())
    tally = filled.make()
    assert (tally.published, filled.workers.composed) == (6, 0)
    assert manifest(filled, filled.ids[0], "mug")["src"].startswith("https://cdn.example/variants/")


def test_the_edge_is_asked_for_mockups_and_not_for_former_ones(shop):
    shop.set(delivery=with_edge())
    image = shop.design("a")
    shop.template("mug")
    shop.make()
    old = shop.files()
    assert shop.warm() == old
    with shop.catalog.write() as connection:
        catalog_warmth.replace(connection, "photos", [image], [], shop.now)
    assert shop.warm() == old, "the image's own files are others"
    shop.template("mug", colour="gray")
    shop.make()
    assert shop.warm() == shop.files() - old
    shop.remove_template("mug")
    shop.make()
    assert shop.warm() == set()


def test_the_edge_is_told_of_mockups_that_were_made_before_there_was_one(shop):
    for colour in ("red", "green"):
        shop.design(colour, colour)
    shop.template("mug")
    shop.make()
    assert shop.warm() == set()
    shop.set(delivery=with_edge())
    catch_up(shop.tools, "photos")
    assert shop.warm() == shop.files()
    with shop.catalog.write() as connection:
        connection.execute(sa.update(warmth).values(status=200))
    catch_up(shop.tools, "photos")
    assert {row["status"] for row in shop.rows(warmth)} == {200}


def test_nothing_is_announced_of_what_is_being_removed(small_shop, monkeypatch):
    small_shop.design("a")
    small_shop.template("mug")
    monkeypatch.setattr(mockups, "await_removal", lambda: looks.append(1))
    monkeypatch.setattr(mockups, "REMOVAL_LOOKS", 3)
    looks = []
    with monkeypatch.context() as patched:
        kill_at(patched, mockups._Studio, "_publish")
        with pytest.raises(KilledError):
            small_shop.make()
    key = sorted(small_shop.files())[0]
    with small_shop.catalog.write() as connection:
        removals.begin(connection, "orphans-x", [key], small_shop.now)
    tally = small_shop.make()
    assert (tally.published, tally.later, len(looks)) == (0, 1, 2)
    assert small_shop.rows() == []
    assert not list(small_shop.bucket.list("manifests/"))
    with small_shop.catalog.write() as connection:
        removals.end(connection, "orphans-x", [key])
    assert small_shop.make().published == 1


def test_a_file_that_is_being_removed_is_stored_again_before_its_row(small_shop, monkeypatch):
    small_shop.design("a")
    small_shop.template("mug")
    monkeypatch.setattr(storing, "await_removal", lambda: end(small_shop))

    def begin(call, key):
        if call == "put" and key.startswith("variants/"):
            small_shop.bucket.before = lambda *_: None
            with small_shop.catalog.write() as connection:
                removals.begin(connection, "orphans-x", [key], small_shop.now)
            small_shop.going = key

    def end(shop):
        shop.bucket.delete([shop.going])
        with shop.catalog.write() as connection:
            removals.end_forgetting(connection, "orphans-x", shop.now)

    small_shop.bucket.before = begin
    assert small_shop.make().published == 1
    assert small_shop.files() == set(small_shop.stored("variants/"))


def test_a_lost_file_is_noticed_before_it_is_named_again(filled):
    gone = min(
        (one for one in manifest(filled, filled.ids[0], "mug")["variants"]),
        key=lambda one: one["width"],
    )["key"]
    filled.bucket.delete([gone])
    filled.set(delivery=with_edge())
    tally = filled.make()
    assert (tally.published, tally.later) == (5, 1)
    tally = filled.make()
    assert (tally.rendered, tally.published) == (1, 1)
    assert filled.bucket.head(gone)


def test_forgetting_a_design_takes_its_mockups_along(filled):
    image = filled.ids[0]
    report = forget(filled.tools, "uploads/photos/red.png", "photos")
    assert (report.pending, report.remains) == ([], [])
    assert not [key for key in filled.stored("") if image in key]
    assert {row["image_id"] for row in filled.rows()} == set(filled.ids[1:])
    assert mockup_manifest_key("photos", "mug", image) in report.removed
    assert filled.make().due == 0


@pytest.mark.parametrize("moment", ["composed", "stored"])
def test_a_design_that_is_forgotten_while_it_is_composed_leaves_nothing(
    small_shop, monkeypatch, moment
):
    image = small_shop.design("red")
    other = small_shop.design("blue", "blue")
    small_shop.template("mug")

    def ask(key):
        if getattr(key, "image_id", None) == image:
            small_shop.workers.before = lambda key: None
            assert forget(small_shop.tools, "uploads/photos/red.png", "photos").remains == []

    commit = mockups._Bench._commit

    def late(bench):
        monkeypatch.setattr(mockups._Bench, "_commit", commit)
        forget(small_shop.tools, "uploads/photos/red.png", "photos")
        commit(bench)

    if moment == "composed":
        small_shop.workers.before = ask
        data = small_shop.bucket.get("uploads/photos/red.png")

        def kept(tools, found):
            return data if found[0].image_id == image else load_original(tools, found)

        monkeypatch.setattr(mockups, "load_original", kept)
    else:
        monkeypatch.setattr(mockups._Bench, "_commit", late)
    small_shop.make()
    assert not [key for key in small_shop.stored("") if image in key]
    assert {row["image_id"] for row in small_shop.rows()} == {other}
    assert not [key for key in small_shop.files() if image in key]


class TestWhenToRun:
    def state(self, shop):
        return current_state(shop.settings, shop.bucket, shop.catalog)

    def test_the_state_changes_with_templates_settings_and_batches(self, shop):
        shop.template("mug")
        states = [self.state(shop)]
        shop.design("a")
        states.append(self.state(shop))
        shop.template("mug", colour="gray")
        states.append(self.state(shop))
        shop.remove_template("mug")
        states.append(self.state(shop))
        shop.set_mockups(("mug",))
        states.append(self.state(shop))
        assert len(set(states)) == 5
        assert self.state(shop) == states[-1]

    def test_a_batch_of_a_source_without_mockups_changes_nothing(self, shop):
        before = self.state(shop)
        shop.design("a", source="shop")
        assert self.state(shop) == before

    def test_nothing_is_read_of_templates(self, small_shop):
        small_shop.template("mug")
        calls = []
        small_shop.bucket.before = lambda call, key: calls.append((call, key))
        self.state(small_shop)
        is_unfinished(small_shop.settings, small_shop.bucket, small_shop.catalog, small_shop.now)
        assert calls == [("page", "templates/")] * 2

    @pytest.mark.parametrize(
        ("newest", "unfinished", "runs"),
        [
            (None, False, True),
            (StateRun(True, timedelta(minutes=59)), True, False),
            (StateRun(True, timedelta(minutes=61)), True, True),
            (StateRun(True, timedelta(minutes=61)), False, False),
            (StateRun(False, timedelta(minutes=59)), True, False),
            (StateRun(False, timedelta(minutes=61)), False, True),
        ],
    )
    def test_a_state_is_asked_for_once_and_again_after_a_pause(self, newest, unfinished, runs):
        assert bool(why_run(newest, lambda: unfinished)) == runs

    def test_unfinished_is_what_a_run_could_make(self, shop):
        def unfinished():
            return is_unfinished(shop.settings, shop.bucket, shop.catalog, shop.now)

        assert not unfinished()
        image = shop.design("a")
        assert not unfinished(), "no template"
        shop.template("mug")
        assert unfinished()
        shop.make()
        assert not unfinished()
        with shop.catalog.write() as connection:
            catalog_mockups.lose_files(connection, [(image, shop.row(image, "mug")["recipe"])])
        assert unfinished()

    def test_a_bad_design_does_not_ask_for_runs(self, shop):
        shop.design("bad", data=b"no picture")
        shop.template("mug")
        shop.make()
        assert not is_unfinished(shop.settings, shop.bucket, shop.catalog, shop.now)


def test_a_source_that_wants_none_costs_nothing(small_shop):
    small_shop.set(sources={"photos": Source(prefix="uploads/photos/")})
    small_shop.design("a")
    small_shop.template("mug")
    tally = small_shop.make()
    assert (tally.due, tally.templates, small_shop.rows()) == (0, 0, [])


def test_a_base_of_another_size_has_files_of_another_size(filled):
    filled.bucket.put("templates/mug/base.png", png((60, 60), "white"), "image/png")
    assert filled.make().published == 3
    assert manifest(filled, filled.ids[0], "mug")["width"] == 60


def test_forgetting_in_one_source_leaves_the_mockups_of_another(filled):
    filled.set_mockups("all", "shop")
    image = filled.design("red", "red", source="shop")
    filled.make()
    forget(filled.tools, "uploads/photos/red.png", "photos")
    assert {row["source"] for row in filled.rows() if row["image_id"] == image} == {"shop"}
    assert not [key for key in filled.stored("manifests/photos/") if image in key]
    for template in ("mug", "poster-a2"):
        for one in manifest(filled, image, template, "shop")["variants"]:
            assert filled.bucket.head(one["key"])


@pytest.mark.parametrize("versioned", [False, True])
def test_a_design_that_is_forgotten_on_a_server_leaves_no_version(
    bucket, catalog, tmp_path, monkeypatch, versioned
):
    if versioned:
        bucket.client.put_bucket_versioning(
            Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
        )
    shop = Shop(catalog, tmp_path, bucket)
    image, late = shop.design("red"), shop.design("blue", "blue")
    shop.template("mug")
    shop.make()
    shop.template("mug", colour="gray")
    commit = mockups._Bench._commit

    def forgotten_before(bench):
        monkeypatch.setattr(mockups._Bench, "_commit", commit)
        forget(shop.tools, "uploads/photos/blue.png", "photos")
        commit(bench)

    monkeypatch.setattr(mockups._Bench, "_commit", forgotten_before)
    shop.make()
    assert forget(shop.tools, "uploads/photos/red.png", "photos").remains == []
    keys = {one.key for one in (bucket.versions("") if versioned else bucket.list(""))}
    assert not [key for key in keys if image in key or late in key]
    assert shop.rows() == []
