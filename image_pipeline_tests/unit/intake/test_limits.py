"""Token buckets against what they promise: so many at once, so many a second, bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.intake.limits import TokenBuckets, address_of


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_a_burst_then_a_rate():
    clock = Clock()
    buckets = TokenBuckets(2.0, 3, clock)
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    assert buckets.take("b") == 0, "everybody has their own"
    clock.now += 0.25
    assert buckets.take("a") == pytest.approx(0.25)
    clock.now += 0.25
    assert buckets.take("a") == 0
    clock.now += 3600
    assert [bool(buckets.take("a")) for _ in range(4)] == [False] * 3 + [True]


@given(
    st.floats(0.1, 100), st.integers(1, 50),
    st.lists(st.floats(0, 5), min_size=1, max_size=100),
)  # fmt: skip
def test_never_more_than_burst_and_rate_allow(per_second, burst, pauses):
    clock = Clock()
    buckets = TokenBuckets(per_second, burst, clock)
    granted = 0
    for pause in pauses:
        clock.now += pause
        granted += buckets.take("a") == 0
    assert granted <= burst + per_second * sum(pauses) + 1e-6


@given(st.floats(0.1, 100), st.integers(1, 50), st.lists(st.floats(0, 2), max_size=30))
def test_whoever_waits_as_long_as_told_is_served(per_second, burst, pauses):
    clock = Clock()
    buckets = TokenBuckets(per_second, burst, clock)
    for pause in [*pauses, *[0.0] * 60]:
        clock.now += pause
        wait = buckets.take("a")
        if wait:
            clock.now += wait
            assert buckets.take("a") == 0


def test_memory_is_bounded():
    clock = Clock()
    buckets = TokenBuckets(0.001, 5, clock, most=100)
    for number in range(1000):
        buckets.take(f"address {number}")
    assert len(buckets) == 100
    # The newest are known, whoever asked the longest ago is forgotten.
    assert [buckets.take("address 999") for _ in range(5)][:4] == [0] * 4
    assert buckets.take("address 999") > 0


def test_full_buckets_are_not_kept():
    clock = Clock()
    buckets = TokenBuckets(1.0, 2, clock)
    for number in range(50):
        buckets.take(str(number))
    clock.now += 10
    buckets.take("new")
    assert len(buckets) == 1


@pytest.mark.parametrize(
    ("host", "whose"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_whose_bucket_an_address_is(host, whose):
    assert address_of(host) == whose
