"""The Hamming index: compared with brute force in Python integers."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_pipeline.dedupe import index
from image_pipeline.dedupe.index import MAX_DISTANCE, HammingIndex, build, probe, scan

ALL = 2**64 - 1

#: Ends of bands among them: where a bit belongs to is easily one off.
bits = st.one_of(st.integers(0, 63), st.sampled_from([0, 15, 16, 31, 32, 47, 48, 63]))
hashes = st.builds(
    lambda base, flips: base ^ sum(1 << flip for flip in flips),
    st.one_of(
        st.sampled_from([0, ALL, 0xFFFF0000FFFF0000, 0x123456789ABCDEF0]),
        st.integers(0, ALL),
    ),
    # Two hashes of one base are at most 14 apart: on both sides of every distance offered.
    st.sets(bits, max_size=7),
)
many = st.lists(hashes, max_size=30)
distances = st.integers(0, MAX_DISTANCE)


def words(values):
    return np.array(values, dtype=np.uint64)


def pairs(matches):
    assert matches.query.dtype == matches.row.dtype == np.int32
    assert matches.distance.dtype == np.uint8
    columns = (matches.query, matches.row, matches.distance)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def brute_force(rows, queries, distance):
    return [
        (query, row, apart)
        for query, asked in enumerate(queries)
        for row, value in enumerate(rows)
        if (apart := (asked ^ value).bit_count()) <= distance
    ]


@pytest.fixture
def never_crowded(monkeypatch):
    """Nothing is scanned because there is little to scan: the bands are put to the test."""
    monkeypatch.setattr(index, "CANDIDATE_COST", 0.0)


@pytest.mark.parametrize("distance", range(MAX_DISTANCE + 1))
@settings(max_examples=40)
@given(rows=many, queries=many)
def test_every_way_equals_brute_force(distance, rows, queries):
    built, asked = build(words(rows)), words(queries)
    expected = brute_force(rows, queries, distance)
    assert pairs(built.within(asked, distance)) == expected
    assert pairs(scan(built, asked, distance)) == expected
    assert pairs(probe(built, asked, distance)) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "CANDIDATE_COST", 0.0)
        assert pairs(probe(built, asked, distance)) == expected


@pytest.mark.usefixtures("never_crowded")
@pytest.mark.parametrize("distance", range(MAX_DISTANCE + 1))
def test_no_spread_of_the_bits_over_the_bands_is_missed(distance):
    spreads = [
        (one, two, three, distance - one - two - three)
        for one in range(distance + 1)
        for two in range(distance + 1 - one)
        for three in range(distance + 1 - one - two)
    ]
    rows = [
        sum(((1 << bits) - 1) << 16 * band for band, bits in enumerate(spread))
        for spread in spreads
    ]
    found = probe(build(words(rows)), words([0, ALL]), distance)
    assert pairs(found) == [(0, row, distance) for row in range(len(rows))]


@pytest.mark.parametrize("distance", [-1, MAX_DISTANCE + 1])
@pytest.mark.parametrize("lookup", [HammingIndex.within, probe, scan])
def test_other_distances_are_refused(lookup, distance):
    with pytest.raises(ValueError, match="0 to 12 bits"):
        lookup(build(words([1])), words([1]), distance)


@pytest.mark.parametrize("lookup", [HammingIndex.within, probe, scan])
@pytest.mark.parametrize(("rows", "queries"), [([], []), ([], [5]), ([5], [])])
def test_nothing_among_nothing(lookup, rows, queries):
    assert pairs(lookup(build(words(rows)), words(queries), 7)) == []


@given(
    many, many, distances, st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.0, 1.0, 20.0])
)
def test_the_size_of_a_step_changes_nothing(rows, queries, distance, step, queries_step, cost):
    built, asked = build(words(rows)), words(queries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "CANDIDATES", step)
        patch.setattr(index, "COMPARED", step)
        # As many buckets as a few queries have.
        patch.setattr(index, "PROBES", queries_step * 500)
        patch.setattr(index, "SCANNED", queries_step)
        patch.setattr(index, "CANDIDATE_COST", cost)
        found = [pairs(lookup(built, asked, distance)) for lookup in (probe, scan)]
    assert found == [brute_force(rows, queries, distance)] * 2


@pytest.mark.parametrize("distance", [0, 4, 7, 10, 12])
def test_a_set_large_enough_to_be_probed(distance):
    random = np.random.default_rng(7)
    rows = random.integers(0, ALL, 60_000, dtype=np.uint64, endpoint=True)
    queries = rows[:100].copy()
    for query in range(100):
        for bit in random.choice(64, query % 15, replace=False):
            queries[query] ^= np.uint64(1 << int(bit))
    assert index.probing_pays(len(rows), len(queries), distance)
    found = build(rows).within(queries, distance)
    apart = np.bitwise_count(queries[:, None] ^ rows)
    query, row = np.nonzero(apart <= distance)
    expected = zip(query.tolist(), row.tolist(), apart[query, row].tolist(), strict=True)
    assert pairs(found) == list(expected)
    # Query q was made of row q with q % 15 bits flipped.
    planted = {(one, one) for one in range(100) if one % 15 <= distance}
    assert planted <= {(query, row) for query, row, _ in pairs(found)}


def test_few_rows_and_few_queries_are_scanned():
    assert not index.probing_pays(100, 800, 4)
    assert not index.probing_pays(10_000, 1, 4)
    assert not index.probing_pays(10_000, 800, 10)
    assert index.probing_pays(1_000_000, 1, 4)
    assert index.probing_pays(100_000, 800, 10)


def crowd(others=1_000):
    """100,000 equal hashes and some others."""
    rest = np.random.default_rng(3).integers(0, ALL, others, dtype=np.uint64, endpoint=True)
    return build(np.concatenate([np.full(100_000, 0xABCD), rest]).astype(np.uint64))


def peak_megabytes(run):
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cost", [0.0, index.CANDIDATE_COST])
def test_a_crowd_of_equal_hashes_does_not_take_memory(cost, monkeypatch):
    monkeypatch.setattr(index, "CANDIDATE_COST", cost)
    built = crowd()
    # Three bands like the crowd's, but 16 bits away: 300,000 candidates a query, no match.
    queries = np.full(100, 0xABCD ^ (0xFFFF << 48), dtype=np.uint64)
    found = []
    peak = peak_megabytes(lambda: found.append(probe(built, queries, 4)))
    assert len(found[0]) == 0
    # All candidates at once would be 240 MB for their numbers alone.
    assert peak < 16


@pytest.mark.parametrize("cost", [0.0, index.CANDIDATE_COST])
def test_matches_in_a_crowd_are_held_once(cost, monkeypatch):
    monkeypatch.setattr(index, "CANDIDATE_COST", cost)
    built = crowd()
    queries = np.full(10, 0xABCD, dtype=np.uint64)
    found = []
    peak = peak_megabytes(lambda: found.append(probe(built, queries, 7)))
    assert found[0].row.tolist() == list(range(100_000)) * 10
    assert found[0].query.tolist() == np.repeat(range(10), 100_000).tolist()
    assert not found[0].distance.any()
    # A million matches, each found by four bands: about 25 MB held once, 57 MB four times.
    assert peak < 40


@given(many)
def test_an_index_is_its_arrays(rows):
    built = build(words(rows))
    arrays = built.arrays()
    for array in arrays.values():
        array.flags.writeable = False
    again = HammingIndex(**arrays)
    assert len(again) == len(rows)
    assert pairs(again.within(words(rows), 4)) == brute_force(rows, rows, 4)


def test_more_rows_than_a_row_number_can_name_are_refused():
    # One hash, seen as 2^31 of them: nothing that large is held.
    rows = np.broadcast_to(words([0]), 2**31)
    with pytest.raises(ValueError, match="at most 2,147,483,647"):
        build(rows)
