"""Where to cut a thumbnail out of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Mode = Literal["attention", "entropy", "center"]

#: Longest side down to which the picture is reduced before the eye's path is guessed on it.
_SIDE = 192

#: Weight that saliency keeps at the edge of the picture, against 1 in its middle:
#: photographers put what matters near the middle, and a tie should end there.
_EDGE_WEIGHT = 0.6

#: Weight of a pixel without any interest, in steps of luma: a picture of one colour is then
#: cut in its middle.
_FLOOR = 0.01


def crop_window(
    image: Image.Image, width: int, height: int, mode: Mode
) -> tuple[int, int, int, int]:
    """The largest window of ``width``:``height`` that holds most of what catches the eye.

    Returns (left, top, right, bottom) in pixels of ``image``. ``attention`` weighs edges,
    skin tones and saturated colours, ``entropy`` only detail.
    """
    full_width, full_height = image.size
    scale = min(full_width / width, full_height / height)
    window = max(1, round(width * scale)), max(1, round(height * scale))
    free = full_width - window[0], full_height - window[1]
    if mode == "center" or free == (0, 0):
        left, top = free[0] // 2, free[1] // 2
    else:
        left, top = _best_place(image, window, free, mode)
    return left, top, left + window[0], top + window[1]


def _best_place(
    image: Image.Image, window: tuple[int, int], free: tuple[int, int], mode: Mode
) -> tuple[int, int]:
    """The place of the window with the largest sum of saliency, by an integral image."""
    import numpy as np

    weights = _saliency(image, mode)
    rows, columns = weights.shape
    high = max(1, min(rows, round(window[1] * rows / image.height)))
    wide = max(1, min(columns, round(window[0] * columns / image.width)))
    integral = np.pad(weights.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = (
        integral[high:, wide:]
        - integral[:-high, wide:]
        - integral[high:, :-wide]
        + integral[:-high, :-wide]
    )
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    x = round(free[0] * int(left) / max(1, sums.shape[1] - 1))
    y = round(free[1] * int(top) / max(1, sums.shape[0] - 1))
    return x, y


def _saliency(image: Image.Image, mode: Mode) -> NDArray[np.float64]:
    """Weights, one per pixel of a small copy."""
    import numpy as np

    small = image.reduce(max(1, max(image.size) // _SIDE))
    if small.mode == "RGBa":
        small = small.convert("RGBA")
    rgb = np.asarray(small.convert("RGB"), dtype=np.float64)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    down, right = np.gradient(luma) if min(luma.shape) > 1 else (luma * 0, luma * 0)
    weights: NDArray[np.float64] = np.hypot(down, right)
    if mode == "attention":
        spread = rgb.max(axis=2) - rgb.min(axis=2)
        weights = weights + 0.15 * spread + 12.0 * _skin(rgb, luma)
    weights += _FLOOR
    rows, columns = weights.shape
    y = np.linspace(-1, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    prior: NDArray[np.float64] = 1 - (1 - _EDGE_WEIGHT) * np.clip(np.hypot(x, y), 0, 1)
    return weights * prior


def _skin(rgb: NDArray[np.float64], luma: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels with the hue of skin of any shade: red over green over blue, neither dark nor grey."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    ordered = (red > green * 1.1) & (green > blue * 0.9) & (red < green * 2.2)
    return ordered & (luma > 40) & (luma < 235) & (red - blue > 15)
