"""The transparent colour of a PNG, at depths where Pillow compares it with other numbers.

A PNG without an alpha channel may name one colour that is transparent, in samples of its own
depth (PNG, third edition, 11.3.1.1). Pillow has scaled 2 and 4 bits to 8 by then, and keeps the
upper half of 16-bit colours only.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile


def with_transparent_colour(opened: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """A loaded PNG whose transparent colour, if it names one, is found by Pillow or is alpha.

    ``data`` is the file. Grey of 2 and 4 bits gets ``info["transparency"]`` in levels of 8 bits;
    grey and colours of 16 bits come back as RGBA.
    """
    key, depth = opened.info.get("transparency"), data[24]
    if opened.mode == "L" and isinstance(key, int) and depth < 8:
        highest = 2**depth - 1
        opened.info["transparency"] = (key & highest) * 255 // highest
    elif opened.mode == "I;16" and isinstance(key, int):
        levels = np.asarray(opened)
        return _with_alpha(Image.fromarray((levels >> 8).astype(np.uint8)), levels != key)
    elif opened.mode == "RGB" and isinstance(key, tuple) and depth == 16:
        upper, lower = np.asarray(opened), _lower_bytes(data)
        same = (upper == [value >> 8 for value in key]) & (lower == [value & 255 for value in key])
        return _with_alpha(opened, ~same.all(axis=2))
    return opened


def _with_alpha(image: Image.Image, opaque: NDArray[np.bool_]) -> Image.Image:
    image = image.convert("RGB")  # a copy if it is RGB already, so that what was opened stays
    image.info.pop("transparency", None)
    image.putalpha(Image.fromarray(opaque))
    return image


def _lower_bytes(data: bytes) -> NDArray[np.uint8]:
    """The lower halves of 16-bit colours: the file once more, read in the other byte order."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as opened:
        opened.tile = [part._replace(args="RGB;16L") for part in opened.tile]
        return np.array(opened)
