"""Which runs and partitions may be forgotten."""

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
from hypothesis import given

from image_pipeline.maintenance.history import Past, old_partitions, old_runs

BEFORE = datetime(2026, 3, 1, tzinfo=UTC)
moments = st.integers(-5, 5).map(lambda days: BEFORE + timedelta(days=days))


def test_partitions_go_by_the_end_of_their_batch_the_oldest_first():
    ends = {
        "new": BEFORE + timedelta(days=1),
        "old": BEFORE - timedelta(days=1),
        "older": BEFORE - timedelta(days=2),
        "exactly": BEFORE,
    }
    assert old_partitions({*ends, "open"}, ends, BEFORE, 9) == ["older", "old"]
    assert old_partitions({*ends, "open"}, ends, BEFORE, 1) == ["older"]


def test_a_batch_without_a_partition_is_no_partition():
    assert old_partitions({"a"}, {"b": BEFORE - timedelta(days=1)}, BEFORE, 9) == []


@given(
    st.lists(st.builds(Past, st.uuids().map(str), moments, st.booleans())),
    st.randoms(use_true_random=False),
)
def test_a_run_goes_only_if_it_ended_is_old_and_holds_no_newest_success(runs, random):
    keep = {run.id for run in runs if random.random() < 0.5}
    gone = {run.id for run in old_runs(runs, keep, BEFORE)}
    for run in runs:
        assert (run.id in gone) == (run.finished and run.changed_at < BEFORE and run.id not in keep)
