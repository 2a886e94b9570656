"""Rules of a bucket's own, beside those of other people."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.maintenance import lifecycle
from image_pipeline.maintenance.lifecycle import (
    LifecycleError,
    bring_in_line,
    compare,
    is_ours,
    meaning,
    merge,
    same,
    show_difference,
    wanted_rules,
)
from image_pipeline.settings import OWN_PREFIXES, Cleanup, Maintenance, Settings

SETTINGS = Settings()

LOGS = {
    "ID": "expire-logs", "Filter": {"Prefix": "logs/"}, "Status": "Enabled",
    "Expiration": {"Days": 90},
}  # fmt: skip
TAGGED = {
    "ID": "cold",
    "Filter": {"And": {"Prefix": "x/", "Tags": [{"Key": "a", "Value": "b"}]}},
    "Status": "Disabled",
    "Transitions": [{"Days": 60, "StorageClass": "GLACIER"}],
}
#: The first version of the API: a prefix without a filter.
OLD = {"ID": "old", "Prefix": "old/", "Status": "Enabled", "Expiration": {"Days": 5}}


def names(rules):
    return [rule["ID"].removeprefix("image-pipeline-") for rule in rules]


def test_what_a_bucket_should_say():
    found = {rule["ID"]: rule for rule in wanted_rules(SETTINGS, versioned=False)}
    assert found == {
        "image-pipeline-abort-multipart": {
            "ID": "image-pipeline-abort-multipart",
            "Filter": {"Prefix": ""},
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        "image-pipeline-expire-trash": {
            "ID": "image-pipeline-expire-trash",
            "Filter": {"Prefix": "trash/"},
            "Status": "Enabled",
            "Expiration": {"Days": 120},
        },
        "image-pipeline-expire-plans": {
            "ID": "image-pipeline-expire-plans",
            "Filter": {"Prefix": "plans/"},
            "Status": "Enabled",
            "Expiration": {"Days": 365},
        },
    }


def test_the_bucket_empties_the_trash_later_than_housekeeping_and_plans_last():
    for days in (1, 30, 45.5, 1000):
        cleanup = Cleanup(trash_days=days)
        settings = Settings(maintenance=Maintenance(cleanup=cleanup))
        rules = {rule["ID"]: rule for rule in wanted_rules(settings, versioned=True)}
        trash = rules["image-pipeline-expire-trash"]["Expiration"]["Days"]
        # What a plan archives lies in the trash for ninety days at least.
        assert trash >= max(days, 90) + 30
        assert rules["image-pipeline-expire-plans"]["Expiration"]["Days"] > trash
        for rule in rules.values():
            if "NoncurrentVersionExpiration" in rule:
                assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] >= days + 30


def test_old_versions_only_of_what_is_ours():
    rules = wanted_rules(SETTINGS, versioned=True)
    old = {rule["Filter"]["Prefix"] for rule in rules if "NoncurrentVersionExpiration" in rule}
    assert old == {*OWN_PREFIXES, "uploads/photos/"}
    assert len(set(names(rules))) == len(rules)
    # S3 allows one expiration per prefix in its old dialect.
    expired = [rule["Filter"]["Prefix"] for rule in rules if "Expiration" in rule]
    assert len(expired) == len(set(expired))
    assert all(len(rule["ID"]) <= 255 for rule in rules)


def test_everybody_elses_rules_stay_where_and_as_they_are():
    ours = wanted_rules(SETTINGS, versioned=False)
    stale = {**ours[1], "Expiration": {"Days": 3}}
    dropped = {**ours[0], "ID": "image-pipeline-of-another-age"}
    merged = merge([LOGS, stale, TAGGED, dropped], ours)
    assert names(merged) == [
        "expire-logs",
        "expire-trash",
        "cold",
        "abort-multipart",
        "expire-plans",
    ]
    assert merged[0] is LOGS
    assert merged[2] is TAGGED
    assert merged[1]["Expiration"] == {"Days": 120}


def test_what_changes_is_told():
    ours = wanted_rules(SETTINGS, versioned=False)
    stale = {**ours[1], "Expiration": {"Days": 3}}
    dropped = {**ours[0], "ID": "image-pipeline-of-another-age"}
    present = [LOGS, stale, dropped, ours[2]]
    found = {one.rule: one.change for one in compare(present, merge(present, ours))}
    assert found == {
        "expire-logs": "foreign",
        "image-pipeline-expire-trash": "changed",
        "image-pipeline-of-another-age": "dropped",
        "image-pipeline-expire-plans": "kept",
        "image-pipeline-abort-multipart": "added",
    }
    assert '-      "Days": 3' in show_difference(present, merge(present, ours)).splitlines()
    assert show_difference(ours, merge(ours, ours)) == ""


def test_the_whole_bucket_is_written_in_more_than_one_way():
    (abort, *_) = wanted_rules(SETTINGS, versioned=False)
    as_s3_says = {"Status": "Enabled", **{k: v for k, v in abort.items() if k != "Filter"}}
    assert same(abort, {**as_s3_says, "Filter": {}})
    assert same(abort, {**as_s3_says, "Prefix": ""})
    assert not same(abort, {**as_s3_says, "Prefix": "a/"})
    assert not same(abort, {**abort, "Status": "Disabled"})
    assert not same(TAGGED, {**TAGGED, "Filter": {"Prefix": "x/"}})


def test_beside_rules_of_the_old_dialect_ours_are_written_in_it():
    ours = wanted_rules(SETTINGS, versioned=True)
    merged = merge([OLD], ours)
    assert merged[0] is OLD
    assert all("Filter" not in rule and "Prefix" in rule for rule in merged)
    assert all(map(same, merged[1:], ours))
    # And stay so: nothing is changed the next time.
    assert merge(merged, ours) == merged


def test_no_more_rules_than_s3_takes():
    ours = wanted_rules(SETTINGS, versioned=False)
    foreign = [{**LOGS, "ID": f"f{n}"} for n in range(1000)]
    assert len(merge(foreign[:997], ours)) == 1000
    with pytest.raises(LifecycleError, match="1001 rules, S3 takes 1000: 998 are not"):
        merge(foreign[:998], ours)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (wanted_rules(SETTINGS, versioned=False)[0],
         "the whole bucket: abort unfinished uploads in parts after 7 days"),
        (LOGS, "logs/: expire after 90 days"),
        (TAGGED, "its own filter: Transitions (disabled)"),
        (OLD, "old/: expire after 5 days"),
        (wanted_rules(SETTINGS, versioned=True)[3],
         "batches/: remove delete markers without versions, expire old versions after 60 days"),
    ],
)  # fmt: skip
def test_rules_in_words(rule, words):
    assert meaning(rule) == words


FOREIGN = st.builds(
    lambda name, prefix, days: {
        "ID": name, "Filter": {"Prefix": prefix}, "Status": "Enabled", "Expiration": {"Days": days},
    },
    st.text(max_size=8), st.text(max_size=8), st.integers(1, 9),
)  # fmt: skip
OURS = st.sampled_from(wanted_rules(SETTINGS, versioned=True)).flatmap(
    lambda rule: st.sampled_from(["Enabled", "Disabled"]).map(lambda to: {**rule, "Status": to})
)


@given(st.lists(st.one_of(FOREIGN, OURS), max_size=12), st.booleans())
def test_merging_keeps_every_foreign_rule_in_order_and_is_done_once(present, versioned):
    seen: set[str] = set()
    present = [
        rule for rule in present if not (is_ours(rule) and rule["ID"] in seen) and
        not seen.add(rule["ID"] if is_ours(rule) else "")
    ]  # fmt: skip
    ours = wanted_rules(SETTINGS, versioned)
    merged = merge(present, ours)
    assert [one for one in merged if not is_ours(one)] == [
        one for one in present if not is_ours(one)
    ]
    assert sorted(names(one for one in merged if is_ours(one))) == sorted(names(ours))
    assert merge(merged, ours) == merged
    assert not show_difference(merged, merge(merged, ours))


def test_against_a_bucket(bucket):
    bucket.put_lifecycle([LOGS, TAGGED])
    before = bucket.lifecycle()
    shown = bring_in_line(bucket, SETTINGS, dry_run=True)
    assert (shown.drift, shown.applied) == (3, False)
    assert bucket.lifecycle() == before

    done = bring_in_line(bucket, SETTINGS, dry_run=False)
    assert (done.drift, done.applied) == (3, True)
    after = bucket.lifecycle()
    assert names(after) == [
        "expire-logs", "cold", "abort-multipart", "expire-trash", "expire-plans",
    ]  # fmt: skip
    assert [json.dumps(rule, sort_keys=True) for rule in after[:2]] == [
        json.dumps(rule, sort_keys=True) for rule in before
    ]
    again = bring_in_line(bucket, SETTINGS, dry_run=False)
    assert (again.drift, again.applied, again.diff) == (0, False, "")


def test_a_bucket_without_rules_gets_ours(bucket):
    assert bring_in_line(bucket, SETTINGS, dry_run=False).applied
    assert len(bucket.lifecycle()) == 3


def test_a_bucket_that_keeps_versions(bucket):
    bucket.client.put_bucket_versioning(
        Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    assert bring_in_line(bucket, SETTINGS, dry_run=False).applied
    assert "old-versions-source-photos" in names(bucket.lifecycle())
    assert bring_in_line(bucket, SETTINGS, dry_run=False).drift == 0


class Forgetful:
    """A bucket that somebody else writes the rules of, right after us, ``times`` times."""

    versioned = False

    def __init__(self, times):
        self.times = times
        self.rules = [LOGS]

    def lifecycle(self):
        if len(self.rules) > 1 and self.times:
            self.times -= 1
            return [LOGS]
        return self.rules

    def put_lifecycle(self, rules):
        self.rules = list(rules)


def test_what_was_written_is_looked_at():
    pauses = []
    assert bring_in_line(Forgetful(2), SETTINGS, dry_run=False, sleep=pauses.append).applied
    assert pauses == [0.0, 1.0, 2.0], "S3 takes a moment to say what it was told"
    with pytest.raises(LifecycleError, match="somebody else"):
        bring_in_line(Forgetful(99), SETTINGS, dry_run=False, sleep=lambda seconds: None)


def test_the_margin_is_whole_days():
    settings = Settings(maintenance=Maintenance(cleanup=Cleanup(trash_days=1.2)))
    assert lifecycle.old_version_days(settings) == 32
    assert lifecycle.trash_days(settings) == 120
