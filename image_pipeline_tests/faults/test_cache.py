"""Redis away, silent or emptied while a batch is published: the bucket has everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from image_pipeline.delivery.reader import Manifests
from image_pipeline.embedded_valkey import EmbeddedValkey
from image_pipeline_tests.valkey import client_of, process_of

from .driver import Fault
from .oracle import Oracle, runs
from .processes import Driver, log_of, wait_until
from .project import Project, Upload, encoded, uploads
from .test_kills import PUT

pytestmark = pytest.mark.faults

#: Between the manifests of the first images and those of the last.
PAUSE = Fault(PUT, nth=3, match="manifests/photos/", act="pause")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "valkey"


@pytest.fixture
def server(folder: Path, project: Project) -> Iterator[EmbeddedValkey]:
    """A server that the runs of the project publish to."""
    with EmbeddedValkey(folder) as running:
        project.environment["IMAGE_PIPELINE_REDIS__URL"] = running.url
        yield running


def flush(server: EmbeddedValkey, folder: Path) -> None:
    with client_of(server.url) as client:
        client.flushall()


def suspend(server: EmbeddedValkey, folder: Path) -> None:
    process_of(folder).suspend()


def stop(server: EmbeddedValkey, folder: Path) -> None:
    server.stop()


@pytest.mark.parametrize(
    "trouble", [stop, *(pytest.param(one, marks=pytest.mark.slow) for one in (suspend, flush))]
)
def test_a_batch_is_published_whatever_happens_to_redis(
    driver: Driver,
    project: Project,
    server: EmbeddedValkey,
    folder: Path,
    trouble: Callable[[EmbeddedValkey, Path], None],
) -> None:
    expected = project.send(*uploads())
    run = driver.start(project, "once", PAUSE)
    wait_until((project.folder / "paused").exists, "the pause")
    trouble(server, folder)
    (project.folder / "resume").touch()
    try:
        assert driver.wait(run) == 0, log_of(project)
    finally:
        if trouble is suspend:
            process_of(folder).resume()
    assert runs(project) == ["SUCCESS"], log_of(project)
    Oracle(project).check_all(expected)
    check_readers(project)

    # With Redis back, the next batch is published there too, and nothing older stays.
    if trouble is stop:
        server.start()
        project.environment["IMAGE_PIPELINE_REDIS__URL"] = server.url
    expected |= project.send(Upload("later.jpg", encoded(7)))
    driver.run(project)
    Oracle(project).check_uploads(expected)
    check_readers(project)
    with client_of(server.url) as client:
        assert client.dbsize() > 0


def check_readers(project: Project) -> None:
    """Whoever reads through Redis gets what is in the bucket, from wherever it comes."""
    settings = project.settings
    url = project.environment["IMAGE_PIPELINE_REDIS__URL"]
    redis = settings.redis.model_copy(update={"url": url, "timeout_seconds": 10.0})
    reader = Manifests(settings.model_copy(update={"redis": redis}), project.bucket)
    try:
        for image, manifest in Oracle(project).image_manifests.items():
            assert reader.image("photos", image) == manifest
        pointer = project.bucket.get("indexes/photos/index.json")
        assert reader.index("photos") == json.loads(pointer)
    finally:
        reader.close()
