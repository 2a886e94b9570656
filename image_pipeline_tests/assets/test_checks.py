"""Checks that fail when they should: something of a good batch is broken, then looked at."""

import io
import re

import dagster as dg
import pytest
import sqlalchemy as sa
from PIL import Image

from image_pipeline import checks
from image_pipeline.assets.common import group_previews
from image_pipeline.catalog import schema
from image_pipeline.catalog.reports import Duplicate, Group
from image_pipeline.stages.verifying import GroupFaults, Verification
from image_pipeline.store.layout import IMMUTABLE

from .project import checks_of, jpeg, photo

pytestmark = pytest.mark.xdist_group("checks")

BOTH = ["responsive_variants", "thumbnails"]


@pytest.fixture(scope="module")
def batch(shared_project):
    shared_project.upload({"one.jpg": photo(1), "two.jpg": photo(2)})
    batch, run = shared_project.look_and_run()
    assert all(checks_of(run).values())
    return batch


@pytest.fixture
def thumbnail(shared_project, batch):
    """A file of the batch; it is put back afterwards."""
    key = next(key for key in shared_project.objects("variants/") if key.endswith(".webp")
               and "/thumb-" in key)  # fmt: skip
    data = shared_project.bucket.get(key)
    yield key
    shared_project.bucket.put(key, data, "image/webp", IMMUTABLE)


def failed(project, batch):
    """The checks that a look at the batch finds failed, with the keys they name."""
    run = project.run(batch, BOTH)
    assert run.success, "a failed check does not stop the pipeline"
    return {
        (event.asset_key.to_user_string(), event.check_name): event.metadata["keys"].value
        for event in run.get_asset_check_evaluations()
        if not event.passed
    }


def test_a_good_batch_looked_at_again_is_still_good(shared_project, batch):
    assert failed(shared_project, batch) == {}


def test_a_file_that_disappeared_is_missed(shared_project, batch, thumbnail):
    shared_project.delete(thumbnail)
    assert failed(shared_project, batch) == {("thumbnails", "complete"): [thumbnail]}


@pytest.mark.parametrize(
    ("content_type", "cache_control"),
    [
        ("image/webp", "public, max-age=60"),
        ("image/webp", None),
        ("binary/octet-stream", IMMUTABLE),
    ],
)
def test_a_file_that_browsers_get_wrong_is_noticed(
    shared_project, batch, thumbnail, content_type, cache_control
):
    data = shared_project.bucket.get(thumbnail)
    shared_project.bucket.put(thumbnail, data, content_type, cache_control)
    assert failed(shared_project, batch) == {("thumbnails", "served_right"): [thumbnail]}


def test_a_file_of_another_length_is_noticed(shared_project, batch, thumbnail):
    shared_project.bucket.put(thumbnail, b"half", "image/webp", IMMUTABLE)
    assert failed(shared_project, batch) == {("thumbnails", "served_right"): [thumbnail]}


def test_metadata_that_was_found_while_rendering_is_told(shared_project, batch):
    table = schema.variants
    with shared_project.catalog.write() as connection:
        key = connection.execute(
            sa.select(table.c.key).where(table.c.role == "responsive").limit(1)
        ).scalar_one()
        planted = sa.update(table).where(table.c.key == key)
        connection.execute(planted.values(metadata=["exif", "gps"]))
    try:
        assert failed(shared_project, batch) == {("responsive_variants", "no_metadata"): [key]}
    finally:
        with shared_project.catalog.write() as connection:
            connection.execute(planted.values(metadata=[]))


def results(asset, **changes):
    nothing_wrong = Verification(6, [], [], [], 1000, 900)
    values = {name: getattr(nothing_wrong, name) for name in Verification.__slots__}
    found = checks.of_variants(asset, Verification(**{**values, **changes}))
    return {one.check_name: one for one in found}


