"""Times of many images in little space, to be added up over batches and days. All pure.

A histogram with buckets that grow by a constant factor, as DDSketch's (Masson, Rim and Lee, VLDB
2019): a quantile of it is wrong by a bounded share of itself, and two histograms are merged
by adding counts, in the database if need be. Where numbers of one row are handed on, bucket
numbers are texts, because JSON has no others for names.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping

#: A quantile is off by this share at most: 5 % up or down. It is how far the same work differs
#: from run to run anyway, and needs 23 buckets for every factor of ten.
ERROR = 0.05

#: Seconds below this are counted as this: the overhead of a call to a worker.
SHORTEST = 0.001

#: Seconds above this are counted as this, two weeks: an upload that was there before the pipeline
#: was says nothing more by being older. So a histogram has never more than 211 buckets.
LONGEST = 1_209_600.0

#: Slowest images kept of a stage of a batch; no report shows more of any.
SLOWEST = 5

_GROWTH = (1 + ERROR) / (1 - ERROR)
_LOG_GROWTH = math.log(_GROWTH)

Buckets = Counter[int]


def bucket_of(seconds: float) -> int:
    """The bucket ``i`` with ``growth^(i-1) < seconds <= growth^i``."""
    return math.ceil(math.log(min(max(seconds, SHORTEST), LONGEST)) / _LOG_GROWTH)


def seconds_of(bucket: int) -> float:
    """The value that is at most :data:`ERROR` away from everything in a bucket."""
    return float(2 * _GROWTH**bucket / (_GROWTH + 1))


def histogram(seconds: Iterable[float]) -> Buckets:
    """Counts by bucket."""
    return Counter(map(bucket_of, seconds))


def merge(parts: Iterable[Mapping[int, int]]) -> Buckets:
    """All of them together, in whatever order they come."""
    found: Buckets = Counter()
    for part in parts:
        found.update(part)
    return found


def to_json(buckets: Mapping[int, int]) -> dict[str, int]:
    """As it is stored."""
    return {str(bucket): count for bucket, count in sorted(buckets.items())}


def from_json(stored: Mapping[str, int]) -> Buckets:
    """What :func:`to_json` made."""
    return Counter({int(bucket): int(count) for bucket, count in stored.items()})


def quantile(buckets: Mapping[int, int], share: float) -> float | None:
    """The value that ``share`` (0-1) of all values do not exceed; None without any.

    It is the value of rank ``ceil(share * n)`` (the inverse of the empirical distribution, R's type
    1), at most :data:`ERROR` off as long as it is in ``SHORTEST`` to ``LONGEST``.
    """
    total = sum(buckets.values())
    rank = max(1, math.ceil(share * total))
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= rank:
            return seconds_of(bucket)
    return None


class Watch:
    """Times of single images while a stage runs: as a histogram, and the slowest by name.

    Its size does not depend on how many there are.
    """

    def __init__(self) -> None:
        self.buckets: Buckets = Counter()
        self.total = 0.0
        self._slowest: list[tuple[float, int]] = []

    def add(self, upload: int, seconds: float) -> None:
        """An image took so long; ``upload`` is the id of the upload that brought it."""
        self.buckets[bucket_of(seconds)] += 1
        self.total += seconds
        entry = (seconds, upload)
        if len(self._slowest) < SLOWEST:
            heapq.heappush(self._slowest, entry)
        else:
            heapq.heappushpop(self._slowest, entry)

    def spread(self, images: int, seconds: float) -> None:
        """Work that was done for all at once: each image gets its share."""
        if images > 0:
            self.buckets[bucket_of(seconds / images)] += images

    @property
    def slowest(self) -> list[list[float]]:
        """Pairs of upload id and seconds, the slowest first."""
        return [[upload, round(took, 4)] for took, upload in sorted(self._slowest, reverse=True)]
