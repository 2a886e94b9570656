"""Which originals move, and why the others stay."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.maintenance.classes import (
    EXPLANATIONS,
    WATERFALL,
    Move,
    Original,
    Stay,
    decide,
    is_colder,
    minimum_days,
)
from image_pipeline.settings import Classes, ClassRule

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MB = 2**20


def ago(days):
    return NOW - timedelta(days=days)


def rules(*pairs, **others):
    return Classes(rules=tuple(ClassRule(to=to, after_days=days) for to, days in pairs), **others)


ALL = rules(("STANDARD_IA", 30), ("GLACIER_IR", 90), ("GLACIER", 180), ("DEEP_ARCHIVE", 365))


def original(**changes):
    return replace(
        Original(
            key="uploads/photos/a.jpg",
            size=5 * MB,
            storage_class="STANDARD",
            finished=True,
            canonical=False,
            used_at=ago(40),
            class_since=ago(40),
        ),
        **changes,
    )


@pytest.mark.parametrize(
    ("unused", "to"),
    [(30, "STANDARD_IA"), (89.9, "STANDARD_IA"), (90, "GLACIER_IR"), (180, "GLACIER"),
     (364, "GLACIER"), (365, "DEEP_ARCHIVE"), (4000, "DEEP_ARCHIVE")],
)  # fmt: skip
def test_the_coldest_rule_that_is_due(unused, to):
    found = decide(original(used_at=ago(unused), class_since=ago(unused)), ALL, NOW)
    assert isinstance(found, Move)
    assert found.to == to


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"finished": False}, Stay.UNFINISHED),
        ({"size": 131_071}, Stay.TOO_SMALL),
        ({"used_at": ago(29.99)}, Stay.USED_LATELY),
        # In use for a year, written anew a week ago: 30 days in Standard come first.
        ({"used_at": ago(365), "class_since": ago(7)}, Stay.MINIMUM_DURATION),
        ({"storage_class": "DEEP_ARCHIVE", "used_at": ago(999)}, Stay.NOT_COLDER),
        ({"storage_class": "GLACIER", "used_at": ago(999)}, Stay.ARCHIVED),
        ({"storage_class": "INTELLIGENT_TIERING"}, Stay.MANAGED),
        ({"storage_class": "ONEZONE_IA"}, Stay.ONE_ZONE),
        ({"storage_class": "REDUCED_REDUNDANCY"}, Stay.REDUCED_REDUNDANCY),
        ({"storage_class": "SNOW"}, Stay.OTHER_CLASS),
        ({"storage_class": "STANDARD_IA", "used_at": ago(100), "class_since": ago(29)},
         Stay.MINIMUM_DURATION),
        ({"storage_class": "GLACIER_IR", "used_at": ago(400), "class_since": ago(89)},
         Stay.MINIMUM_DURATION),
        ({"storage_class": "STANDARD_IA", "used_at": ago(60), "class_since": ago(60)},
         Stay.USED_LATELY),
    ],
)  # fmt: skip
def test_why_an_original_stays(changes, reason):
    assert decide(original(**changes), ALL, NOW) is reason


def test_on_the_day_it_may_go():
    early = original(storage_class="GLACIER_IR", used_at=ago(400), class_since=ago(90))
    # Reading it from Glacier IR costs 3 cents a GB, and 0.3 are saved a month: over ten months.
    assert decide(early, ALL, NOW) is Stay.DOES_NOT_PAY
    found = decide(early, ALL.model_copy(update={"payback_months": 24}), NOW)
    assert found.to == "DEEP_ARCHIVE"
    assert found.estimate.early_deletion_cost == 0
    assert decide(original(size=131_072), ALL, NOW).to == "STANDARD_IA"


def test_what_pays_back_too_late_goes_less_cold_or_stays():
    """128 KB: to Glacier costs 0.003 cents and saves 0.0000047 USD a month, 6 months of it."""
    small = original(size=131_072, used_at=ago(200), class_since=ago(200))
    # Standard 2.8076e-6; Glacier (160 KB * .0036 + 8 KB * .023) / 2^30 = 7.2479e-7; put 3e-5.
    months = 3e-5 / (2.80761719e-6 - 7.24792480e-7)
    assert months == pytest.approx(14.4, abs=0.1)
    two = rules(("STANDARD_IA", 30), ("GLACIER", 180))
    # To Standard-IA: put 1e-5, saves 1.28174e-6 a month, 7.8 months.
    assert decide(small, two, NOW).to == "STANDARD_IA"
    assert decide(small, two.model_copy(update={"payback_months": 14.5}), NOW).to == "GLACIER"
    strict = two.model_copy(update={"payback_months": 7.7})
    assert decide(small, strict, NOW) is Stay.DOES_NOT_PAY


def test_a_canonical_is_read_once_a_year_and_has_to_save_more():
    """1 MB in Deep Archive: a restore costs 10 cents a thousand, a twelfth of it by the month."""
    one = original(size=MB, used_at=ago(400), class_since=ago(400))
    plain = decide(one, ALL, NOW)
    canonical = decide(replace(one, canonical=True), ALL, NOW)
    reading = (0.02 / 1024 + 0.0001) / 12
    assert plain.to == canonical.to == "DEEP_ARCHIVE"
    assert plain.estimate.monthly_saving - canonical.estimate.monthly_saving == pytest.approx(
        reading
    )
    # Where that eats up what is saved, the next warmer class is taken.
    picky = ALL.model_copy(update={"payback_months": 2.6})
    assert decide(one, picky, NOW).to == "DEEP_ARCHIVE"
    assert decide(replace(one, canonical=True), picky, NOW).to != "DEEP_ARCHIVE"


def test_old_versions_that_stay_behind_have_to_be_paid_back_too():
    one = original()
    assert decide(one, ALL, NOW, left_behind_days=60).to == "STANDARD_IA"
    dear = decide(one, ALL.model_copy(update={"payback_months": 3}), NOW, left_behind_days=60)
    # 60 days of Standard are 1.97 months of 0.023, and 0.0105 is saved a month: 4.3 months.
    assert dear is Stay.DOES_NOT_PAY


def test_without_rules_nothing_moves():
    assert decide(original(used_at=ago(999)), rules(), NOW) is Stay.NOT_COLDER


def test_every_reason_is_explained():
    assert set(EXPLANATIONS) == set(Stay)


def test_down_only():
    assert is_colder("GLACIER", "STANDARD_IA")
    assert not is_colder("STANDARD", "GLACIER")
    assert not is_colder("GLACIER", "GLACIER")
    assert not is_colder("GLACIER", "ONEZONE_IA")
    assert [minimum_days(name) for name in WATERFALL] == [30, 30, 90, 90, 180]


DAYS = st.floats(0, 1000, allow_nan=False)
ORIGINALS = st.builds(
    Original,
    key=st.just("k"),
    size=st.one_of(st.integers(0, 200_000), st.integers(0, 2**33)),
    storage_class=st.sampled_from([*WATERFALL, "INTELLIGENT_TIERING", "ONEZONE_IA", "X"]),
    finished=st.booleans(),
    canonical=st.booleans(),
    used_at=DAYS.map(ago),
    class_since=DAYS.map(ago),
)
RULES = st.builds(
    Classes,
    rules=st.lists(
        st.builds(
            ClassRule,
            to=st.sampled_from(WATERFALL[1:]),
            after_days=st.floats(30, 800, allow_nan=False),
        ),
        max_size=5,
    ).map(tuple),
    payback_months=st.floats(0.1, 200),
)


@given(ORIGINALS, RULES, st.sampled_from([0.0, 60.0]))
def test_never_upwards_never_small_never_young_never_at_a_loss(one, rules, left_behind):
    found = decide(one, rules, NOW, left_behind_days=left_behind)
    if isinstance(found, Stay):
        return
    assert WATERFALL.index(found.to) > WATERFALL.index(one.storage_class)
    assert one.storage_class not in ("GLACIER", "DEEP_ARCHIVE"), "cannot be copied"
    assert one.size >= 128 * 1024
    assert one.finished
    assert NOW - one.used_at >= timedelta(days=found.after_days) >= timedelta(days=30)
    stay = {"STANDARD": 30, "STANDARD_IA": 30, "GLACIER_IR": 90}[one.storage_class]
    assert NOW - one.class_since >= timedelta(days=stay)
    assert found.estimate.monthly_saving > 0
    assert found.estimate.early_deletion_cost == 0
    assert found.estimate.once <= rules.payback_months * found.estimate.monthly_saving * 1.000001
    assert (found.to, found.after_days) in {(rule.to, rule.after_days) for rule in rules.rules}
