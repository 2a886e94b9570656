"""The perceptual score, beside values of the published algorithm."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from image_pipeline.imaging.scoring import Reference, score

from .builders import a_photograph, encoded, noise

Levels = NDArray[np.uint8]


def drawn(width: int, height: int) -> Levels:
    """Waves, slopes and grain by formula, so that the values below hold for ever."""
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    waves = 60 * np.sin(x * (1 + y / height) / 9) + 40 * np.cos(y / 5)
    grain = (x * 7919 + y * 104729 + (x * y) % 977 * 31) % 61 - 30
    red = 120 + waves + grain
    green = 128 + waves * 0.8 - (x - y) * 60 / width
    blue = 100 + 0.5 * waves + y * 90 / height - grain
    return clipped(np.stack([red, green, blue], 2))


def clipped(levels: NDArray[np.float64] | NDArray[np.int_]) -> Levels:
    return np.clip(levels, 0, 255).astype(np.uint8)


def blurred(levels: Levels) -> Levels:
    height, width, _ = levels.shape
    padded = np.pad(levels.astype(int), ((1, 1), (1, 1), (0, 0)), "edge")
    around = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return clipped(np.sum(around, axis=0) // 9)


def coarse(levels: Levels) -> Levels:
    return levels // 24 * 24 + 12


def noisy(levels: Levels) -> Levels:
    return clipped(levels.astype(int) + (np.indices(levels.shape).sum(0) * 37) % 13 - 6)


def redder(levels: Levels) -> Levels:
    return clipped(levels.astype(int) + np.array([8, 0, 0]))


def in_blocks(levels: Levels) -> Levels:
    height, width, _ = levels.shape
    return np.repeat(np.repeat(levels[::4, ::4], 4, 0), 4, 1)[:height, :width]


def darker(levels: Levels) -> Levels:
    return (levels * 0.9).astype(np.uint8)


# From the published C++ code (ssimulacra2 2.1: recursive Gaussian, all 108 weights), compiled
# with double instead of float.
@pytest.mark.parametrize(
    ("change", "odd", "even"),
    [
        (blurred, 82.640103, 85.121781),
        (coarse, 77.876849, 77.836527),
        (noisy, 88.40002, 88.144043),
        (redder, 92.548678, 92.530348),
        (in_blocks, -33.894563, -13.490548),
        (darker, 65.755886, 64.255484),
    ],
)
def test_the_score_is_that_of_the_published_algorithm(
    change: Callable[[Levels], Levels], odd: float, even: float
) -> None:
    for size, expected in (((333, 217), odd), ((160, 240), even)):
        levels = drawn(*size)
        found = score(Image.fromarray(levels), Image.fromarray(change(levels)))
        assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (64, 64), (333, 217)])
def test_a_picture_is_like_itself(size: tuple[int, int]) -> None:
    picture = noise(*size)
    assert score(picture, picture) == pytest.approx(100, abs=0.01)


def test_an_original_can_be_compared_again_and_again() -> None:
    picture = a_photograph()
    others = [as_seen(picture, quality) for quality in (30, 90)]
    reference = Reference(picture)
    first = [reference.score(other) for other in others]
    assert first == [reference.score(other) for other in others]
    assert first == [score(picture, other) for other in others]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_better_encodings_score_higher(kind: str) -> None:
    reference = Reference(a_photograph())
    scores = [
        reference.score(as_seen(a_photograph(), quality, kind)) for quality in (20, 50, 75, 92)
    ]
    assert scores == sorted(scores)
    assert scores[0] < 70 < 80 < scores[-1] < 100


def test_a_loss_anywhere_in_the_picture_is_seen() -> None:
    levels = drawn(333, 217)
    height, width, _ = levels.shape
    reference = Reference(Image.fromarray(levels))
    for y in (0, height // 2, height - 12):
        for x in (0, width // 2, width - 12):
            spoilt = levels.copy()
            spoilt[y : y + 12, x : x + 12] = 128
            assert reference.score(Image.fromarray(spoilt)) < 98


def test_other_sizes_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"\(20, 10\)"):
        score(noise(10, 20), noise(20, 10))


@pytest.mark.parametrize("size", [(7, 100), (100, 7)])
def test_too_little_cannot_be_compared(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="8 x 8"):
        Reference(noise(*size))


def as_seen(picture: Image.Image, quality: int, kind: str = "JPEG") -> Image.Image:
    with Image.open(io.BytesIO(encoded(picture, kind, quality=quality))) as opened:
        return opened.convert("RGB")
