"""Storage classes and lifecycle rules, as operators see them in the UI."""

import io

import dagster as dg
import pandas as pd
import pytest
import yaml

from image_pipeline.assets.classes import (
    lifecycle_rules,
    storage_class_moves,
    storage_class_plan,
)
from image_pipeline.catalog import batches
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.uploads import Decision
from image_pipeline.ingest.discovery import sweep
from image_pipeline.maintenance.inventory import take_inventory
from image_pipeline.settings import Settings
from image_pipeline.stages.tools import utc_now
from image_pipeline.store.bucket import Bucket, StoreError

from .project import metadata_of

ASSETS = (storage_class_plan, storage_class_moves, lifecycle_rules)


@pytest.fixture
def old(project, monkeypatch):
    """A project with three processed originals that are forty days old, and a rule of others."""
    project.upload({"a.jpg": bytes(400_000), "b.jpg": bytes(200_000), "small.jpg": bytes(1000)})
    now = utc_now()
    sweep(project.bucket, project.catalog, "photos", "uploads/photos/", "", now, lambda: True)
    with project.catalog.write() as connection:
        (batch,) = batches.form(connection, "photos", now, 99, lambda all_: [list(all_)])
        found = catalog_uploads.of_batch(connection, batch)
        catalog_uploads.decide(connection, [Decision(one.id, "rejected") for one in found], now)
        batches.finish(connection, batch, now)
    monkeypatch.setattr(Settings, "now", lambda self: utc_now() + pd.Timedelta(days=40))
    settings = Settings()
    take_inventory(project.bucket, project.catalog, project.settings, settings.now)
    project.bucket.put_lifecycle(
        [
            {
                "ID": "theirs",
                "Filter": {"Prefix": "logs/"},
                "Status": "Enabled",
                "Expiration": {"Days": 3},
            }
        ]
    )
    return project


def materialize(project, asset, **config):
    return dg.materialize(
        [asset],
        instance=project.instance,
        resources=dict(project.definitions.resources),
        run_config={
            "ops": {asset.op.name: {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def numbers(result, asset):
    found = metadata_of(result, asset.key.to_user_string())
    return {name: value.value for name, value in found.items()}


def cells(table):
    return [dict(record.data) for record in table]


def table(project, asset):
    key = f"tables/{asset.key.to_user_string()}.parquet"
    return pd.read_parquet(io.BytesIO(project.bucket.get(key)))


def why(result):
    """What a run says that it failed of."""
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    data = failure.step_failure_data.user_failure_data
    code = data.metadata.get("code")
    return f"{data.description} {code.value if code else ''}"


def classes(project):
    return [one.storage_class for one in project.bucket.list("uploads/photos/")]


def test_the_plan_shows_moves_reasons_and_money(old):
    result = materialize(old, storage_class_plan)
    assert result.success
    seen = numbers(result, storage_class_plan)
    assert (seen["objects"], seen["bytes"], seen["staying"]) == (2, 600_000, 1)
    assert seen["monthly_saving_usd"] == pytest.approx(600_000 / 2**30 * 0.0105, abs=1e-6)
    assert seen["request_usd"] == pytest.approx(0.00002)
    assert (seen["early_deletion_usd"], seen["left_behind_usd"]) == (0, 0)
    assert seen["plan"].startswith("classes-")
    assert "downloads by others are not known" in seen["note"]
    (stay,) = cells(seen["stays"].records)
    assert (stay["reason"], stay["objects"]) == ("too_small", "1")
    rows = table(old, storage_class_plan)
    assert rows[["from", "to", "objects", "bytes"]].to_dict("records") == [
        {"from": "STANDARD", "to": "STANDARD_IA", "objects": 2, "bytes": 600_000}
    ]
    assert classes(old) == ["STANDARD"] * 3


def test_a_dry_run_moves_nothing_and_is_the_default(old):
    assert materialize(old, storage_class_plan).success
    result = materialize(old, storage_class_moves)
    assert result.success
    seen = numbers(result, storage_class_moves)
    assert (seen["dry_run"], seen["planned"], seen["objects"]) == (True, 2, 0)
    assert classes(old) == ["STANDARD"] * 3
    assert len(table(old, storage_class_moves)) == 0


def test_the_newest_plan_is_moved(old):
    assert materialize(old, storage_class_plan, max_objects=1).success
    result = materialize(old, storage_class_moves, dry_run=False)
    assert result.success
    seen = numbers(result, storage_class_moves)
    assert (seen["objects"], seen["bytes"], seen["errors"]) == (1, 400_000, 0)
    assert classes(old) == ["STANDARD_IA", "STANDARD", "STANDARD"]
    spent = materialize(old, storage_class_moves, dry_run=False)
    assert not spent.success
    assert "plan_spent" in why(spent)


def test_without_a_plan_or_an_inventory_it_says_what_to_do(project):
    for asset, words in (
        (storage_class_plan, "no_inventory"),
        (storage_class_moves, "materialize storage_class_plan"),
    ):
        with project.catalog.read():
            pass
        result = materialize(project, asset, dry_run=False)
        assert not result.success
        assert words in why(result)


def test_objects_that_fail_end_the_run_red_and_what_was_moved_is_shown(old, monkeypatch):
    assert materialize(old, storage_class_plan).success
    copy = Bucket.copy

    def one_fails(self, key, *arguments, **options):
        if key.endswith("a.jpg"):
            raise StoreError("AccessDenied")
        return copy(self, key, *arguments, **options)

    monkeypatch.setattr(Bucket, "copy", one_fails)
    result = materialize(old, storage_class_moves, dry_run=False)
    assert not result.success
    seen = numbers(result, storage_class_moves)
    assert (seen["objects"], seen["errors"]) == (1, 1)
    (shown,) = cells(seen["first_errors"].records)
    assert (shown["key"], "AccessDenied" in shown["error"]) == ("uploads/photos/a.jpg", True)


def test_lifecycle_rules_show_drift_and_are_written_when_told(old):
    seen = numbers(materialize(old, lifecycle_rules), lifecycle_rules)
    assert (seen["dry_run"], seen["drift"], seen["foreign"], seen["applied"]) == (True, 3, 1, False)
    assert [rule["ID"] for rule in old.bucket.lifecycle()] == ["theirs"]
    assert "+" in seen["diff"]
    seen = numbers(materialize(old, lifecycle_rules, dry_run=False), lifecycle_rules)
    assert (seen["drift"], seen["applied"], seen["rules"]) == (3, True, 4)
    assert old.bucket.lifecycle()[0]["ID"] == "theirs"
    again = numbers(materialize(old, lifecycle_rules, dry_run=False), lifecycle_rules)
    assert (again["drift"], again["applied"]) == (0, False)


def test_dry_run_is_switched_off_in_the_settings(old):
    config = old.folder / "pipeline.yaml"
    document = yaml.safe_load(config.read_text())
    document["maintenance"] = {"dry_run": False}
    config.write_text(yaml.safe_dump(document))
    assert numbers(materialize(old, lifecycle_rules), lifecycle_rules)["applied"]
    assert not numbers(materialize(old, lifecycle_rules, dry_run=True), lifecycle_rules)["applied"]


def test_every_asset_says_what_it_is():
    for asset in ASSETS:
        spec = asset.get_asset_spec()
        assert spec.group_name == "housekeeping"
        assert spec.owners
        assert spec.description
