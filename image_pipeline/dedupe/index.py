"""All hashes within a Hamming distance of a hash, none missed, among very many.

Multi-index hashing (Norouzi, Punjani, Fleet: Fast Exact Search in Hamming Space with Multi-Index
Hashing, 2012): a 64-bit hash is cut into four bands of 16 bits, and for every band the rows are
kept sorted by their value in it. By the pigeonhole principle a hash within the distance agrees
with the query in at least one band up to a few bits, so only the rows whose band is that near
are compared. Where there are too few rows for that to pay, or too many share a band, everything
is compared instead. Both ways are exact; they differ in time alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Hashes: TypeAlias = NDArray[np.uint64]
Integers: TypeAlias = NDArray[np.int64]

#: Changes whenever arrays of :class:`HammingIndex` get another meaning.
LAYOUT = 1

BANDS = 4
BAND_BITS = 16
BUCKETS = 1 << BAND_BITS

#: The largest distance offered. Unrelated photographs begin at 14, and every further bit
#: costs: 12 takes 1,108 buckets a query, 16 would take 4,608.
MAX_DISTANCE = 12

#: Rows are kept as 32-bit integers, which halves the index.
MAX_ROWS = (1 << 31) - 1

#: Candidates compared, and buckets looked up, in one go. Half a dozen arrays of 8 bytes an
#: entry then stay in the cache of a core and at 7 MB in all; half as many candidates at a time
#: cost a tenth more, four times as many gain nothing.
CANDIDATES = 1 << 17
PROBES = 1 << 16

#: Rows times queries that a scan compares in one go; twice or half as many are slower.
COMPARED = 1 << 16

#: Queries that a scan answers before it sorts what it found.
SCANNED = 256

#: Measured costs in units of one row of a scan, which takes 0.7 ns: a bucket looked up, a
#: candidate gathered and compared (15 among a million rows, 30 among ten), and the calls of a
#: lookup whatever it finds. By them 800 queries are probed from 730 rows on at distance 4, from
#: 2,200 at 7, from 15,000 at 10; one query from 100,000.
PROBE_COST = 30.0
CANDIDATE_COST = 20.0
LOOKUP_COST = 100_000.0

# A match while it is sorted: query, row and distance in one integer, in this order.
_DISTANCE_BITS = 4
_ROW_BITS = 31


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs within the distance, sorted by query, then row; every pair once.

    Three arrays of one length, 9 bytes a pair together: ``query`` and ``row`` are positions in
    the queries and in the index, ``distance`` is in bits.
    """

    query: NDArray[np.int32]
    row: NDArray[np.int32]
    distance: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class HammingIndex:
    """64-bit hashes, ready for lookups. Made by :func:`build`, or of its arrays kept elsewhere.

    The arrays may be read-only memory maps: a lookup reads the parts it needs.

    ``hashes``: uint64 (n,), in the order they were given.
    ``rows``: int32 (4 n,), for every band all rows, sorted by their value in it.
    ``starts``: int64 (4 x 65536 + 1,), where in ``rows`` the bucket ``band << 16 | value``
    begins; it ends where the next one begins.
    """

    hashes: Hashes
    rows: NDArray[np.int32]
    starts: Integers

    def __len__(self) -> int:
        return len(self.hashes)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays by name: ``HammingIndex(**arrays)`` is the same index again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def within(self, queries: Hashes, distance: int) -> Matches:
        """Every row at most ``distance`` bits (0-12) from each query.

        ``queries``: uint64 (q,). A lookup holds up to 10 MB, whatever the number of queries
        and however many hashes are equal, and 25 bytes a match.

        Raises ValueError for another distance.
        """
        if probing_pays(len(self), len(queries), distance):
            return probe(self, queries, distance)
        return scan(self, queries, distance)


