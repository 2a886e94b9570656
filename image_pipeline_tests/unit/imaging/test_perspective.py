"""Warps against what geometry says: every expected value is worked out apart from the code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from image_pipeline.imaging import perspective
from image_pipeline.imaging.mockup_template import quad_fault
from image_pipeline.imaging.perspective import (
    UNIT,
    Drawn,
    Point,
    Quad,
    coverage,
    drawn,
    extents,
    homography,
    project,
    tiles,
)

from .builders import a_photograph

Floats = NDArray[np.floating]

#: A strong perspective: the far side is 0.55 of the near one.
STEEP: Quad = ((40.3, 30.7), (420.6, 110.2), (415.1, 330.4), (52.8, 431.9))

#: Rows of a homography from the unit square, made from a rotation, a shift and two vanishing
#: terms, none of them found by solving for corners.
KNOWN = np.array([[310.0, -45.0, 70.0], [60.0, 250.0, 40.0], [0.35, -0.12, 1.0]])


def by_hand(matrix: Floats, x: float, y: float) -> Point:
    """What a homography does to a point, by its definition."""
    weight = matrix[2][0] * x + matrix[2][1] * y + matrix[2][2]
    return (
        (matrix[0][0] * x + matrix[0][1] * y + matrix[0][2]) / weight,
        (matrix[1][0] * x + matrix[1][1] * y + matrix[1][2]) / weight,
    )


def whole(draw: Drawn, width: int, height: int) -> Floats:
    """All of a picture, (height, width, 4), assembled from its tiles."""
    pixels = np.zeros((height, width, 4), np.float32)
    for left, top, right, bottom in tiles((0, 0, width, height)):
        pixels[top:bottom, left:right] = draw((left, top, right, bottom))
    return pixels


def picture(levels: Floats) -> Image.Image:
    return Image.fromarray(np.rint(levels).astype(np.uint8)).convert("RGB")


@st.composite
def quads(draw: st.DrawFn) -> Quad:
    """Corners around a point, one in each quarter turn; most are convex, from flat to steep."""
    x, y, turn = draw(st.tuples(st.floats(0, 2000), st.floats(0, 2000), st.floats(0, 6.28)))
    corners = []
    for quarter in range(4):
        angle = turn + (quarter + draw(st.floats(-0.4, 0.4))) * math.pi / 2
        radius = draw(st.floats(20, 1500))
        corners.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    one, two, three, four = corners
    return one, two, three, four


@given(quad=quads())
def test_corners_land_on_the_quad_and_the_inverse_takes_them_back(quad: Quad) -> None:
    assume(quad_fault(quad) is None)
    matrix = homography(UNIT, quad)
    for corner, expected in zip(UNIT, quad, strict=True):
        assert by_hand(matrix, *corner) == pytest.approx(expected, abs=1e-5)
    points = np.array([*UNIT, (0.5, 0.5), (0.2, 0.9)])
    back = project(np.linalg.inv(matrix), project(matrix, points))
    assert back == pytest.approx(points, abs=1e-6)


def test_a_known_homography_is_found_from_its_corners() -> None:
    corners = tuple(by_hand(KNOWN, *corner) for corner in UNIT)
    assert homography(UNIT, corners) == pytest.approx(KNOWN, rel=1e-9)


def test_the_warp_of_a_smooth_function_is_that_function() -> None:
    """A function of (u, v), drawn as a design and warped, against its value at each pixel."""

    def value(u: Floats, v: Floats) -> Floats:
        return 128 + 70 * np.sin(2 * math.pi * (1.5 * u + 0.3)) * np.cos(2 * math.pi * v) + 40 * u

    v, u = (np.mgrid[0:600, 0:900] + 0.5) / np.array([600, 900])[:, None, None]
    one, two, three, four = (by_hand(KNOWN, *corner) for corner in UNIT)
    draw = drawn(picture(value(u, v)), (0, 0, 900, 600), (one, two, three, four))
    found = whole(draw, 340, 300)

    inverse = np.linalg.inv(KNOWN)
    rows, columns = np.mgrid[0:300, 0:340] + 0.5
    weight = inverse[2, 0] * columns + inverse[2, 1] * rows + inverse[2, 2]
    u = (inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]) / weight
    v = (inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]) / weight
    # Of the 300 pixels of a side, one at the edge: filters see the edge repeated there.
    inside = (u > 0.01) & (u < 0.99) & (v > 0.01) & (v < 0.99)
    assert inside.mean() > 0.4
    errors = np.abs(found[..., 0] * 255 - value(u, v))[inside]
    # Three roundings to 8 bits on the way.
    assert errors.mean() < 0.6
    assert errors.max() < 2.5
    outside = (u < -0.01) | (u > 1.01) | (v < -0.01) | (v > 1.01)
    assert not found[outside].any()


def test_an_identity_leaves_every_pixel_what_it_is() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    corners: Quad = ((0.0, 0.0), (80.0, 0.0), (80.0, 60.0), (0.0, 60.0))
    found = whole(drawn(Image.fromarray(levels), (0, 0, 80, 60), corners), 80, 60)
    assert np.array_equal(np.rint(found[..., :3] * 255), levels)
    assert (found[..., 3] == 1).all()


def test_scaling_is_a_resize() -> None:
    """A ramp, reduced three times, has the mean of its thirds; it is also moved."""
    ramp = np.tile(np.arange(0, 240, dtype=np.float64), (90, 1))
    corners: Quad = ((5.0, 7.0), (85.0, 7.0), (85.0, 37.0), (5.0, 37.0))
    found = whole(drawn(picture(ramp), (0, 0, 240, 90), corners), 100, 50) * 255
    expected = ramp[0].reshape(80, 3).mean(axis=1)
    assert np.abs(found[7:37, 8:82, 0] - expected[3:77]).max() <= 1
    assert not found[:7].any()
    assert not found[:, :5].any()
    assert not found[37:].any()
    assert not found[:, 85:].any()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_turns_the_pixels(turns: int) -> None:
    """Numpy's own rotation is what is expected; the sampling in between costs little."""
    v, u = np.mgrid[0:64, 0:64] / 64
    levels = 128 + 60 * np.sin(5 * u) + 50 * np.cos(4 * v + u)
    corners = [(64.0, 0.0), (64.0, 64.0), (0.0, 64.0), (0.0, 0.0)]
    turned = tuple(corners[(at + turns - 1) % 4] for at in range(4))
    found = whole(drawn(picture(levels), (0, 0, 64, 64), turned), 64, 64)  # type: ignore[arg-type]
    expected = np.rot90(np.rint(levels), -turns)
    errors = np.abs(found[..., 0] * 255 - expected)
    assert errors[3:-3, 3:-3].max() <= 2
    assert errors.mean() < 0.7


