"""Mockups through Dagster: real worker processes, a real S3 server, what the UI is told."""

import dagster as dg
import pytest
import yaml

from image_pipeline.assets.mockups import mockups
from image_pipeline.definitions import pipeline
from image_pipeline_tests.shop import png, template_files

from .project import checks_of, metadata_of, photo


def make(project, **config):
    """The asset as a run makes it, with the settings as they are now."""
    return dg.materialize(
        [mockups],
        instance=project.instance,
        resources=dict(project.definitions.resources),
        run_config={"ops": {"mockups": {"config": config}}},
        raise_on_error=False,
    )


def numbers_of(result):
    tables = ("not_usable", "not_composed", "mockups")
    return {
        key: value if key in tables else value.value
        for key, value in metadata_of(result, "mockups").items()
    }


def put_template(project, name, **changes):
    for file, data in template_files(**changes).items():
        project.bucket.put(f"templates/{name}/{file}", data, "application/octet-stream")


@pytest.fixture
def shop(project):
    """Two published pictures of a source that wants mockups."""
    config = project.folder / "pipeline.yaml"
    document = yaml.safe_load(config.read_text())
    document["sources"]["photos"]["mockups"] = "all"
    config.write_text(yaml.safe_dump(document))
    project.definitions = pipeline()
    project.upload({"a.jpg": photo(1), "b.jpg": photo(2)})
    batch, run = project.look_and_run()
    assert run.success
    project.published = batch
    put_template(project, "mug")
    return project


def test_templates_are_made_in_worker_processes_and_told_of(shop):
    put_template(shop, "poster", colour="black")
    shop.bucket.put("templates/broken/template.yaml", b"base: nothing.png", "text/yaml")
    shop.bucket.put("templates/torn/template.yaml", template_files()["template.yaml"], "text/yaml")
    shop.bucket.put("templates/torn/base.png", png((80, 60), "red")[:60], "image/png")
    result = make(shop)
    assert result.success
    found = numbers_of(result)
    assert (found["templates"], found["broken_templates"]) == (2, 2)
    assert (found["due"], found["rendered"], found["published"], found["files"]) == (4, 4, 4, 8)
    problems = {one.data["template"]: one.data["problem"] for one in found["not_usable"].records}
    assert "place" in problems["broken"]
    assert "torn" in problems["torn"]
    assert found["bytes_out"] == sum(
        one.size
        for one in shop.bucket.list("variants/")
        if "/mug-" in one.key or "/post" in one.key
    )
    assert checks_of(result) == {
        ("mockups", "templates_can_be_used"): False,
        ("mockups", "designs_are_composed"): True,
    }
    table = shop.bucket.head("tables/mockups.parquet")
    assert table is not None
    again = numbers_of(make(shop))
    assert (again["due"], again["rendered"]) == (0, 0)
    assert not make(shop, source="nobody").success


def test_a_design_that_cannot_be_composed_is_listed(shop):
    original = shop.objects("uploads/photos/")
    shop.delete("uploads/photos/a.jpg")
    result = make(shop)
    assert result.success
    found = numbers_of(result)
    assert (found["failed_designs"], found["published"]) == (1, 1)
    (told,) = found["not_composed"].records
    assert (told.data["template"], told.data["verdict"], told.data["reason"]) == (
        "mug", "rejected", "gone",
    )  # fmt: skip
    assert not checks_of(result)["mockups", "designs_are_composed"]
    assert len(original) == 2


def test_a_batch_that_is_run_again_leaves_its_mockups(shop):
    assert make(shop).success
    before = shop.objects("variants/"), shop.objects("manifests/photos/mockups/")
    assert shop.run(shop.published).success
    assert (shop.objects("variants/"), shop.objects("manifests/photos/mockups/")) == before
    assert numbers_of(make(shop))["due"] == 0
