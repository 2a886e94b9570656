"""Pruning a real Dagster instance, embedded and on Postgres."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus

from image_pipeline.assets.history import (
    forget_run,
    forget_ticks,
    partitions_to_forget,
    rows_by_job,
    runs_to_forget,
)
from image_pipeline.catalog import batches
from image_pipeline.catalog.schema import batches as table
from image_pipeline.partitions import BATCHES


@dg.asset(partitions_def=BATCHES)
def pictures(context: dg.AssetExecutionContext) -> None:
    if context.run.tags.get("fail"):
        raise RuntimeError("on purpose")


@dg.asset
def ledger() -> None:
    pass


@pytest.fixture
def instance(tmp_path):
    with DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def run(instance, asset, partition=None, **tags):
    done = dg.materialize(
        [asset], instance=instance, partition_key=partition, tags=tags, raise_on_error=False
    )
    return done.run_id


def a_moment():
    """A time between what was before and what comes after; Dagster tells them by the clock."""
    time.sleep(0.01)
    now = datetime.now(UTC)
    time.sleep(0.01)
    return now


def ids(records):
    return [record.dagster_run.run_id for record in records]


def test_old_runs_go_but_not_the_newest_success_of_an_asset(instance):
    first, second = run(instance, ledger), run(instance, ledger)
    before = a_moment()
    assert ids(runs_to_forget(instance, [], before, 9)) == [first]
    newer = run(instance, ledger)
    assert ids(runs_to_forget(instance, [], before, 9)) == [first, second]
    assert newer not in ids(runs_to_forget(instance, [], a_moment(), 9))


def test_every_partition_that_stays_keeps_its_newest_success(instance):
    instance.add_dynamic_partitions("batches", ["a", "b"])
    old, kept = run(instance, pictures, "a"), run(instance, pictures, "a")
    failed = run(instance, pictures, "a", fail="yes")
    other = run(instance, pictures, "b")
    before = a_moment()
    assert ids(runs_to_forget(instance, [], before, 9)) == [old, failed]
    assert ids(runs_to_forget(instance, ["a"], before, 9)) == [old, kept, failed]
    assert other not in ids(runs_to_forget(instance, ["a", "b"], before, 9))


def test_a_run_that_has_not_ended_is_never_forgotten(instance):
    first = run(instance, ledger)
    run(instance, ledger)
    stuck = instance.create_run_for_job(dg.job(name="stuck")(lambda: None))
    assert not instance.get_run_by_id(stuck.run_id).is_finished
    assert ids(runs_to_forget(instance, [], a_moment(), 9)) == [first]


def test_the_oldest_go_first_and_no_more_than_is_allowed(instance):
    runs = [run(instance, ledger) for _ in range(4)]
    assert ids(runs_to_forget(instance, [], a_moment(), 2)) == runs[:2]


def test_what_is_kept_is_still_what_people_see(instance, tmp_path):
    instance.add_dynamic_partitions("batches", ["a", "b"])
    for partition in ("a", "a", "b"):
        run(instance, pictures, partition)
    gone = ids(runs_to_forget(instance, [], a_moment(), 9))
    for one in gone:
        forget_run(instance, one)
    assert len(gone) == 1
    assert instance.get_run_by_id(gone[0]) is None
    assert instance.get_materialized_partitions(pictures.key) == {"a", "b"}
    assert instance.get_latest_materialization_event(pictures.key) is not None
    assert [path for path in Path(tmp_path).rglob("*") if gone[0] in str(path)] == []


def test_the_latest_event_of_an_asset_survives_the_loss_of_its_partition(instance):
    instance.add_dynamic_partitions("batches", ["a", "b"])
    run(instance, pictures, "a")
    last = run(instance, pictures, "b")
    for one in ids(runs_to_forget(instance, ["a", "b"], a_moment(), 9)):
        forget_run(instance, one)
    for partition in ("a", "b"):
        instance.delete_dynamic_partition("batches", partition)
    assert instance.get_latest_materialization_event(pictures.key).run_id == last
    assert instance.get_run_by_id(last).status is DagsterRunStatus.SUCCESS


def test_only_batches_that_are_long_done_lose_their_partition(instance, catalog):
    now = datetime(2026, 6, 1, tzinfo=UTC)
    states = {"old": "done", "new": "done", "open": "retry", "hopeless": "given_up"}
    with catalog.write() as connection:
        for name, state in states.items():
            finished = now - timedelta(days=1 if name == "new" else 100)
            connection.execute(
                table.insert().values(
                    id=name, source="photos", created_at=now, uploads=1, bytes=1, state=state,
                    attempt=1, finished_at=None if state in batches.OPEN else finished,
                )
            )  # fmt: skip
    instance.add_dynamic_partitions("batches", [*states, "of another catalog"])
    before = now - timedelta(days=90)
    assert partitions_to_forget(instance, catalog, before, 9) == ["old"]


def test_ticks_of_sensors_that_run_go_by_their_age(instance):
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.remote_origin import (
        RegisteredCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.scheduler.instigation import (
        InstigatorState,
        InstigatorStatus,
        SensorInstigatorData,
        TickData,
        TickStatus,
    )

    location = RegisteredCodeLocationOrigin("here")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "repository"), "a_sensor")
    instance.add_instigator_state(
        InstigatorState(
            origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData()
        )
    )
    (state,) = instance.all_instigator_state()
    for day in (1, 2, 3):
        instance.create_tick(
            TickData(
                state.instigator_origin_id, "a_sensor", InstigatorType.SENSOR, TickStatus.SKIPPED,
                datetime(2026, 1, day, tzinfo=UTC).timestamp(), selector_id=state.selector_id,
            )
        )  # fmt: skip
    assert forget_ticks(instance, datetime(2026, 1, 2, 12, tzinfo=UTC)) == 1
    left = instance.get_ticks(state.instigator_origin_id, state.selector_id)
    assert [datetime.fromtimestamp(tick.timestamp, UTC).day for tick in left] == [3]


def test_the_table_has_a_row_for_each_job(instance):
    run(instance, ledger)
    run(instance, ledger)
    records = instance.get_run_records()
    (row,) = rows_by_job(records)
    assert (row["runs"], row["job"]) == (2, records[0].dagster_run.job_name)
    assert row["oldest"] <= row["newest"]
