"""What is said of a picture: hashes against imagehash, colours and placeholder against the eye."""

from __future__ import annotations

import base64
import io

import imagehash
import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.inspection import (
    fingerprint,
    inspect_image,
    small_copy,
    texture,
)
from image_pipeline.imaging.placeholder import MAX_CHARACTERS, dominant_color, placeholder

from .builders import LIMITS, a_photograph, encoded, noise, pixels

#: PDQ and others find no photograph below it and every smooth gradient.
GATE = 5


def distance(one: Fingerprint, other: Fingerprint) -> int:
    return (one.phash64 ^ other.phash64).bit_count()


def test_what_a_file_says() -> None:
    found = inspect_image(encoded(a_photograph(90, 60), "PNG"), LIMITS)
    assert (found.format, found.width, found.height, found.mode) == ("png", 90, 60, "RGB")
    assert (found.has_alpha, found.animated, found.lossless) == (False, False, True)
    assert (found.orientation, found.flags) == (1, ())


@pytest.mark.parametrize(
    ("kind", "options", "lossless"),
    [
        ("JPEG", {}, False),
        ("AVIF", {}, False),
        ("HEIF", {}, False),
        ("WEBP", {}, False),
        ("WEBP", {"lossless": True}, True),
        # A profile stands before the pixels and pushes them back in the file.
        ("WEBP", {"lossless": True, "icc_profile": b"x" * 500}, True),
        ("WEBP", {"icc_profile": b"VP8L" * 100}, False),
        ("PNG", {}, True),
        ("GIF", {}, True),
        ("BMP", {}, True),
        ("TIFF", {}, True),
        ("TIFF", {"compression": "tiff_lzw"}, True),
        ("TIFF", {"compression": "jpeg"}, False),
    ],
)
def test_format_and_loss(kind: str, options: dict[str, object], lossless: bool) -> None:
    found = inspect_image(encoded(a_photograph(60, 40), kind, **options), LIMITS)
    assert found.format == kind.lower()
    assert found.lossless is lossless


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_the_first_frame_of_an_animation_is_the_picture(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    found = inspect_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), LIMITS)
    assert found.animated
    assert "animated" in found.flags
    red, green, blue = (int(found.dominant_color[at : at + 2], 16) for at in (1, 3, 5))
    assert red > 240
    assert max(green, blue) < 20


class TestFingerprint:
    def test_is_that_of_imagehash(self) -> None:
        small = small_copy(a_photograph())
        found = fingerprint(small)
        assert f"{found.phash64:016x}" == str(imagehash.phash(small))
        assert f"{found.dhash64:016x}" == str(imagehash.dhash(small))
        assert found.phash256 == str(imagehash.phash(small, hash_size=16))
        assert len(found.phash256) == 64

    @given(bits=st.integers(0, 2**64 - 1))
    def test_an_integer_holds_every_bit(self, bits: int) -> None:
        hashed = imagehash.hex_to_hash(f"{bits:016x}")
        assert int(str(hashed), 16) == bits
        assert "".join("1" if bit else "0" for bit in hashed.hash.flatten()) == f"{bits:064b}"

    def test_leading_zeros_stay(self) -> None:
        """A hash whose first bits are 0 must not lose a digit."""
        found = fingerprint(Image.new("RGB", (64, 64), (90, 90, 90)))
        assert len(found.phash256) == 64
        assert 0 <= found.phash64 < 2**64

    @pytest.mark.parametrize("seed", range(5))
    def test_survives_a_resize_and_a_lossy_save(self, seed: int) -> None:
        picture = a_photograph(800, 600, seed)
        whole = inspect_image(encoded(picture, "PNG"), LIMITS).fingerprint
        less = encoded(picture.resize((400, 300)), "JPEG", quality=70)
        assert distance(whole, inspect_image(less, LIMITS).fingerprint) <= 4

    @pytest.mark.parametrize("seed", range(4))
    def test_a_fraction_of_a_jpeg_has_the_same_fingerprint(self, seed: int) -> None:
        """2,400 x 1,800 is decoded at a half; the reference sees every pixel."""
        file = encoded(a_photograph(2400, 1800, seed), "JPEG", quality=85)
        drafted = inspect_image(file, LIMITS)
        assert (drafted.width, drafted.height) == (2400, 1800)
        whole = decode(file, LIMITS).image
        assert whole.size == (2400, 1800)
        expected = fingerprint(small_copy(whole))
        assert distance(drafted.fingerprint, expected) <= 2
        assert (drafted.fingerprint.dhash64 ^ expected.dhash64).bit_count() <= 2
        moved = int(drafted.fingerprint.phash256, 16) ^ int(expected.phash256, 16)
        assert moved.bit_count() <= 8
        assert drafted.fingerprint.texture == pytest.approx(expected.texture, rel=0.02)

    @pytest.mark.parametrize("size", [(4000, 40), (40, 4000), (3000, 1), (1, 3000)])
    def test_elongated_jpegs(self, size: tuple[int, int]) -> None:
        found = inspect_image(encoded(noise(*size), "JPEG"), LIMITS)
        assert (found.width, found.height) == size

    def test_transparency_is_seen_over_white(self) -> None:
        photograph = a_photograph(200, 150).convert("RGBA")
        alpha = Image.new("L", (200, 150), 0)
        alpha.paste(255, (50, 30, 150, 120))
        photograph.putalpha(alpha)
        white = Image.new("RGB", (200, 150), "white")
        white.paste(photograph, mask=alpha)
        found = inspect_image(encoded(photograph, "PNG"), LIMITS)
        assert found.has_alpha
        assert found.fingerprint == inspect_image(encoded(white, "PNG"), LIMITS).fingerprint


