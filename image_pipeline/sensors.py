"""Sensors: one per source that asks for runs of its batches; for events, mockups and alerts."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from image_pipeline.alerts import Alert, send
from image_pipeline.catalog import batches
from image_pipeline.catalog.refreshing import reopened
from image_pipeline.ingest.discovery import (
    decode_cursor,
    encode_cursor,
    last_sweep,
    sweep_is_due,
)
from image_pipeline.ingest.queue import Queue, drain
from image_pipeline.jobs import compose_mockups, process_batch
from image_pipeline.partitions import BATCHES, PARTITION_TAG
from image_pipeline.resources import PipelineResource
from image_pipeline.run_size import size_of_run, tags_for
from image_pipeline.settings import Settings
from image_pipeline.stages.batching import Look, RunState, look_at_source
from image_pipeline.stages.mockups import StateRun, current_state, is_unfinished, why_run
from image_pipeline.stages.tools import utc_now

#: Dagster starts runs of a higher priority first (0 where there is none): what somebody has just
#: uploaded does not wait for what is only rendered again.
PRIORITY_TAG = "dagster/priority"
LOW_PRIORITY = "-10"

#: What a run of mockups was asked for; see :func:`current_state`.
STATE_TAG = "image_pipeline/mockups_state"

_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_UNDER_WAY = [status for status in dg.DagsterRunStatus if status not in _ENDED]


def build_upload_sensor(source: str, settings: Settings) -> dg.SensorDefinition:
    """The sensor of one source; it can be switched off alone in the UI."""
    prefix = settings.sources[source].prefix

    @dg.sensor(
        name=f"{source}_uploads",
        job=process_batch,
        minimum_interval_seconds=settings.discovery.every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Watches {prefix} and starts one run per batch of new uploads.",
    )
    def upload_sensor(
        context: dg.SensorEvaluationContext, pipeline: PipelineResource
    ) -> dg.SensorResult | dg.SkipReason:
        due = sweep_is_due(context.cursor, settings.discovery, utc_now())
        look = look_at_source(
            pipeline.settings,
            pipeline.bucket,
            pipeline.catalog,
            source,
            decode_cursor(context.cursor),
            lambda batches: newest_runs(context.instance, batches),
            is_swept=due,
        )
        _report(context, look)
        context.update_cursor(_next_cursor(settings, context.cursor, look, is_swept=due))
        if not look.requests:
            return dg.SkipReason(_what_was_seen(look))
        sizes = tags_for(_launcher(context.instance), size_of_run(settings))
        with pipeline.catalog.read() as connection:
            again = reopened(connection, [request.batch for request in look.requests])
        return dg.SensorResult(
            dynamic_partitions_requests=[
                BATCHES.build_add_request([request.batch for request in look.requests])
            ],
            run_requests=[
                dg.RunRequest(
                    run_key=f"{request.batch}-{request.attempt}",
                    partition_key=request.batch,
                    tags=_tags(source, request.batch in again) | sizes,
                )
                for request in look.requests
            ],
        )

    return upload_sensor


def _next_cursor(settings: Settings, cursor: str | None, look: Look, *, is_swept: bool) -> str:
    if settings.discovery.queue_url is None:
        return encode_cursor(look.sweep.after)
    whole = is_swept and look.sweep.complete
    return encode_cursor(look.sweep.after, utc_now() if whole else last_sweep(cursor))


def build_event_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor of the queue that the bucket's events go to; one for all sources.

    It only writes down uploads. Batches of them are formed by the sensors of their sources.
    """

    @dg.sensor(
        name="upload_events",
        minimum_interval_seconds=settings.discovery.every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reads from the queue which uploads arrived. It starts no runs.",
    )
    def upload_events(
        context: dg.SensorEvaluationContext, pipeline: PipelineResource
    ) -> dg.SkipReason:
        deadline = time.monotonic() + settings.discovery.tick_seconds
        url = pipeline.settings.discovery.queue_url
        assert url is not None
        done = drain(
            Queue(url, pipeline.bucket),
            pipeline.bucket,
            pipeline.catalog,
            pipeline.settings,
            utc_now,
            lambda: deadline - time.monotonic(),
        )
        if done.bad:
            context.log.warning(
                f"{len(done.bad)} messages are no S3 events; the queue's redrive policy puts them"
                f" into its dead-letter queue. The first: {done.bad[0]}"
            )
        return dg.SkipReason(
            f"{done.messages} messages told of {done.events} objects: {done.found} new uploads,"
            f" {done.foreign} of no source"
        )

    return upload_events


