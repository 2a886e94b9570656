"""What Dagster loads: names that people and schedules rely on, and what the UI says of them."""

import subprocess
import sys
from datetime import timedelta

import dagster as dg
import pytest
import yaml

from image_pipeline.definitions import pipeline
from image_pipeline.settings import CONFIG_VARIABLE, SettingsError

from .project import settings_document


def load(monkeypatch, tmp_path, **changes):
    document = settings_document("images", "http://127.0.0.1:1") | {"performance": {}} | changes
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "pipeline.yaml"))
    return pipeline()


@pytest.fixture
def definitions(monkeypatch, tmp_path):
    return load(monkeypatch, tmp_path)


def test_they_load_and_fit_together(definitions):
    dg.Definitions.validate_loadable(definitions)


def test_names_do_not_change_by_accident(definitions):
    repository = definitions.get_repository_def()
    graph = definitions.resolve_asset_graph()
    assert sorted(key.to_user_string() for key in graph.get_all_asset_keys()) == [
        "cache_warm_manifests", "cache_warmth", "cleanup_report", "deduped_images",
        "history_prune", "lifecycle_rules", "orphaned_objects", "raw_uploads",
        "renditions_refresh", "responsive_variants", "storage_class_moves", "storage_class_plan",
        "storage_inventory", "thumbnails", "upload_ledger",
    ]  # fmt: skip
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert jobs == {
        "process_batch", "look_at_ledger", "warm_edges", "clean_up", "move_classes",
        "check_lifecycle", "refresh_renditions", "prune_history",
    }  # fmt: skip
    assert sorted(sensor.name for sensor in repository.sensor_defs) == [
        "photos_uploads", "products_uploads",
    ]  # fmt: skip
    assert {one.name: one.cron_schedule for one in repository.schedule_defs} == {
        "hourly_ledger": "7 * * * *",
        "hourly_warming": "22 * * * *",
        "clean_up": "0 3 * * 0",
        "move_classes": "0 5 * * 0",
        "check_lifecycle": "0 6 * * 0",
        "refresh_renditions": "0 4 1 * *",
        "prune_history": "0 4 2 * *",
    }
    checks = sorted((key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys)
    assert checks == [
        ("cache_warm_manifests", "duplicates_are_served"),
        ("cleanup_report", "plan_did_not_err"),
        ("deduped_images", "canonicals_stand"),
        ("orphaned_objects", "needs_no_confirmation"),
        ("raw_uploads", "no_failed_uploads"),
        ("raw_uploads", "no_rejected_uploads"),
        ("responsive_variants", "bytes_saved"),
        ("responsive_variants", "complete"),
        ("responsive_variants", "no_metadata"),
        ("responsive_variants", "served_right"),
        ("thumbnails", "complete"),
        ("thumbnails", "no_metadata"),
        ("thumbnails", "served_right"),
    ]


def test_the_graph_goes_from_uploads_to_manifests(definitions):
    graph = definitions.resolve_asset_graph()

    def parents(name):
        node = graph.get(dg.AssetKey(name))
        return {key.to_user_string() for key in node.parent_keys}

    assert parents("raw_uploads") == set()
    assert parents("deduped_images") == {"raw_uploads"}
    assert parents("responsive_variants") == parents("thumbnails") == {"deduped_images"}
    assert parents("cache_warm_manifests") == {"responsive_variants", "thumbnails"}
    assert parents("orphaned_objects") == {"storage_inventory"}
    assert parents("cleanup_report") == {"orphaned_objects"}
    assert parents("storage_class_plan") == {"storage_inventory"}
    assert parents("storage_class_moves") == {"storage_class_plan"}


def test_every_asset_says_what_it_is_and_whose(definitions):
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert (node.description or "").strip().endswith("."), key
        assert node.group_name in ("ingest", "renditions", "delivery", "housekeeping"), key
        assert node.kinds, key
        assert node.owners == ["team:images"], key
        whole = node.group_name == "housekeeping" or key.to_user_string() in (
            "upload_ledger", "cache_warmth",
        )  # fmt: skip
        assert node.is_partitioned != whole, key
    for check in graph.asset_check_keys:
        assert graph.get_check_spec(check).description, check


def test_jobs_sensors_and_schedules_say_what_they_do(definitions):
    repository = definitions.get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    for one in [*jobs, *repository.sensor_defs, *repository.schedule_defs]:
        assert one.description, one.name


def test_what_runs_by_the_clock_is_overdue_when_it_did_not(definitions):
    graph = definitions.resolve_asset_graph()
    windows = {
        key.to_user_string(): graph.get(key).freshness_policy.fail_window.to_timedelta()
        for key in graph.get_all_asset_keys()
        if graph.get(key).freshness_policy
    }
    assert windows == {
        "cache_warmth": timedelta(hours=3), "upload_ledger": timedelta(hours=3),
        "cleanup_report": timedelta(days=15), "storage_inventory": timedelta(days=15),
    }  # fmt: skip


def test_times_of_housekeeping_are_settings(monkeypatch, tmp_path):
    changed = load(monkeypatch, tmp_path, maintenance={"crons": {"cleanup": "30 1 * * 6"}})
    schedules = {one.name: one.cron_schedule for one in changed.get_repository_def().schedule_defs}
    assert schedules["clean_up"] == "30 1 * * 6"


def test_optional_parts_are_there_once_they_are_switched_on(monkeypatch, tmp_path):
    plain = load(monkeypatch, tmp_path)
    source = {"prefix": "uploads/photos/", "mockups": "all"}
    full = load(
        monkeypatch, tmp_path, sources={"photos": source}, mirror={"host": "nas"},
        performance={"enabled": True, "cron": "5 1 * * *"},
    )  # fmt: skip

    def things(definitions):
        repository = definitions.get_repository_def()
        graph = definitions.resolve_asset_graph()
        return (
            {key.to_user_string() for key in graph.get_all_asset_keys()},
            {job.name for job in repository.get_all_jobs()},
            {one.name for one in repository.sensor_defs if one.name != "products_uploads"},
            {(one.name, one.cron_schedule) for one in repository.schedule_defs},
        )

    added = [more - before for before, more in zip(things(plain), things(full), strict=True)]
    assert added == [
        {"mockups", "nas_mirror", "performance_report"},
        {"compose_mockups", "mirror_to_nas", "report_performance"},
        {"mockup_templates"},
        {("mirror_to_nas", "30 * * * *"), ("report_performance", "5 1 * * *")},
    ]


def test_sensors_for_events_and_alerts_are_there_where_they_have_something_to_do(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("IMAGE_PIPELINE_ALERTS__SLACK", "https://hooks.example.com/x")
    queue = {"queue_url": "https://sqs.us-east-1.amazonaws.com/1/uploads"}
    names = {
        sensor.name
        for sensor in load(monkeypatch, tmp_path, discovery=queue).get_repository_def().sensor_defs
    }
    assert names == {"photos_uploads", "products_uploads", "upload_events", "failed_runs"}


def test_one_sensor_per_source_each_with_a_switch_of_its_own(definitions):
    sensors = definitions.get_repository_def().sensor_defs
    for sensor in sensors:
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        assert sensor.job_name == "process_batch"
        assert sensor.minimum_interval_seconds == 2
    watched = {sensor.name: sensor.description for sensor in sensors}
    assert "uploads/photos/" in watched["photos_uploads"]
    assert "uploads/products/" in watched["products_uploads"]
    for schedule in definitions.get_repository_def().schedule_defs:
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"recipes": {"web": {"sizes": {"small": {"width": 0, "height": 9}}}}},
         "recipes.web.sizes.small.width"),
        ({"sources": {"photos": {"prefix": "uploads"}}}, "sources.photos.prefix"),
        ({"sources": {"photos": {"prefix": "uploads/", "recipe": "none"}}},
         "sources.photos.recipe"),
        ({"batches": {"max_image": 3}}, "batches.max_image"),
        ({"bucket": {"name": "images", "secret_key": "x"}}, "bucket.secret_key"),
    ],
)  # fmt: skip
def test_wrong_settings_stop_the_loading_and_are_named(monkeypatch, tmp_path, changes, field):
    with pytest.raises(SettingsError) as raised:
        load(monkeypatch, tmp_path, **changes)
    assert f"pipeline.yaml: {field}" in str(raised.value)


def test_loading_gives_no_warning(tmp_path, monkeypatch):
    """Not even Dagster's about what is beta or deprecated; a code server imports afresh."""
    load(monkeypatch, tmp_path)
    program = (
        "import dagster, pandas, sqlalchemy, boto3, PIL.Image, pebble, jinja2, warnings\n"
        "warnings.simplefilter('error')\n"
        "from image_pipeline.definitions import pipeline\n"
        "dagster.Definitions.validate_loadable(pipeline())\n"
        "import image_pipeline.cli\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_loading_touches_neither_bucket_nor_catalog(definitions, tmp_path):
    """Port 1 of this machine answers nobody: a request while loading would have failed."""
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]
