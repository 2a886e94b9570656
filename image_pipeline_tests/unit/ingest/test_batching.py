"""When batches close, and what is done with one whose time has come."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.catalog.batches import Waiting
from image_pipeline.ingest.batching import (
    START_PATIENCE,
    Step,
    next_step,
    seconds_until_quiet,
    split,
)
from image_pipeline.settings import Batches

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def waiting(*ages, size=1_000_000):
    return [Waiting(n, size, NOW - timedelta(seconds=age)) for n, age in enumerate(ages)]


def ids(parts):
    return [[upload.id for upload in part] for part in parts]


RULES = Batches(max_images=3, max_megabytes=10, max_age_seconds=10, quiet_seconds=2)


def test_full_batches_close_at_once_and_the_rest_waits():
    assert ids(split(waiting(0, 0, 0, 0), NOW, RULES)) == [[0, 1, 2]]


def test_a_batch_closes_when_nothing_arrived_for_a_while():
    assert ids(split(waiting(5, 2), NOW, RULES)) == [[0, 1]]
    assert split(waiting(5, 1.9), NOW, RULES) == []


def test_a_batch_closes_when_its_oldest_upload_is_old_although_more_arrive():
    assert ids(split(waiting(10, 0), NOW, RULES)) == [[0, 1]]
    assert split(waiting(9.9, 0), NOW, RULES) == []


def test_bytes_close_a_batch():
    assert ids(split(waiting(0, 0, 0, size=6_000_000), NOW, RULES)) == [[0], [1]]


def test_an_upload_larger_than_a_batch_is_one_of_its_own():
    assert ids(split(waiting(60, 60, size=99_000_000), NOW, RULES)) == [[0], [1]]


def test_how_long_until_it_is_quiet():
    assert seconds_until_quiet(waiting(5, 0.5), NOW, RULES) == 1.5
    assert seconds_until_quiet(waiting(5, 2), NOW, RULES) == 0
    assert seconds_until_quiet([], NOW, RULES) == 0


def test_nothing_waits():
    assert split([], NOW, RULES) == []


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 12_000_000)), max_size=30),
    st.integers(1, 6),
)
def test_every_upload_is_in_one_batch_or_goes_on_waiting(rows, most):
    rules = RULES.model_copy(update={"max_images": most})
    some = [Waiting(n, size, NOW - timedelta(seconds=age)) for n, (age, size) in enumerate(rows)]
    parts = split(some, NOW, rules)
    flat = [upload for part in parts for upload in part]
    assert flat == some[: len(flat)], "taken in order, none twice, none skipped"
    for part in parts:
        assert 0 < len(part) <= most
        assert len(part) == 1 or sum(upload.size for upload in part) <= 10e6
    if len(flat) < len(some):
        rest = some[len(flat) :]
        assert len(rest) < most
        assert all(upload.arrived_at > NOW - timedelta(seconds=10) for upload in rest)


def test_a_run_in_the_queue_is_waited_for_as_long_as_it_takes():
    assert next_step(3, Batches(max_attempts=3), "QUEUED", timedelta(days=1)) is Step.WAIT


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING"])
def test_a_run_that_starts_is_waited_for_but_not_for_ever(status):
    rules = Batches(max_attempts=3)
    assert next_step(1, rules, status, timedelta(seconds=5)) is Step.WAIT
    assert next_step(1, rules, status, START_PATIENCE) is Step.REQUEST


@pytest.mark.parametrize("status", [None, "STARTED", "FAILURE", "SUCCESS", "CANCELED"])
def test_a_batch_nobody_holds_is_asked_for_until_its_attempts_are_used_up(status):
    rules, age = Batches(max_attempts=3), None if status is None else timedelta(minutes=5)
    assert next_step(0, rules, status, age) is Step.REQUEST
    assert next_step(2, rules, status, age) is Step.REQUEST
    assert next_step(3, rules, status, age) is Step.GIVE_UP
