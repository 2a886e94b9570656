"""Duplicates through Dagster, and what people say of them on the command line."""

import hashlib
import json

import pytest
from click.testing import CliRunner
from PIL import Image

from image_pipeline.catalog.engine import Catalog
from image_pipeline.cli import cli
from image_pipeline.samples import photograph
from image_pipeline_tests.assets.project import jpeg, open_project

pytestmark = pytest.mark.xdist_group("duplicates")


def files():
    """One photograph in every tier, and another one."""
    original = photograph(900, 600, 1)
    plain = jpeg(original)
    exif = Image.Exif()
    exif[0x010F] = "another camera"
    return {
        "original.jpg": plain,
        "copy.jpg": plain,
        # The same JPEG data, so the same pixels, with other metadata.
        "tagged.jpg": jpeg(original, exif=exif),
        "small.jpg": jpeg(original.resize((450, 300), Image.Resampling.LANCZOS)),
        "mirrored.jpg": jpeg(
            original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((600, 400))
        ),
        "another.jpg": jpeg(photograph(900, 600, 4)),
    }


FILES = files()


@pytest.fixture(scope="module")
def project(s3, tmp_path_factory):
    """A project whose only batch holds a duplicate of every tier."""
    with open_project(s3, tmp_path_factory.mktemp("project")) as made:
        made.upload(FILES)
        _, run = made.look_and_run()
        assert run.success
        yield made


def call(*arguments):
    """Exit code, standard output and standard error of a command."""
    done = CliRunner().invoke(cli, ["duplicates", *arguments])
    return done.exit_code, done.stdout, done.stderr


def listed(*arguments):
    code, out, _ = call("list", "--json", *arguments)
    assert code == 0
    return json.loads(out)


def canonical_of(project, name):
    image = hashlib.sha256(FILES[name]).hexdigest()
    return json.loads(project.bucket.get(f"manifests/photos/{image}.json"))["canonical"]


def test_every_tier_is_listed_with_its_evidence(project):
    found = listed()
    (group,) = found["groups"]
    tiers = {one["key"].rsplit("/")[-1]: one["tier"] for one in group["members"]}
    canonical = group["canonical"].rsplit("/")[-1]
    # Of equal pixels and equal age the id decides; both are the same picture to a visitor.
    assert canonical in ("original.jpg", "tagged.jpg", "copy.jpg")
    assert set(tiers) == {"original.jpg", "copy.jpg", "tagged.jpg", "small.jpg"} - {canonical}
    assert tiers["small.jpg"] == "picture"
    assert sorted(tiers.values()) in (
        ["bytes", "picture", "pixels"], ["picture", "pixels", "pixels"],
    )  # fmt: skip
    (star,) = found["near"]
    assert [one["image"] for one in star["members"]] == ["uploads/photos/mirrored.jpg"]
    assert star["members"][0]["transform"] == "mirrored"
    totals = found["totals"]
    assert totals["bytes"] + totals["pixels"] + totals["picture"] == 3
    assert totals["near"] == 1
    assert totals["bytes_saved"] > 0


def test_the_list_can_be_narrowed(project):
    (group,) = listed("--tier", "picture")["groups"]
    assert [one["key"] for one in group["members"]] == ["uploads/photos/small.jpg"]
    assert listed("--tier", "near")["groups"] == []
    assert len(listed("--tier", "near")["near"]) == 1
    assert listed("--source", "products") == {
        "groups": [], "near": [],
        "totals": dict.fromkeys(
            ["bytes", "pixels", "picture", "near", "bytes_of_duplicates", "bytes_saved"], 0
        ),
    }  # fmt: skip


def test_people_read_a_table(project):
    code, out, _ = call("list")
    assert code == 0
    for name in ("small.jpg", "mirrored.jpg", "pHash", "mirrored", "Duplicates:"):
        assert name in out
    assert call("list", "--source", "products")[1] == "No duplicates are known.\n"


def test_a_split_is_carried_out_by_the_next_run_and_can_be_taken_back(project):
    group = canonical_of(project, "small.jpg")
    small = hashlib.sha256(FILES["small.jpg"]).hexdigest()
    code, out, _ = call("split", "small.jpg", "--source", "photos")
    assert (code, "kept apart from 2 other(s)" in out) == (0, True)
    (request,) = project.look().run_requests
    assert request.run_key.endswith("-2")
    assert project.run(request.partition_key).success
    assert canonical_of(project, "small.jpg") == small
    assert canonical_of(project, "original.jpg") == group
    assert "uploads/photos/small.jpg" not in str(listed()["groups"])
    assert project.look().run_requests == []

    code, out, _ = call("rejoin", small[:10], "--json")
    assert (code, json.loads(out)["source"]) == (0, "photos")
    (request,) = project.look().run_requests
    assert project.run(request.partition_key).success
    assert canonical_of(project, "small.jpg") == group


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("split", "nothing.jpg"), 1, "neither the key of an upload"),
        (("split", "another.jpg"), 1, "stands alone"),
        (("rejoin", "another.jpg"), 1, "never split"),
        (("split", "small.jpg", "--source", "nowhere"), 2, "there is no source 'nowhere'"),
        (("list", "--tier", "guess"), 2, "'guess' is not one of"),
    ],
)
def test_errors_say_what_is_wrong(project, arguments, code, message):
    found, out, err = call(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_the_very_same_bytes_cannot_be_split(project):
    with Catalog(project.settings.catalog.url).read() as connection:
        row = connection.exec_driver_sql(
            "SELECT key FROM uploads WHERE reason = 'bytes' LIMIT 1"
        ).one_or_none()
    if row is None:  # the tagged file stands for both: then they are equal to it by pixels
        row = ("uploads/photos/copy.jpg",)
        assert call("split", row[0], "--source", "photos")[0] == 0
        assert call("rejoin", row[0], "--source", "photos")[0] == 0
        return
    code, _, err = call("split", row[0])
    assert code == 1
    assert "very bytes" in err


def test_help_teaches():
    code, out, _ = call("--help")
    assert code == 0
    for word in ("bytes", "pixels", "picture", "near", "list", "split", "rejoin"):
        assert word in out
    assert "for ever" in call("split", "--help")[1]