def build(hashes: Hashes) -> HammingIndex:
    """An index of ``hashes``: uint64 (n,); row i is the hash at position i.

    Holds about 40 bytes a hash while it builds, of which 24 are the index. Raises ValueError
    from 2^31 hashes on.
    """
    count = len(hashes)
    if count > MAX_ROWS:
        raise ValueError(f"an index holds at most {MAX_ROWS:,} hashes, not {count:,}")
    rows = np.empty(BANDS * count, dtype=np.int32)
    starts = np.zeros(BANDS * BUCKETS + 1, dtype=np.int64)
    for band in range(BANDS):
        values = _band(hashes, band)
        # numpy sorts 16-bit integers by radix when asked for a stable order.
        rows[band * count : (band + 1) * count] = np.argsort(values, kind="stable")
        sizes = np.bincount(values, minlength=BUCKETS)
        starts[band * BUCKETS + 1 : (band + 1) * BUCKETS + 1] = band * count + np.cumsum(sizes)
    return HammingIndex(hashes, rows, starts)


def probing_pays(rows: int, queries: int, distance: int) -> bool:
    """Whether :func:`probe` is expected to be faster than :func:`scan`, for evenly spread hashes.

    Raises ValueError for a distance that is not offered.
    """
    probes = sum(len(_masks(radius)) for radius in radii(distance))
    candidates = probes * rows / BUCKETS
    each = probes * PROBE_COST + candidates * CANDIDATE_COST
    return LOOKUP_COST + queries * each < queries * rows


def radii(distance: int) -> tuple[int, ...]:
    """By band, how many bits may differ in it; -1 for a band that need not be looked at.

    Were all bands of a hash farther than their radius, they would differ in
    ``sum(radius + 1)`` bits or more, which is made ``distance + 1``: none is missed.

    Raises ValueError for a distance that is not offered.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distances are 0 to {MAX_DISTANCE} bits, not {distance}")
    whole, more = divmod(distance + 1, BANDS)
    return tuple(whole if band < more else whole - 1 for band in range(BANDS))


def probe(index: HammingIndex, queries: Hashes, distance: int) -> Matches:
    """Like :meth:`HammingIndex.within`, by the bands; a query with crowded buckets scans."""
    reach = radii(distance)
    masks = [_masks(radius) for radius in reach]
    step = max(1, PROBES // sum(len(some) for some in masks))
    found = []
    for low in range(0, len(queries), step):
        some = queries[low : low + step]
        begin, size = _buckets(index, some, masks)
        # What looking the buckets up cost is spent; the rest may still cost more than a scan.
        crowded = size.sum(axis=1) * CANDIDATE_COST > len(index)
        size[crowded] = 0
        keys = list(_probe(index, some, begin, size, reach))
        keys += _scan(index, some, np.flatnonzero(crowded), distance)
        found.append(_matches(keys, low))
    return _joined(found)


def scan(index: HammingIndex, queries: Hashes, distance: int) -> Matches:
    """Like :meth:`HammingIndex.within`, by comparing every query with every row."""
    radii(distance)
    found = []
    for low in range(0, len(queries), SCANNED):
        some = queries[low : low + SCANNED]
        found.append(_matches(list(_scan(index, some, np.arange(len(some)), distance)), low))
    return _joined(found)


def _band(hashes: Hashes, band: int) -> NDArray[np.uint16]:
    """The bits of a band, the most significant first."""
    return (hashes >> np.uint64(BAND_BITS * (BANDS - 1 - band))).astype(np.uint16)


@cache
def _masks(radius: int) -> NDArray[np.uint16]:
    """All values of a band with at most ``radius`` bits set; none for -1."""
    masks = [
        sum(1 << bit for bit in bits)
        for weight in range(radius + 1)
        for bits in combinations(range(BAND_BITS), weight)
    ]
    return np.array(masks, dtype=np.uint16)


def _buckets(
    index: HammingIndex, queries: Hashes, masks: list[NDArray[np.uint16]]
) -> tuple[Integers, Integers]:
    """Where in ``rows`` the buckets near each query begin, and their sizes: (q, probes)."""
    ids = [
        (_band(queries, band)[:, None] ^ some).astype(np.int64) + band * BUCKETS
        for band, some in enumerate(masks)
    ]
    bucket = np.concatenate(ids, axis=1)
    begin = index.starts[bucket]
    return begin, index.starts[bucket + 1] - begin


def _probe(
    index: HammingIndex, queries: Hashes, begin: Integers, size: Integers, reach: tuple[int, ...]
) -> Iterator[Integers]:
    """Keys of the near rows in the buckets.

    The rows of all buckets, one after the other, are gone through in steps of
    :data:`CANDIDATES`; a large bucket is cut.
    """
    distance = sum(radius + 1 for radius in reach) - 1
    probes = size.shape[1]
    sizes = size.ravel()
    ends = np.cumsum(sizes)
    # From a candidate's place among all candidates to its place in ``rows``.
    shift = begin.ravel() - (ends - sizes)
    for low in range(0, int(ends[-1]), CANDIDATES):
        high = min(low + CANDIDATES, int(ends[-1]))
        first, last = np.searchsorted(ends, (low, high - 1), side="right")
        part = slice(first, last + 1)
        lengths = np.diff(np.minimum(ends[part], high), prepend=low)
        row = index.rows[np.repeat(shift[part], lengths) + np.arange(low, high)]
        asked = np.repeat(queries[np.arange(first, last + 1) // probes], lengths)
        differing = asked ^ index.hashes[row]
        bits = np.bitwise_count(differing)
        near = np.flatnonzero(bits <= distance)
        query, column = np.divmod(np.searchsorted(ends, near + low, side="right"), probes)
        new = _first_found(differing[near], column, reach)
        near = near[new]
        yield _key(query[new], row[near], bits[near])


def _first_found(differing: Hashes, column: Integers, reach: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which pairs no earlier band finds: a band finds a pair once, several bands several times.

    Told from the bits that differ, so that a crowd of equal hashes is not held four times
    before every pair is made unique.
    """
    lasts = np.cumsum([len(_masks(radius)) for radius in reach])
    band = np.searchsorted(lasts, column, side="right")
    new = np.ones(len(differing), dtype=np.bool_)
    for earlier, radius in enumerate(reach[:-1]):
        new &= (band <= earlier) | (np.bitwise_count(_band(differing, earlier)) > radius)
    return new


