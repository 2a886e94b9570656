"""Mockups and housekeeping: none that a manifest names goes, and former ones do, in time."""

import json
from datetime import UTC, datetime

import pytest

from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.schema import mockups as table
from image_pipeline.catalog.schema import sightings, variants
from image_pipeline.maintenance import planning
from image_pipeline.maintenance.applying import apply_plan
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.maintenance.liveness import Liveness, Place, Reference, place_of
from image_pipeline.maintenance.planning import Scope, look_for_orphans
from image_pipeline.maintenance.plans import read_entries
from image_pipeline.maintenance.refreshing import refresh
from image_pipeline.maintenance.trash import restore_plan
from image_pipeline.stages import mockups
from image_pipeline.stages.exporting import export_batch, rebuild
from image_pipeline.stages.tools import quiet
from image_pipeline.store.layout import mockup_manifest_key, mockup_size, variant_key
from image_pipeline_tests.shop import FILES, KilledError, Shop, strict

IMAGE = "ab" * 32


@pytest.fixture
def shop(either_catalog, tmp_path, monkeypatch):
    made = Shop(either_catalog, tmp_path, maintenance=strict())
    monkeypatch.setattr(planning, "server_time", lambda bucket: datetime.now(UTC))
    made.ids = [made.design(name, name) for name in ("red", "green", "blue")]
    made.template("mug")
    made.template("my-shirt", colour="black")
    made.make()
    return made


def things(shop):
    return shop.bucket, shop.catalog, shop.settings, shop.clock


def references(shop, catalog=None):
    """Who refers to every file and manifest of a mockup now, by key."""
    listed = [one for folder in ("variants/", "manifests/") for one in shop.bucket.list(folder)]
    liveness = Liveness(shop.bucket, shop.settings, shop.clock)
    with (catalog or shop.catalog).read() as connection:
        found = liveness.classify(connection, listed)
    return {one.key: reference for one, reference in zip(listed, found, strict=True)}


def orphans(shop, catalog=None):
    return {key for key, found in references(shop, catalog).items() if found.orphan}


def plan(shop):
    take_inventory(*things(shop))
    return look_for_orphans(*things(shop), Scope())


def planned_keys(shop, planned):
    return {one.key for part in read_entries(shop.bucket, planned.plan) for one in part}


def named(shop):
    """Everything that the manifests in the bucket name, and they themselves."""
    manifests = shop.stored("manifests/photos/mockups/")
    keys = {one["key"] for data in manifests.values() for one in json.loads(data)["variants"]}
    return keys | manifests.keys()


@pytest.mark.parametrize("template", ["mug", "my-shirt", "a2_poster", "x-10x10"])
def test_names_are_read_as_the_layout_makes_them(template):
    file = variant_key(IMAGE, mockup_size(template, "small_2"), 40, 30, "0a1b", "webp")
    assert place_of(file, []) == Place("variant", "", IMAGE, template)
    manifest = mockup_manifest_key("photos", template, IMAGE)
    assert place_of(manifest, []) == Place("manifest", "photos", IMAGE, template)
    assert place_of(variant_key(IMAGE, "small_2", 40, 30, "0a1b", "webp"), []).template == ""
    for foreign in (f"manifests/photos/mockups/{template}/notes.json", f"{manifest}.bak"):
        assert place_of(foreign, []) == Place("foreign")


def test_templates_are_nobodys_orphans():
    assert place_of("templates/mug/base.png", [("uploads/photos/", "photos")]) == Place("foreign")


def test_a_plan_right_after_has_no_mockup_in_it(shop):
    found = references(shop)
    assert set(found) == named(shop)
    assert {one.by for one in found.values()} == {"mockup"}
    for _ in range(5):
        shop.pass_days(20)
        assert planned_keys(shop, plan(shop)) == set()


