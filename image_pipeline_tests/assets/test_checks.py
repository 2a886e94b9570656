"""Checks that fail when they should: something of a good batch is broken, then looked at."""

import dagster as dg
import pytest
import sqlalchemy as sa

from image_pipeline import checks
from image_pipeline.catalog import schema
from image_pipeline.stages.verifying import Verification
from image_pipeline.store.layout import IMMUTABLE

from .project import checks_of, photo

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
