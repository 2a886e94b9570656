"""The rules that a bucket should keep house by itself with, beside those of other people.

Ours are known by their ids, which begin with :data:`OURS`. Everybody else's are never changed,
dropped or moved: S3 replaces the whole configuration with every write, so they are read, merged
and written back, and looked at once more afterwards.
"""

from __future__ import annotations

import difflib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from image_pipeline.maintenance.trash import ARCHIVE_DAYS
from image_pipeline.settings import OWN_PREFIXES, Settings
from image_pipeline.store.bucket import Bucket

#: A rule as boto3 has it.
Rule = dict[str, Any]

#: How the ids of our rules begin.
OURS = "image-pipeline-"

#: What S3 takes in one configuration.
MOST_RULES = 1000

#: An upload in parts that was not finished after a week never will be: its parts are billed and
#: are in no listing. Amazon's own advice is seven days, too.
ABORT_DAYS = 7

#: The trash is emptied by housekeeping, which keeps count. The bucket's own rule is a second net
#: for when that does not run any more, and must never be the first to act.
MARGIN_DAYS = 30

#: Plans and inventories are evidence of what was removed; nobody asks after a year.
PLANS_DAYS = 365

_EXPIRED = ("trash/", "plans/")

#: How long to wait before each look at what was written: S3 spreads it within seconds.
_SETTLING_SECONDS = (0.0, 1.0, 2.0, 4.0)


class LifecycleError(Exception):
    """The configuration was not written, or is not what was written; the message says which."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to a rule: ``foreign`` and ``kept`` ones stay as they are, of ours."""

    rule: str
    change: Literal["foreign", "kept", "added", "changed", "dropped"]
    meaning: str


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The rules a bucket has and should have, and whether they were brought together."""

    changes: list[Change]
    diff: str
    applied: bool

    @property
    def drift(self) -> int:
        """How many rules are not as they should be (before applying)."""
        return sum(one.change in ("added", "changed", "dropped") for one in self.changes)


def trash_days(settings: Settings) -> int:
    """Days after which the bucket itself expires what lies in the trash.

    They count from the copying into the trash: a copy is a new object with an age of its own.
    What a plan archived lies there too, and for longer.
    """
    kept = max(settings.maintenance.cleanup.trash_days, ARCHIVE_DAYS)
    return math.ceil(kept) + MARGIN_DAYS


def old_version_days(settings: Settings) -> int:
    """Days for which a bucket that keeps versions keeps old ones of what is ours."""
    return math.ceil(settings.maintenance.cleanup.trash_days) + MARGIN_DAYS


def wanted_rules(settings: Settings, versioned: bool) -> list[Rule]:
    """Our rules. Old versions are looked after where the bucket keeps any.

    On a versioned bucket whatever is overwritten, moved to another class or removed stays
    behind as an old version, in full: no move saves anything before that goes.
    """
    kept = trash_days(settings)
    old = {"NoncurrentDays": old_version_days(settings)}
    old_versions = {"NoncurrentVersionExpiration": old} if versioned else {}
    unfinished = {"DaysAfterInitiation": ABORT_DAYS}
    # What lies in the trash can be put back only with its plan, so that one outlives it.
    plans = max(PLANS_DAYS, kept + MARGIN_DAYS)
    rules = [
        _rule("abort-multipart", "", AbortIncompleteMultipartUpload=unfinished),
        _rule("expire-trash", "trash/", Expiration={"Days": kept}, **old_versions),
        _rule("expire-plans", "plans/", Expiration={"Days": plans}, **old_versions),
    ]
    if versioned:
        # The two above look after markers too: expiring by days includes it.
        prefixes = {one.rstrip("/"): one for one in OWN_PREFIXES if one not in _EXPIRED}
        prefixes |= {f"source-{name}": one.prefix for name, one in settings.sources.items()}
        markers = {"ExpiredObjectDeleteMarker": True}
        rules += [
            _rule(f"old-versions-{name}", prefix, Expiration=markers, **old_versions)
            for name, prefix in prefixes.items()
        ]
    return rules


def merge(present: Sequence[Rule], ours: Sequence[Rule]) -> list[Rule]:
    """The rules a bucket should have: everybody else's untouched, each rule in its old place.

    Ours take the place they had; new ones follow at the end; those not wanted any more go.
    Raises :class:`LifecycleError` where that is more than S3 takes.
    """
    ours = _in_dialect_of(present, ours)
    wanted = {rule["ID"]: rule for rule in ours}
    merged: list[Rule] = []
    for rule in present:
        if not is_ours(rule):
            merged.append(rule)
        elif rule["ID"] in wanted:
            new = wanted.pop(rule["ID"])
            merged.append(rule if same(rule, new) else new)
    merged += wanted.values()
    if len(merged) > MOST_RULES:
        raise LifecycleError(
            f"{len(merged)} rules, S3 takes {MOST_RULES}: {len(merged) - len(ours)} are not of"
            " the pipeline; some of those have to go first"
        )
    return merged


def compare(present: Sequence[Rule], merged: Sequence[Rule]) -> list[Change]:
    """What bringing a bucket's rules in line does to each of them."""
    after = {rule["ID"]: rule for rule in merged if is_ours(rule)}
    changes = []
    for rule in present:
        name = rule.get("ID", "")
        if not is_ours(rule):
            changes.append(Change(name, "foreign", meaning(rule)))
        elif name not in after:
            changes.append(Change(name, "dropped", meaning(rule)))
        else:
            new = after.pop(name)
            kind: Literal["kept", "changed"] = "kept" if same(rule, new) else "changed"
            changes.append(Change(name, kind, meaning(new)))
    return [*changes, *(Change(name, "added", meaning(rule)) for name, rule in after.items())]