def _scan(
    index: HammingIndex, queries: Hashes, asked: Integers, distance: int
) -> Iterator[Integers]:
    """Keys of the rows near ``queries[asked]``."""
    width = max(1, min(len(index), COMPARED))
    height = max(1, COMPARED // width)
    for left in range(0, len(index), width):
        hashes = index.hashes[left : left + width]
        for top in range(0, len(asked), height):
            some = asked[top : top + height]
            bits = np.bitwise_count(queries[some, None] ^ hashes)
            query, row = np.divmod(np.flatnonzero(bits <= distance), len(hashes))
            yield _key(some[query], row + left, bits[query, row])


def _key(query: Integers, row: NDArray[np.signedinteger], bits: NDArray[np.uint8]) -> Integers:
    """Query, row and distance in one integer each, which sorts by them in this order."""
    return query << (_ROW_BITS + _DISTANCE_BITS) | row.astype(np.int64) << _DISTANCE_BITS | bits


def _matches(keys: list[Integers], first_query: int) -> Matches:
    """Keys as matches; the queries in them are counted from ``first_query``."""
    key = np.concatenate([*keys, np.empty(0, dtype=np.int64)])
    keys.clear()
    key.sort()
    return Matches(
        ((key >> (_ROW_BITS + _DISTANCE_BITS)) + first_query).astype(np.int32),
        ((key >> _DISTANCE_BITS) & MAX_ROWS).astype(np.int32),
        (key & ((1 << _DISTANCE_BITS) - 1)).astype(np.uint8),
    )


def _joined(found: list[Matches]) -> Matches:
    nothing = Matches(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8))
    every = [*found, nothing]
    return Matches(
        np.concatenate([one.query for one in every]),
        np.concatenate([one.row for one in every]),
        np.concatenate([one.distance for one in every]),
    )
