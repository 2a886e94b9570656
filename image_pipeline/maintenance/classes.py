"""Which originals move to a colder class of storage, and why the others stay. Pure.

The sizes and waiting times are Amazon's own (S3 User Guide, "Constraints and considerations for
transitions"): objects below 128 KB cost more in the colder classes than in Standard, the way
leads only downwards, and leaving a class early is paid for as if the object had stayed. So
nothing leaves early: whoever waits pays the old class, whoever does not pays the old and the new.

The last use is what the catalog knows of: upload, verdict, and the last time that files were made
of the original. Downloads by others are not known; access logs are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from image_pipeline.maintenance.pricing import PRICES, ClassPrice, Estimate, estimate
from image_pipeline.settings import Classes, ClassRule, StorageClass

#: From warm to cold; moves lead to the right only.
WATERFALL = ("STANDARD", "STANDARD_IA", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE")

#: Classes whose objects cannot be read, or copied, before they are restored.
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})

#: Days in Standard before the first move: what S3's own rules demand before Standard-IA.
STANDARD_DAYS = 30

#: How often a canonical is read again: its variants are made anew when a recipe or an encoder
#: changes, which happens about once a year. Duplicates and rejected files are never read again.
CANONICAL_READS_A_YEAR = 1.0


class Stay(StrEnum):
    """Why an original stays where it is."""

    NOT_CATALOGUED = "not_catalogued"
    UNFINISHED = "unfinished"
    IN_USE = "in_use"
    PROTECTED = "protected"
    MANAGED = "managed_by_s3"
    ONE_ZONE = "one_zone"
    REDUCED_REDUNDANCY = "reduced_redundancy"
    OTHER_CLASS = "other_class"
    TOO_SMALL = "too_small"
    NOT_COLDER = "not_colder"
    USED_LATELY = "used_lately"
    MINIMUM_DURATION = "minimum_duration"
    CLASS_JUST_SEEN = "class_just_seen"
    ARCHIVED = "archived"
    DOES_NOT_PAY = "does_not_pay"
    OVER_LIMIT = "over_limit"


#: The same for people.
EXPLANATIONS: Mapping[Stay, str] = {
    Stay.NOT_CATALOGUED: "the catalog does not know this version of the object (yet)",
    Stay.UNFINISHED: "not processed to the end: no final verdict, or its batch is open",
    Stay.IN_USE: "being removed or moved by another plan",
    Stay.PROTECTED: "under a prefix that the settings protect",
    Stay.MANAGED: "Intelligent-Tiering moves it by itself",
    Stay.ONE_ZONE: "One Zone was chosen by somebody; no rule leads there or away",
    Stay.REDUCED_REDUNDANCY: "Reduced Redundancy costs more than Standard: to be moved by hand",
    Stay.OTHER_CLASS: "a class of storage without a price here",
    Stay.TOO_SMALL: "below the smallest size that pays",
    Stay.NOT_COLDER: "already as cold as the rules lead",
    Stay.USED_LATELY: "used more recently than the next rule asks for",
    Stay.MINIMUM_DURATION: "the time that its class is paid for anyway is not over",
    Stay.CLASS_JUST_SEEN: "somebody else changed its class; the minimum duration counts from now",
    Stay.ARCHIVED: "archived: would have to be restored before it could be copied",
    Stay.DOES_NOT_PAY: "the move costs more than it saves in the time allowed",
    Stay.OVER_LIMIT: "more moves than max_objects allows; the next plan takes them",
}

_LEFT_ALONE = {
    "INTELLIGENT_TIERING": Stay.MANAGED,
    "ONEZONE_IA": Stay.ONE_ZONE,
    "REDUCED_REDUNDANCY": Stay.REDUCED_REDUNDANCY,
}


@dataclass(frozen=True, slots=True)
class Original:
    """An object under a source's prefix that the catalog knows in this version.

    ``size`` in bytes. ``finished`` says that nothing is to be processed any more, ``canonical``
    that variants are made of it. ``used_at`` is its last known use, ``class_since`` the time
    from which it has been in its class for certain.
    """

    key: str
    size: int
    storage_class: str
    finished: bool
    canonical: bool
    used_at: datetime
    class_since: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """Where an original goes, by the rule of how many days, and what that brings."""

    to: StorageClass
    after_days: float
    estimate: Estimate


def decide(
    original: Original,
    rules: Classes,
    now: datetime,
    *,
    left_behind_days: float = 0.0,
    prices: Mapping[str, ClassPrice] = PRICES,
) -> Move | Stay:
    """Where an original goes, or why it stays.

    Of the rules whose time has come the coldest that pays for itself wins. A bucket that keeps
    versions keeps the old one for ``left_behind_days``.
    """
    reason = _never_moved(original, rules) or _not_yet(original, rules, now, prices)
    if reason:
        return reason
    days = (now - original.class_since) / timedelta(days=1)
    reads = CANONICAL_READS_A_YEAR if original.canonical else 0.0
    for rule in sorted(_due(original, rules, now), key=lambda one: -WATERFALL.index(one.to)):
        brings = estimate(
            original.size,
            original.storage_class,
            rule.to,
            days,
            reads,
            left_behind_days,
            prices,
        )
        if brings.payback_months <= rules.payback_months:
            return Move(rule.to, rule.after_days, brings)
    return Stay.DOES_NOT_PAY


def is_colder(one: str, other: str) -> bool:
    """Whether ``one`` lies below ``other``; False where either is not of the waterfall."""
    if one not in WATERFALL or other not in WATERFALL:
        return False
    return WATERFALL.index(one) > WATERFALL.index(other)


def minimum_days(storage_class: str, prices: Mapping[str, ClassPrice] = PRICES) -> int:
    """Days that an object spends in a class of the waterfall before it moves on."""
    return max(prices[storage_class].minimum_days, STANDARD_DAYS)


def _colder(original: Original, rules: Classes) -> list[ClassRule]:
    return [rule for rule in rules.rules if is_colder(rule.to, original.storage_class)]


def _due(original: Original, rules: Classes, now: datetime) -> list[ClassRule]:
    unused = now - original.used_at
    colder = _colder(original, rules)
    return [rule for rule in colder if unused >= timedelta(days=rule.after_days)]


def _never_moved(original: Original, rules: Classes) -> Stay | None:
    """What time does not change."""
    if original.storage_class not in WATERFALL:
        return _LEFT_ALONE.get(original.storage_class, Stay.OTHER_CLASS)
    if not original.finished:
        return Stay.UNFINISHED
    if original.size < rules.min_kilobytes * 1000:
        return Stay.TOO_SMALL
    if not _colder(original, rules):
        return Stay.NOT_COLDER
    return Stay.ARCHIVED if original.storage_class in ARCHIVES else None


def _not_yet(
    original: Original, rules: Classes, now: datetime, prices: Mapping[str, ClassPrice]
) -> Stay | None:
    if not _due(original, rules, now):
        return Stay.USED_LATELY
    in_class = now - original.class_since
    if in_class < timedelta(days=minimum_days(original.storage_class, prices)):
        return Stay.MINIMUM_DURATION
    return None
