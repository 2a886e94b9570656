"""Plans as data: what was written is what is read, or nothing."""

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from image_pipeline.catalog import housekeeping
from image_pipeline.maintenance.plans import (
    Entry,
    Plan,
    PlanRefused,
    check_applicable,
    newest_plan,
    plan_id,
    read_entries,
    read_plan,
    write_plan,
)
from image_pipeline.store.bucket import Bucket, StoreError
from image_pipeline.store.layout import plan_key

NOW = datetime(2026, 6, 1, 12, 30, 15, 250, tzinfo=UTC)


def plan(name="orphans-1", **changes):
    made = Plan(name, "orphans", NOW, "i", "", 0, 0, 0.01, archive=False, state="planned")
    return replace(made, **changes)


def entry(number, **changes):
    made = Entry(
        f"variants/ü {number}\n.webp", f"e{number}", number, NOW - timedelta(days=number),
        "STANDARD", "unknown_variant", NOW - timedelta(days=8), NOW,
    )  # fmt: skip
    return replace(made, **changes)


ROW = {"key": "k", "image_id": "a", "created_at": NOW.isoformat(), "metadata": ["exif"]}


def test_entries_come_back_as_they_were_in_chunks(bucket, catalog):
    entries = [entry(n) for n in range(2500)]
    entries[7] = entry(7, row=ROW)
    written = write_plan(bucket, catalog, plan(), iter(entries))
    assert (written.entries, written.bytes) == (2500, sum(range(2500)))
    data = bucket.get(plan_key("orphans-1"))
    assert written.digest == hashlib.sha256(data).hexdigest()
    parts = list(read_entries(bucket, read_plan(catalog, "orphans-1")))
    assert [len(part) for part in parts] == [1000, 1000, 500]
    assert [one for part in parts for one in part] == entries
    assert pq.ParquetFile(io.BytesIO(data)).num_row_groups == 3


def test_a_plan_comes_back_as_it_was_recorded(bucket, catalog):
    written = write_plan(bucket, catalog, plan(archive=True, state="needs_confirmation"), [])
    assert read_plan(catalog, "orphans-1") == written
    assert (written.entries, written.bytes) == (0, 0)
    assert list(read_entries(bucket, written)) == []


def test_a_plan_whose_entries_cannot_be_written_is_not_recorded(bucket, catalog):
    missing = Bucket(bucket.settings.model_copy(update={"name": "nobody-made-this"}))
    with pytest.raises(StoreError):
        write_plan(missing, catalog, plan(), [entry(1)])
    missing.client.close()
    assert code_of(read_plan, catalog, "orphans-1") == "no_such_plan"


def test_entries_that_were_changed_are_not_applied(bucket, catalog):
    written = write_plan(bucket, catalog, plan(), [entry(1)])
    other = write_plan(bucket, catalog, plan("orphans-2"), [entry(2)])
    bucket.put(plan_key(written.id), bucket.get(plan_key(other.id)), "text/plain")
    assert code_of(lambda: next(read_entries(bucket, written))) == "plan_changed"
    bucket.client.delete_object(Bucket=bucket.name, Key=plan_key(written.id))
    assert code_of(lambda: next(read_entries(bucket, written))) == "plan_gone"


def test_the_newest_plan_of_a_kind(bucket, catalog):
    assert newest_plan(catalog, "orphans") is None
    for days, kind in enumerate(("orphans", "orphans", "classes")):
        made = plan(f"p{days}", kind=kind, created_at=NOW + timedelta(days=days))
        write_plan(bucket, catalog, made, [])
    assert newest_plan(catalog, "orphans").id == "p1"
    with catalog.read() as connection:
        assert [row["id"] for row in housekeeping.recent_plans(connection)] == ["p2", "p1", "p0"]


def test_ids_sort_by_time_and_never_repeat():
    first, second = (plan_id("orphans", NOW) for _ in range(2))
    assert first != second
    assert first.startswith("orphans-20260601-123015-")
    assert plan_id("orphans", NOW + timedelta(seconds=1)) > max(first, second)


def code_of(call, *arguments):
    with pytest.raises(PlanRefused) as refused:
        call(*arguments)
    return refused.value.code


HOURS = 72.0
LATER = NOW + timedelta(hours=HOURS)


def test_a_plan_may_be_applied_for_some_hours():
    check_applicable(plan(), LATER, HOURS)
    assert code_of(check_applicable, plan(), LATER + timedelta(seconds=1), HOURS) == "plan_expired"


def test_a_plan_that_was_begun_may_be_finished_whenever():
    check_applicable(plan(state="applying"), NOW + timedelta(days=99), HOURS)


@pytest.mark.parametrize("state", ["applied", "purged", "restored"])
def test_a_plan_is_applied_once(state):
    assert code_of(check_applicable, plan(state=state), NOW, HOURS, "orphans-1") == "plan_spent"


def test_a_large_plan_needs_its_own_id():
    large = plan(state="needs_confirmation")
    assert code_of(check_applicable, large, NOW, HOURS) == "needs_confirmation"
    assert code_of(check_applicable, large, NOW, HOURS, "orphans-2") == "wrong_confirmation"
    assert code_of(check_applicable, large, NOW, HOURS, "") == "wrong_confirmation"
    check_applicable(large, NOW, HOURS, "orphans-1")
    late = LATER + timedelta(seconds=1)
    assert code_of(check_applicable, large, late, HOURS, "orphans-1") == "plan_expired"


def test_the_id_of_another_plan_is_never_right():
    assert code_of(check_applicable, plan(), NOW, HOURS, "orphans-2") == "wrong_confirmation"
