"""Dagster's own history, pruned through its own interfaces."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

from image_pipeline.assets.common import OWNERS, TABLES, shown_table, table
from image_pipeline.assets.housekeeping import GROUP, HousekeepingConfig
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.history import ends
from image_pipeline.maintenance.history import Past, old_partitions, old_runs
from image_pipeline.partitions import BATCHES, PARTITION_TAG
from image_pipeline.performance.publishing import prune_timings
from image_pipeline.resources import PipelineResource

COLUMNS = ("job", "runs", "oldest", "newest")

#: Runs read at a time.
PAGE = 500


@dg.asset(
    group_name=GROUP,
    kinds={"dagster"},
    owners=OWNERS,
    io_manager_key=TABLES,
)
def history_prune(
    context: dg.AssetExecutionContext, config: HousekeepingConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Old runs with their events and logs, old ticks and timings, partitions of batches long done.

    The newest success of every asset, and of every partition that is kept, stays. One row per
    job.
    """
    started = time.monotonic()
    tools = pipeline.light_tools(context)
    rules = tools.settings.maintenance
    dry_run = config.is_dry(tools.settings)
    days = max(rules.history_days, config.older_than_days or 0)
    before = tools.settings.now() - timedelta(days=days)
    limit = min(config.max_objects or rules.max_objects, rules.max_objects)
    instance = context.instance
    partitions = partitions_to_forget(instance, tools.catalog, before, limit)
    runs = runs_to_forget(instance, partitions, before, limit)
    ticks = 0 if dry_run else prune(instance, runs, partitions, before)
    measured = {} if dry_run else prune_timings(tools.settings, tools.catalog, tools.settings.now())
    rows = rows_by_job(runs)
    yield dg.MaterializeResult(
        value=table(rows, COLUMNS).astype({"runs": "Int64"}),
        metadata={
            "runs": len(runs),
            "partitions": len(partitions),
            "tick_histories": ticks,
            "timings": measured.get("timings", 0),
            "slow_queries": measured.get("slow_queries", 0),
            "dry_run": dry_run,
            "before": f"{before:%Y-%m-%d %H:%M} UTC",
            "seconds": round(time.monotonic() - started, 3),
            "pruned": shown_table(rows, COLUMNS),
        },
    )


def partitions_to_forget(
    instance: dg.DagsterInstance, catalog: Catalog, before: datetime, limit: int
) -> list[str]:
    """Partitions whose batches are done since before then, the oldest first."""
    known = instance.get_dynamic_partitions(str(BATCHES.name))
    with catalog.read() as connection:
        finished = ends(connection, known)
    return old_partitions(known, finished, before, limit)


def runs_to_forget(
    instance: dg.DagsterInstance, forgotten: Collection[str], before: datetime, limit: int
) -> list[dg.RunRecord]:
    """Runs that nobody needs, the oldest first, once these partitions are gone."""
    left = set(instance.get_dynamic_partitions(str(BATCHES.name))) - set(forgotten)
    newest = _Newest(instance, left)

    def candidates() -> Iterator[dg.RunRecord]:
        for page in _pages(instance, before):
            keep = newest.runs | newest.of_partitions(one.dagster_run for one in page)
            by_id = {record.dagster_run.run_id: record for record in page}
            for past in old_runs(map(_past, page), keep, before):
                yield by_id[past.id]

    return list(islice(candidates(), limit))


class _Newest:
    """Runs that hold the newest success of an asset, or of a partition that stays."""

    def __init__(self, instance: dg.DagsterInstance, partitions: Collection[str]) -> None:
        self.instance = instance
        self.partitions = partitions
        self.assets = instance.get_asset_keys()
        events = map(instance.get_latest_materialization_event, self.assets)
        self.runs = {event.run_id for event in events if event is not None}
        self._known: dict[str, set[str]] = {}

    def of_partitions(self, runs: Iterable[dg.DagsterRun]) -> set[str]:
        """The runs to keep of the partitions of these runs; each is asked for once."""
        wanted = {run.tags.get(PARTITION_TAG) for run in runs}
        found: set[str] = set()
        for partition in wanted & set(self.partitions):
            if partition is not None:
                if partition not in self._known:
                    self._known[partition] = self._of_partition(partition)
                found |= self._known[partition]
        return found

    def _of_partition(self, partition: str) -> set[str]:
        found: set[str] = set()
        for asset in self.assets:
            records = self.instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[partition]), limit=1
            ).records
            found.update(record.run_id for record in records)
        return found


def _pages(instance: dg.DagsterInstance, before: datetime) -> Iterator[list[dg.RunRecord]]:
    """Finished runs that did not change since then, the oldest first."""
    filters = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=before)
    cursor = None
    while page := instance.get_run_records(filters, limit=PAGE, ascending=True, cursor=cursor):
        yield list(page)
        cursor = page[-1].dagster_run.run_id


def _past(record: dg.RunRecord) -> Past:
    run = record.dagster_run
    partition = run.tags.get(PARTITION_TAG)
    return Past(run.run_id, record.update_timestamp, run.is_finished, partition)


def prune(
    instance: dg.DagsterInstance,
    runs: Iterable[dg.RunRecord],
    partitions: Iterable[str],
    before: datetime,
) -> int:
    """Delete these runs and partitions, and older ticks; see :func:`forget_ticks`."""
    for record in runs:
        forget_run(instance, record.dagster_run.run_id)
    for partition in partitions:
        instance.delete_dynamic_partition(str(BATCHES.name), partition)
    return forget_ticks(instance, before)


def forget_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, its events, and the output of its steps.

    Embedded, Dagster keeps the events of each run in a file of 140 kB of its own, and empties
    it without removing it.
    """
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        path = storage.path_for_shard(run_id)
        for end in ("", "-wal", "-shm", "-journal"):
            Path(f"{path}{end}").unlink(missing_ok=True)


def forget_ticks(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete the ticks of all sensors and schedules before then; how many of these there are."""
    states = instance.all_instigator_state()
    for state in states:
        instance.purge_ticks(state.instigator_origin_id, state.selector_id, before.timestamp())
    return len(states)


def rows_by_job(runs: Iterable[dg.RunRecord]) -> list[dict[str, Any]]:
    """One row per job: how many runs, and from when to when."""
    found: dict[str, list[datetime]] = {}
    for record in runs:
        found.setdefault(record.dagster_run.job_name, []).append(record.create_timestamp)
    counted = Counter({job: len(times) for job, times in found.items()})
    return [
        {
            "job": job,
            "runs": count,
            "oldest": f"{min(found[job]):%Y-%m-%d %H:%M}",
            "newest": f"{max(found[job]):%Y-%m-%d %H:%M}",
        }
        for job, count in counted.most_common()
    ]
