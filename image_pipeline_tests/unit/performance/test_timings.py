"""Histograms against the values themselves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.performance.timings import (
    ERROR,
    LONGEST,
    SHORTEST,
    SLOWEST,
    Watch,
    bucket_of,
    from_json,
    histogram,
    merge,
    quantile,
    seconds_of,
    to_json,
)

SECONDS = st.floats(SHORTEST, LONGEST)
MANY = st.lists(SECONDS, max_size=60)

#: Beyond the error itself: logarithms and powers of floats are rounded.
ROUNDING = 1e-9


@given(SECONDS)
def test_a_bucket_is_near_to_everything_in_it(seconds):
    assert abs(seconds_of(bucket_of(seconds)) - seconds) <= (ERROR + ROUNDING) * seconds


@given(st.lists(SECONDS, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_off_by_the_error_at_most(values, share):
    # The inverse of the empirical distribution function: the value of that rank.
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert abs(quantile(histogram(values), share) - exact) <= (ERROR + ROUNDING) * exact


@given(MANY, MANY, MANY)
def test_merging_does_not_care_for_order(a, b, c):
    one, two, three = histogram(a), histogram(b), histogram(c)
    left = merge([merge([one, two]), three])
    assert left == merge([one, merge([two, three])]) == merge([three, one, two])
    assert left == histogram([*a, *b, *c])


@given(MANY)
def test_nothing_is_lost_on_the_way_through_json(values):
    stored = to_json(histogram(values))
    assert from_json(stored) == histogram(values)
    assert all(isinstance(name, str) for name in stored)


def test_merging_leaves_its_parts_alone():
    one, two = histogram([1.0]), histogram([1.0, 2.0])
    merge([one, two])
    assert (one.total(), two.total()) == (1, 2)


def test_there_are_never_many_buckets():
    numbers = bucket_of(SHORTEST), bucket_of(LONGEST)
    assert numbers[1] - numbers[0] + 1 <= 211
    assert bucket_of(0.0) == bucket_of(-1.0) == numbers[0]
    assert bucket_of(1e12) == numbers[1]


def test_a_quantile_of_nothing():
    assert quantile({}, 0.5) is None


@pytest.mark.parametrize(("share", "exact"), [(0.5, 2.0), (0.95, 40.0), (0.0, 1.0), (1.0, 40.0)])
def test_known_quantiles(share, exact):
    assert quantile(histogram([1.0, 2.0, 40.0]), share) == pytest.approx(
        exact, rel=ERROR + ROUNDING
    )


@given(st.lists(st.tuples(st.integers(1, 10**9), SECONDS), max_size=40))
def test_a_watch_keeps_the_slowest(seen):
    watch = Watch()
    for upload, seconds in seen:
        watch.add(upload, seconds)
    expected = sorted((round(took, 4) for _, took in seen), reverse=True)[:SLOWEST]
    assert [took for _, took in watch.slowest] == expected
    assert watch.buckets == histogram(took for _, took in seen)
    assert watch.total == pytest.approx(sum(took for _, took in seen))
    rounded = {(upload, round(took, 4)) for upload, took in seen}
    assert all((upload, took) in rounded for upload, took in watch.slowest)


def test_work_on_all_at_once_is_shared():
    watch = Watch()
    watch.spread(4, 2.0)
    watch.spread(0, 9.0)
    assert watch.buckets == histogram([0.5] * 4)
    assert watch.slowest == []