def build_mockup_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that asks for mockups; only where some source wants any."""

    @dg.sensor(
        name="mockup_templates",
        job=compose_mockups,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for mockups once a template, the settings or a source has changed.",
    )
    def mockup_templates(
        context: dg.SensorEvaluationContext, pipeline: PipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        if _mockup_runs(context.instance, statuses=_UNDER_WAY):
            return dg.SkipReason("mockups are being made")
        things = (pipeline.settings, pipeline.bucket, pipeline.catalog)
        state = current_state(*things)
        runs = _mockup_runs(context.instance, tags={STATE_TAG: state})
        why = why_run(_ended(runs), lambda: is_unfinished(*things, utc_now()))
        if why is None:
            return dg.SkipReason("nothing has changed since mockups were last made")
        context.log.info(f"mockups are asked for: {why}")
        newest = runs[0].dagster_run.run_id if runs else "first"
        return dg.RunRequest(
            run_key=f"mockups-{state}-{newest}",
            tags={STATE_TAG: state, PRIORITY_TAG: LOW_PRIORITY},
        )

    return mockup_templates


def _mockup_runs(instance: dg.DagsterInstance, **filters: Any) -> Sequence[dg.RunRecord]:
    """The newest run of the job with these properties, if there is one."""
    wanted = dg.RunsFilter(job_name=compose_mockups.name, **filters)
    return instance.get_run_records(wanted, limit=1)


def _ended(runs: Sequence[dg.RunRecord]) -> StateRun | None:
    if not runs:
        return None
    succeeded = runs[0].dagster_run.status == dg.DagsterRunStatus.SUCCESS
    return StateRun(succeeded, utc_now() - runs[0].update_timestamp)


def build_alert_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that tells people of runs that failed for good."""

    @dg.run_failure_sensor(
        name="failed_runs",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Tells people of failed runs, unless the run's batch is tried again anyway.",
    )
    def failed_runs(
        context: dg.RunFailureSensorContext, pipeline: PipelineResource
    ) -> dg.SkipReason | None:
        run = context.dagster_run
        batch = run.tags.get(PARTITION_TAG, "")
        if batch and _is_tried_again(pipeline, batch):
            return dg.SkipReason(f"batch {batch} is tried again by itself")
        ui = (settings.alerts.ui_url or "").rstrip("/")
        message = context.failure_event.message or "no message"
        url = f"{ui}/runs/{run.run_id}" if ui else ""
        failed = send(Alert(run.job_name, run.run_id, batch, message, url), settings.alerts)
        for way, reason in failed.items():
            context.log.error(f"nobody was told by {way}: {reason}")
        return None

    return failed_runs


def _is_tried_again(pipeline: PipelineResource, name: str) -> bool:
    with pipeline.catalog.read() as connection:
        batch = batches.get(connection, name)
    return (
        batch is not None
        and batch.state in batches.OPEN
        and batch.attempt < pipeline.settings.batches.max_attempts
    )


def _tags(source: str, is_again: bool) -> dict[str, str]:
    tags = {"image_pipeline/source": source}
    return tags | {PRIORITY_TAG: LOW_PRIORITY} if is_again else tags


def _launcher(instance: dg.DagsterInstance) -> str:
    """Class of the run launcher from its configuration: making one would ask AWS or Kubernetes."""
    data = instance.get_ref().run_launcher_data if instance.is_persistent else None
    return data.class_name if data else ""


def newest_runs(instance: dg.DagsterInstance, batches: list[str]) -> Mapping[str, RunState]:
    """The newest run of each of these batches; one query each, and only for overdue ones."""
    found = {}
    for batch in batches:
        records = instance.get_run_records(dg.RunsFilter(tags={PARTITION_TAG: batch}), limit=1)
        for record in records:
            run = record.dagster_run
            age = utc_now() - record.update_timestamp
            found[batch] = RunState(run.run_id, run.status.value, age)
    return found


def _report(context: dg.SensorEvaluationContext, look: Look) -> None:
    """Free the queue of runs that died, and say loudly what is given up."""
    for run_id in look.dead:
        run = context.instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            context.instance.report_run_failed(
                run, "The run stopped renewing its hold on the batch: its process is gone."
            )
    for batch in look.given_up:
        context.log.error(
            f"batch {batch} is given up after its last attempt: look at its runs, then:"
            " image-pipeline retry"
        )


def _what_was_seen(look: Look) -> str:
    swept = look.sweep
    progress = "the whole prefix" if swept.complete else "part of the prefix, to be continued"
    return f"listed {swept.listed} objects ({progress}), {swept.found} new; no batch is due"
