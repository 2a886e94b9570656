"""Where thumbnails are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from image_pipeline.imaging.crop import Mode, crop_window

from .builders import noise

MODES: list[Mode] = ["attention", "entropy", "center"]


@given(
    width=st.integers(1, 400), height=st.integers(1, 400),
    wide=st.integers(1, 500), high=st.integers(1, 500),
    mode=st.sampled_from(MODES), seed=st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=150)
def test_a_window_of_the_right_shape_inside_the_picture(
    width: int, height: int, wide: int, high: int, mode: Mode, seed: int
) -> None:
    left, top, right, bottom = crop_window(noise(width, height, seed=seed), wide, high, mode)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    # One side is taken whole, up to rounding; the other is within a pixel of the ratio.
    assert width - (right - left) == 0 or height - (bottom - top) == 0
    if width * high >= height * wide:
        assert abs((right - left) - max(1, height * wide / high)) <= 0.5001
    else:
        assert abs((bottom - top) - max(1, width * high / wide)) <= 0.5001


def spot(size: tuple[int, int], centre: tuple[int, int]) -> Image.Image:
    """A bright disc with some drawing in it, on a dull ground."""
    image = Image.new("RGB", size, (70, 75, 80))
    x, y = centre
    draw = ImageDraw.Draw(image)
    draw.ellipse((x - 40, y - 40, x + 40, y + 40), fill=(250, 180, 60))
    for offset in range(-30, 31, 12):
        draw.line((x + offset, y - 20, x + offset, y + 20), fill=(120, 40, 20), width=3)
    return image


@pytest.mark.parametrize("mode", ["attention", "entropy"])
@pytest.mark.parametrize("along", [60, 150, 300, 450, 700, 840])
@pytest.mark.parametrize("upright", [False, True])
def test_finds_a_bright_object(mode: Mode, along: int, upright: bool) -> None:
    size, centre = ((300, 900), (150, along)) if upright else ((900, 300), (along, 150))
    left, top, right, bottom = crop_window(spot(size, centre), 1, 1, mode)
    assert left <= centre[0] - 38
    assert centre[0] + 38 <= right
    assert top <= centre[1] - 38
    assert centre[1] + 38 <= bottom


def test_a_picture_already_turned_into_premultiplied_pixels() -> None:
    """The renderer works on them; a hidden colour is no reason to look somewhere."""
    image = spot((900, 300), (700, 150)).convert("RGBA")
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (640, 80, 760, 220))
    image.putalpha(alpha)
    left, _, right, _ = crop_window(image.convert("RGBa"), 1, 1, "attention")
    assert left <= 660
    assert right >= 740


def test_centre_is_the_centre() -> None:
    image = spot((900, 300), (60, 150))
    assert crop_window(image, 1, 1, "center") == (300, 0, 600, 300)
    assert crop_window(image, 2, 1, "center") == (150, 0, 750, 300)
    assert crop_window(image, 1, 3, "center") == (400, 0, 500, 300)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("colour", ["white", "black", "#c08060"])
def test_a_picture_of_one_colour_is_cut_in_its_middle(mode: Mode, colour: str) -> None:
    left, top, right, bottom = crop_window(Image.new("RGB", (900, 300), colour), 1, 1, mode)
    assert (right - left, bottom - top) == (300, 300)
    assert abs(left - 300) <= 5


@pytest.mark.parametrize("mode", MODES)
def test_the_same_picture_is_cut_in_the_same_place(mode: Mode) -> None:
    image = noise(301, 97)
    assert crop_window(image, 4, 3, mode) == crop_window(image.copy(), 4, 3, mode)


@pytest.mark.parametrize("skin", [(224, 172, 140), (110, 70, 50)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_skin_counts_more_than_its_opposite(skin: tuple[int, int, int], side: str) -> None:
    """Two patches of equal detail, saturation and contrast; one has the hue of skin."""
    weights = np.array([0.299, 0.587, 0.114])
    ground = (weights @ np.array(skin) + weights @ np.array(skin[::-1])) / 2
    levels = np.full((300, 900, 3), ground)
    levels[50:250, 50:250] = skin if side == "left" else skin[::-1]
    levels[50:250, 650:850] = skin if side == "right" else skin[::-1]
    left, _, right, _ = crop_window(Image.fromarray(levels.astype(np.uint8)), 1, 1, "attention")
    assert (left <= 55 and right >= 245) if side == "left" else (left <= 655 and right >= 845)
