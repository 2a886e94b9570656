"""The upload sensors as Dagster evaluates them: ticks, cursors, and runs that went wrong."""

import json

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from image_pipeline.resources import PipelineResource

pytestmark = pytest.mark.xdist_group("sensor")


def record_run(project, request, status):
    """A run of the batch as Dagster would have it, in some status."""
    return create_run_for_test(
        project.instance,
        job_name="process_batch",
        tags={"dagster/partition": request.partition_key},
        status=status,
    )


def first_request(project):
    project.upload({"a.jpg": b"1"})
    (request,) = project.look().run_requests
    return request


def test_a_tick_asks_for_one_run_per_batch_with_its_partition(project):
    project.upload({"a.jpg": b"1", "b.jpg": b"2"})
    tick = project.look()
    (request,) = tick.run_requests
    assert request.run_key == f"{request.partition_key}-1"
    assert request.partition_key.startswith("photos-")
    assert request.tags["image_pipeline/source"] == "photos"
    (added,) = tick.dynamic_partitions_requests
    assert (added.partitions_def_name, list(added.partition_keys)) == (
        "batches", [request.partition_key],
    )  # fmt: skip
    assert project.instance.get_dynamic_partitions("batches") == [request.partition_key]


def test_a_tick_without_anything_to_do_says_what_it_saw(project):
    assert project.look().skip_message == (
        "listed 0 objects (the whole prefix), 0 new; no batch is due"
    )
    request = first_request(project)
    tick = project.look()
    assert (tick.run_requests, tick.dynamic_partitions_requests) == ([], [])
    assert tick.skip_message == "listed 1 objects (the whole prefix), 0 new; no batch is due"
    assert project.batch(request.partition_key).attempt == 1


def test_called_directly_it_gives_a_result_or_a_reason(project):
    sensor = project.definitions.resolve_sensor_def("photos_uploads")

    def call():
        with dg.build_sensor_context(
            instance=project.instance, resources={"pipeline": PipelineResource()}
        ) as context:
            return sensor(context), context.cursor

    answer, cursor = call()
    assert isinstance(answer, dg.SkipReason)
    assert json.loads(cursor) == {"v": 1, "after": ""}
    project.upload({"a.jpg": b"1"})
    answer, _ = call()
    assert isinstance(answer, dg.SensorResult)
    assert len(answer.run_requests) == 1


def test_a_sweep_that_was_cut_short_goes_on_from_its_cursor(project):
    project.upload({f"{n}.jpg": b"%d" % n for n in range(3)})
    project.cursors["photos"] = json.dumps({"v": 1, "after": "uploads/photos/0.jpg"})
    (request,) = project.look().run_requests
    assert project.batch(request.partition_key).uploads == 2
    assert json.loads(project.cursors["photos"]) == {"v": 1, "after": ""}
    (request,) = project.look().run_requests
    assert project.batch(request.partition_key).uploads == 1


def test_a_cursor_from_elsewhere_is_read_as_none(project):
    project.upload({"a.jpg": b"1"})
    project.cursors["photos"] = "not ours"
    assert len(project.look().run_requests) == 1


def test_sources_are_watched_separately(project):
    project.upload({"a.jpg": b"1"}, source="photos")
    project.upload({"b.jpg": b"2"}, source="products")
    assert project.look("products").run_requests[0].partition_key.startswith("products-")
    assert project.look("photos").run_requests[0].partition_key.startswith("photos-")


def test_a_run_that_has_not_begun_is_waited_for(project):
    request = first_request(project)
    record_run(project, request, dg.DagsterRunStatus.STARTING)
    project.expire(request.partition_key)
    assert project.look().run_requests == []
    assert project.batch(request.partition_key).attempt == 1


def test_a_run_whose_process_is_gone_is_failed_and_its_batch_asked_for_again(project):
    request = first_request(project)
    run = record_run(project, request, dg.DagsterRunStatus.STARTED)
    project.expire(request.partition_key)
    (again,) = project.look().run_requests
    assert (again.partition_key, again.run_key) == (
        request.partition_key, f"{request.partition_key}-2",
    )  # fmt: skip
    assert project.instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE


def test_only_the_newest_run_of_a_batch_counts(project):
    request = first_request(project)
    record_run(project, request, dg.DagsterRunStatus.STARTED)
    newest = record_run(project, request, dg.DagsterRunStatus.STARTING)
    project.expire(request.partition_key)
    assert project.look().run_requests == []
    assert project.instance.get_run_by_id(newest.run_id).status is dg.DagsterRunStatus.STARTING


def test_a_batch_without_attempts_left_is_given_up_aloud(project, capfd):
    request = first_request(project)
    for attempt in (2, 3):
        record_run(project, request, dg.DagsterRunStatus.FAILURE)
        project.expire(request.partition_key)
        (again,) = project.look().run_requests
        assert again.run_key == f"{request.partition_key}-{attempt}"
    project.expire(request.partition_key)
    assert project.look().run_requests == []
    assert f"ERROR - batch {request.partition_key} is given up" in capfd.readouterr().err
    assert project.batch(request.partition_key).state == "given_up"
