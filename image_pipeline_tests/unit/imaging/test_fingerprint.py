"""What pictures are compared by: against imagehash, against scipy, against what was framed."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from image_pipeline.dedupe.grouping import CHROMA_TOLERANCE
from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.fingerprint import (
    MOST_BORDER,
    Fingerprint,
    content_box,
    fingerprint,
    pixel_hash,
    texture,
)
from image_pipeline.imaging.inspection import inspect_image, small_copy

from .builders import LIMITS, a_photograph, encoded, exif_of, noise, pixels, stored_for

#: PDQ and others find no photograph below it and every smooth gradient.
GATE = 5


def of(image: Image.Image) -> Fingerprint:
    return fingerprint(image, "", image.size)


def inspected(data: bytes) -> Fingerprint:
    return inspect_image(data, LIMITS).fingerprint


def distance(one: Fingerprint, other: Fingerprint) -> int:
    return (one.phash64 ^ other.phash64).bit_count()


def framed(
    picture: Image.Image, sides: tuple[int, int, int, int], colour: str = "white"
) -> Image.Image:
    """A picture within a border: pixels left, above, right and below."""
    left, top, right, bottom = sides
    whole = Image.new("RGB", (picture.width + left + right, picture.height + top + bottom), colour)
    whole.paste(picture, (left, top))
    return whole


def luma(image: Image.Image) -> Image.Image:
    return image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)


class TestHashes:
    def test_are_those_of_imagehash(self) -> None:
        small = small_copy(a_photograph())
        found = of(small)
        assert f"{found.phash64:016x}" == str(imagehash.phash(small))
        assert f"{found.dhash64:016x}" == str(imagehash.dhash(small))
        assert found.phash256 == str(imagehash.phash(small, hash_size=16))
        assert len(found.phash256) == 64

    def test_of_the_content_are_those_of_imagehash_too(self) -> None:
        picture = framed(a_photograph(), (20, 20, 20, 20))
        content = of(picture).content
        assert content is not None
        inner = picture.crop((20, 20, 420, 320))
        assert f"{content.phash64:016x}" == str(imagehash.phash(inner))
        assert content.sketch == luma(inner).tobytes()

    def test_the_sketch_is_what_the_hash_was_made_of(self) -> None:
        found = of(a_photograph())
        assert found.sketch == luma(a_photograph()).tobytes()
        sketch = Image.frombytes("L", (32, 32), found.sketch)
        assert found.phash64 == int(str(imagehash.phash(sketch)), 16)

    @given(bits=st.integers(0, 2**64 - 1))
    def test_an_integer_holds_every_bit(self, bits: int) -> None:
        hashed = imagehash.hex_to_hash(f"{bits:016x}")
        assert int(str(hashed), 16) == bits
        assert "".join("1" if bit else "0" for bit in hashed.hash.flatten()) == f"{bits:064b}"

    def test_leading_zeros_stay(self) -> None:
        """A hash whose first bits are 0 must not lose a digit."""
        found = of(Image.new("RGB", (64, 64), (90, 90, 90)))
        assert len(found.phash256) == 64
        assert 0 <= found.phash64 < 2**64

    @pytest.mark.parametrize("seed", range(5))
    def test_survive_a_resize_and_a_lossy_save(self, seed: int) -> None:
        picture = a_photograph(800, 600, seed)
        whole = inspected(encoded(picture, "PNG"))
        less = encoded(picture.resize((400, 300)), "JPEG", quality=70)
        assert distance(whole, inspected(less)) <= 4

    @pytest.mark.parametrize("seed", range(4))
    def test_of_a_fraction_of_a_jpeg_are_the_same(self, seed: int) -> None:
        """2,400 x 1,800 is decoded at a half; the reference sees every pixel."""
        file = encoded(a_photograph(2400, 1800, seed), "JPEG", quality=85)
        drafted = inspected(file)
        whole = decode(file, LIMITS).image
        assert whole.size == (2400, 1800)
        expected = fingerprint(small_copy(whole), "", whole.size)
        assert distance(drafted, expected) <= 2
        assert (drafted.dhash64 ^ expected.dhash64).bit_count() <= 2
        moved = int(drafted.phash256, 16) ^ int(expected.phash256, 16)
        assert moved.bit_count() <= 8
        assert drafted.texture == pytest.approx(expected.texture, rel=0.02)

    @pytest.mark.parametrize("size", [(4000, 40), (40, 4000), (3000, 1), (1, 3000)])
    def test_of_elongated_jpegs(self, size: tuple[int, int]) -> None:
        found = inspect_image(encoded(noise(*size), "JPEG"), LIMITS)
        assert (found.width, found.height) == size

    def test_see_transparency_over_white(self) -> None:
        photograph = a_photograph(200, 150).convert("RGBA")
        alpha = Image.new("L", (200, 150), 0)
        alpha.paste(255, (50, 30, 150, 120))
        photograph.putalpha(alpha)
        white = Image.new("RGB", (200, 150), "white")
        white.paste(photograph, mask=alpha)
        cut_out, flat = inspected(encoded(photograph, "PNG")), inspected(encoded(white, "PNG"))
        assert cut_out.phash256 == flat.phash256
        assert cut_out.content == flat.content
        assert cut_out.pixels != flat.pixels


class TestChroma:
    def test_is_that_of_each_cell(self) -> None:
        """ITU-T T.871 (JFIF): Cb = 128 - 0.1687 R - 0.3313 G + 0.5 B, Cr likewise."""
        image = Image.new("RGB", (400, 200), "grey")
        image.paste((200, 40, 60), (100, 0, 200, 50))
        cells = bytes.fromhex(of(image).chroma)
        assert len(cells) == 32
        assert cells[2] == pytest.approx(128 - 0.1687 * 200 - 0.3313 * 40 + 0.5 * 60, abs=1)
        assert cells[3] == pytest.approx(128 + 0.5 * 200 - 0.4187 * 40 - 0.0813 * 60, abs=1)
        assert set(cells[:2] + cells[4:]) == {128}

    @pytest.mark.parametrize("seed", range(4))
    def test_survives_a_lossy_save_and_tells_hues_apart(self, seed: int) -> None:
        def apart(one: Image.Image | bytes) -> int:
            found = inspected(one) if isinstance(one, bytes) else of(one)
            pairs = zip(before, bytes.fromhex(found.chroma), strict=True)
            return max(abs(ours - theirs) for ours, theirs in pairs)

        picture = a_photograph(800, 600, seed)
        before = bytes.fromhex(of(picture).chroma)
        assert apart(encoded(picture.resize((100, 75)), "JPEG", quality=30)) <= 7
        red, green, blue = picture.split()
        assert apart(Image.merge("RGB", (blue, red, green))) > CHROMA_TOLERANCE


class TestPixels:
    def test_packing_and_metadata_do_not_matter(self) -> None:
        picture = a_photograph(90, 60)
        plain = inspected(encoded(picture, "PNG")).pixels
        assert len(plain) == 64
        assert inspected(encoded(picture, "BMP")).pixels == plain
        assert inspected(encoded(picture, "WEBP", lossless=True)).pixels == plain
        described = encoded(picture, "PNG", compress_level=1, exif=exif_of(1))
        assert inspected(described).pixels == plain

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_are_looked_at_upright(self, orientation: int) -> None:
        levels = pixels(a_photograph(90, 60)).astype(np.uint8)
        stored = Image.fromarray(stored_for(levels, orientation))
        file = encoded(stored, "PNG", exif=exif_of(orientation))
        assert inspected(file).pixels == inspected(encoded(Image.fromarray(levels), "PNG")).pixels

    def test_one_level_of_one_pixel_matters(self) -> None:
        levels = pixels(a_photograph(90, 600)).astype(np.uint8)
        before = pixel_hash(Image.fromarray(levels), (90, 600))
        for row in (0, 255, 256, 599):
            levels[row, 89, 2] ^= 1
            assert pixel_hash(Image.fromarray(levels), (90, 600)) != before
            levels[row, 89, 2] ^= 1
        assert pixel_hash(Image.fromarray(levels), (90, 600)) == before

    def test_the_same_levels_in_another_shape_are_other_pixels(self) -> None:
        flat = [Image.new("RGB", size) for size in ((4, 1), (2, 2), (1, 4))]
        assert len({pixel_hash(one, one.size) for one in flat}) == 3
        assert pixel_hash(flat[0], (4, 1)) != pixel_hash(flat[0], (8, 2))


class TestTexture:
    def test_is_the_median_distance_of_low_frequencies_from_their_median(self) -> None:
        sketch = luma(a_photograph(300, 200))
        low = scipy.fft.dctn(np.asarray(sketch, float), norm="ortho")[:8, :8]
        expected = float(np.median(abs(low - np.median(low))))
        assert texture(sketch) == pytest.approx(expected, abs=0.001)

    @pytest.mark.parametrize("seed", range(10))
    def test_of_photographs(self, seed: int) -> None:
        found = inspected(encoded(a_photograph(800, 600, seed), "JPEG", quality=90))
        assert found.texture > GATE

    def test_of_nothing_to_hold_on_to(self) -> None:
        ramp = np.linspace(0, 255, 640)[None, :] * np.ones((480, 1))
        both = (ramp + np.linspace(0, 255, 480)[:, None]) / 2
        grain = np.random.default_rng(1).normal(120, 6, (480, 640, 3))
        flat = [
            Image.new("RGB", (1, 1), "red"),
            Image.new("RGB", (640, 480), "black"),
            Image.new("RGB", (640, 480), "white"),
            Image.new("RGB", (640, 480), (13, 80, 200)),
            Image.fromarray(grain.astype(np.uint8)),
            *(Image.fromarray(one.astype(np.uint8)).convert("RGB") for one in (ramp, both)),
            noise(640, 480).filter(ImageFilter.GaussianBlur(3)),
        ]
        found = [inspected(encoded(one, "PNG")).texture for one in flat]
        assert max(found) < GATE, found


class TestContent:
    @pytest.mark.parametrize("colour", ["white", "black", "#c82a28"])
    @pytest.mark.parametrize(
        "sides",
        [
            (20, 20, 20, 20),
            (50, 40, 50, 40),
            (0, 60, 0, 60),
            (60, 0, 60, 0),
            (0, 0, 0, 40),
            (7, 13, 29, 40),
        ],
    )
    def test_is_what_was_framed(self, sides: tuple[int, int, int, int], colour: str) -> None:
        left, top, _, _ = sides
        picture = framed(a_photograph(seed=3), sides, colour)
        assert content_box(picture) == (left, top, left + 400, top + 300)

    @pytest.mark.parametrize("quality", [95, 30])
    def test_is_found_in_a_lossy_file(self, quality: int) -> None:
        photograph = a_photograph(1600, 1200, 3)
        file = encoded(framed(photograph, (90, 90, 90, 90)), "JPEG", quality=quality)
        content = inspected(file).content
        assert content is not None
        # Ringing reaches as far as the block that the edge lies in: 8 pixels a side.
        assert content.width == pytest.approx(1600, abs=16)
        assert content.height == pytest.approx(1200, abs=16)
        bare = inspected(encoded(photograph, "JPEG"))
        assert (content.phash64 ^ bare.phash64).bit_count() <= 4

    def test_a_bar_of_another_colour_at_each_end(self) -> None:
        inner = framed(a_photograph(seed=3), (0, 0, 50, 0), "#2040a0")
        assert content_box(framed(inner, (50, 0, 0, 0), "#f0e0d0")) == (50, 0, 450, 300)

    def test_letterbox_within_a_frame_is_trimmed_once(self) -> None:
        inner = framed(a_photograph(seed=3), (0, 40, 0, 40), "black")
        assert content_box(framed(inner, (20, 20, 20, 20))) == (20, 20, 420, 400)

    def test_bars_of_another_colour_above_than_beside(self) -> None:
        inner = framed(a_photograph(seed=3), (50, 0, 50, 0))
        assert content_box(framed(inner, (0, 40, 0, 40), "black")) == (50, 40, 450, 340)

    def test_a_product_on_white_is_its_object(self) -> None:
        """A disc meets the lines of its box in one point only."""
        shot = Image.new("RGB", (400, 400), "white")
        disc = Image.new("L", (300, 300), 0)
        disc.paste(255, (0, 0), Image.radial_gradient("L").resize((300, 300)).point(_inside))
        shot.paste(a_photograph(300, 300), (60, 40), disc)
        box = content_box(shot)
        assert box is not None
        assert np.abs(np.subtract(box, (60, 40, 360, 340))).max() <= 12

    @pytest.mark.parametrize("seed", range(10))
    def test_photographs_have_no_border(self, seed: int) -> None:
        assert content_box(small_copy(a_photograph(800, 600, seed))) is None

    @pytest.mark.parametrize("sky", ["white", "#78b4f0"])
    def test_a_sky_is_no_border(self, sky: str) -> None:
        """A flat sky over hills: the lines at the top are of one colour, and end unevenly."""
        picture = a_photograph(400, 300, 3).copy()
        hills = [(x, round(60 + 30 * np.sin(x / 50))) for x in range(400)]
        levels = np.asarray(picture).copy()
        for x, height in hills:
            levels[:height, x] = Image.new("RGB", (1, 1), sky).getpixel((0, 0))
        assert content_box(Image.fromarray(levels)) is None

    @pytest.mark.parametrize("colour", ["white", "black"])
    def test_flat_sides_are_no_border_where_nothing_frames_the_picture(self, colour: str) -> None:
        """A lit figure before the night: flat to the left and to the right, and uneven there."""
        night = Image.new("RGB", (400, 300), colour)
        figure = Image.new("L", (400, 300), 0)
        for y in range(300):
            figure.paste(255, (100 - y // 8, y, 300 + y // 8, y + 1))
        night.paste(a_photograph(400, 300, 3), (0, 0), figure)
        assert content_box(night) is None

    def test_the_slope_of_a_sky_is_no_border(self) -> None:
        """All rows are of one colour and leave that of the first one along a straight line."""
        levels = pixels(a_photograph(400, 300, 3)).astype(np.uint8)
        levels[:150] = np.linspace(90, 180, 150)[:, None, None]
        assert content_box(Image.fromarray(levels)) is None

    @pytest.mark.parametrize(
        "flat",
        [
            Image.new("RGB", (1, 1)),
            Image.new("RGB", (31, 400), "white"),
            Image.new("RGB", (400, 300), "black"),
            Image.new("RGB", (1000, 32), "white"),
        ],
    )
    def test_of_one_colour_there_is_none(self, flat: Image.Image) -> None:
        assert content_box(flat) is None

    def test_a_wide_background_is_no_border(self) -> None:
        side = int(400 * MOST_BORDER / (1 - 2 * MOST_BORDER)) + 20
        assert content_box(framed(a_photograph(400, 300), (side, 0, side, 0))) is None

    def test_thinner_than_a_hundredth_is_no_border(self) -> None:
        assert content_box(framed(a_photograph(400, 300, 3), (2, 2, 2, 2))) is None

    def test_sizes_are_those_of_the_original(self) -> None:
        small = framed(a_photograph(400, 300, 3), (50, 40, 50, 40))
        content = fingerprint(small, "", (5000, 3800)).content
        assert content is not None
        assert (content.width, content.height) == (4000, 3000)

    @given(width=st.integers(1, 80), height=st.integers(1, 80), seed=st.integers(0, 99))
    @settings(max_examples=40)
    def test_every_size_can_be_looked_at(self, width: int, height: int, seed: int) -> None:
        found = of(framed(noise(width, height, 3, seed), (seed % 9, 0, seed // 9, 3)))
        if found.content:
            assert found.content.width >= 1
            assert found.content.height >= 1


def _inside(level: int) -> int:
    # The gradient is 0 in the middle and 255 at a distance of half the side.
    return 255 if level < 250 else 0
