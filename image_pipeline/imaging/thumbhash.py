"""ThumbHash: a picture's colours, shape and transparency in some 25 bytes.

The format is Evan Wallace's (https://evanw.github.io/thumbhash/, reference implementation in
https://github.com/evanw/thumbhash). A page needs its few lines of script to show one; the data
URI of :mod:`image_pipeline.imaging.placeholder` needs none.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Longest side in pixels of what is encoded; the format's own bound.
SIDE = 100

#: Decimals of a coefficient that count. What is below is the noise of adding floats, which the
#: scale of a channel of one colour would otherwise blow up into a pattern.
_DECIMALS = 12


class _Channel(NamedTuple):
    """Mean, varying coefficients 0-1, and the largest of them before scaling."""

    mean: float
    varying: list[float]
    scale: float


def thumbhash(image: Image.Image) -> str:
    """The ThumbHash of a picture of any size, base64 with padding."""
    small = image.convert("RGBA")
    if max(small.size) > SIDE:
        small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return base64.b64encode(encode(small)).decode()


def encode(image: Image.Image) -> bytes:
    """The bytes of the ThumbHash of an RGBA picture of at most 100 x 100 pixels."""
    width, height = image.size
    luminance, yellow_blue, red_green, alpha = _channels(image)
    has_alpha = bool((alpha < 1).any())
    # With alpha, luminance leaves bits to it.
    most = 5 if has_alpha else 7
    wide = max(1, _rounded(most * width / max(width, height)))
    high = max(1, _rounded(most * height / max(width, height)))
    light = _channel(luminance, max(3, wide), max(3, high))
    warm, red = _channel(yellow_blue, 3, 3), _channel(red_green, 3, 3)
    landscape = width > height
    first = (
        _rounded(63 * light.mean)
        | _rounded(31.5 + 31.5 * warm.mean) << 6
        | _rounded(31.5 + 31.5 * red.mean) << 12
        | _rounded(31 * light.scale) << 18
        | has_alpha << 23
    )
    second = (
        (high if landscape else wide)
        | _rounded(63 * warm.scale) << 3
        | _rounded(63 * red.scale) << 9
        | landscape << 15
    )
    head = first.to_bytes(3, "little") + second.to_bytes(2, "little")
    varying = light.varying + warm.varying + red.varying
    if has_alpha:
        veil = _channel(alpha, 5, 5)
        head += bytes([_rounded(15 * veil.mean) | _rounded(15 * veil.scale) << 4])
        varying += veil.varying
    return head + _nibbles(varying)


def _channels(image: Image.Image) -> list[NDArray[np.float64]]:
    """Luminance, yellow-blue, red-green and alpha; rows x columns, over the average colour."""
    import numpy as np

    levels = np.asarray(image, dtype=np.float64) / 255
    colour, alpha = levels[..., :3], levels[..., 3]
    weight = alpha.sum()
    average = (colour * alpha[..., None]).sum(axis=(0, 1)) / (weight or 1.0)
    seen = average * (1 - alpha[..., None]) + colour * alpha[..., None]
    red, green, blue = seen[..., 0], seen[..., 1], seen[..., 2]
    return [(red + green + blue) / 3, (red + green) / 2 - blue, red - green, alpha]


def _channel(levels: NDArray[np.float64], wide: int, high: int) -> _Channel:
    """The lowest frequencies of a channel, ``wide`` x ``high`` cut along the diagonal."""
    low = (_cosines(levels.shape[0], high) @ levels @ _cosines(levels.shape[1], wide).T).round(
        _DECIMALS
    )
    varying = [
        float(low[y, x])
        for y in range(high)
        for x in range(wide)
        if (x or y) and x * high < wide * (high - y)
    ]
    scale = max(abs(one) for one in varying)
    if scale:
        varying = [0.5 + 0.5 / scale * one for one in varying]
    return _Channel(float(low[0, 0]), varying, scale)


def _cosines(samples: int, count: int) -> NDArray[np.float64]:
    """The first rows of a DCT-II whose constant term is the mean."""
    import numpy as np

    place, frequency = np.arange(samples)[None, :] + 0.5, np.arange(count)[:, None]
    basis: NDArray[np.float64] = np.cos(np.pi / samples * frequency * place) / samples
    return basis


def _nibbles(varying: list[float]) -> bytes:
    """Four bits each, the lower half of a byte first."""
    values = [_rounded(15 * one) for one in varying]
    if len(values) % 2:
        values.append(0)
    return bytes(low | high << 4 for low, high in zip(values[::2], values[1::2], strict=True))


def _rounded(value: float) -> int:
    """Halves up, as the reference implementation rounds."""
    return int(value + 0.5)