def is_ours(rule: Rule) -> bool:
    """Whether a rule is one of the pipeline's."""
    return str(rule.get("ID", "")).startswith(OURS)


def same(one: Rule, other: Rule) -> bool:
    """Whether two rules say the same, in whatever dialect and order."""
    return _normal(one) == _normal(other)


def meaning(rule: Rule) -> str:
    """A rule in words, as far as ours go; other people's actions are only named."""
    parts = []
    for action, value in rule.items():
        match action, value:
            case (("ID" | "Filter" | "Prefix" | "Status"), _):
                continue
            case "AbortIncompleteMultipartUpload", {"DaysAfterInitiation": days}:
                parts.append(f"abort unfinished uploads in parts after {days} days")
            case "Expiration", {"Days": days}:
                parts.append(f"expire after {days} days")
            case "Expiration", {"ExpiredObjectDeleteMarker": True}:
                parts.append("remove delete markers without versions")
            case "NoncurrentVersionExpiration", {"NoncurrentDays": days}:
                parts.append(f"expire old versions after {days} days")
            case _:
                parts.append(action)
    prefix = _prefix(rule)
    where = "the whole bucket" if prefix == "" else prefix if prefix else "its own filter"
    off = "" if rule.get("Status") == "Enabled" else " (disabled)"
    return f"{where}: {', '.join(parts)}{off}"


def show_difference(present: Sequence[Rule], merged: Sequence[Rule]) -> str:
    """The rules before and after as a unified diff of JSON; empty where nothing changes."""
    before, after = (
        json.dumps(rules, indent=2, sort_keys=True, default=str).splitlines()
        for rules in (present, merged)
    )
    return "\n".join(difflib.unified_diff(before, after, "in the bucket", "wanted", lineterm=""))


def bring_in_line(
    bucket: Bucket,
    settings: Settings,
    *,
    dry_run: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> Lifecycle:
    """Compare the rules of a bucket with those it should have; write them unless ``dry_run``.

    Raises ``StoreError``, or :class:`LifecycleError` where rules would be too many or where
    the bucket afterwards does not have what was written.
    """
    present = bucket.lifecycle()
    merged = merge(present, wanted_rules(settings, bucket.versioned))
    changes = compare(present, merged)
    found = Lifecycle(changes, show_difference(present, merged), applied=False)
    if dry_run or not found.drift:
        return found
    bucket.put_lifecycle(merged)
    _check(bucket, merged, sleep)
    return replace(found, applied=True)


def _check(bucket: Bucket, written: list[Rule], sleep: Callable[[float], None]) -> None:
    """Look whether the bucket has the rules that were written: S3 may take a moment."""
    for pause in _SETTLING_SECONDS:
        sleep(pause)
        found = bucket.lifecycle()
        if len(found) == len(written) and all(map(same, found, written)):
            return
    raise LifecycleError(
        "the bucket's lifecycle rules are not what was just written: somebody else writes them at"
        f" the same time. Compare:\n{show_difference(found, written)}"
    )


def _rule(name: str, prefix: str, **actions: object) -> Rule:
    return {"ID": OURS + name, "Filter": {"Prefix": prefix}, "Status": "Enabled", **actions}


def _prefix(rule: Rule) -> str | None:
    """The prefix a rule is about; None where it filters by more than that."""
    if "Filter" not in rule:
        return str(rule.get("Prefix", ""))
    found = rule["Filter"].get("Prefix", "" if not rule["Filter"] else None)
    return None if found is None else str(found)


def _normal(rule: Rule) -> Rule:
    """A rule without what S3 may write in more than one way."""
    rest = {name: value for name, value in rule.items() if name not in ("Filter", "Prefix")}
    prefix = _prefix(rule)
    return {**rest, "where": rule["Filter"] if prefix is None else prefix}


def _in_dialect_of(present: Sequence[Rule], ours: Sequence[Rule]) -> list[Rule]:
    """Our rules as the others are written.

    Rules of the first version of the API name their prefix without a filter. S3 refuses a
    configuration with both ("Base level prefix cannot be used in Lifecycle V2"), and other
    people's rules are not rewritten.
    """
    if all("Filter" in rule for rule in present if not is_ours(rule)):
        return list(ours)
    return [
        {
            **{name: value for name, value in rule.items() if name != "Filter"},
            "Prefix": rule["Filter"]["Prefix"],
        }
        for rule in ours
    ]
