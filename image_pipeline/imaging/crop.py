"""Where to cut a thumbnail out of a picture, and the point that its viewer looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from PIL import Image

from image_pipeline.settings import Crop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Mode = Literal["attention", "entropy"]

#: Longest side down to which the picture is reduced before the eye's path is guessed on it.
_SIDE = 192

#: Weight that saliency keeps at the edge of the picture, against 1 in its middle:
#: photographers put what matters near the middle, and a tie should end there.
_EDGE_WEIGHT = 0.6

#: Weight of a pixel without any interest, in steps of luma: a picture of one colour is then
#: cut in its middle.
_FLOOR = 0.01

#: Side of the window around a focal point, as a share of the picture's shorter side. A subject
#: takes about that much of a picture: a smaller window stops at an eye or a highlight, and one
#: that takes the shorter side whole could not say anything about it.
_SUBJECT = 0.5


def crop_window(
    image: Image.Image, width: int, height: int, crop: Crop
) -> tuple[int, int, int, int]:
    """The largest window of ``width``:``height``, where ``crop`` says.

    Returns (left, top, right, bottom) in pixels of ``image``. ``attention`` holds most of what
    catches the eye: edges, skin tones and colours unlike the rest; ``entropy`` only counts detail.
    A focal point (x, y), in shares of the sides, is in the middle as far as the edges allow.
    """
    full_width, full_height = image.size
    scale = min(full_width / width, full_height / height)
    window = max(1, round(width * scale)), max(1, round(height * scale))
    free = full_width - window[0], full_height - window[1]
    if crop == "center" or free == (0, 0):
        left, top = free[0] // 2, free[1] // 2
    elif isinstance(crop, tuple):
        left, top = (
            min(most, max(0, round(share * side - length / 2)))
            for share, side, length, most in zip(crop, image.size, window, free, strict=True)
        )
    else:
        left, top = _best_place(image, window, free, crop)
    return left, top, left + window[0], top + window[1]


def focal_point(image: Image.Image) -> tuple[float, float]:
    """The centre of what catches the eye, in shares 0-1 of width and height, three decimals.

    It is the centre of gravity of what stands out in the window with the most saliency. As a
    share of each side it fits every crop, and CSS as ``object-position`` (in per cent). A picture
    without anything to look at has it in its exact centre.
    """
    import numpy as np

    weights = _saliency(image, "attention")
    rows, columns = weights.shape
    side = min(rows, columns) * _SUBJECT
    high, wide = _centred(side, rows), _centred(side, columns)
    sums = _window_sums(weights, high, wide)
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    window = weights[top : top + high, left : left + wide]
    # The ground around a subject weighs little, but there is much of it.
    subject = np.clip((window - window.mean()).round(9), 0, None)
    window = subject if subject.any() else window
    x = (left + _gravity(window.sum(axis=0))) / columns
    y = (top + _gravity(window.sum(axis=1))) / rows
    return round(float(x), 3), round(float(y), 3)


def _centred(length: float, whole: int) -> int:
    """About ``length``, such that one place of the window is the exact middle of ``whole``."""
    window = max(1, round(length))
    return window if (whole - window) % 2 == 0 else min(window + 1, whole)


def _gravity(weights: NDArray[np.float64]) -> float:
    """Centre of gravity of pixels in a row, from the left edge of the first, in pixels."""
    import numpy as np

    return float(weights @ (np.arange(len(weights)) + 0.5) / weights.sum())


def _best_place(
    image: Image.Image, window: tuple[int, int], free: tuple[int, int], mode: Mode
) -> tuple[int, int]:
    """The place of the window with the largest sum of saliency."""
    import numpy as np

    weights = _saliency(image, mode)
    rows, columns = weights.shape
    high = max(1, min(rows, round(window[1] * rows / image.height)))
    wide = max(1, min(columns, round(window[0] * columns / image.width)))
    sums = _window_sums(weights, high, wide)
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    x = round(free[0] * int(left) / max(1, sums.shape[1] - 1))
    y = round(free[1] * int(top) / max(1, sums.shape[0] - 1))
    return x, y


def _window_sums(weights: NDArray[np.float64], high: int, wide: int) -> NDArray[np.float64]:
    """The sum of every window of ``high`` x ``wide``, by an integral image."""
    import numpy as np

    integral = np.pad(weights.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums: NDArray[np.float64] = (
        integral[high:, wide:]
        - integral[:-high, wide:]
        - integral[high:, :-wide]
        + integral[:-high, :-wide]
    )
    return sums


def _saliency(image: Image.Image, mode: Mode) -> NDArray[np.float64]:
    """Weights, one per pixel of a small copy."""
    import numpy as np

    small = image.reduce(max(1, max(image.size) // _SIDE))
    if small.mode == "RGBA":
        small = small.convert("RGBa")
    # Premultiplied: what is transparent is black, whatever colour hides there.
    levels = np.asarray(small, dtype=np.float64)
    rgb = levels[..., :3]
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    weights = _edges(luma)
    if small.mode == "RGBa":
        # The outline of a cutout is seen on any ground, a black one as well.
        weights = np.maximum(weights, _edges(levels[..., 3]))
    if mode == "attention":
        spread = rgb.max(axis=2) - rgb.min(axis=2)
        # Against what most of the picture has: a blue sky is saturated all over.
        colourful = np.abs(spread - np.median(spread))
        skin = _skin(rgb, luma)
        # Half a picture of that hue is wood or sand.
        weights = weights + 0.15 * colourful + 12.0 * max(0.0, 1 - 2 * skin.mean()) * skin
    weights += _FLOOR
    rows, columns = weights.shape
    y = (np.arange(rows)[:, None] + 0.5) / rows * 2 - 1
    x = (np.arange(columns)[None, :] + 0.5) / columns * 2 - 1
    prior: NDArray[np.float64] = 1 - (1 - _EDGE_WEIGHT) * np.clip(np.hypot(x, y), 0, 1)
    return weights * prior


def _edges(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Steepness in levels per pixel."""
    import numpy as np

    if min(levels.shape) < 2:
        return np.zeros_like(levels)
    down, right = np.gradient(levels)
    steepness: NDArray[np.float64] = np.hypot(down, right)
    return steepness


def _skin(rgb: NDArray[np.float64], luma: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels with the hue of skin of any shade: red over green over blue, neither dark nor grey."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    ordered = (red > green * 1.1) & (green > blue * 0.9) & (red < green * 2.2)
    return ordered & (luma > 40) & (luma < 235) & (red - blue > 15)
