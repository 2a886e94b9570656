"""Money, worked out by hand from the price list."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.maintenance.pricing import (
    PRICES,
    ClassPrice,
    early_deletion_cost,
    estimate,
    monthly_cost,
    reading_cost,
)

GB = 2**30
KB = 2**10


@pytest.mark.parametrize(
    ("size", "storage_class", "dollars"),
    [
        (GB, "STANDARD", 0.023),
        (GB, "STANDARD_IA", 0.0125),
        (GB, "GLACIER_IR", 0.004),
        # 1 GB and 32 KB at the class's price, 8 KB at Standard's:
        # 0.0036 * (1 + 32/1048576) + 0.023 * 8/1048576
        (GB, "GLACIER", 0.0036002853393554687),
        (GB, "DEEP_ARCHIVE", 0.00099 * (1 + 32 / 1048576) + 0.023 * 8 / 1048576),
        # Below 128 KB as if 128 KB: an eighth of a thousandth of a GB, 1/8192.
        (1, "STANDARD_IA", 0.0125 / 8192),
        (128 * KB, "STANDARD_IA", 0.0125 / 8192),
        (1, "GLACIER_IR", 0.004 / 8192),
        (0, "STANDARD", 0.0),
        # No smallest size in the archives, but 40 KB are added to every object.
        (0, "GLACIER", (0.0036 * 32 + 0.023 * 8) / 1048576),
    ],
)
def test_what_an_object_costs_a_month(size, storage_class, dollars):
    assert monthly_cost(size, storage_class) == pytest.approx(dollars, rel=1e-12)


def test_a_thousand_pictures_from_standard_to_infrequent_access():
    """1,000 of 4 MB each are 3.90625 GB."""
    one = estimate(4 * 2**20, "STANDARD", "STANDARD_IA", days=45)
    assert one.monthly_saving * 1000 == pytest.approx(3.90625 * (0.023 - 0.0125))
    assert one.request_cost * 1000 == pytest.approx(0.01)
    assert one.early_deletion_cost == 0
    # A cent for 4.1 cents a month.
    assert one.payback_months == pytest.approx(0.01 / 0.041015625)


def test_a_copy_out_of_infrequent_access_pays_for_reading():
    """10 GB: a copy is charged the cent per GB that a transition by rules is not."""
    moved = estimate(10 * GB, "STANDARD_IA", "GLACIER", days=150)
    assert moved.request_cost == pytest.approx(0.03 / 1000 + 10 * 0.01)
    assert moved.monthly_saving == pytest.approx(0.125 - 0.036 - 2.853393554687e-7, rel=1e-9)


def test_leaving_early_costs_the_rest_of_the_time():
    # 20 of 30 days are left: 240/365 of a month of 12.5 USD a TB.
    assert early_deletion_cost(1024 * GB, "STANDARD_IA", 10) == pytest.approx(12.8 * 20 * 12 / 365)
    assert early_deletion_cost(GB, "STANDARD_IA", 30) == 0
    assert early_deletion_cost(GB, "GLACIER_IR", 89) == pytest.approx(0.004 * 12 / 365)
    assert early_deletion_cost(GB, "DEEP_ARCHIVE", 0) == pytest.approx(
        monthly_cost(GB, "DEEP_ARCHIVE") * 180 * 12 / 365
    )
    assert early_deletion_cost(GB, "STANDARD", 0) == 0


def test_reading_from_an_archive():
    assert reading_cost(2 * GB, "GLACIER") == pytest.approx(0.02 + 0.05 / 1000)
    assert reading_cost(2 * GB, "DEEP_ARCHIVE") == pytest.approx(0.04 + 0.10 / 1000)
    assert reading_cost(2 * GB, "GLACIER_IR") == pytest.approx(0.06)
    assert reading_cost(2 * GB, "STANDARD") == 0


def test_what_is_read_saves_less():
    """Read four times a year from Glacier IR: a third of a cent a GB and month each 0.03 USD."""
    never = estimate(GB, "STANDARD", "GLACIER_IR", days=60)
    often = estimate(GB, "STANDARD", "GLACIER_IR", days=60, reads_a_year=4)
    assert never.monthly_saving == pytest.approx(0.019)
    assert often.monthly_saving == pytest.approx(0.019 - 4 * 0.03 / 12)
    always = estimate(GB, "STANDARD", "GLACIER_IR", days=60, reads_a_year=12)
    assert always.monthly_saving < 0
    assert always.payback_months == math.inf


def test_old_versions_are_paid_for_until_they_go():
    left = estimate(GB, "STANDARD", "STANDARD_IA", days=60, left_behind_days=73)
    assert left.left_behind_cost == pytest.approx(0.023 * 73 * 12 / 365)
    assert left.once == pytest.approx(0.00001 + 0.023 * 2.4)


def test_other_prices_may_be_given():
    dear = {"STANDARD": ClassPrice(1.0, 0.0), "STANDARD_IA": ClassPrice(0.5, 0.25)}
    found = estimate(GB, "STANDARD", "STANDARD_IA", days=99, prices=dear)
    assert (found.monthly_saving, found.request_cost, found.payback_months) == (0.5, 0.25, 0.5)


def test_a_class_without_a_price_is_an_error():
    with pytest.raises(KeyError):
        monthly_cost(1, "SNOW")


@given(
    st.integers(128 * KB, 5 * GB),
    st.sampled_from(sorted(PRICES)),
    st.integers(0, 400),
)
def test_costs_grow_with_size_and_shrink_with_time(size, storage_class, days):
    assert 0 < monthly_cost(size, storage_class) < monthly_cost(size + KB, storage_class)
    early = early_deletion_cost(size, storage_class, days)
    assert 0 <= early_deletion_cost(size, storage_class, days + 1) <= early


@given(st.integers(2**20, 5 * GB))
def test_from_a_megabyte_on_colder_is_cheaper(size):
    order = ["STANDARD", "STANDARD_IA", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"]
    costs = [monthly_cost(size, name) for name in order]
    assert costs == sorted(costs, reverse=True)