def test_variants_that_weigh_more_than_the_originals_are_a_warning():
    assert results("responsive_variants")["bytes_saved"].passed
    heavier = results("responsive_variants", bytes_best=1500)["bytes_saved"]
    assert not heavier.passed
    assert heavier.severity is dg.AssetCheckSeverity.WARN
    assert heavier.metadata["bytes_saved"].value == -500
    assert heavier.metadata["share_saved"].value == -0.5
    assert "bytes_saved" not in results("thumbnails")
    assert results("responsive_variants", bytes_original=0, bytes_best=0)["bytes_saved"].passed


def test_a_check_names_twenty_keys_and_counts_all():
    missing = results("thumbnails", missing=[f"k{n}" for n in range(50)])["complete"]
    assert missing.metadata["keys"].value == [f"k{n}" for n in range(20)]
    assert (missing.metadata["wrong"].value, missing.metadata["checked"].value) == (50, 6)
    assert missing.severity is dg.AssetCheckSeverity.ERROR


@pytest.mark.parametrize(
    ("rows", "failing"),
    [
        ([("accepted", None)], []),
        ([("accepted", None), ("rejected", "truncated")], ["no_rejected_uploads"]),
        ([("failed", "storage_error")], ["no_failed_uploads"]),
        ([(None, None)], ["no_failed_uploads"]),
        ([], []),
    ],
)
def test_checks_of_verdicts(rows, failing):
    found = checks.of_uploads([{"verdict": verdict, "reason": why} for verdict, why in rows])
    assert [one.check_name for one in found if not one.passed] == failing
    assert [one.severity.value for one in found] == ["ERROR", "WARN"]


def test_checks_of_groups():
    """What a catalog broken by hand gives is told in unit/stages/test_regrouping.py."""
    good = GroupFaults(3, 2, [], [])
    assert checks.of_canonicals(good).passed
    assert checks.of_duplicates(good).passed
    bad = GroupFaults(3, 2, [("a", "b")], [f"i{n}" for n in range(50)])
    fallen, unserved = checks.of_canonicals(bad), checks.of_duplicates(bad)
    assert (fallen.passed, unserved.passed) == (False, False)
    assert fallen.metadata["images"].value == ["a is stood for by b"]
    assert unserved.metadata["images"].value == [f"i{n}" for n in range(20)]
    assert unserved.metadata["wrong"].value == 50
    assert {fallen.severity, unserved.severity} == {dg.AssetCheckSeverity.ERROR}


def test_a_duplicate_whose_canonical_lost_its_variants_is_noticed(project):
    with Image.open(io.BytesIO(photo(1))) as picture:
        smaller = jpeg(picture.resize((225, 150), Image.Resampling.LANCZOS))
    project.upload({"large.jpg": photo(1), "small.jpg": smaller})
    batch, run = project.look_and_run()
    name = ("cache_warm_manifests", "duplicates_are_served")
    assert checks_of(run)[name]
    with project.catalog.write() as connection:
        connection.execute(sa.delete(schema.variants))
    run = project.run(batch, ["cache_warm_manifests"])
    assert not run.success
    assert not checks_of(run)[name]
    assert checks_of(project.run(batch))[name], "the next whole run renders them again"


def test_names_in_markdown_are_text_and_pictures_are_pictures():
    evil = "a](javascript:alert(1))|<b>`*_~#!\\\n.jpg"
    preview = "data:image/webp;base64,UklGRg=="
    duplicates = [
        Duplicate(evil, "b", "picture", 3, 9, preview),
        Duplicate("plain.jpg", "c", "bytes", 0, 9, "javascript:alert(1)"),
    ]
    text = group_previews([Group("a", evil, preview, duplicates)]).value
    assert text.count("](data:image/webp;base64,") == 2
    assert len(text.splitlines()) == 3
    # Without its escapes nothing is left of it that Markdown or HTML would read.
    left = re.sub(r"\\[!-/:-@\[-`{-~]", "", text.replace(f"]({preview})", ""))
    assert not set("<`*~#") & set(left)
    assert "](" not in left
    many = [Group(str(n), f"k{n}", preview, duplicates * 10) for n in range(300)]
    assert len(group_previews(many).value) < 40_000
    assert group_previews([]).value == "no duplicates"
