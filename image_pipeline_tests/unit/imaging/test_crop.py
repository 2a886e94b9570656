"""Where thumbnails are cut, and where the eye goes, on scenes whose subject is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from image_pipeline.imaging.crop import crop_window, focal_point
from image_pipeline.settings import Crop

from .builders import a_photograph, noise

MODES: list[Crop] = ["attention", "entropy", "center", (0.1, 0.8)]


@given(
    width=st.integers(1, 400), height=st.integers(1, 400),
    wide=st.integers(1, 500), high=st.integers(1, 500),
    mode=st.sampled_from(MODES), seed=st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=150)
def test_a_window_of_the_right_shape_inside_the_picture(
    width: int, height: int, wide: int, high: int, mode: Crop, seed: int
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
def test_finds_a_bright_object(mode: Crop, along: int, upright: bool) -> None:
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


@given(
    width=st.integers(1, 400), height=st.integers(1, 400),
    x=st.floats(0, 1), y=st.floats(0, 1),
)  # fmt: skip
def test_a_crop_around_a_point(width: int, height: int, x: float, y: float) -> None:
    """The point is in the window, and in its middle unless an edge of the picture is nearer."""
    window = crop_window(Image.new("RGB", (width, height)), 3, 2, (x, y))
    for share, side, start, end in ((x, width, *window[::2]), (y, height, *window[1::2])):
        assert start <= share * side <= end
        away = share * side - (start + end) / 2
        assert abs(away) <= 0.5001 or (start == 0 and away < 0) or (end == side and away > 0)


def test_a_point_in_numbers() -> None:
    image = Image.new("RGB", (900, 300))
    assert crop_window(image, 1, 1, (0.5, 0.5)) == (300, 0, 600, 300)
    assert crop_window(image, 1, 1, (0.7, 0.1)) == (480, 0, 780, 300)
    assert crop_window(image, 1, 1, (0.0, 1.0)) == (0, 0, 300, 300)
    assert crop_window(image, 1, 1, (1.0, 0.0)) == (600, 0, 900, 300)


@pytest.mark.parametrize("mode", ["attention", "entropy", "center"])
@pytest.mark.parametrize("colour", ["white", "black", "#c08060"])
def test_a_picture_of_one_colour_is_cut_in_its_middle(mode: Crop, colour: str) -> None:
    left, top, right, bottom = crop_window(Image.new("RGB", (900, 300), colour), 1, 1, mode)
    assert (right - left, bottom - top) == (300, 300)
    assert abs(left - 300) <= 5


@pytest.mark.parametrize("mode", MODES)
def test_the_same_picture_is_cut_in_the_same_place(mode: Crop) -> None:
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


def test_a_ground_of_one_loud_colour_is_no_subject() -> None:
    """A red square on a saturated blue one, and a grey one on wood: each at an edge."""
    for ground, colour in (((40, 90, 140), (220, 30, 30)), ((150, 100, 60), (120, 120, 125))):
        image = Image.new("RGB", (900, 300), ground)
        image.paste(colour, (10, 100, 110, 200))
        assert crop_window(image, 1, 1, "attention")[0] <= 10
        assert abs(focal_point(image)[0] * 900 - 60) <= 20


# ---------------------------------------------------------------------------------- focal point


@pytest.mark.parametrize(
    "centre", [(60, 300), (840, 300), (450, 60), (450, 540), (200, 150), (700, 420), (450, 300)]
)
def test_focal_point_is_on_the_subject(centre: tuple[int, int]) -> None:
    x, y = focal_point(spot((900, 600), centre))
    assert abs(x * 900 - centre[0]) <= 20  # the subject is 80 pixels wide
    assert abs(y * 600 - centre[1]) <= 20


def test_focal_point_of_a_subject_in_a_scene() -> None:
    """A textured, lit ground instead of an empty one; the subject is at the far right."""
    image = a_photograph(900, 600, 2).reduce(30).resize((900, 600)).point(lambda level: level // 3)
    image.paste(spot((900, 600), (800, 200)).crop((760, 160, 840, 240)), (760, 160))
    x, y = focal_point(image)
    assert abs(x * 900 - 800) <= 45
    assert abs(y * 600 - 200) <= 45


@pytest.mark.parametrize("centre", [(200, 150), (700, 420), (800, 200)])
def test_a_busy_ground_does_not_pull_the_focal_point_away(centre: tuple[int, int]) -> None:
    """The window leans to the middle of the picture; the point stays on the subject in it."""
    busy = noise(900, 600).filter(ImageFilter.GaussianBlur(3))
    image = Image.blend(Image.new("RGB", busy.size, (90, 100, 110)), busy, 0.5)
    x, y = centre
    around = (x - 40, y - 40, x + 40, y + 40)
    image.paste(spot((900, 600), centre).crop(around), around[:2])
    found = focal_point(image)
    assert abs(found[0] * 900 - x) <= 10
    assert abs(found[1] * 600 - y) <= 10


def test_of_two_subjects_it_is_on_one() -> None:
    """Between them is nothing to see. Alike and equally far from the centre, either is right."""
    image = spot((900, 300), (150, 150))
    image.paste(spot((900, 300), (750, 150)).crop((450, 0, 900, 300)), (450, 0))
    x, y = focal_point(image)
    assert min(abs(x * 900 - 150), abs(x * 900 - 750)) <= 20
    assert abs(y * 300 - 150) <= 20


def test_of_two_subjects_the_one_nearer_to_the_centre_counts() -> None:
    image = spot((900, 300), (60, 150))
    image.paste(spot((900, 300), (600, 150)).crop((450, 0, 900, 300)), (450, 0))
    assert abs(focal_point(image)[0] * 900 - 600) <= 20


def test_two_subjects_side_by_side_are_seen_as_one() -> None:
    image = spot((900, 600), (300, 200))
    image.paste(spot((900, 600), (420, 200)).crop((361, 0, 900, 600)), (361, 0))
    x, y = focal_point(image)
    assert abs(x * 900 - 360) <= 20
    assert abs(y * 600 - 200) <= 20


@given(
    width=st.integers(1, 700), height=st.integers(1, 700),
    colour=st.sampled_from(["white", "black", "#c08060", "#00000000", "#c0806080"]),
)  # fmt: skip
def test_a_picture_of_one_colour_is_looked_at_in_its_centre(
    width: int, height: int, colour: str
) -> None:
    mode = "RGBA" if len(colour) == 9 else "RGB"
    assert focal_point(Image.new(mode, (width, height), colour)) == (0.5, 0.5)


@pytest.mark.parametrize("size", [(900, 600), (899, 601), (300, 301)])
def test_a_subject_in_the_middle(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (70, 75, 80))
    left, top = size[0] // 3, size[1] // 3
    image.paste((250, 180, 60), (left, top, size[0] - left, size[1] - top))
    assert np.abs(np.array(focal_point(image)) - 0.5).max() <= 0.004


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 90, 90), (250, 180, 60)])
def test_a_cutout_is_the_subject_whatever_hides_around_it(colour: tuple[int, int, int]) -> None:
    """Noise under full transparency is not seen; a black shape on nothing is."""
    image = noise(900, 600).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    ImageDraw.Draw(image).ellipse((640, 340, 800, 500), fill=(*colour, 255))
    for picture in (image, image.convert("RGBa")):
        x, y = focal_point(picture)
        assert abs(x * 900 - 720) <= 20
        assert abs(y * 600 - 420) <= 20


@given(width=st.integers(1, 300), height=st.integers(1, 300), seed=st.integers(0, 20))
def test_focal_points_are_shares_with_three_decimals(width: int, height: int, seed: int) -> None:
    for share in focal_point(noise(width, height, 3 + seed % 2, seed)):
        assert 0 < share < 1
        assert share == round(share, 3)


@pytest.mark.parametrize("centre", [(60, 300), (840, 300), (450, 70), (450, 530)])
@pytest.mark.parametrize("box", [(1, 1), (1, 2), (3, 1)])
def test_as_object_position_it_keeps_the_subject_in_view(
    centre: tuple[int, int], box: tuple[int, int]
) -> None:
    """CSS puts the point x % across the picture at x % across the box (css-images-3, 5.5)."""
    shares = focal_point(spot((900, 600), centre))
    scale = max(box[0] / 900, box[1] / 600)
    for share, side, length, at in zip(shares, (900, 600), box, centre, strict=True):
        start = share * (side - length / scale)
        assert start <= at <= start + length / scale


def test_a_small_copy_has_the_focal_point_of_the_picture() -> None:
    picture = a_photograph(1500, 1000, 4)
    whole, small = focal_point(picture), focal_point(picture.resize((750, 500)))
    assert np.abs(np.array(whole) - small).max() <= 0.03
