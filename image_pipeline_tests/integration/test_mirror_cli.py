"""``image-pipeline mirror``, and its part of the demo."""

import json

import pytest
import yaml
from click.testing import CliRunner

from image_pipeline.cli.mirror import mirror
from image_pipeline.commands.demo import run_demo
from image_pipeline.commands.local import local_bucket
from image_pipeline.commands.mirror import rehearse
from image_pipeline.settings import CONFIG_VARIABLE, load_settings
from image_pipeline_tests.mirrored import World
from image_pipeline_tests.sftp_servers import AsyncsshServer

from .test_demo import make_project


@pytest.fixture
def config(bucket, catalog, tmp_path, monkeypatch):
    """Settings for a world with two originals, and the world."""
    with AsyncsshServer(tmp_path / "nas") as server:
        world = World(bucket, catalog, server, tmp_path / "spool")
        world.batch({"a.jpg": b"a", "b.jpg": b"bb"})
        rules = server.settings().model_dump(
            mode="json", include={"host", "port", "username", "host_key", "path"}
        )
        document = {
            "bucket": bucket.settings.model_dump(mode="json", exclude={"data"}),
            "catalog": {"url": catalog.url},
            "sources": {"photos": {"prefix": "uploads/photos/"}},
            "mirror": rules,
        }
        path = tmp_path / "pipeline.yaml"
        path.write_text(yaml.safe_dump(document))
        key = server.client_key.export_private_key().decode()
        monkeypatch.setenv("IMAGE_PIPELINE_MIRROR__PRIVATE_KEY", key)
        yield path, world


def invoke(*arguments):
    return CliRunner().invoke(mirror, [str(one) for one in arguments])


def test_run_and_status(config):
    path, world = config
    before = invoke("status", "--config", path)
    assert "Nothing was copied" in before.stdout
    result = invoke("run", "--config", path, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["copied"], found["bytes"], found["failures"]) == (2, 3, [])
    assert len(world.files()) == 2
    status = json.loads(invoke("status", "--config", path, "--json").stdout)
    (row,) = status["files"]
    assert (row["state"], row["files"], row["bytes"], row["failing"]) == ("mirrored", 2, 3, 0)
    assert status["target"] == row["target"]
    shown = invoke("status", "--config", path).stdout
    assert "mirrored" in shown


def test_what_fails_is_shown_and_the_exit_code_says_so(config):
    path, world = config
    world.bucket.put("uploads/photos/a.jpg", b"replaced", "image/jpeg")
    result = invoke("run", "--config", path)
    assert result.exit_code == 1
    assert "1 failed" in result.stdout
    assert "uploads/photos/a.jpg" in result.stdout
    status = json.loads(invoke("status", "--config", path, "--json").stdout)
    (failing,) = status["failing"]
    assert (failing["key"], failing["failures"]) == ("uploads/photos/a.jpg", 1)


def test_known_hosts_lie_beside_the_settings(config):
    path, world = config
    document = yaml.safe_load(path.read_text())
    line = document["mirror"].pop("host_key")
    (path.parent / "hosts").write_text(f"[127.0.0.1]:{world.server.port} {line}\n")
    document["mirror"]["known_hosts"] = "hosts"
    path.write_text(yaml.safe_dump(document))
    assert invoke("run", "--config", path).exit_code == 0


def test_without_a_mirror(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"catalog": {"url": f"sqlite:///{tmp_path / 'c.db'}"}}))
    result = invoke("run", "--config", path)
    assert result.exit_code == 1
    assert "mirror.host is not set" in result.stderr
    assert "mirror.host is not set" in invoke("status", "--config", path).stderr
    assert invoke("run", "--config", path, "--source", "nobody").exit_code == 2


@pytest.mark.xdist_group("demo")
def test_the_rehearsal_leaves_nothing(tmp_path, monkeypatch, capsys):
    photos = make_project(tmp_path)
    config = tmp_path / "pipeline.yaml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = load_settings(config)
    assert run_demo(settings, config, photos) == 0
    capsys.readouterr()
    with local_bucket(settings) as bucket:
        assert rehearse(settings, config, bucket) == 0
        said = capsys.readouterr().out
        assert rehearse(settings, config, bucket) == 0
    assert "copied 0 files" in said
    assert "variants/" in said
    result = invoke("status", "--config", config, "--json")
    assert json.loads(result.stdout)["files"] == []
