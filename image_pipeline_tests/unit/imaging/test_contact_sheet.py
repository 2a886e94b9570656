"""The small picture of many, which events keep for ever."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from image_pipeline.imaging.contact_sheet import MOST, contact_sheet
from image_pipeline.imaging.metadata import find_metadata

from .builders import a_photograph, encoded, noise, pixels


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.format == "WEBP"
        return image.convert("RGB")


@pytest.mark.parametrize("count", [1, 5, 6, 7, 24, 60])
def test_noise_fits(count: int) -> None:
    """The worst that can be shown: no codec finds anything in it."""
    thumbnails = [encoded(noise(100, 100, seed=seed), "WEBP") for seed in range(count)]
    data = contact_sheet(thumbnails)
    assert len(data) <= 3700
    sheet = opened(data)
    columns, rows = min(6, count), -(-min(count, MOST) // 6)
    assert sheet.width / sheet.height == columns / rows


def test_cells_are_in_order() -> None:
    colours = [(220, 30, 30), (30, 200, 30), (30, 30, 220), (220, 220, 30), (20, 20, 20)]
    colours += [(240, 240, 240), (200, 100, 20)]
    kinds = ["WEBP", "JPEG", "AVIF"]
    thumbnails = [
        encoded(Image.new("RGB", (60, 40), one), kinds[n % 3]) for n, one in enumerate(colours)
    ]
    sheet = pixels(opened(contact_sheet(thumbnails)))
    side = sheet.shape[1] // 6
    assert sheet.shape[0] == 2 * side
    for n, colour in enumerate(colours):
        row, column = divmod(n, 6)
        found = sheet[row * side + side // 2, column * side + side // 2]
        assert np.abs(found - colour).max() < 25, n
    assert sheet[-side // 2, -side // 2].min() > 240  # where there is no picture, paper


def test_photographs_keep_their_best_size() -> None:
    thumbnails = [encoded(a_photograph(100, 100, seed), "WEBP") for seed in range(3)]
    assert opened(contact_sheet(thumbnails)).size == (3 * 72, 72)


def test_transparency_is_paper() -> None:
    """Colours under transparent pixels are not part of the picture."""
    thumbnail = encoded(Image.new("RGBA", (50, 50), (255, 0, 255, 0)), "WEBP", exact=True)
    assert pixels(opened(contact_sheet([thumbnail]))).min() > 240


def test_carries_no_metadata() -> None:
    thumbnail = encoded(noise(20, 20), "JPEG", comment=b"hello")
    assert find_metadata(contact_sheet([thumbnail])) == []


def test_the_same_pictures_give_the_same_bytes() -> None:
    thumbnails = [encoded(a_photograph(100, 100, seed), "WEBP") for seed in range(3)]
    assert contact_sheet(thumbnails) == contact_sheet(thumbnails)


def test_nothing_makes_no_sheet() -> None:
    with pytest.raises(ValueError, match="needs a picture"):
        contact_sheet([])
