"""What may be removed: never anything that a single guard keeps."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from image_pipeline.catalog.housekeeping import InventoryRow, Sighting
from image_pipeline.maintenance.inventory import Listed
from image_pipeline.maintenance.liveness import ORPHAN_REASONS, SUPERSEDED
from image_pipeline.maintenance.orphans import (
    GUARDS,
    doubts,
    kept_by,
    refuse_clock,
    refuse_inventory,
    refuse_unknown_batches,
    rules_of,
    sighted,
)
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.settings import Cleanup

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ALL_KEYS = "variants/a/b"


def ago(**parts):
    return NOW - timedelta(**parts)


def sighting(reason="unknown_variant", modified=None, first=None, last=None, key=ALL_KEYS):
    return Sighting(
        key, "e", 10, reason, modified or ago(days=100), first or ago(days=40),
        last or ago(hours=1), "i",
    )  # fmt: skip


def rules(older=None, discovered=None, **cleanup):
    known = {"photos": ago(hours=2)} if discovered is None else discovered
    return rules_of(Cleanup(**cleanup), NOW, known, older)


@pytest.mark.parametrize("reason", ORPHAN_REASONS)
def test_what_is_old_and_seen_twice_may_go(reason):
    assert kept_by(sighting(reason), "photos", rules()) is None


def test_what_is_no_orphan_has_no_reason():
    for reason in ("foreign", "publication", "upload", ""):
        with pytest.raises(ValueError, match="no reason"):
            kept_by(sighting(reason), "photos", rules())


@pytest.mark.parametrize(
    ("reason", "days"), [("unknown_variant", 14), ("unknown_batch", 14), ("unknown_upload", 30)]
)
def test_an_object_has_to_be_older_than_its_grace(reason, days):
    edge = ago(days=days)
    assert kept_by(sighting(reason, edge), "photos", rules()) == "young"
    assert kept_by(sighting(reason, edge - SECOND), "photos", rules()) is None


@pytest.mark.parametrize("reason", SUPERSEDED)
def test_what_was_needed_until_lately_is_dated_from_its_first_sighting(reason):
    edge = ago(days=14)
    assert kept_by(sighting(reason, first=edge), "photos", rules()) == "lately_needed"
    assert kept_by(sighting(reason, first=edge - SECOND), "photos", rules()) is None


def test_two_sightings_have_to_be_apart():
    last = ago(hours=1)
    close = sighting(first=last - timedelta(hours=24) + SECOND, last=last)
    assert kept_by(close, "", rules()) == "seen_once"
    apart = sighting(first=last - timedelta(hours=24), last=last)
    assert kept_by(apart, "", rules()) is None
    assert kept_by(apart, "", rules(sightings_hours=25)) == "seen_once"


def test_a_protected_prefix_keeps_everything():
    one = sighting(key="variants/keep/x")
    assert kept_by(one, "", rules(protected=("other/", "variants/keep/"))) == "protected"
    assert kept_by(one, "", rules(protected=("other/",))) is None


def test_an_upload_that_discovery_did_not_pass_waits_to_be_discovered():
    one = sighting("unknown_upload", modified=ago(days=50))
    for known in ({}, {"shop": NOW}, {"photos": ago(days=60)}, {"photos": ago(days=49)}):
        assert kept_by(one, "photos", rules(discovered=known)) == "not_swept"
    assert kept_by(one, "photos", rules(discovered={"photos": ago(days=48)})) is None


def test_older_than_days_can_only_raise_the_grace():
    young = sighting(modified=ago(days=10))
    assert kept_by(young, "", rules(older=0)) == "young"
    assert kept_by(young, "", rules(older=5)) == "young"
    old = sighting(modified=ago(days=50))
    assert kept_by(old, "", rules(older=60)) == "young"
    assert kept_by(old, "", rules(older=49)) is None
    upload = sighting("unknown_upload", modified=ago(days=40))
    assert kept_by(upload, "photos", rules(older=20)) is None
    assert kept_by(upload, "photos", rules(older=45)) == "young"


HOURS = st.floats(-100, 24 * 100).map(lambda hours: timedelta(hours=hours))


@given(
    reason=st.sampled_from(ORPHAN_REASONS),
    age=HOURS,
    since=HOURS,
    until=HOURS,
    discovered=st.one_of(st.none(), HOURS),
    key=st.sampled_from(["variants/a", "variants/keep/a", "uploads/photos/a"]),
    grace=st.floats(1, 60),
    upload_grace=st.floats(1, 60),
    apart=st.floats(1, 24 * 10),
    older=st.one_of(st.none(), st.floats(0, 90)),
)
def test_nothing_goes_if_any_guard_says_no(
    reason, age, since, until, discovered, key, grace, upload_grace, apart, older
):
    """Each sentence of the rules, said once more and apart from the code."""
    known = {} if discovered is None else {"photos": NOW - discovered}
    cleanup = Cleanup(
        grace_days=grace, upload_grace_days=upload_grace, sightings_hours=apart,
        protected=("variants/keep/",),
    )  # fmt: skip
    one = sighting(reason, NOW - age, NOW - since, NOW - until, key)
    guard = kept_by(one, "photos", rules_of(cleanup, NOW, known, older))
    days = max(upload_grace if reason == "unknown_upload" else grace, older or 0)
    no = [
        key == "variants/keep/a",
        age <= timedelta(days=days),
        reason in SUPERSEDED and since <= timedelta(days=days),
        since - until < timedelta(hours=apart),
        reason == "unknown_upload"
        and (discovered is None or age - discovered <= timedelta(days=1)),
    ]
    assert (guard is not None) == any(no)
    assert guard is None or guard in GUARDS


@given(HOURS, HOURS)
def test_a_clock_that_runs_ahead_never_makes_an_object_old(age, ahead):
    """An object of the future is young."""
    assume(age < timedelta(days=14))
    one = sighting(modified=NOW - age + abs(ahead))
    assert kept_by(one, "", rules()) == "young"


def listed(**changes):
    row = Listed("k", "e", 10, ago(days=90), "STANDARD", "variant", "unknown_variant", True)
    return replace(row, **changes)


def inventory(taken_at=NOW, complete=True):
    return InventoryRow("now", taken_at, 5, 5, "listing", complete)


def test_a_first_sighting_is_of_the_inventory():
    assert sighted(listed(), None, inventory()) == Sighting(
        "k", "e", 10, "unknown_variant", ago(days=90), NOW, NOW, "now"
    )


def test_a_further_sighting_remembers_the_first():
    first = sighted(listed(), None, inventory(ago(days=7)))
    second = sighted(listed(), first, inventory())
    assert (second.first_at, second.last_at) == (ago(days=7), NOW)
    again = sighted(listed(), second, inventory())
    assert again == second, "the same inventory twice is one sighting"


@pytest.mark.parametrize(
    "change",
    [{"etag": "f"}, {"size": 11}, {"last_modified": ago(days=89)}, {"by": "superseded_variant"}],
)
def test_another_version_or_reason_is_sighted_for_the_first_time(change):
    first = sighted(listed(), None, inventory(ago(days=7)))
    assert sighted(listed(**change), first, inventory()).first_at == NOW


def test_a_sighting_of_a_rehearsal_counts_from_now():
    ahead = sighted(listed(), None, inventory(NOW + timedelta(days=40)))
    assert sighted(listed(), ahead, inventory()).first_at == NOW


def code_of(refuse, *arguments):
    with pytest.raises(PlanRefused) as refused:
        refuse(*arguments)
    assert refused.value.code in str(refused.value)
    assert refused.value.message in str(refused.value)
    return refused.value.code


def test_inventories_that_are_refused():
    assert code_of(refuse_inventory, None, NOW) == "no_inventory"
    assert code_of(refuse_inventory, inventory(complete=False), NOW) == "inventory_incomplete"
    old = inventory(ago(days=1) - SECOND)
    assert code_of(refuse_inventory, old, NOW) == "inventory_old"
    fresh = inventory(ago(days=1))
    assert refuse_inventory(fresh, NOW) == fresh


def test_clocks_that_differ_are_refused():
    near = timedelta(seconds=300)
    refuse_clock(NOW, NOW + near)
    refuse_clock(NOW, NOW - near)
    for there in (NOW + near + SECOND, NOW - near - SECOND):
        assert code_of(refuse_clock, NOW, there) == "clock_off"


def test_batches_that_the_catalog_does_not_know_are_refused():
    refuse_unknown_batches(0, "")
    assert code_of(refuse_unknown_batches, 1, "batches/x.json") == "unknown_batches"
    with pytest.raises(PlanRefused, match=r"batches/x\.json.*by hand"):
        refuse_unknown_batches(3, "batches/x.json")


def test_what_has_to_be_confirmed():
    assert doubts(0.02, 0.02, 100, 100) == []
    assert doubts(0.0, 0.02, 90, 100) == []
    assert doubts(0.0, 0.02, 100, None) == []
    assert doubts(0.0, 0.02, 0, 0) == []
    (share,) = doubts(0.021, 0.02, 100, 100)
    assert "2.1%" in share
    (shrank,) = doubts(0.0, 0.02, 89, 100)
    assert "89" in shrank
    assert len(doubts(1.0, 0.02, 1, 1000)) == 2
