"""Nearness: against imagehash, and on generated photographs with everything done to them."""

from dataclasses import replace
from functools import cache
from itertools import combinations, permutations

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from image_pipeline.dedupe.grouping import MIN_TEXTURE
from image_pipeline.dedupe.near import (
    DHASH_CANDIDATE,
    DHASH_TEXTURE,
    PHASH_CANDIDATE,
    TRANSFORMS,
    Sketched,
    dihedral_hashes,
    hashes_of,
    near_groups,
    verify,
)
from image_pipeline.imaging.fingerprint import fingerprint
from image_pipeline.samples import photograph

#: The same eight by Pillow's names. Pillow turns counter-clockwise.
BY_PILLOW = {
    "identity": None,
    "turned 90": Image.Transpose.ROTATE_270,
    "turned 180": Image.Transpose.ROTATE_180,
    "turned 270": Image.Transpose.ROTATE_90,
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "flipped": Image.Transpose.FLIP_TOP_BOTTOM,
    "transpose": Image.Transpose.TRANSPOSE,
    "transverse": Image.Transpose.TRANSVERSE,
}

SEEDS = range(8)


@cache
def scene(seed=1):
    return photograph(400, 300, seed)


def turned(image, name):
    method = BY_PILLOW[name]
    return image if method is None else image.transpose(method)


def sketched(image, name="a"):
    found = fingerprint(image, "", image.size)
    content = found.content
    return Sketched(
        id=name,
        phash64=found.phash64,
        dhash64=found.dhash64,
        texture=found.texture,
        sketch=found.sketch,
        content_phash64=content.phash64 if content else None,
        content_sketch=content.sketch if content else None,
        aspect=image.width / image.height,
        content_aspect=content.width / content.height if content else None,
    )


def framed(image, share=0.05, colour="white"):
    edge = round(share * max(image.size))
    whole = Image.new("RGB", (image.width + 2 * edge, image.height + 2 * edge), colour)
    whole.paste(image, (edge, edge))
    return whole


def cropped(image, share, at=(0.5, 0.5)):
    left, top = (round(side * share * place) for side, place in zip(image.size, at, strict=True))
    width, height = (round(side * (1 - share)) for side in image.size)
    return image.crop((left, top, left + width, top + height))


def marked(image):
    image = image.copy()
    x, y = image.size
    ImageDraw.Draw(image).rectangle((0.65 * x, 0.88 * y, 0.95 * x, 0.95 * y), "white")
    return image


class TestDihedralHashes:
    @given(st.binary(min_size=1024, max_size=1024))
    def test_are_those_of_imagehash_of_noise(self, sketch):
        assert dihedral_hashes(sketch) == by_imagehash(sketch)

    @given(
        st.lists(st.integers(0, 255), min_size=1, max_size=4),
        st.integers(1, 16),
        st.integers(1, 16),
    )
    def test_are_those_of_imagehash_where_coefficients_tie(self, levels, wide, high):
        """Stripes and tiles: many coefficients are equal, or 0 but for rounding."""
        row, column = np.arange(32)[:, None] // high, np.arange(32)[None, :] // wide
        tiles = np.array(levels, np.uint8)[(row + column) % len(levels)]
        assert dihedral_hashes(tiles.tobytes()) == by_imagehash(tiles.tobytes())

    @pytest.mark.parametrize("seed", range(4))
    def test_are_those_of_imagehash_of_photographs(self, seed):
        found = sketched(scene(seed))
        assert dihedral_hashes(found.sketch) == by_imagehash(found.sketch)
        assert dihedral_hashes(found.sketch)[0] == found.phash64

    def test_are_near_the_hashes_of_the_turned_photographs(self):
        """A sketch of the turned picture rounds differently from the turned sketch."""
        forms = dihedral_hashes(sketched(scene()).sketch)
        for name, form in zip(TRANSFORMS, forms, strict=True):
            whole = int(str(imagehash.phash(turned(scene(), name))), 16)
            assert (whole ^ form).bit_count() <= 2, name


def by_imagehash(sketch):
    image = Image.frombytes("L", (32, 32), sketch)
    return tuple(int(str(imagehash.phash(turned(image, name))), 16) for name in BY_PILLOW)


class TestHashesOf:
    def test_a_picture_without_a_border_is_looked_up_as_it_is(self):
        one = sketched(scene())
        assert hashes_of(one) == [(one.phash64, one.sketch)]
        assert hashes_of(replace(one, texture=MIN_TEXTURE - 0.1)) == []

    def test_a_product_on_a_white_page_is_looked_up_by_its_content(self):
        one = sketched(framed(scene(), 0.05))
        content = (one.content_phash64, one.content_sketch)
        assert set(hashes_of(one)) == {content, (one.phash64, one.sketch)}
        assert hashes_of(replace(one, texture=MIN_TEXTURE - 0.1)) == [content]

    def test_a_frame_around_nothing_is_not_looked_up(self):
        one = sketched(framed(Image.linear_gradient("L").resize((400, 300)).convert("RGB")))
        assert one.texture >= MIN_TEXTURE
        assert hashes_of(one) == []


