"""Grouping: compared with brute force, in any order of arrival, in any division into batches."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from image_pipeline.dedupe import bands
from image_pipeline.dedupe.grouping import (
    MIN_TEXTURE,
    TIERS,
    Picture,
    Relation,
    component,
    group,
    rank,
    relation,
)
from image_pipeline.imaging.fingerprint import fingerprint
from image_pipeline.samples import photograph

WORDS = st.integers(0, 2**64 - 1)
DAY = datetime(2026, 1, 1, tzinfo=UTC)

PLAIN = Picture(
    id="a", width=4000, height=3000, lossless=False, phash64=0, phash256="0" * 64, texture=20.0,
    pixels=None, quality=None, bordered=False, has_profile=False, animated=False,
    has_alpha=False, since=DAY, chroma="80" * 32,
)  # fmt: skip


def picture(name="a", **changes):
    return replace(PLAIN, id=name, **changes)


def stands_for(some, tiers=TIERS, apart=()):
    return {one.image: one.canonical for one in group(some, tiers, apart)}


class TestBands:
    @given(WORDS)
    def test_they_hold_every_bit_once(self, value):
        joined = 0
        for width, band in zip(bands.WIDTHS, bands.split(value), strict=True):
            assert 0 <= band < 2**width
            joined = joined << width | band
        assert joined == value
        assert sum(bands.WIDTHS) == 64

    @given(WORDS)
    def test_signed_and_back(self, value):
        assert -(2**63) <= bands.signed(value) < 2**63
        assert bands.unsigned(bands.signed(value)) == value

    @given(WORDS, st.sets(st.integers(0, 63), max_size=bands.REACH))
    def test_hashes_within_reach_are_found_by_one(self, value, flipped):
        other = value
        for bit in flipped:
            other ^= 1 << bit
        assert not set(bands.probes(value)).isdisjoint(enumerate(bands.split(other)))

    def test_reach_is_not_more_than_it_says(self):
        # One bit in each of the last three bands, two in the others: distance 7, no probe.
        other = sum(1 << bit for bit in (0, 12, 25, 38, 39, 51, 52))
        assert other.bit_count() == bands.REACH + 1
        assert set(bands.probes(0)).isdisjoint(enumerate(bands.split(other)))


class TestRelation:
    @pytest.mark.parametrize(
        ("changes", "distance"),
        [
            ({}, 0),
            ({"phash64": 0b111111}, 6),
            ({"phash64": 0b1111111}, None),
            ({"phash256": f"{2**31 - 1:064x}"}, 0),
            ({"phash256": f"{2**32 - 1:064x}"}, None),
            ({"width": 1999, "height": 1500}, 0),
            ({"width": 500, "height": 375}, 0),
            ({"width": 4000, "height": 2900}, None),
            ({"width": 3000, "height": 4000}, None),
            ({"texture": MIN_TEXTURE}, 0),
            ({"texture": MIN_TEXTURE - 0.001}, None),
            # A cut-out and the same on white look alike and are not the same picture.
            ({"has_alpha": True}, None),
            # One cell's Cr, 12 and 13 levels from the grey of the other picture.
            ({"chroma": "80" * 31 + "8c"}, 0),
            ({"chroma": "80" * 31 + "8d"}, None),
            ({"chroma": "73" + "80" * 31}, None),
            ({"chroma": None}, 0),
        ],
    )
    def test_of_pictures(self, changes, distance):
        expected = None if distance is None else Relation("picture", distance)
        assert relation(PLAIN, picture("b", **changes)) == expected
        assert relation(picture("b", **changes), PLAIN) == expected

    @pytest.mark.parametrize("texture", [0.0, 20.0])
    def test_equal_pixels_need_no_texture(self, texture):
        one = picture("a", pixels="ff", texture=texture)
        assert relation(one, replace(one, id="b", phash64=2**63)) == Relation("pixels", 0)

    def test_equal_pixels_of_another_size_are_not_equal(self):
        one = picture("a", pixels="ff", texture=0.0)
        assert relation(one, replace(one, id="b", width=3999)) is None

    def test_pixels_never_hashed_are_not_equal(self):
        assert relation(picture("a", texture=0.0), picture("b", texture=0.0)) is None

    def test_only_the_tiers_asked_for(self):
        one = picture("a", pixels="ff")
        other = replace(one, id="b")
        assert relation(one, other, ["bytes", "pixels"]) == Relation("pixels", 0)
        assert relation(one, other, ["bytes", "picture"]) == Relation("picture", 0)
        assert relation(one, other, ["bytes"]) is None

    def test_animations_are_compared_by_their_bytes_alone(self):
        """Two animations that begin with the same title card, and a still of it."""
        one = picture("a", pixels="ff", animated=True)
        assert relation(one, replace(one, id="b")) is None
        assert relation(one, replace(one, id="b", animated=False)) is None

    @pytest.mark.parametrize("side", [(1, 1), (40_000, 1), (1, 40_000), (300, 200)])
    def test_without_texture_nothing_is_alike(self, side):
        """What the hashes of a flat picture are is chance; here they even agree."""
        flat = picture("flat", texture=0.0, width=side[0], height=side[1])
        assert relation(flat, replace(flat, id="other")) is None

    @pytest.mark.parametrize(
        "broken",
        [
            {"phash256": ""},
            {"phash256": "0" * 63},
            {"phash256": "0" * 65},
            {"phash256": "g" * 64},
            # Python's int() reads all of these.
            {"phash256": "+" + "0" * 63},
            {"phash256": "0x" + "0" * 62},
            {"phash256": "0_0" + "0" * 61},
            {"phash256": " " * 32 + "0" * 32},
            {"chroma": ""},
            {"chroma": "80" * 31},
            {"sketch": b""},
            {"sketch": bytes(1023)},
            {"sketch": bytes(1025)},
            {"phash64": -1},
            {"phash64": 2**64},
        ],
    )
    def test_a_corrupted_hash_is_an_error_that_names_the_image(self, broken):
        with pytest.raises(ValueError, match="image 5ca1ab1e"):
            picture("5ca1ab1e", **broken)


@cache
def scene(seed):
    return photograph(800, 600, seed)


def sketch_of(image):
    return fingerprint(image, "", image.size).sketch


def saved(image, form, quality):
    file = BytesIO()
    image.save(file, form, quality=quality)
    with Image.open(file) as again:
        return again.convert("RGB")


def covered(image, box, colour):
    """A picture with a filled box: left, top, right, bottom in shares of its sides."""
    image = image.copy()
    sides = image.size * 2
    place = tuple(share * side for share, side in zip(box, sides, strict=True))
    ImageDraw.Draw(image).rectangle(place, colour)
    return image


def contrary(image, box):
    """White, or black where it is light already: what a designer does with a logo."""
    sides = image.size * 2
    place = tuple(round(share * side) for share, side in zip(box, sides, strict=True))
    light = np.asarray(image.convert("L").crop(place)).mean() > 128
    return covered(image, box, "black" if light else "white")


def captioned(image):
    image = image.copy()
    draw = ImageDraw.Draw(image)
    for colour, at in (("black", (82, 532)), ("white", (80, 530))):
        draw.text(at, "TWO HARBOURS IN ONE DAY", colour, font_size=44)
    return image


STEP = np.repeat([[64] * 16 + [192] * 16], 32, axis=0).astype(np.uint8)


def stepped(top, left, levels):
    """A dark half and a light one, with 2 x 2 cells that are ``levels`` lighter or darker."""
    sketch = STEP.copy()
    sketch[top : top + 2, left : left + 2] += np.array(levels).astype(np.uint8)
    return sketch.tobytes()


class TestDetails:
    """The hashes agree here: it is the sketches that decide."""

    @pytest.mark.parametrize(
        ("sketch", "same"),
        [
            # Where all is even 6 levels are tolerated, lighter or darker, in any place.
            (stepped(8, 4, 6), True),
            (stepped(8, 4, 7), False),
            (stepped(30, 0, -6), True),
            (stepped(0, 30, -7), False),
            # Across the step of 128 levels a fifth of these comes on top: 31.6.
            (stepped(8, 15, 31), True),
            (stepped(8, 15, 33), False),
            # One cell of four counts a quarter.
            (stepped(8, 4, [[24, 0], [0, 0]]), True),
            (stepped(8, 4, [[28, 0], [0, 0]]), False),
            # Darker, and with less contrast; all of it.
            ((STEP // 2 + 10).tobytes(), True),
            (np.full((32, 32), 128, np.uint8).tobytes(), False),
            (STEP[:, ::-1].tobytes(), False),
            (None, True),
        ],
    )
    def test_of_two_sketches(self, sketch, same):
        one, other = picture("a", sketch=STEP.tobytes()), picture("b", sketch=sketch)
        expected = Relation("picture", 0) if same else None
        assert relation(one, other) == relation(other, one) == expected

    def test_of_one_colour_only_the_same_is_the_same(self):
        grey, white = bytes([128] * 1024), bytes([255] * 1024)
        assert relation(picture("a", sketch=grey), picture("b", sketch=grey))
        assert relation(picture("a", sketch=grey), picture("b", sketch=white)) is None

    def test_equal_pixels_are_not_questioned(self):
        one = picture("a", pixels="ff", sketch=STEP.tobytes())
        assert relation(one, replace(one, id="b", sketch=bytes(1024))) == Relation("pixels", 0)

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize(
        "change",
        [
            lambda image: saved(image, "JPEG", 10),
            lambda image: saved(image, "WEBP", 40),
            lambda image: image.resize((100, 75), Image.Resampling.BICUBIC),
            lambda image: saved(image.resize((200, 150)), "JPEG", 30),
            lambda image: image.resize((1600, 1200)),
            lambda image: image.point([round(0.8 * level) for level in range(256)] * 3),
        ],
        ids=["q10", "webp40", "eighth", "quarter q30", "double", "darker"],
    )
    def test_copies_stay_the_same(self, seed, change):
        one = picture("a", sketch=sketch_of(scene(seed)))
        other = picture("b", sketch=sketch_of(change(scene(seed))))
        assert one.sketch != other.sketch
        assert relation(one, other) == relation(other, one) == Relation("picture", 0)

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize(
        "change",
        [
            lambda image: contrary(image, (0.65, 0.88, 0.95, 0.95)),
            lambda image: contrary(image, (0.87, 0.93, 0.97, 0.97)),
            captioned,
            # What a detail is that somebody took out of the middle.
            lambda image: contrary(image, (0.47, 0.46, 0.53, 0.54)),
        ],
        ids=["logo", "small logo", "caption", "detail"],
    )
    def test_what_was_put_on_or_taken_off_makes_another_picture(self, seed, change):
        one = picture("a", sketch=sketch_of(scene(seed)))
        other = picture("b", sketch=sketch_of(change(scene(seed))))
        assert relation(one, other) is None
        assert relation(other, one) is None

    @given(
        st.lists(st.integers(0, 255), min_size=16, max_size=16),
        st.lists(st.integers(-9, 9), min_size=16, max_size=16),
    )
    def test_it_does_not_matter_which_is_first(self, levels, changes):
        def sketch(cells):
            square = np.clip(cells, 0, 255).astype(np.uint8).reshape(4, 4)
            return np.kron(square, np.ones((8, 8), np.uint8)).tobytes()

        one = picture("a", sketch=sketch(levels))
        other = picture("b", sketch=sketch(np.add(levels, changes)))
        assert relation(one, other) == relation(other, one)


class TestRank:
    @pytest.mark.parametrize(
        ("better", "worse"),
        [
            ({"width": 4001}, {}),
            ({"lossless": True}, {"quality": 100}),
            ({"quality": 91}, {"quality": 90}),
            ({"quality": 81}, {}),
            ({}, {"quality": 79}),
            ({}, {"bordered": True}),
            ({"has_profile": True}, {}),
            ({}, {"since": DAY + timedelta(seconds=1)}),
        ],
    )
    def test_whatever_comes_after(self, better, worse):
        assert rank(picture("z", **better)) < rank(picture("a", **worse))

    def test_each_reason_outweighs_all_that_follow(self):
        best = {
            "width": 4001, "lossless": True, "quality": 100, "bordered": False,
            "has_profile": True, "since": DAY - timedelta(days=1),
        }  # fmt: skip
        worst = {
            "width": 4000, "lossless": False, "quality": 1, "bordered": True,
            "has_profile": False, "since": DAY,
        }  # fmt: skip
        reasons = list(best)
        for at, reason in enumerate(reasons):
            same = {name: worst[name] for name in reasons[:at]}
            wins = same | {reason: best[reason]} | {name: worst[name] for name in reasons[at + 1 :]}
            loses = (
                same | {reason: worst[reason]} | {name: best[name] for name in reasons[at + 1 :]}
            )
            if reason == "quality":
                wins["lossless"] = loses["lossless"] = False
            assert rank(picture("z", **wins)) < rank(picture("a", **loses)), reason

    def test_the_id_decides_at_last(self):
        assert rank(picture("a")) < rank(picture("b"))


class TestGroups:
    def test_the_best_stands_for_the_others_whatever_its_place(self):
        small = picture("a", width=2000, height=1500)
        lossy, lossless = picture("c"), picture("d", lossless=True)
        assert stands_for([small, lossy, lossless]) == {"a": "d", "c": "d", "d": "d"}

    def test_a_chain_of_near_pictures_is_not_one_group(self):
        chain = [picture(str(n), phash64=2 ** (4 * n) - 1, width=4000 - n) for n in range(4)]
        # 0 and 1 differ by 4 bits, 0 and 2 by 8: 2 is near 1, but 1 stands for nobody.
        assert stands_for(chain) == {"0": "0", "1": "0", "2": "2", "3": "2"}

    def test_equal_pixels_before_a_smaller_distance(self):
        """The nearest by its pHash is another picture than the one with the same pixels."""
        large = picture("large", width=8000, height=6000, phash64=0b11)
        same = picture("same", pixels="ff", phash64=0b1111100)
        late = picture("late", pixels="ff", phash64=0b1, since=DAY + timedelta(days=1))
        assert relation(late, large).distance == 1
        found = {one.image: one for one in group([large, same, late])}
        assert (found["late"].canonical, found["late"].tier) == ("same", "pixels")

    def test_the_nearest_canonical_then_the_better_one(self):
        far = picture("far", width=9000, height=6750, phash64=0b11111)
        near = picture("near", width=8000, height=6000, phash64=0b11111 << 32)
        one = picture("one", phash64=1 << 32)
        assert (relation(one, far).distance, relation(one, near).distance) == (6, 4)
        between = picture("between", phash64=1 << 32 | 1)
        assert relation(between, far).distance == relation(between, near).distance == 5
        found = stands_for([far, near, one, between])
        assert found == {"far": "far", "near": "near", "one": "near", "between": "far"}

    def test_evidence_is_told(self):
        some = [picture("a", pixels="f"), picture("b", pixels="f"), picture("c", phash64=7)]
        found = {one.image: (one.canonical, one.tier, one.distance) for one in group(some)}
        assert found == {"a": ("a", None, 0), "b": ("a", "pixels", 0), "c": ("a", "picture", 3)}

    def test_no_tiers_no_groups(self):
        some = [picture("a", pixels="f"), picture("b", pixels="f")]
        assert stands_for(some, ["bytes"]) == {"a": "a", "b": "b"}

    def test_nothing_of_nothing(self):
        assert group([]) == []

    def test_people_have_the_last_word(self):
        some = [picture("a"), picture("b")]
        assert stands_for(some, apart=[frozenset("ab")]) == {"a": "a", "b": "b"}

    def test_apart_from_one_canonical_it_may_join_another(self):
        some = [
            picture("a", width=9000, height=6750),
            picture("b", width=8000, height=6000, phash64=0b1111111),
            picture("c", phash64=0b111),
        ]
        assert stands_for(some) == {"a": "a", "b": "b", "c": "a"}
        assert stands_for(some, apart=[frozenset("ac")]) == {"a": "a", "b": "b", "c": "b"}

    def test_a_better_copy_of_one_does_not_bring_separated_images_together(self):
        some = [picture("a"), picture("b"), picture("better", width=8000, height=6000)]
        found = stands_for(some, apart=[frozenset("ab")])
        assert found == {"better": "better", "a": "better", "b": "b"}

    def test_many_copies_are_grouped_quickly(self):
        some = [picture(f"{n:05}", pixels="f", texture=0.0) for n in range(20_000)]
        assert set(stands_for(some).values()) == {"00000"}


near_hashes = st.builds(
    lambda base, flips: base ^ sum(1 << flip for flip in flips),
    st.sampled_from([0, 0xFFFF0000FFFF0000]),
    # Few places, so that most pictures are near one another and chains are common.
    st.sets(st.sampled_from([0, 1, 14, 15, 28, 29, 42, 43, 56, 57]), max_size=6),
)
rows = st.tuples(
    near_hashes,
    st.integers(1, 3),
    st.sampled_from([2.0, 30.0, 30.0, 30.0]),
    st.sampled_from([None, None, "e", "f"]),
    st.booleans(),
)
pictures = st.lists(rows, max_size=12).map(
    lambda some: [
        picture(f"{n:02}", phash64=value, texture=texture, width=1000 * scale, height=750 * scale,
                pixels=pixels, lossless=lossless)
        for n, (value, scale, texture, pixels, lossless) in enumerate(some)
    ]
)  # fmt: skip
names = st.integers(0, 11).map("{:02}".format)
separated = st.sets(st.frozensets(names, min_size=2, max_size=2), max_size=6)


def brute_force(some, apart=frozenset()):
    """The rule in its plainest form, without an index."""
    groups = {}
    for one in sorted(some, key=rank):
        near = [
            (how.tier != "pixels", how.distance, rank(members[0]), centre)
            for centre, members in groups.items()
            if (how := relation(one, members[0]))
            and not any(frozenset([one.id, other.id]) in apart for other in members)
        ]
        groups.setdefault(min(near)[3] if near else one.id, []).append(one)
    return {one.id: centre for centre, members in groups.items() for one in members}


@given(pictures, separated)
def test_groups_are_those_of_a_brute_force_comparison(some, apart):
    assert stands_for(some, apart=apart) == brute_force(some, apart)


@given(pictures, separated)
def test_groups_are_stars_and_keep_apart_what_people_separated(some, apart):
    by_id = {one.id: one for one in some}
    found = group(some, TIERS, apart)
    assert {one.image for one in found} == set(by_id)
    canonical = {one.image: one.canonical for one in found}
    for one in found:
        assert canonical[one.canonical] == one.canonical, "a canonical is itself a duplicate"
        assert (one.tier is None) == (one.image == one.canonical)
        if one.tier:
            how = relation(by_id[one.image], by_id[one.canonical])
            assert how == Relation(one.tier, one.distance)
            assert rank(by_id[one.canonical]) < rank(by_id[one.image])
    for first, second in apart:
        if first in canonical and second in canonical:
            assert canonical[first] != canonical[second]


@given(pictures, separated, st.randoms(use_true_random=False))
def test_order_within_a_batch_changes_nothing(some, apart, random):
    shuffled = random.sample(some, len(some))
    assert group(some, TIERS, apart) == group(shuffled, TIERS, apart)


@given(pictures, separated, st.randoms(use_true_random=False), st.lists(st.integers(1, 4)))
def test_division_into_batches_and_their_order_change_nothing(some, apart, random, sizes):
    """Each batch groups its images anew with all they are connected with, as the stage does."""
    waiting, known, catalog = random.sample(some, len(some)), {}, {}
    while waiting:
        size = sizes.pop() if sizes else 1
        batch, waiting = waiting[:size], waiting[size:]
        known.update({one.id: one for one in batch})
        whole = component(batch, lambda _: known.values())
        catalog |= {one.image: one for one in group(whole, TIERS, apart)}
    assert catalog == {one.image: one for one in group(some, TIERS, apart)}


@given(pictures, st.data())
def test_a_component_is_all_that_relations_reach(some, data):
    seeds = data.draw(st.lists(st.sampled_from(some), unique_by=id)) if some else []
    expected = {one.id for one in seeds}
    for _ in some:
        expected |= {
            one.id
            for one in some
            for other in some
            if other.id in expected and relation(one, other)
        }
    found = component(seeds, lambda _: some)
    assert sorted(one.id for one in found) == sorted(expected)


def test_a_component_asks_once_per_step():
    chain = [picture(str(n), phash64=2 ** (4 * n) - 1) for n in range(4)]
    asked = []

    def candidates(frontier):
        asked.append([one.id for one in frontier])
        return chain

    assert len(component(chain[:1], candidates)) == 4
    assert asked == [["0"], ["1"], ["2"], ["3"]]
