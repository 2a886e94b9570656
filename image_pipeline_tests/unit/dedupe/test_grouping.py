"""Grouping: compared with brute force, in any order of arrival."""

from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.dedupe import bands
from image_pipeline.dedupe.grouping import MIN_TEXTURE, Picture, distance, group, rank

WORDS = st.integers(0, 2**64 - 1)


def picture(name="a", phash64=0, phash256="0" * 64, texture=20.0, width=4000, height=3000,
            lossless=False):  # fmt: skip
    return Picture(name, width, height, lossless, phash64, phash256, texture)


@given(WORDS)
def test_bands_hold_every_bit_once(value):
    joined = 0
    for width, band in zip(bands.WIDTHS, bands.split(value), strict=True):
        assert 0 <= band < 2**width
        joined = joined << width | band
    assert joined == value
    assert sum(bands.WIDTHS) == 64


@given(WORDS)
def test_signed_and_back(value):
    assert -(2**63) <= bands.signed(value) < 2**63
    assert bands.unsigned(bands.signed(value)) == value


@given(WORDS, st.sets(st.integers(0, 63), max_size=bands.REACH))
def test_hashes_within_reach_share_a_band(value, flipped):
    other = value
    for bit in flipped:
        other ^= 1 << bit
    assert any(one == two for one, two in zip(bands.split(value), bands.split(other), strict=True))


def test_reach_is_not_more_than_it_says():
    # One flipped bit in each of the five bands: distance 5, no band in common.
    other = sum(1 << bit for bit in (0, 12, 25, 38, 51))
    assert not any(one == two for one, two in zip(bands.split(0), bands.split(other), strict=True))


def test_what_counts_as_the_same_picture():
    one = picture()
    assert distance(one, picture(phash64=0b1111)) == 4
    assert distance(one, picture(phash64=0b11111)) is None
    assert distance(one, picture(phash256=f"{2**31 - 1:064x}")) == 0
    assert distance(one, picture(phash256=f"{2**32 - 1:064x}")) is None
    assert distance(one, picture(width=1999, height=1500)) == 0
    assert distance(one, picture(width=4000, height=2900)) is None
    assert distance(one, picture(width=3000, height=4000)) is None


def test_pictures_without_texture_match_nothing():
    flat = picture(texture=MIN_TEXTURE - 0.1)
    assert distance(flat, flat) is None
    assert distance(picture(), flat) is None
    assert distance(picture(texture=MIN_TEXTURE), picture()) == 0


def test_more_pixels_then_lossless_then_id_decide_the_canonical():
    small = picture("a", width=2000, height=1500)
    lossy, lossless = picture("c"), picture("d", lossless=True)
    result = group([small, lossy, lossless], [])
    assert {one.image: one.canonical for one in result} == {"a": "d", "c": "d", "d": "d"}


def test_a_chain_of_near_pictures_is_not_one_group():
    chain = [picture(str(n), phash64=2 ** (3 * n) - 1, width=4000 - n, height=3000 - n)
             for n in range(4)]  # fmt: skip
    result = {one.image: one.canonical for one in group(chain, [])}
    # 0 and 1 differ by 3 bits, 0 and 2 by 6: 2 is near 1, but 1 stands for nobody.
    assert result == {"0": "0", "1": "0", "2": "2", "3": "2"}


def test_a_known_canonical_keeps_standing_even_for_a_larger_picture():
    result = group([picture("new", width=8000, height=6000)], [picture("known")])
    assert [(one.image, one.canonical) for one in result] == [("new", "known")]


near_hashes = st.builds(
    lambda base, flips: base ^ sum(1 << flip for flip in flips),
    st.sampled_from([0, 0xFFFF0000FFFF0000, 0x123456789ABCDEF0]),
    st.sets(st.integers(0, 63), max_size=6),
)
pictures = st.lists(
    st.builds(
        lambda *row: row,
        near_hashes,
        st.integers(1, 4),
        st.sampled_from([2.0, 30.0]),
        st.booleans(),
    ),
    max_size=12,
).map(
    lambda rows: [
        picture(f"{n:02}", value, texture=texture, width=1000 * scale, height=750 * scale,
                lossless=lossless)
        for n, (value, scale, texture, lossless) in enumerate(rows)
    ]
)  # fmt: skip


@given(pictures, st.randoms(use_true_random=False))
def test_order_of_arrival_within_a_batch_changes_nothing(some, random):
    shuffled = list(some)
    random.shuffle(shuffled)
    assert sorted(group(some, []), key=str) == sorted(group(shuffled, []), key=str)


@given(pictures)
def test_groups_are_those_of_a_brute_force_comparison(some):
    canonicals: list[Picture] = []
    expected = {}
    for one in sorted(some, key=rank):
        near = [
            ((one.phash64 ^ other.phash64).bit_count(), rank(other), other.id)
            for other in canonicals
            if distance(one, other) is not None
        ]
        expected[one.id] = min(near)[2] if near else one.id
        if not near:
            canonicals.append(one)
    assert {one.image: one.canonical for one in group(some, [])} == expected
    for one in group(some, []):
        stands = next(other for other in some if other.id == one.canonical)
        assert expected[stands.id] == stands.id, "a canonical is itself a duplicate"
