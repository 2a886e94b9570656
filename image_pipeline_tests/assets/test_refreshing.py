"""Files that vanished, and recipes that changed: rendered again through Dagster, end to end."""

import io

import dagster as dg
import pytest
import yaml
from PIL import Image

from image_pipeline.assets.history import history_prune
from image_pipeline.assets.housekeeping import storage_inventory
from image_pipeline.assets.refreshing import renditions_refresh
from image_pipeline.definitions import pipeline
from image_pipeline.sensors import LOW_PRIORITY, PRIORITY_TAG

from .project import metadata_of, photo


def materialize(project, *assets, **config):
    """Housekeeping as a run by hand does it; the newest of these assets' metadata."""
    name = assets[-1].key.to_user_string()
    result = dg.materialize(
        list(assets),
        instance=project.instance,
        resources=dict(project.definitions.resources),
        run_config={"ops": {name: {"config": config}}},
        selection=list(assets),
    )
    return {key: value.value for key, value in metadata_of(result, name).items()}


@pytest.fixture
def published(project):
    """Two pictures that are served."""
    project.upload({"a.jpg": photo(1), "b.jpg": photo(2)})
    batch, run = project.look_and_run()
    assert run.success
    project.published = batch
    return project


def test_what_vanished_is_served_again(published):
    before = published.objects("variants/")
    gone = sorted(before)[::5][:2]
    for key in gone:
        published.delete(key)
    shown = materialize(published, storage_inventory, renditions_refresh, dry_run=True)
    assert (shown["files_missing"], shown["batches_reopened"]) == (2, 0)
    assert published.batch(published.published).state == "done"
    found = materialize(published, storage_inventory, renditions_refresh, dry_run=False)
    assert (found["rows_dropped"], found["batches_reopened"]) == (2, 1)
    tick = published.look()
    (request,) = tick.run_requests
    assert request.tags[PRIORITY_TAG] == LOW_PRIORITY
    assert published.run(request.partition_key, tags=request.tags).success
    assert published.objects("variants/") == before


def test_a_new_upload_has_no_low_priority(project):
    project.upload({"a.jpg": photo(1)})
    (request,) = project.look().run_requests
    assert PRIORITY_TAG not in request.tags


def test_an_older_recipe_is_rendered_anew_where_that_is_wanted(published):
    config = published.folder / "pipeline.yaml"
    document = yaml.safe_load(config.read_text())
    document["recipes"]["web"] = {
        "sizes": {"small": {"width": 160, "height": 160}},
        "formats": {"jpeg": {"quality": 80}},
    }
    document["maintenance"] = {"refresh": "outdated", "dry_run": False}
    config.write_text(yaml.safe_dump(document))
    published.definitions = pipeline()
    before = set(published.objects("variants/"))
    found = materialize(published, storage_inventory, renditions_refresh)
    assert (found["outdated"], found["chosen"], found["missing"]) == (2, 2, 0)
    _, run = published.look_and_run()
    assert run.success
    new = {key: data for key, data in published.objects("variants/").items() if key not in before}
    assert [max(Image.open(io.BytesIO(data)).size) for data in new.values()] == [160, 160]


def test_history_shows_what_it_would_prune(published):
    found = materialize(published, history_prune, dry_run=True)
    # All of it is younger than the retention.
    assert (found["runs"], found["partitions"], found["dry_run"]) == (0, 0, True)
    assert published.published in published.instance.get_dynamic_partitions("batches")
