"""Published files are asked for at a real caching edge, after a batch and by the hour."""

import dagster as dg
import pytest
import yaml

from image_pipeline.settings import load_settings
from image_pipeline_tests.edge import NGINX, Edge

from .project import metadata_of, open_project, photo

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed: apt-get install nginx-light"
)


@pytest.fixture
def project(s3, tmp_path):
    """A project whose photos are delivered by an edge, and whose products are not."""
    with (
        open_project(s3, tmp_path) as made,
        Edge(tmp_path / "edge", s3.endpoint_url, made.bucket.name) as edge,
    ):
        config = tmp_path / "pipeline.yaml"
        document = yaml.safe_load(config.read_text())
        document["sources"]["photos"]["base_url"] = edge.url
        document["delivery"] = {"warming": {"allow_private_addresses": True}}
        config.write_text(yaml.safe_dump(document))
        made.settings = load_settings()
        made.edge = edge
        yield made


def warm(project, **config):
    job = project.definitions.resolve_job_def("warm_edges")
    result = job.execute_in_process(
        instance=project.instance,
        run_config={
            "ops": {"cache_warmth": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )
    return metadata_of(result, "cache_warmth")


def test_a_batch_is_warm_when_it_is_done(project):
    project.upload({"a.jpg": photo(1), "b.jpg": photo(2)})
    _, run = project.look_and_run()
    assert run.success
    found = metadata_of(run, "cache_warmth")
    published = metadata_of(run, "cache_warm_manifests")["urls_to_warm"].value
    assert published > 0
    assert (found["asked"].value, found["misses"].value) == (published, published)
    assert found["failures"].value == 0
    # Nothing is due again so soon; by force everything is, and now it comes from the cache.
    assert warm(project)["asked"].value == 0
    again = warm(project, source="photos", force=True)
    assert (again["asked"].value, again["hits"].value) == (published, published)
    assert again["hit_rate"].value == 1.0


def test_a_second_batch_asks_only_for_what_it_brought(project):
    project.upload({"a.jpg": photo(1)})
    project.look_and_run()
    project.upload({"b.jpg": photo(2)})
    _, run = project.look_and_run()
    found = metadata_of(run, "cache_warmth")
    assert found["asked"].value == metadata_of(run, "cache_warm_manifests")["urls_to_warm"].value


def test_an_edge_that_is_away_fails_no_batch(project):
    project.edge.stop()
    project.upload({"a.jpg": photo(1)})
    batch, run = project.look_and_run()
    assert run.success
    assert project.batch(batch).state == "done"
    found = metadata_of(run, "cache_warmth")
    assert found["failures"].value == found["asked"].value > 0


def test_a_source_without_an_edge_says_so(project):
    project.upload({"a.jpg": photo(1)}, source="products")
    _, run = project.look_and_run("products")
    found = metadata_of(run, "cache_warmth")
    assert found["asked"].value == 0
    assert "products" in found["without_edge"].value


def test_an_unknown_source_is_an_error_that_names_it(project):
    with pytest.raises(LookupError, match="nowhere"):
        warm(project, source="nowhere")


def test_the_asset_is_whole_while_its_job_goes_by_batch(project):
    graph = project.definitions.resolve_asset_graph()
    assert not graph.get(dg.AssetKey("cache_warmth")).is_partitioned