class TestTexture:
    def test_is_the_median_distance_of_low_frequencies_from_their_median(self) -> None:
        small = a_photograph(300, 200)
        luma = small.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
        low = scipy.fft.dctn(np.asarray(luma, float), norm="ortho")[:8, :8]
        expected = float(np.median(abs(low - np.median(low))))
        assert texture(small) == pytest.approx(expected, abs=0.001)

    @pytest.mark.parametrize("seed", range(10))
    def test_of_photographs(self, seed: int) -> None:
        found = inspect_image(encoded(a_photograph(800, 600, seed), "JPEG", quality=90), LIMITS)
        assert found.fingerprint.texture > GATE

    def test_of_nothing_to_hold_on_to(self) -> None:
        ramp = np.linspace(0, 255, 640)[None, :] * np.ones((480, 1))
        both = (ramp + np.linspace(0, 255, 480)[:, None]) / 2
        flat = [
            Image.new("RGB", (640, 480), "white"),
            Image.new("RGB", (640, 480), (13, 80, 200)),
            *(Image.fromarray(one.astype(np.uint8)).convert("RGB") for one in (ramp, both)),
            noise(640, 480).filter(ImageFilter.GaussianBlur(3)),
        ]
        found = [inspect_image(encoded(one, "PNG"), LIMITS).fingerprint.texture for one in flat]
        assert max(found) < GATE, found


class TestColourAndPlaceholder:
    @pytest.mark.parametrize("colour", ["#c81e3c", "#000000", "#ffffff", "#0a64fa"])
    def test_dominant_colour_of_one_colour(self, colour: str) -> None:
        assert dominant_color(Image.new("RGB", (30, 20), colour)) == colour

    def test_dominant_colour_is_of_the_largest_area(self) -> None:
        image = Image.new("RGB", (480, 480), "#104080")
        image.paste("#f0e020", (0, 0, 480, 160))
        image.paste("#e01010", (0, 160, 120, 320))
        assert dominant_color(image) == "#104080"

    @pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (3, 2), (512, 384), (600, 601)])
    @pytest.mark.parametrize("kind", ["noise", "photograph"])
    def test_placeholder_is_a_short_webp(self, size: tuple[int, int], kind: str) -> None:
        picture = noise(*size) if kind == "noise" else a_photograph(640, 480).resize(size)
        uri = placeholder(picture)
        assert len(uri) <= MAX_CHARACTERS == 200
        head, _, body = uri.partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(body, validate=True))) as tiny:
            tiny.load()
            assert tiny.format == "WEBP"
            assert max(tiny.size) <= 20
            ratio = (tiny.width / tiny.height) / (size[0] / size[1])
            assert min(tiny.size) == 1 or 0.8 < ratio < 1.25
            if size == (512, 384) and kind == "photograph":
                mean = pixels(tiny.convert("RGB")).mean(axis=(0, 1))
                assert np.abs(mean - pixels(picture).mean(axis=(0, 1))).max() < 12

    @given(
        width=st.integers(1, 60), height=st.integers(1, 60), seed=st.integers(0, 1000),
        alpha=st.booleans(),
    )  # fmt: skip
    @settings(max_examples=60)
    def test_every_size_can_be_described(
        self, width: int, height: int, seed: int, alpha: bool
    ) -> None:
        found = inspect_image(encoded(noise(width, height, 3 + alpha, seed), "PNG"), LIMITS)
        assert (found.width, found.height) == (width, height)
        assert len(found.placeholder) <= 200
        assert len(found.dominant_color) == 7