def test_former_files_go_after_the_grace_and_new_ones_stay(shop):
    shop.pass_days(30)
    old = shop.files("mug")
    shop.template("mug", colour="gray")
    shop.make()
    assert len(orphans(shop)) == 3 * FILES
    assert planned_keys(shop, plan(shop)) == set(), "needed until lately"
    shop.pass_days(13)
    assert planned_keys(shop, plan(shop)) == set()
    shop.pass_days(2)
    planned = plan(shop)
    assert planned_keys(shop, planned) == old
    assert apply_plan(*things(shop), planned.plan.id).counts == {"trashed": 3 * FILES}
    assert named(shop) <= set(shop.stored(""))
    assert not old & shop.files()


def ripe_plan(shop):
    """A plan of the former files of the mug."""
    shop.pass_days(30)
    shop.template("mug", colour="gray")
    shop.make()
    plan(shop)
    shop.pass_days(15)
    return plan(shop)


def test_files_that_are_named_again_since_the_plan_stay(shop):
    old = shop.files("mug")
    planned = ripe_plan(shop)
    assert planned_keys(shop, planned) == old
    shop.template("mug")
    assert shop.make().rendered == 0
    assert apply_plan(*things(shop), planned.plan.id).counts == {"skipped_now_live": 3 * FILES}
    assert old <= set(shop.stored("variants/"))


def test_files_that_are_named_again_were_not_seen_unneeded(shop):
    old = shop.files("mug")
    ripe_plan(shop)
    assert {row["key"] for row in shop.rows(sightings)} == old
    shop.template("mug")
    shop.make()
    # All three are named, so that none of the old ones is an orphan from here on.
    assert shop.rows(sightings) == []
    shop.template("mug", colour="gray")
    shop.make()
    assert planned_keys(shop, plan(shop)) == set(), "the grace begins anew"


def test_files_of_a_design_that_was_announced_since_the_plan_stay(shop):
    planned = ripe_plan(shop)
    shop.pass_days(0.5)
    shop.template("mug", colour="pink")
    shop.make()
    assert apply_plan(*things(shop), planned.plan.id).counts == {"skipped_changed": 3 * FILES}


def test_what_was_removed_and_restored_is_named_again_without_being_composed(shop):
    planned = ripe_plan(shop)
    apply_plan(*things(shop), planned.plan.id)
    restore_plan(*things(shop), planned.plan.id)
    shop.template("mug")
    tally = shop.make()
    assert (tally.rendered, tally.published) == (0, 3)


def test_what_was_removed_is_composed_again(shop):
    planned = ripe_plan(shop)
    apply_plan(*things(shop), planned.plan.id)
    shop.template("mug")
    tally = shop.make()
    assert (tally.rendered, tally.published, orphans(shop) & named(shop)) == (3, 3, set())


def test_a_run_while_files_are_removed_names_nothing_that_goes(shop, monkeypatch):
    """The template comes back just as its former files are being moved to the trash."""
    monkeypatch.setattr(mockups, "REMOVAL_LOOKS", 2)
    monkeypatch.setattr(mockups, "await_removal", lambda: None)
    planned = ripe_plan(shop)
    tallies = []

    def come_back(call, _):
        if call == "delete":
            shop.bucket.before = lambda *_: None
            shop.template("mug")
            monkeypatch.setattr("image_pipeline.stages.storing.REMOVAL_LOOKS", 1)
            monkeypatch.setattr("image_pipeline.stages.storing.await_removal", lambda: None)
            tallies.append(shop.make())

    shop.bucket.before = come_back
    done = apply_plan(*things(shop), planned.plan.id, threads=1)
    assert done.counts == {"trashed": 3 * FILES}
    assert tallies[0].published == 0
    assert named(shop) <= set(shop.stored("")), "the manifests name the gray ones"
    shop.pass_days(1)
    assert shop.make().published == 3
    assert named(shop) <= set(shop.stored(""))


def test_mockups_of_a_template_that_is_gone_go_with_their_manifests(shop):
    shop.pass_days(30)
    files = shop.files("my-shirt")
    manifests = set(shop.stored("manifests/photos/mockups/my-shirt/"))
    shop.remove_template("my-shirt")
    shop.make()
    plan(shop)
    shop.pass_days(15)
    assert planned_keys(shop, plan(shop)) == files | manifests


