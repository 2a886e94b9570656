"""ThumbHash against the reference implementation, and against its specification read backwards."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from image_pipeline.imaging.thumbhash import encode, thumbhash

from .builders import a_photograph, noise

Rule: TypeAlias = Callable[[int, int, int, int], tuple[int, int, int, int]]


def corner(x: int, y: int, w: int, h: int) -> tuple[int, int, int, int]:
    if 3 * x < w + y and 4 * y < 3 * h - x:
        return (230, 20 + 99 * x // w, 20, 255)
    return (20, 220 * y // h, 230 - 90 * x // w, 255)


def cutout(x: int, y: int, w: int, h: int) -> tuple[int, int, int, int]:
    if 9 * (3 * x - w) ** 2 + 4 * (4 * y - h) ** 2 < 4 * (w * w + h * h):
        return (250, 180 - 90 * x // w, 60, 255)
    return (255, 0, 255, 0)


#: Pictures by whole numbers alone, so that another language draws the same. None is symmetric:
#: a coefficient of exactly 0 lies between two values, and the reference leaves it to the noise
#: of its floats which one is written.
SCENES: dict[str, Rule] = {
    "stripes": lambda x, y, w, h: (
        (37 * x + 11 * y) % 256, (x * x + 3 * y) % 256, (5 * x * y + 7) % 256, 255
    ),
    "sunset": lambda x, y, w, h: (
        255 * (x + 1) * (y + 1) // ((w + 1) * (h + 1)), 200 * (y * y + x) // (h * h + w),
        255 * (w + 3 * h - x - 2 * y) // (w + 3 * h), 255,
    ),
    "corner": corner,
    "cutout": cutout,
    "veil": lambda x, y, w, h: (
        200 - 99 * x * y // (w * h), 255 * (y + x) // (h + w), 40,
        255 * (x + 1) * (y + 2) // ((w + 1) * (h + 2)),
    ),
}  # fmt: skip

#: What rgbaToThumbHash of the npm package thumbhash 0.1.1 (its author's own) makes of them,
#: run once with Node.js on these formulas.
REFERENCE = [
    ("stripes", 100, 75, "HwgCBYJGZCQgFERQZjSIgvxJfPfP"),
    ("stripes", 40, 90, "HwgCCwIzMgNCd1VH/maY2fw="),
    ("stripes", 100, 17, "HhgGEYIzMCRhVjaGd57/r4g="),
    ("stripes", 13, 100, "HhgGEQxTNgekplaH7VmQh/s="),
    ("stripes", 64, 64, "HwgCDwJEJSUwQ0R0hUZoWHdm9KzCqe8J"),
    ("sunset", 100, 75, "GPUJdYx2h4eQiIiJiHiIiHSACMdL"),
    ("sunset", 40, 90, "2PQFewyEoKeIh3iHhYAIx0s="),
    ("sunset", 100, 17, "l/UJaYh3d4eQiJiIgIIIl0w="),
    ("sunset", 13, 100, "2PQFgQxyoKeIh3iHdoAIyEs="),
    ("sunset", 64, 64, "GPUJdwyFh4eQiIeJh3d4iHeHSAiIgLwE"),
    ("corner", 100, 75, "mdYJVaB6d4eAeHeZiGd3d7/J5PpJ"),
    ("corner", 40, 90, "2ScKUx5qgJeJdoh4b8nh9yk="),
    ("corner", 100, 17, "2aUJOaB6d3eAeIeI/+rI+nk="),
    ("corner", 13, 100, "m4kGaSJ3cJd7hId3eKug9wk="),
    ("corner", 64, 64, "2eYJXx56d4iAeHeZiGd3d4eI95pLnp8E"),
    ("cutout", 100, 75, "ZsyCBIIl/CenfHeHxn96A1joMvdbVoZ2CA=="),
    ("cutout", 40, 90, "JdyCCgJGz8d6h5XPxweDg1p4n4Z3SHc="),
    ("cutout", 100, 17, "ZsyCAYI3/AeIiHj8iDhwdx9giIh3iHc="),
    ("cutout", 13, 100, "JdyCCQRXj8eIh4aPxwiHc3h3j3d3WHg="),
    ("cutout", 64, 64, "ZsyCBQI1/Te3fHeHhv23J4CEPYW/ZXZYhw=="),
    ("veil", 100, 75, "3uuBBIQk0Jezhnp3CD2rLx4Ddwh6eHeHBw=="),
    ("veil", 40, 90, "3uuBAgQUh6DYdpiHoM30IoCHoIiIeIg="),
    ("veil", 100, 17, "3vuBCYQk0JeZhofQmfeyY3CHoYd3eIg="),
    ("veil", 13, 100, "3vuBCQQUaZDYdphpkK32I3CHoIeHd3g="),
    ("veil", 64, 64, "3uuBBQQk0JfAh313mNDA/fIhgHegiIh3eA=="),
]


def drawn(name: str, width: int, height: int) -> Image.Image:
    rule = SCENES[name]
    rows = [[rule(x, y, width, height) for x in range(width)] for y in range(height)]
    return Image.fromarray(np.array(rows, dtype=np.uint8), "RGBA")


@pytest.mark.parametrize(("name", "width", "height", "expected"), REFERENCE)
def test_is_what_the_reference_makes(name: str, width: int, height: int, expected: str) -> None:
    assert thumbhash(drawn(name, width, height)) == expected


def test_of_nothing() -> None:
    """The reference's for a transparent pixel: marks of alpha and size, neutral, all zeros."""
    empty = Image.new("RGBA", (1, 1), (255, 0, 255, 0))
    assert thumbhash(empty) == "AAiCBQAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="


