"""Cleanup as an operator meets it: in the UI, on the terminal, and when it must not go on."""

import json

import dagster as dg
import pytest

from image_pipeline.assets.cleanup import cleanup_report
from image_pipeline.assets.housekeeping import orphaned_objects, storage_inventory
from image_pipeline.commands import maintenance
from image_pipeline.commands.forget import run_forget
from image_pipeline.maintenance.plans import newest_plan, read_entries
from image_pipeline.store.layout import trash_key

from .project import checks_of, metadata_of, photo
from .test_housekeeping import ahead, failure_of, housekeep, orphans, value

__all__ = ["ahead"]


def clean(project, raises=True, **config):
    return dg.materialize(
        [storage_inventory, orphaned_objects, cleanup_report],
        selection=[cleanup_report],
        instance=project.instance,
        resources=dict(project.definitions.resources),
        raise_on_error=raises,
        run_config={
            "ops": {"cleanup_report": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )


@pytest.fixture
def planned(project, ahead):
    """A published picture, and a plan of three objects beside it, which is to be confirmed."""
    project.upload({"a.jpg": photo(1)})
    project.look_and_run()
    keys = orphans(project, 3)
    for days in (0, 8, 16):
        ahead["by"] = days
        housekeep(project, raises=True)
    return newest_plan(project.catalog, "orphans"), keys


def stored(project, prefix=""):
    return {one.key for one in project.bucket.list(prefix)}


def test_a_plan_through_the_weeks_in_the_ui(project, ahead, planned):
    plan, keys = planned
    before = stored(project)
    # Until somebody switches it on, it only shows.
    shown = metadata_of(clean(project), "cleanup_report")
    assert value(shown, "dry_run")
    assert (value(shown, "planned"), value(shown, "removed")) == (3, 0)
    assert sorted(record.data["key"] for record in shown["entries"].records) == keys
    assert stored(project) - {"tables/cleanup_report.parquet"} == before
    refused = clean(project, raises=False, dry_run=False)
    assert not refused.success
    assert failure_of(refused).metadata["code"].value == "needs_confirmation"
    assert set(keys) <= stored(project)
    run = clean(project, dry_run=False, confirm_plan=plan.id)
    done = metadata_of(run, "cleanup_report")
    assert (value(done, "removed"), value(done, "bytes_moved"), value(done, "kept")) == (3, 15, 0)
    assert checks_of(run) == {("cleanup_report", "plan_did_not_err"): True}
    assert stored(project, "trash/") == {trash_key(plan.id, key) for key in keys}
    assert before - set(keys) <= stored(project)
    again = metadata_of(clean(project, dry_run=False), "cleanup_report")
    assert (value(again, "planned"), value(again, "purged")) == (0, 0)
    ahead["by"] = 47
    due = metadata_of(clean(project), "cleanup_report")
    assert [record.data["plan"] for record in due["due_for_purge"].records] == [plan.id]
    last = metadata_of(clean(project, dry_run=False), "cleanup_report")
    assert (value(last, "purged"), value(last, "bytes_freed")) == (3, 15)
    # 15 bytes are nothing; but they are not less than nothing.
    assert value(last, "dollars_saved_a_month") >= 0
    assert stored(project, "trash/") == set()


def test_a_plan_that_errs_is_a_red_check_and_removes_nothing_alive(project, planned):
    plan, keys = planned
    (entries,) = read_entries(project.bucket, plan)
    live = next(one.key for one in project.bucket.list("variants/") if one.key not in keys)
    head = project.bucket.head(live)
    from dataclasses import replace

    from image_pipeline.maintenance.plans import plan_id, write_plan

    wrong = replace(
        entries[0], key=live, etag=head.etag, size=head.size, last_modified=head.last_modified
    )
    now = project.settings.now()
    bad = replace(plan, id=plan_id("orphans", now), state="planned", created_at=now)
    write_plan(project.bucket, project.catalog, bad, [*entries, wrong])
    run = clean(project, dry_run=False, confirm_plan=bad.id)
    assert checks_of(run) == {("cleanup_report", "plan_did_not_err"): False}
    assert value(metadata_of(run, "cleanup_report"), "skipped_now_live") == 1
    assert live in stored(project)


def test_the_same_on_the_terminal(project, planned, capsys):
    plan, keys = planned
    settings = project.settings

    def say(run, *arguments):
        code = run(settings, *arguments, True)
        return code, json.loads(capsys.readouterr().out)

    code, rows = say(maintenance.run_list, 10)
    assert (code, rows[0]["id"]) == (0, plan.id)
    code, found = say(maintenance.run_show, plan.id)
    assert sorted(one["key"] for one in found["listed"]) == keys
    code, _ = say(maintenance.run_apply, plan.id, plan.id, None)
    assert set(keys) <= stored(project), "settings say dry run"
    assert maintenance.run_apply(settings, plan.id, None, False, True) == 1
    assert "needs_confirmation" in capsys.readouterr().err
    code, done = say(maintenance.run_apply, None, plan.id, False)
    assert (code, done["counts"]) == (0, {"trashed": 3})
    assert not set(keys) & stored(project)
    code, due = say(maintenance.run_purge, True)
    assert (code, due) == (0, {"due": []})
    code, back = say(maintenance.run_restore, plan.id)
    assert (code, back["counts"], back["complete"]) == (0, {"restored": 3}, True)
    assert set(keys) <= stored(project)
    code, done = say(maintenance.run_purge, False)
    assert (code, done["objects"]) == (0, 0)
    assert maintenance.run_restore(settings, "nothing", True) == 1
    assert "no_such_plan" in capsys.readouterr().err
    for human in (
        lambda: maintenance.run_list(settings, 5, False),
        lambda: maintenance.run_show(settings, plan.id, False),
    ):
        assert human() == 0
        assert plan.id[:12] in capsys.readouterr().out


def test_a_new_plan_takes_the_inventory_it_needs(project, capsys):
    from image_pipeline.maintenance.planning import Scope

    project.upload({"a.jpg": photo(1)})
    project.look_and_run()
    assert maintenance.run_plan(project.settings, Scope(), True) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 0
    assert maintenance.run_inventory(project.settings, True) == 0
    assert json.loads(capsys.readouterr().out)["unreferenced_objects"] == 0
    assert maintenance.run_inventory(project.settings, False) == 0
    assert maintenance.run_plan(project.settings, Scope(), False) == 0


def test_a_person_is_forgotten_from_the_terminal(project, capsys):
    project.upload({"a.jpg": photo(1), "b.jpg": photo(2)})
    project.look_and_run()
    with project.catalog.read() as connection:
        from image_pipeline.catalog.forgetting import uploads_of_key

        image = uploads_of_key(connection, "uploads/photos/a.jpg")[0]["image_id"]
    code = run_forget(project.settings, "uploads/photos/a.jpg", None, True, True)
    report = json.loads(capsys.readouterr().out)
    assert (code, report["complete"], report["remains"]) == (0, True, [])
    for one in project.bucket.list(""):
        assert image not in one.key
        assert b"uploads/photos/a.jpg" not in project.bucket.get(one.key)
    assert json.loads(project.bucket.get("indexes/photos/index.json"))["totals"]["images"] == 1
    assert run_forget(project.settings, "uploads/photos/a.jpg", None, True, True) == 1
    # Nothing of it comes back, and the rest goes on.
    project.upload({"c.jpg": photo(3)})
    _, run = project.look_and_run()
    assert run.success
    assert run_forget(project.settings, "uploads/photos/b.jpg", None, True, False) == 0
    assert "Nothing of it is left" in capsys.readouterr().out
