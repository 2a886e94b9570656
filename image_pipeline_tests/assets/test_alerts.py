"""What the alert sensor makes of failed runs; what it sends is received by a server of our own."""

from unittest import mock

import dagster as dg
import pytest

from image_pipeline.definitions import pipeline
from image_pipeline.resources import PipelineResource
from image_pipeline.sensors import build_alert_sensor
from image_pipeline.store.bucket import Bucket, StoreError
from image_pipeline_tests.unit.test_alerts import hook

from .project import photo

__all__ = ["hook"]

pytestmark = pytest.mark.xdist_group("alerts")


@pytest.fixture
def sensor(project, hook, monkeypatch):
    address = f"http://127.0.0.1:{hook.server_address[1]}/hook"
    monkeypatch.setenv("IMAGE_PIPELINE_ALERTS__WEBHOOK", address)
    monkeypatch.setenv("IMAGE_PIPELINE_ALERTS__UI_URL", "http://ui.example.com/")
    return pipeline().resolve_sensor_def("failed_runs")


def told(project, sensor, run):
    """Let the sensor see a failed run, as the daemon does."""
    failure = next(event for event in run.all_events if event.is_job_failure)
    with dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_event=failure,
        dagster_instance=project.instance,
        dagster_run=run.dagster_run,
        resources={"pipeline": PipelineResource()},
    ) as context:
        return sensor(context.for_run_failure())


@dg.op
def breaks():
    raise RuntimeError("out of luck")


@dg.job
def another_job():
    breaks()


def test_a_run_that_nobody_tries_again_is_told(project, sensor, hook):
    run = another_job.execute_in_process(instance=project.instance, raise_on_error=False)
    told(project, sensor, run)
    ((path, body),) = hook.received
    assert path == "/hook"
    assert body["job"] == "another_job"
    assert body["url"] == f"http://ui.example.com/runs/{run.run_id}"
    assert "breaks" in body["message"]


def test_a_batch_is_told_once_it_has_no_attempt_left(project, sensor, hook):
    project.upload({"a.jpg": photo(1)})
    request = project.look().run_requests[0]
    for attempt in range(1, 4):
        run = failing_run(project, request.partition_key)
        skipped = told(project, sensor, run)
        if attempt < 3:
            assert "tried again" in skipped.skip_message
            assert hook.received == []
            project.expire(request.partition_key)
            assert project.look().run_requests
    ((_, body),) = hook.received
    assert body["batch"] == request.partition_key


def failing_run(project, batch):
    """A run of a batch that ends red: no original can be read."""
    with mock.patch.object(Bucket, "download", side_effect=StoreError("away")):
        run = project.run(batch)
    assert not run.success
    return run


def test_there_is_no_such_sensor_unless_somebody_wants_to_know(project):
    names = {sensor.name for sensor in pipeline().get_repository_def().sensor_defs}
    assert "failed_runs" not in names
    assert isinstance(build_alert_sensor(project.settings), dg.SensorDefinition)
