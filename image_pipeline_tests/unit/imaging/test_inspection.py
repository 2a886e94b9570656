"""What is said of a picture: its file, its colours, its placeholder, where the eye goes."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from image_pipeline.imaging.inspection import inspect_image
from image_pipeline.imaging.placeholder import MAX_CHARACTERS, dominant_color, placeholder

from .builders import (
    ADOBE_RGB,
    LIMITS,
    a_photograph,
    encoded,
    exif_of,
    matrix_profile,
    noise,
    pixels,
    stored_for,
)


def test_what_a_file_says() -> None:
    found = inspect_image(encoded(a_photograph(90, 60), "PNG"), LIMITS)
    assert (found.format, found.width, found.height, found.mode) == ("png", 90, 60, "RGB")
    assert (found.has_alpha, found.animated, found.lossless) == (False, False, True)
    assert (found.orientation, found.flags) == (1, ())
    assert (found.frames, found.quality, found.has_profile) == (1, None, False)


def test_what_a_jpeg_says() -> None:
    profile = matrix_profile(ADOBE_RGB, 2.2, "wide")
    file = encoded(a_photograph(90, 60), "JPEG", quality=87, icc_profile=profile)
    found = inspect_image(file, LIMITS)
    assert (found.quality, found.has_profile) == (87, True)
    assert found.flags == ("converted_profile",)


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
    assert found.frames == 3
    assert "animated" in found.flags
    red, green, blue = (int(found.dominant_color[at : at + 2], 16) for at in (1, 3, 5))
    assert red > 240
    assert max(green, blue) < 20


def subject() -> Image.Image:
    """A lit ball at 80 % across and 25 % down of a dull scene."""
    image = Image.new("RGB", (600, 400), (60, 66, 72))
    ImageDraw.Draw(image).ellipse((445, 65, 515, 135), fill=(250, 180, 60))
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_focal_point_and_thumbhash_are_of_the_upright_picture(orientation: int) -> None:
    levels = np.asarray(subject())
    stored = Image.fromarray(stored_for(levels, orientation))
    found = inspect_image(encoded(stored, "PNG", exif=exif_of(orientation)), LIMITS)
    assert np.abs(np.array(found.focal_point) - (0.8, 0.25)).max() < 0.02
    upright = encoded(subject(), "PNG")
    assert found.thumbhash == inspect_image(upright, LIMITS).thumbhash


def test_focal_point_of_a_jpeg_read_at_a_fraction() -> None:
    large = subject().resize((4800, 3200))
    found = inspect_image(encoded(large, "JPEG", quality=90), LIMITS)
    assert (found.width, found.height) == (4800, 3200)
    assert np.abs(np.array(found.focal_point) - (0.8, 0.25)).max() < 0.02


@pytest.mark.parametrize("level", [40, 255])
def test_transparency_is_told_to_both(level: int) -> None:
    """Loud colours around the cutout are not seen; the hash has a channel for alpha.

    White on the white of a page would not be seen either: it is a subject all the same.
    """
    image = noise(600, 400).convert("RGBA")
    image.putalpha(0)
    ImageDraw.Draw(image).ellipse((445, 65, 515, 135), fill=(level, level, level, 255))
    found = inspect_image(encoded(image, "PNG"), LIMITS)
    assert np.abs(np.array(found.focal_point) - (0.8, 0.25)).max() < 0.03
    assert base64.b64decode(found.thumbhash)[2] & 0x80
    assert not base64.b64decode(inspect_image(encoded(subject(), "PNG"), LIMITS).thumbhash)[2] & 128


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
        assert all(0 < share < 1 for share in found.focal_point)
        assert len(base64.b64decode(found.thumbhash, validate=True)) <= 25

    @given(
        width=st.integers(1, 40), height=st.integers(1, 40), scale=st.integers(1, 12),
        seed=st.integers(0, 1000), steps=st.sampled_from([2, 3, 8, 256]),
    )  # fmt: skip
    @settings(max_examples=150)
    def test_placeholders_of_the_loudest_pictures_are_short(
        self, width: int, height: int, scale: int, seed: int, steps: int
    ) -> None:
        """Black, white and pure colours, pixel beside pixel: nothing costs an encoder more."""
        shape = (height, width, 3)
        levels = np.random.default_rng(seed).integers(0, steps, shape) * 255 // (steps - 1)
        picture = Image.fromarray(levels.astype(np.uint8))
        large = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        uri = placeholder(large)
        assert len(uri) <= 200
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as tiny:
            tiny.load()
