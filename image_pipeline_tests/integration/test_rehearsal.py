"""Half a year of housekeeping on a copy of the embedded bucket."""

import click
import pytest

from image_pipeline.commands.demo import run_demo
from image_pipeline.commands.local import local_bucket
from image_pipeline.commands.rehearsal import run_rehearsal
from image_pipeline.samples import photograph
from image_pipeline.settings import CONFIG_VARIABLE, BucketSettings, load_settings

from .test_demo import make_project

pytestmark = pytest.mark.xdist_group("demo")


def listed(bucket):
    return {one.key: (one.etag, one.last_modified) for one in bucket.list("")}


def test_orphans_go_come_back_and_go_and_originals_get_cheaper(tmp_path, monkeypatch, capsys):
    photos = make_project(tmp_path)
    # Large enough to be cheaper elsewhere.
    photograph(1200, 800, 10).save(photos / "large.png")
    config = tmp_path / "pipeline.yaml"
    monkeypatch.chdir(tmp_path)
    # The demo sets these for its process; they are taken back with the test.
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = load_settings(config)
    assert run_demo(settings, config, photos) == 0
    capsys.readouterr()
    with local_bucket(settings) as bucket:
        before = listed(bucket)
        assert run_rehearsal(settings, config, bucket) == 0
        assert listed(bucket) == before
        names = [one["Name"] for one in bucket.client.list_buckets()["Buckets"]]
        assert names == [bucket.name]
    said = capsys.readouterr().out
    for words in (
        "unknown_variant", "unknown_manifest", "superseded_variant", "trashed", "restored",
        "purged", "STANDARD to STANDARD_IA", "STANDARD_IA to GLACIER",
    ):  # fmt: skip
        assert words in said
    for move in ("STANDARD to STANDARD_IA", "STANDARD_IA to GLACIER"):
        (row,) = [line.split("│") for line in said.splitlines() if line.startswith(move)]
        _, objects, _, saved, once = row
        assert int(objects) >= 1
        assert float(saved) * 12 > float(once) > 0


def test_it_refuses_any_other_bucket(tmp_path):
    settings = load_settings().model_copy(update={"bucket": BucketSettings()})
    with pytest.raises(click.ClickException, match="embedded"):
        run_rehearsal(settings, None)
