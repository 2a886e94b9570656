"""One upload sensor per source: discover, form batches, ask for one run per batch."""

from collections.abc import Mapping

import dagster as dg

from image_pipeline.ingest.discovery import decode_cursor, encode_cursor
from image_pipeline.jobs import process_batch
from image_pipeline.partitions import BATCHES
from image_pipeline.resources import PipelineResource
from image_pipeline.settings import Settings
from image_pipeline.stages.batching import Look, RunState, look_at_source
from image_pipeline.stages.tools import utc_now

PARTITION_TAG = "dagster/partition"


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
        look = look_at_source(
            pipeline.settings,
            pipeline.bucket,
            pipeline.catalog,
            source,
            decode_cursor(context.cursor),
            lambda batches: newest_runs(context.instance, batches),
        )
        _report(context, look)
        context.update_cursor(encode_cursor(look.sweep.after))
        if not look.requests:
            return dg.SkipReason(_what_was_seen(look))
        return dg.SensorResult(
            dynamic_partitions_requests=[
                BATCHES.build_add_request([request.batch for request in look.requests])
            ],
            run_requests=[
                dg.RunRequest(
                    run_key=f"{request.batch}-{request.attempt}",
                    partition_key=request.batch,
                    tags={"image_pipeline/source": source},
                )
                for request in look.requests
            ],
        )

    return upload_sensor


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
            f"batch {batch} is given up after its last attempt: look at its runs, then"
            " materialize its partition by hand"
        )


def _what_was_seen(look: Look) -> str:
    swept = look.sweep
    progress = "the whole prefix" if swept.complete else "part of the prefix, to be continued"
    return f"listed {swept.listed} objects ({progress}), {swept.found} new; no batch is due"
