"""From a drawn scene to a photograph.

A scene is drawn at a limited number of pixels, then enlarged to its final size and given a
vignette, a tone curve and, at full resolution, the grain of a sensor.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from image_pipeline.samples import outdoors
from image_pipeline.samples.canvas import Floats, Scene, grid


def develop(
    rng: np.random.Generator, picture: Floats, width: int, height: int, grain: float = 3.0
) -> Image.Image:
    """A drawn scene as a photograph of the given size in pixels.

    ``grain`` is the deviation of the sensor's noise in 8-bit levels; about 3 is what a camera
    shows at ISO 400. Half of it again is independent between the colours.
    """
    down, across = grid(*picture.shape[:2])
    aspect = picture.shape[1] / picture.shape[0]
    corner = np.hypot(across / aspect, down - 0.5) * np.sqrt(2, dtype=np.float32)
    picture = picture * (1 - 0.22 * corner**3)[..., None]
    grey = picture.mean(axis=2, keepdims=True)
    # Highlights roll off as film does; what is drawn above 1 keeps its colour for a while.
    tone = np.clip(grey + 0.92 * (picture - grey), 0, None)
    tone = np.where(tone > 0.75, 0.75 + 0.25 * np.tanh((tone - 0.75) / 0.25), tone)
    levels = (tone * 255).astype(np.uint8)
    # A lens is never sharper than its pixels; this also rounds the stairs of drawn edges.
    image = (
        Image.fromarray(levels)
        .filter(ImageFilter.GaussianBlur(0.6))
        .resize((width, height), Image.Resampling.BICUBIC)
    )
    strip = rng.standard_normal((64, 2 * width, 1), np.float32) * grain
    strip = strip + rng.standard_normal((64, 2 * width, 3), np.float32) * (grain / 2)
    noise = np.rint(strip).astype(np.int16)
    # In strips and in place: 24 megapixels exist once, 72 MB.
    for top in range(0, height, 64):
        left, bottom = int(rng.integers(width)), min(top + 64, height)
        rows = np.asarray(image.crop((0, top, width, bottom)))
        grainy = np.clip(rows + noise[: bottom - top, left : left + width], 0, 255)
        image.paste(Image.fromarray(grainy.astype(np.uint8)), (0, top))
    return image


def drawing_size(width: int, height: int, most: int) -> tuple[int, int]:
    """(height, width) to draw at: the picture's shape, with no more than ``most`` pixels."""
    shrink = min(1.0, (most / (width * height)) ** 0.5)
    return max(8, round(height * shrink)), max(8, round(width * shrink))


#: Solids are left out: they take ten times as long.
_PLACES: tuple[Scene, ...] = (
    outdoors.lake,
    outdoors.dunes,
    outdoors.sunset,
    outdoors.city,
    outdoors.forest,
    outdoors.dew,
)


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """One scene of any size (in pixels, RGB); another seed is another place, light and view.

    Meant for tests and benchmarks: about 1 s for 12 megapixels on one core.
    """
    rng = np.random.default_rng(seed)
    scene = _PLACES[int(rng.integers(len(_PLACES)))]
    picture = scene(rng, *drawing_size(width, height, 700_000))
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    return develop(rng, picture, width, height)
