"""A batch that fails again and again: backoff, a cap, an alarm, and a way back."""

import json
from datetime import timedelta
from http.server import HTTPServer
from unittest import mock

import dagster as dg
import pytest

from image_pipeline.catalog import uploads
from image_pipeline.catalog.batches import retry_at
from image_pipeline.commands.retry import run_retry
from image_pipeline.definitions import pipeline
from image_pipeline.resources import PipelineResource
from image_pipeline.stages.tools import utc_now
from image_pipeline.store.bucket import Bucket, StoreError
from image_pipeline_tests.assets.project import open_project, photo
from image_pipeline_tests.unit.test_alerts import Hook, serve

pytestmark = pytest.mark.faults

PAUSE = 30.0
ATTEMPTS = 3


@pytest.fixture
def hook(monkeypatch):
    server = serve(HTTPServer, Hook)
    address = f"http://127.0.0.1:{server.server_address[1]}/hook"
    monkeypatch.setenv("IMAGE_PIPELINE_ALERTS__WEBHOOK", address)
    monkeypatch.setenv("IMAGE_PIPELINE_BATCHES__RETRY_SECONDS", str(PAUSE))
    monkeypatch.setenv("IMAGE_PIPELINE_BATCHES__MAX_ATTEMPTS", str(ATTEMPTS))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(s3, hook, tmp_path):
    with open_project(s3, tmp_path) as made:
        yield made


def fail(project, batch):
    """A run that ends red, as the alert sensor then sees it."""
    with mock.patch.object(Bucket, "download", side_effect=StoreError("away")):
        run = project.run(batch)
    assert not run.success
    failure = next(event for event in run.all_events if event.is_job_failure)
    sensor = pipeline().resolve_sensor_def("failed_runs")
    with dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_event=failure,
        dagster_instance=project.instance,
        dagster_run=run.dagster_run,
        resources={"pipeline": PipelineResource()},
    ) as context:
        sensor(context.for_run_failure())


def test_a_failing_batch_is_given_up_aloud_and_comes_back_when_told(project, hook, capfd):
    project.upload({"a.jpg": photo(1)})
    (request,) = project.look().run_requests
    batch = request.partition_key
    for attempt in range(1, ATTEMPTS + 1):
        assert hook.received == []
        before = utc_now()
        fail(project, batch)
        pause = timedelta(seconds=PAUSE * 2 ** (attempt - 1))
        assert before + pause <= project.batch(batch).due_at <= utc_now() + pause
        assert not project.look().run_requests, "too early"
        project.expire(batch)
        keys = [request.run_key for request in project.look().run_requests]
        assert keys == ([f"{batch}-{attempt + 1}"] if attempt < ATTEMPTS else [])
    ((_, body),) = hook.received
    assert body["batch"] == batch
    assert f"ERROR - batch {batch} is given up" in capfd.readouterr().err
    assert project.batch(batch).state == "given_up"
    assert not project.look().run_requests
    with project.catalog.read() as connection:
        (upload,) = uploads.report(connection, batch)
    assert (upload["verdict"], upload["reason"]) == ("failed", "storage_error")

    for source, retried in (("products", []), (None, [{"id": batch, "retried": True}])):
        assert run_retry(project.settings, (), source, as_json=True) == 0
        assert json.loads(capfd.readouterr().out) == {"batches": retried}
    (request,) = project.look().run_requests
    assert request.run_key == f"{batch}-{ATTEMPTS + 1}", "a run key that was never used"
    assert project.run(batch).success
    assert project.batch(batch).state == "done"


def test_a_name_that_is_no_batch_changes_nothing(project, capfd):
    project.upload({"a.jpg": photo(1)})
    (request,) = project.look().run_requests
    before = project.batch(request.partition_key)
    assert run_retry(project.settings, (request.partition_key, "nonsense"), None, False) == 1
    assert "no batch 'nonsense'" in capfd.readouterr().err
    assert run_retry(project.settings, (request.partition_key,), None, False) == 0
    assert "still open" in capfd.readouterr().out
    assert project.batch(request.partition_key) == before


@pytest.mark.parametrize("attempt", [40, 5000])
def test_the_pause_between_attempts_has_an_end(attempt):
    now = utc_now()
    assert retry_at(now, attempt, PAUSE) == now + timedelta(hours=6)
