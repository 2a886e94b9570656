"""The mirror as an asset: what a run says in the UI, and when it is red."""

import dagster as dg
import pytest
import yaml

from image_pipeline.assets.mirror import nas_mirror
from image_pipeline.settings import load_settings
from image_pipeline_tests.sftp_servers import AsyncsshServer

from .project import metadata_of, open_project, photo


@pytest.fixture
def project(s3, tmp_path, monkeypatch):
    """A project with a mirror, where one batch is done."""
    with (
        open_project(s3, tmp_path) as made,
        AsyncsshServer(tmp_path / "nas") as server,
    ):
        config = tmp_path / "pipeline.yaml"
        document = yaml.safe_load(config.read_text())
        document["mirror"] = {
            "host": server.host,
            "port": server.port,
            "username": server.username,
            "host_key": server.host_line,
            "path": str(server.folder / "mirror"),
            "variants": ["small"],
        }
        config.write_text(yaml.safe_dump(document))
        key = server.client_key.export_private_key().decode()
        monkeypatch.setenv("IMAGE_PIPELINE_MIRROR__PRIVATE_KEY", key)
        made.settings = load_settings()
        made.server = server
        made.upload({"a.jpg": photo(1), "B.jpg": photo(2), "broken.jpg": b"no picture"})
        _, run = made.look_and_run()
        assert run.success
        yield made


def run(project, **config):
    return dg.materialize(
        [nas_mirror],
        instance=project.instance,
        resources=dict(project.definitions.resources),
        raise_on_error=False,
        run_config={
            "ops": {"nas_mirror": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )


def files(project):
    root = project.server.folder / "mirror"
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def test_originals_and_chosen_variants_of_a_batch(project):
    result = run(project)
    assert result.success
    originals = {
        "uploads/photos/a.jpg": project.bucket.get("uploads/photos/a.jpg"),
        "uploads/photos/B~1.jpg": project.bucket.get("uploads/photos/B.jpg"),
    }
    published = project.objects("variants/")
    variants = {key: data for key, data in published.items() if "/small-" in key}
    assert 0 < len(variants) < len(published)
    assert files(project) == originals | variants
    found = metadata_of(result, "nas_mirror")
    assert found["files"].value == len(originals) + len(variants)
    assert found["bytes"].value == sum(map(len, (*originals.values(), *variants.values())))
    assert (found["failed"].value, found["waiting"].value) == (0, 0)
    assert found["megabytes_per_second"].value > 0
    assert metadata_of(run(project), "nas_mirror")["files"].value == 0


def test_what_fails_is_listed_and_the_rest_is_copied(project):
    project.bucket.put("uploads/photos/a.jpg", b"replaced, and nobody looked", "image/jpeg")
    result = run(project)
    assert not result.success
    found = metadata_of(result, "nas_mirror")
    assert found["failed"].value == 1
    (row,) = found["not_copied"].records
    assert row.data["key"] == "uploads/photos/a.jpg"
    assert set(files(project)) >= {"uploads/photos/B~1.jpg"}
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "1 files could not be copied" in failure.step_failure_data.error.message


def test_a_login_that_is_refused_says_what_to_set(project, monkeypatch):
    monkeypatch.delenv("IMAGE_PIPELINE_MIRROR__PRIVATE_KEY")
    result = run(project)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "IMAGE_PIPELINE_MIRROR__PASSWORD" in failure.step_failure_data.error.message
    assert metadata_of(result, "nas_mirror")["failed"].value == 0


def test_a_run_of_one_source(project):
    assert metadata_of(run(project, source="products"), "nas_mirror")["files"].value == 0
    assert not run(project, source="nobody").success