class TestVerify:
    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_names_what_was_done(self, name):
        found = verify(sketched(scene()), sketched(turned(scene(), name)))
        assert found.transform == name
        assert found.found_by == ("phash" if name == "identity" else "dihedral")
        assert found.distance <= 2
        assert 0.98 <= found.score <= 1

    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_sees_through_a_border_whichever_side_has_it(self, name):
        bare, edged = sketched(scene(), "a"), sketched(framed(turned(scene(), name)), "b")
        back = {"turned 90": "turned 270", "turned 270": "turned 90"}.get(name, name)
        for found, transform in ((verify(bare, edged), name), (verify(edged, bare), back)):
            assert found.transform == transform
            assert found.score > 0.9

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize(
        "change",
        [
            lambda image: image.resize((50, 38)),
            lambda image: image.convert("L").convert("RGB"),
            lambda image: image.point([min(255, round(1.2 * level)) for level in range(256)] * 3),
            lambda image: image.resize((128, 128)),
            lambda image: cropped(image, 0.02),
            lambda image: cropped(image, 0.05),
            lambda image: framed(image, 0.02),
            lambda image: framed(image, 0.1, "black"),
            lambda image: framed(turned(image, "turned 90"), 0.05, "#c81e3c"),
        ],
        ids=[
            "small",
            "grey",
            "bright",
            "squashed",
            "crop2",
            "crop5",
            "white2",
            "black10",
            "turned+red",
        ],
    )
    def test_finds_the_edits_of_photographs(self, seed, change):
        assert verify(sketched(scene(seed)), sketched(change(scene(seed)))) is not None

    def test_a_crop_is_laid_where_it_was(self):
        """5 % off at one corner; without the search the correlation would be about a half."""
        for at in ((0, 0), (1, 0), (0, 1), (1, 1)):
            found = verify(sketched(scene()), sketched(cropped(scene(), 0.05, at)))
            assert found is None or found.score > 0.95
            larger = verify(sketched(cropped(scene(), 0.05, at)), sketched(scene()))
            assert (found is None) == (larger is None)

    def test_a_logo_moves_few_bits_of_the_dhash(self):
        one, other = sketched(scene(21)), sketched(marked(scene(21)))
        assert (one.phash64 ^ other.phash64).bit_count() > PHASH_CANDIDATE
        found = verify(one, other)
        assert found.found_by == "dhash"
        assert found.distance <= DHASH_CANDIDATE

    def test_the_dhash_alone_is_not_believed_on_smooth_slopes(self):
        one, other = sketched(scene(21)), sketched(marked(scene(21)))
        assert verify(replace(one, texture=DHASH_TEXTURE), other).found_by == "dhash"
        assert verify(replace(one, texture=DHASH_TEXTURE - 0.1), other) is None

    def test_the_dhash_is_no_evidence_of_a_turn(self):
        """It was compared as it is; the score has to come from the same form."""
        one = sketched(scene(54))
        other = sketched(turned(marked(scene(54)), "transpose"))
        alike = replace(other, dhash64=one.dhash64)
        assert verify(one, alike) is None
        assert verify(alike, one) is None
        # Nothing but that hash keeps them apart.
        found = verify(one, replace(other, phash64=one.phash64))
        assert (found.found_by, found.transform) == ("phash", "transpose")

    @pytest.mark.parametrize("colour", ["white", "black"])
    def test_the_same_frame_makes_no_pictures_near(self, colour):
        """A wide frame correlates with itself, whatever is in it."""
        some = [sketched(framed(scene(seed), 0.2, colour)) for seed in SEEDS]
        assert all(one.content_sketch for one in some)
        assert [pair for pair in combinations(some, 2) if verify(*pair)] == []

    def test_a_trimmed_object_of_another_shape_is_another_object(self):
        """What is trimmed fills its box, so a box of another aspect has to be believed."""
        one, other = scene(), scene().resize((300, 300))
        assert verify(sketched(one), sketched(other)) is not None
        assert verify(sketched(framed(one)), sketched(framed(other))) is None
        assert verify(sketched(framed(one)), sketched(framed(turned(one, "turned 90")))) is not None

    def test_it_does_not_matter_which_of_the_two_was_turned(self):
        """Each hash is compared with the forms of the other picture's sketch."""
        one, other = sketched(scene()), sketched(turned(scene(), "turned 90"))
        rounded = replace(other, phash64=other.phash64 ^ 0xFFFF)
        assert verify(one, rounded).found_by == verify(rounded, one).found_by == "dihedral"

    def test_hashes_alone_are_not_enough(self):
        """What a chance agreement of all hashes would be."""
        one, other = sketched(scene(1)), sketched(scene(2))
        forged = Sketched(
            "b", one.phash64, one.dhash64, other.texture, other.sketch, None, None, 4 / 3, None
        )
        assert verify(one, forged) is None

    def test_sketches_alone_are_not_enough(self):
        """Pairs beyond the distances would be found or not by chance, so they are not near."""
        one = sketched(scene())
        plain = {"texture": one.texture, "sketch": one.sketch, "aspect": one.aspect}
        none = {"content_phash64": None, "content_sketch": None, "content_aspect": None}
        noise = np.random.default_rng(0).integers(0, 256, 1024, np.uint8).tobytes()

        def other(bits, dbits):
            flipped = one.phash64 ^ ((1 << bits) - 1)
            return Sketched("b", flipped, one.dhash64 ^ ((1 << dbits) - 1), **plain, **none)

        assert verify(one, other(PHASH_CANDIDATE, 64)).found_by == "phash"
        assert verify(one, other(PHASH_CANDIDATE, 64)).distance == PHASH_CANDIDATE
        assert (
            verify(one, Sketched("b", one.phash64, 0, one.texture, noise, None, None, 1, None))
            is None
        )

    @pytest.mark.parametrize(
        "flat",
        [
            Image.new("RGB", (1, 1)),
            Image.new("RGB", (400, 300), "black"),
            Image.new("RGB", (400, 300), "white"),
            Image.new("RGB", (20_000, 1), "red"),
            Image.fromarray(
                np.random.default_rng(1).normal(120, 6, (300, 400, 3)).astype(np.uint8)
            ),
            Image.linear_gradient("L").convert("RGB"),
        ],
        ids=["pixel", "black", "white", "line", "grain", "slope"],
    )
    def test_what_has_no_texture_is_near_to_nothing(self, flat):
        one, other = sketched(flat, "a"), sketched(flat, "b")
        assert verify(one, other) is None
        assert verify(one, sketched(scene())) is None

    @pytest.mark.parametrize("share", [0.05, 0.1])
    def test_two_frames_around_what_has_no_texture_are_not_compared(self, share):
        """Where a sky ends at a frame the whole has texture: that of the frame."""
        down = Image.linear_gradient("L").resize((400, 300)).convert("RGB")
        softer = down.point([60 + level // 2 for level in range(256)] * 3)
        one, other = sketched(framed(down, share), "a"), sketched(framed(softer, share), "b")
        assert min(one.texture, other.texture) >= MIN_TEXTURE
        assert None not in (one.content_sketch, other.content_sketch)
        assert verify(one, one) is None
        assert verify(one, other) is None
        # The same frame, of which one picture has a speck, so that it counts as no frame.
        specked = replace(one, content_phash64=None, content_sketch=None, content_aspect=None)
        assert verify(specked, specked) is not None
        assert verify(one, specked) is None
        assert verify(specked, one) is None

    def test_a_frame_around_nothing_is_near_to_nothing(self):
        one = sketched(framed(Image.new("RGB", (400, 300), "#506070")), "a")
        assert verify(one, one) is None

    @pytest.mark.parametrize("length", [0, 1023, 1025])
    def test_a_damaged_sketch_is_an_error_that_names_the_image(self, length):
        with pytest.raises(ValueError, match="image 5ca1ab1e"):
            Sketched("5ca1ab1e", 0, 0, 9.0, bytes(length), None, None, 1.0, None)
        with pytest.raises(ValueError, match="image 5ca1ab1e"):
            Sketched("5ca1ab1e", 0, 0, 9.0, bytes(1024), 0, bytes(length), 1.0, 1.0)


class TestStars:
    def test_every_member_is_near_its_centre(self):
        chain = [("a", "b", 0.9), ("b", "c", 0.9), ("c", "d", 0.9)]
        assert near_groups(chain, "abcd".index) == {"a": ["b"], "c": ["d"]}

    def test_the_best_is_the_centre_and_the_nearest_centre_is_joined(self):
        edges = [("a", "x", 0.8), ("b", "x", 0.9), ("b", "y", 0.9), ("a", "y", 0.9)]
        assert near_groups(edges, "abxy".index) == {"b": ["x"], "a": ["y"]}
        assert near_groups(edges, "yxab".index) == {"y": ["a", "b"]}

    def test_order_changes_nothing(self):
        edges = [("a", "b", 0.8), ("b", "c", 0.9), ("c", "a", 0.9), ("d", "c", 0.8)]
        expected = near_groups(edges, "dcba".index)
        for some in permutations(edges):
            assert near_groups([(two, one, score) for one, two, score in some], "dcba".index) == (
                expected
            )

    def test_nothing_of_nothing(self):
        assert near_groups([], str) == {}