# --------------------------------------------------------- the specification, read backwards


def average(data: bytes) -> tuple[float, float, float, float]:
    """Red, green, blue and alpha, 0-1: the constant terms of the format."""
    bits = int.from_bytes(data[:3], "little")
    light, warm, red_green = bits & 63, bits >> 6 & 63, bits >> 12 & 63
    luminance, yellow_blue, difference = light / 63, warm / 31.5 - 1, red_green / 31.5 - 1
    blue = luminance - 2 / 3 * yellow_blue
    red = (3 * luminance - blue + difference) / 2
    return red, red - difference, blue, (data[5] & 15) / 15 if bits >> 23 else 1.0


def aspect_ratio(data: bytes) -> float:
    """Width by height, in the sevenths (fifths with alpha) that the format knows."""
    landscape, most = bool(data[4] & 0x80), 5 if data[2] & 0x80 else 7
    shorter = data[3] & 7
    return most / shorter if landscape else shorter / most


def cells(data: bytes, side: int = 8) -> NDArray[np.float64]:
    """Luminance 0-1 on a grid, from the cosine terms of the first channel."""
    bits, has_alpha = int.from_bytes(data[:3], "little"), bool(data[2] & 0x80)
    most, shorter, landscape = 5 if has_alpha else 7, data[3] & 7, bool(data[4] & 0x80)
    wide, high = (most, max(3, shorter)) if landscape else (max(3, shorter), most)
    body = data[6 if has_alpha else 5 :]
    nibbles = [half for byte in body for half in (byte & 15, byte >> 4)]
    grid = np.full((side, side), (bits & 63) / 63)
    place = (np.arange(side) + 0.5) * math.pi / side
    pairs = [(x, y) for y in range(high) for x in range(wide) if x or y]
    terms = [(x, y) for x, y in pairs if x * high < wide * (high - y)]
    for (x, y), nibble in zip(terms, nibbles, strict=False):
        strength = (nibble / 7.5 - 1) * (bits >> 18 & 31) / 31
        grid += 2 * strength * np.outer(np.cos(place * y), np.cos(place * x))
    return grid


def of(image: Image.Image) -> bytes:
    return base64.b64decode(thumbhash(image), validate=True)


@pytest.mark.parametrize("colour", ["#c81e3c", "#000000", "#ffffff", "#0a64fa", "#808080"])
def test_one_colour_has_no_pattern(colour: str) -> None:
    image = Image.new("RGB", (40, 30), colour)
    data = of(image)
    expected = np.array(image.getpixel((0, 0))) / 255
    assert np.abs(np.array(average(data)[:3]) - expected).max() < 0.05
    assert np.ptp(cells(data)) == 0
    assert set(data[5:]) == {0}  # nor the noise of adding floats in its place


@given(
    width=st.integers(1, 300), height=st.integers(1, 300), seed=st.integers(0, 50),
    alpha=st.booleans(),
)  # fmt: skip
def test_average_and_shape_of_anything(width: int, height: int, seed: int, alpha: bool) -> None:
    image = noise(width, height, 3 + alpha, seed)
    data = of(image)
    assert len(data) <= 25
    assert bool(data[2] & 0x80) == (alpha and image.getchannel("A").getextrema() != (255, 255))
    levels = np.asarray(image.convert("RGBA"), dtype=float) / 255
    weights = levels[..., 3:]
    expected = (levels[..., :3] * weights).sum(axis=(0, 1)) / max(1e-9, weights.sum())
    if weights.sum() > 0:
        assert np.abs(np.array(average(data)[:3]) - expected).max() < 0.06
    assert abs(average(data)[3] - weights.mean()) < 0.05
    most = 5 if data[2] & 0x80 else 7
    shown = min(most, max(1, most * min(width, height) / max(width, height)))
    ratio = aspect_ratio(data)
    assert abs(min(ratio, 1 / ratio) * most - shown) <= 0.51
    assert (ratio > 1) == (width > height and ratio != 1)


def test_light_is_where_it_was() -> None:
    image = Image.new("RGB", (200, 150), "#202020")
    image.paste("#f0f0f0", (110, 10, 190, 70))
    grid = cells(of(image))
    assert np.unravel_index(grid.argmax(), grid.shape) in {(1, 5), (1, 6), (2, 5), (2, 6)}


def test_a_large_picture_has_the_hash_of_its_small_copy() -> None:
    picture = a_photograph(640, 480)
    expected = encode(picture.convert("RGBA").resize((100, 75), Image.Resampling.BOX))
    found = of(picture)
    assert found[:5] == expected[:5]
    assert np.abs(cells(found) - cells(expected)).max() < 0.05


def test_hidden_colours_do_not_show() -> None:
    image = Image.new("RGBA", (300, 300), (255, 0, 255, 0))
    image.paste((0, 160, 0, 255), (40, 40, 211, 257))
    red, green, blue, _ = average(of(image))
    assert (round(red, 1), round(green, 1), round(blue, 1)) == (0.0, 0.6, 0.0)
