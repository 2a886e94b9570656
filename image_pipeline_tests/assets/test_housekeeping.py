"""Inventory and plan as an operator meets them: numbers, tables, refusals, checks."""

import io
import secrets
from datetime import timedelta

import dagster as dg
import pyarrow.parquet as pq
import pytest

from image_pipeline.assets.housekeeping import (
    HousekeepingConfig,
    orphaned_objects,
    storage_inventory,
)
from image_pipeline.maintenance.plans import newest_plan
from image_pipeline.settings import Settings
from image_pipeline.store import layout

from .project import checks_of, metadata_of, photo


@pytest.fixture
def ahead(monkeypatch):
    """Days by which housekeeping's clock is ahead."""
    days = {"by": 0.0}
    now = Settings.now
    monkeypatch.setattr(Settings, "now", lambda self: now(self) + timedelta(days=days["by"]))
    # The store's clock is ahead as well.
    from image_pipeline.maintenance import planning

    there = planning.server_time
    monkeypatch.setattr(
        planning, "server_time", lambda bucket: there(bucket) + timedelta(days=days["by"])
    )
    return days


def housekeep(project, raises=False, **config):
    return dg.materialize(
        [storage_inventory, orphaned_objects],
        instance=project.instance,
        resources=dict(project.definitions.resources),
        raise_on_error=raises,
        run_config={
            "ops": {"orphaned_objects": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )


def orphans(project, count):
    keys = [
        layout.variant_key(secrets.token_hex(32), "small", 10, 10, "0a1b", "webp")
        for _ in range(count)
    ]
    for key in keys:
        project.bucket.put(key, b"12345", "image/webp")
    return sorted(keys)


def value(metadata, name):
    return metadata[name].value


def test_weeks_of_housekeeping_in_the_ui(project, ahead):
    project.upload({"a.jpg": photo(1)})
    _, run = project.look_and_run()
    assert run.success
    published = {one.key for one in project.bucket.list("variants/")}
    keys = orphans(project, 3)
    project.bucket.put("notes.txt", b"mine", "text/plain")
    first = housekeep(project, raises=True)
    inventory = metadata_of(first, "storage_inventory")
    listed = list(project.bucket.list(""))
    assert value(inventory, "unreferenced_objects") == 3
    assert value(inventory, "unreferenced_bytes") == 15
    assert value(inventory, "objects_unknown_variant") == 3
    assert value(inventory, "foreign_objects") == 1
    assert value(inventory, "objects_in_STANDARD") == value(inventory, "objects") < len(listed)
    uri = value(inventory, "every_object")
    data = project.bucket.get(uri.removeprefix(f"s3://{project.bucket.name}/"))
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    assert len(rows) == value(inventory, "objects")
    assert {row["key"] for row in rows if row["by"] == "unknown_variant"} == set(keys)
    assert published <= {row["key"] for row in rows if not row["orphan"]}
    plan = metadata_of(first, "orphaned_objects")
    assert (value(plan, "objects"), value(plan, "kept_young")) == (0, 3)
    table = project.bucket.get(layout.table_key("storage_inventory", None))
    summary = pq.read_table(io.BytesIO(table)).to_pandas()
    assert summary["objects"].sum() == value(inventory, "objects")
    assert summary["bytes"].sum() == value(inventory, "bytes")
    for days in (8, 16):
        ahead["by"] = days
        last = housekeep(project, raises=True)
    plan = metadata_of(last, "orphaned_objects")
    assert (value(plan, "objects"), value(plan, "bytes")) == (3, 15)
    assert value(plan, "objects_unknown_variant") == 3
    assert value(plan, "share") > 0.02
    shown = [record.data["key"] for record in plan["entries"].records]
    assert sorted(shown) == keys
    # Three of some twenty objects are more than 2 %: made, but to be confirmed.
    assert checks_of(last) == {("orphaned_objects", "needs_no_confirmation"): False}
    recorded = newest_plan(project.catalog, "orphans")
    assert (recorded.id, recorded.state) == (value(plan, "plan"), "needs_confirmation")
    (check,) = last.get_asset_check_evaluations()
    assert recorded.id in check.metadata["to_go_on"].value
    assert "max_share" in check.metadata["why"].value
    assert {one.key for one in project.bucket.list("variants/")} == published | set(keys)


def test_a_plan_of_nothing_is_a_plan(project):
    project.upload({"a.jpg": photo(1)})
    project.look_and_run()
    run = housekeep(project, raises=True)
    assert value(metadata_of(run, "orphaned_objects"), "objects") == 0
    assert checks_of(run) == {("orphaned_objects", "needs_no_confirmation"): True}


def failure_of(result):
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.event_specific_data.user_failure_data


def test_a_refusal_fails_the_run_and_says_what_to_do(project):
    run = housekeep(project)
    assert not run.success
    failure = failure_of(run)
    assert "catalog.url" in failure.description
    assert failure.metadata["code"].value == "catalog_empty"
    assert newest_plan(project.catalog, "orphans") is None


def test_config_reaches_the_plan(project, ahead):
    project.upload({"a.jpg": photo(1)})
    project.look_and_run()
    keys = orphans(project, 3)
    for days in (0, 20, 40):
        ahead["by"] = days
        housekeep(project, raises=True)
    few = housekeep(project, raises=True, max_objects=2, archive_instead_of_delete=True)
    plan = metadata_of(few, "orphaned_objects")
    assert (value(plan, "objects"), value(plan, "kept_left_for_later")) == (2, 1)
    assert newest_plan(project.catalog, "orphans").archive
    older = metadata_of(housekeep(project, raises=True, older_than_days=41), "orphaned_objects")
    assert (value(older, "objects"), value(older, "kept_young")) == (0, len(keys))
    other = metadata_of(housekeep(project, raises=True, source="products"), "orphaned_objects")
    assert value(other, "kept_other_source") == len(keys)
    failure = failure_of(housekeep(project, source="nowhere"))
    assert failure.metadata["code"].value == "no_such_source"


@pytest.mark.parametrize("wrong", [{"max_objects": 0}, {"older_than_days": -1}])
def test_nonsense_is_not_taken(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HousekeepingConfig(**wrong)


def test_assets_say_what_they_are():
    for asset in (storage_inventory, orphaned_objects):
        (key,) = asset.keys
        assert asset.group_names_by_key[key] == "housekeeping"
        assert asset.descriptions_by_key[key]
        assert asset.specs_by_key[key].owners == ["team:images"]
        assert asset.specs_by_key[key].kinds
        assert asset.partitions_def is None