def test_a_broken_template_lets_nothing_go(shop):
    shop.bucket.put("templates/mug/template.yaml", b"base: [", "text/yaml")
    shop.make()
    assert orphans(shop) == set()


def test_files_of_the_manifest_before_stay_until_the_new_one_is_put(shop, monkeypatch):
    old = shop.files("mug")
    shop.template("mug", colour="gray")
    with monkeypatch.context() as patched:

        def killed(studio, place, document):
            raise KilledError

        patched.setattr(mockups._Studio, "_put", killed)
        with pytest.raises(KilledError):
            shop.make()
    shop.pass_days(40)
    announced = {row["image_id"] for row in shop.rows() if not row["settled"]}
    assert len(announced) == 2, "one chunk"
    found = references(shop)
    mine = {key: found[key].by for key in old if key.split("/")[1] in announced}
    assert set(mine.values()) == {"unfinished_change"}
    assert orphans(shop) & named(shop) == set()
    shop.make()
    shop.pass_days(40)
    assert orphans(shop) >= old


def test_files_without_rows_stay_if_a_manifest_names_them(shop):
    with shop.catalog.write() as connection:
        connection.execute(variants.delete())
        connection.execute(table.delete())
    shop.pass_days(60)
    found = references(shop)
    files = {key: one for key, one in found.items() if key.startswith("variants/")}
    assert set(files.values()) == {Reference("variant", "manifest")}


def test_a_rebuilt_catalog_knows_the_mockups(shop, tmp_path):
    with shop.catalog.read() as connection:
        ids = list(connection.exec_driver_sql("SELECT id FROM batches").scalars())
    for batch in ids:
        export_batch(shop.bucket, shop.catalog, batch, "photos", shop.now)
    shop.template("mug", colour="gray")
    shop.make()
    foreign = "manifests/photos/mockups/mug/notes.json"
    shop.bucket.put(foreign, b"not ours", "text/plain")
    rebuilt = Catalog(f"sqlite:///{tmp_path / 'rebuilt.db'}")
    done = rebuild(shop.bucket, rebuilt, ["uploads/photos/"], shop.now, quiet)
    assert (done.rows["mockups"], done.unfinished) == (6, [])
    shop.bucket.delete([foreign])
    shop.pass_days(60)
    assert orphans(shop, rebuilt) & named(shop) == set()
    before = {(one["image_id"], one["template"]): one for one in shop.rows()}
    shop.catalog = rebuilt
    for row in shop.rows():
        known = before[row["image_id"], row["template"]]
        assert (row["recipe"], row["digest"]) == (known["recipe"], known["digest"])
    tally = shop.make()
    assert (tally.rendered, tally.published) == (0, 6)
    assert orphans(shop) & named(shop) == set()
    rebuilt.close()


def test_a_file_that_is_missing_is_made_again(shop):
    before = shop.stored("variants/")
    gone = sorted(shop.files("mug"))[0]
    shop.bucket.delete([gone])
    take_inventory(*things(shop))
    shown = refresh(*things(shop), dry_run=True)
    assert (shown.files_missing, shown.mockups_missing, shown.rows_dropped) == (1, 1, 0)
    assert shop.make().due == 0
    found = refresh(*things(shop), dry_run=False)
    assert (found.mockups_missing, found.rows_dropped, found.reopened) == (1, FILES, [])
    assert orphans(shop) & named(shop) == set(), "its other files are in the manifest"
    tally = shop.make()
    assert (tally.rendered, tally.published) == (1, 1)
    assert shop.stored("variants/") == before


def test_a_missing_file_that_is_being_removed_is_left_to_housekeeping(shop):
    from image_pipeline.catalog import removals

    gone = sorted(shop.files("mug"))[0]
    shop.bucket.delete([gone])
    take_inventory(*things(shop))
    with shop.catalog.write() as connection:
        removals.begin(connection, "orphans-x", [gone], shop.now)
    assert refresh(*things(shop), dry_run=False).rows_dropped == 0