def checkerboard(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    return picture((rows + columns) % 2 * 255.0)


def test_a_checkerboard_of_single_pixels_becomes_mid_grey() -> None:
    draw = drawn(checkerboard(1600, 1600), (0, 0, 1600, 1600), STEEP)
    found = whole(draw, 460, 460)
    inside = found[..., 3] == 1
    assert inside.sum() > 80_000
    levels = found[inside][:, 0] * 255
    assert np.abs(levels - 127.5).max() < 4


def test_a_zone_plate_shows_no_rings_that_are_not_in_it() -> None:
    """Its frequency grows outwards. What a pixel cannot show has to be grey, not other rings."""
    side = 2000
    rows, columns = np.mgrid[0:side, 0:side] - side / 2
    radius = np.hypot(rows, columns)
    # cos(pi r^2 / side): r / side cycles per pixel, half a cycle at the middle of each side.
    plate = picture(127.5 + 127.5 * np.cos(math.pi * radius**2 / side))
    found = whole(drawn(plate, (0, 0, side, side), STEEP), 460, 460)
    seen = project(
        homography(STEEP, UNIT),
        np.stack([one.ravel() for one in (np.mgrid[0:460, 0:460] + 0.5)[::-1]], axis=1),
    ).reshape(460, 460, 2)
    # A pixel is 2.9 pixels of the design or more, in any direction: from 400 pixels off its middle
    # on, at 0.2 cycles per pixel there and 0.58 here, there is nothing that pixels can show.
    away = np.hypot(*(seen - 0.5).transpose(2, 0, 1)) * side
    # At its very edge, half a wave has no other half to make it grey.
    inner = np.abs(seen - 0.5).max(axis=2) < 0.49
    beyond = inner & (away > 400)
    assert beyond.sum() > 80_000
    assert np.abs(found[beyond][:, 0] * 255 - 127.5).max() < 4
    # And what can be shown is: near the middle there are black and white rings.
    near = found[..., 0][away < 120] * 255
    assert near.max() > 245
    assert near.min() < 10


def test_the_near_side_is_as_sharp_as_if_it_stood_alone() -> None:
    """The prefilter follows the scale: it does not blur the near side for the far one's sake."""
    stripes = picture(np.tile(np.arange(1200) % 24 // 12 * 255.0, (1200, 1)))
    steep: Quad = ((10.0, 10.0), (600.0, 250.0), (600.0, 350.0), (10.0, 590.0))
    found = whole(drawn(stripes, (0, 0, 1200, 1200), steep), 610, 600)
    near = found[300, 14:60, 0] * 255
    # 24 pixels of the design are about 30 here: each stripe reaches its full level.
    assert near.max() > 250
    assert near.min() < 5


def test_tiles_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # On something smooth, where a seam would be seen and no grain hides it.
    design = a_photograph(900, 600).filter(ImageFilter.GaussianBlur(4))
    draw = drawn(design, (0, 0, 900, 600), STEEP)
    as_usual = whole(draw, 460, 460)
    monkeypatch.setattr(perspective, "_SIDE", 67)
    in_parts = whole(draw, 460, 460)
    # Each pixel has been rounded five times on its way.
    assert np.abs(as_usual - in_parts).max() * 255 < 5
    assert np.abs(as_usual - in_parts).mean() * 255 < 0.5


def test_edges_are_covered_by_their_share() -> None:
    """Coverage against 64 x 64 points per pixel, each inside or outside."""
    quad: Quad = ((2.3, 1.6), (17.8, 4.1), (15.2, 18.7), (4.4, 16.2))
    fine = (np.arange(20 * 64) + 0.5) / 64
    x, y = np.meshgrid(fine, fine)
    inside = np.ones_like(x, bool)
    for (ax, ay), (bx, by) in zip(quad, quad[1:] + quad[:1], strict=True):
        inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0
    expected = inside.reshape(20, 64, 20, 64).mean(axis=(1, 3))
    found = coverage(quad, (0, 0, 20, 20))
    corners = np.zeros((20, 20), bool)
    for x0, y0 in quad:
        corners[int(y0), int(x0)] = True
    assert np.abs(found - expected)[~corners].max() < 0.01
    # A product is right where two sides are square to each other, and near it elsewhere.
    assert np.abs(found - expected)[corners].max() < 0.1
    assert found.sum() == pytest.approx(expected.sum(), abs=0.3)


def test_no_colour_from_outside_the_design_or_from_under_transparency() -> None:
    """Red on nothing, with green hidden where it is transparent: no pixel is anything but red."""
    levels = np.zeros((300, 300, 4), np.uint8)
    levels[..., 1] = 255
    levels[60:240, 60:240] = (255, 0, 0, 255)
    design = Image.fromarray(levels).convert("RGBa")
    found = whole(drawn(design, (0, 0, 300, 300), STEEP), 460, 460)
    alpha = found[..., 3]
    assert ((alpha > 0.2) & (alpha < 0.8)).sum() > 100  # edges are soft
    assert found[..., 1].max() < 1.5 / 255
    assert np.abs(found[..., 0] - alpha).max() < 4 / 255


def test_a_picture_keeps_its_colour_up_to_its_edge() -> None:
    """Weighted by alpha, a white design is white at its edge too: neither dark nor light."""
    found = whole(drawn(Image.new("RGB", (200, 200), "white"), (0, 0, 200, 200), STEEP), 460, 460)
    alpha = found[..., 3]
    assert ((alpha > 0.1) & (alpha < 0.9)).sum() > 200
    assert np.abs(found[..., :3] - alpha[..., None]).max() < 1.5 / 255


def test_the_corner_of_the_base_may_lie_on_the_vanishing_line() -> None:
    """Its weight is nothing there, and coefficients are divided by a weight."""
    # The left and the right side meet at (150, 0), and the others never: the line is y = 0. By
    # similar triangles u = (x + y / 2 - 150) / y and v = (3 y / 2 - 150) / y.
    quad: Quad = ((100.0, 100.0), (200.0, 100.0), (300.0, 300.0), (0.0, 300.0))
    ramp = picture(np.tile(np.arange(256.0), (256, 1)))
    draw = drawn(ramp, (0, 0, 256, 256), quad)
    # Three pixels around a tile are drawn with it, so that the grid of this one begins there.
    found = draw((100, 3, 200, 130))
    y, x = np.mgrid[3:130, 100:200] + 0.5
    u = (x + y / 2 - 150) / y
    inside = (found[..., 3] == 1) & (u > 0.03) & (u < 0.97)
    assert inside.sum() > 2000
    assert np.abs(found[..., 0] * 255 - (u * 256 - 0.5))[inside].max() < 2


def test_extents_are_those_of_the_nearest_part() -> None:
    wide, high = extents(((0.0, 0.0), (300.0, 0.0), (300.0, 200.0), (0.0, 200.0)))
    assert (wide, high) == pytest.approx((300, 200))
    # Halving the far side: with weights 1 and 2, the near side moves twice as fast as the mean.
    steep: Quad = ((0.0, 0.0), (100.0, 50.0), (100.0, 150.0), (0.0, 200.0))
    matrix = homography(UNIT, steep)
    step = 1e-6
    here, there = by_hand(matrix, 0, 0), by_hand(matrix, step, 0)
    assert extents(steep)[0] == pytest.approx(math.dist(here, there) / step, rel=1e-3)
