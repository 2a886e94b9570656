"""Templates of mockups, drawn: a framed poster, a bag and a shirt.

Each is a base picture and the light that falls on it. The same light is a layer of the template,
so that a design lies in the same shadows and folds as the product around it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFilter

from image_pipeline.imaging.mockup_template import DESCRIPTION
from image_pipeline.imaging.perspective import Quad, homography, project
from image_pipeline.samples.canvas import Floats, bilinear, grid, mix, noise, rgb, smoothstep

#: What a template is drawn as: the base, its other pictures by file name, and its description.
_Drawn = tuple[Floats, dict[str, Floats], dict[str, Any]]

#: Width and height of the bases at scale 1, in pixels.
_POSTER, _BAG, _SHIRT = (2000, 1500), (1600, 2000), (2000, 2000)


def template_files(name: str, scale: float = 1.0) -> dict[str, bytes]:
    """The files of a template of :data:`TEMPLATES` by name, its description among them.

    ``scale`` multiplies both sides of its pictures.
    """
    rng = np.random.default_rng(TEMPLATES.index(name))
    base, layers, description = _DRAWERS[name](rng, scale)
    texture = rng.standard_normal(base.shape[:2], np.float32)[..., None] * 0.007
    files = {"base.jpg": _saved(base + texture, "JPEG", quality=92, subsampling=0)}
    files.update({file: _saved(light, "PNG") for file, light in layers.items()})
    files[DESCRIPTION] = yaml.safe_dump(description, sort_keys=False).encode()
    return files


def write_templates(folder: Path, scale: float = 1.0) -> list[Path]:
    """Write every template into a folder of its own and return these."""
    for name in TEMPLATES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, data in template_files(name, scale).items():
            (folder / name / file).write_bytes(data)
    return [folder / name for name in TEMPLATES]


def _saved(picture: Floats, form: str, **options: Any) -> bytes:
    levels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, form, **options)
    return file.getvalue()


def _pixels(size: tuple[int, int], scale: float) -> tuple[int, int]:
    width, height = (max(16, round(side * scale)) for side in size)
    return width, height


def _rectangle(x: Floats, y: Floats, box: tuple[float, float, float, float], soft: float) -> Floats:
    """1 inside (left, top, right, bottom), 0 outside, ``soft`` wide from one to the other."""
    left, top, right, bottom = box
    inside = np.minimum(np.minimum(x - left, right - x), np.minimum(y - top, bottom - y))
    return smoothstep(-soft / 2, soft / 2, inside)


#: Where the camera sees the corners of a wall of 240 x 180 cm, in shares of the picture.
_WALL: Quad = ((-0.30, -0.32), (1.24, -0.12), (1.22, 1.10), (-0.32, 1.30))


def _poster(rng: np.random.Generator, scale: float) -> _Drawn:
    """A poster of 90 x 60 cm in an oak frame with a mount, on a wall that the sun falls on."""
    width, height = _pixels(_POSTER, scale)
    seen = tuple((x * width, y * height) for x, y in _WALL)
    wall: Quad = ((0.0, 0.0), (240.0, 0.0), (240.0, 180.0), (0.0, 180.0))
    matrix = homography(seen, wall)
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    places = project(matrix, np.column_stack([columns.ravel(), rows.ravel()]))
    x, y = (places[:, axis].reshape(height, width).astype(np.float32) for axis in (0, 1))
    light = _sunlit(x, y)
    paint = noise(rng, 512, 512, 0.9)
    plaster = 1 + 0.012 * bilinear(paint, y * 7, x * 7)
    sharp = 240 / width
    colour = rgb(0.80, 0.78, 0.74) * plaster[..., None]
    colour = _framed(rng, x, y, colour, sharp)
    shadow = _rectangle(x, y, (72.5, 49.5, 177, 125), 5) * (1 - _rectangle(x, y, _FRAME, sharp))
    light = light * (1 - 0.45 * shadow)
    inner = _rectangle(x - 0.9, y - 1.4, _MOUNT, 2.2)
    paper = _rectangle(x, y, _MOUNT, sharp)
    light = light * (1 - 0.35 * paper * (1 - inner))
    corners = np.array([(75, 50), (165, 50), (165, 110), (75, 110)], np.float64)
    quad = project(homography(wall, seen), corners)
    glass = paper * smoothstep(0.25, 0.9, np.sin((x * 1.1 + y * 0.5) / 34 + 0.6)) * 0.09
    description = {
        "base": "base.jpg",
        "place": {
            "quad": [[round(float(one), 2) for one in corner] for corner in quad],
            "aspect": 1.5,
        },
        "layers": [
            {"file": "light.png", "mode": "multiply"},
            {"file": "glass.png", "mode": "screen"},
        ],
    }
    return colour * light[..., None], {"light.png": light, "glass.png": glass}, description


#: Left, top, right, bottom on the wall in cm: of the frame, and of what it shows of the mount.
_FRAME = (67.0, 42.0, 173.0, 118.0)
_MOUNT = (69.4, 44.4, 170.6, 115.6)


def _sunlit(x: Floats, y: Floats) -> Floats:
    """Daylight in a room, and sun through a window with four panes."""
    away = np.hypot(x - 60, y - 40) / 260
    light = 0.84 - 0.22 * away
    across, down = x + 0.42 * y, y - 0.18 * x
    sun = np.zeros_like(x)
    for column in range(3):
        for row in range(3):
            left, top = 66 + column * 47, -18 + row * 58
            sun += _rectangle(across, down, (left, top, left + 42, top + 53), 3.5)
    return np.asarray(np.clip(light + 0.24 * sun * (1 - 0.5 * away), 0, 1), np.float32)


def _framed(rng: np.random.Generator, x: Floats, y: Floats, wall: Floats, sharp: float) -> Floats:
    """The wall with a frame, a mount and a blank sheet."""
    left, top, right, bottom = _FRAME
    sides = np.stack([x - left, y - top, right - x, bottom - y])
    nearest = np.argmin(sides, axis=0)
    grain = noise(rng, 512, 512, 1.2)
    along = np.where(nearest % 2 == 0, y, x)
    rings = bilinear(grain, along * 3, np.min(sides, axis=0) * 60 + nearest * 91)
    oak = mix(rgb(0.50, 0.34, 0.20), rgb(0.66, 0.48, 0.31), smoothstep(-1.8, 1.8, rings))
    faces = np.array([0.86, 1.12, 0.96, 0.74], np.float32)[nearest]
    edge = 1 - 0.35 * smoothstep(0.45, 0.1, np.min(sides, axis=0))
    picture = mix(wall, oak * (faces * edge)[..., None], _rectangle(x, y, _FRAME, sharp))
    mount = np.broadcast_to(rgb(0.95, 0.945, 0.93), picture.shape)
    picture = mix(picture, mount, _rectangle(x, y, _MOUNT, sharp))
    cut = np.broadcast_to(rgb(0.80, 0.79, 0.77), picture.shape)
    picture = mix(picture, cut, _rectangle(x, y, (74.6, 49.6, 165.4, 110.4), sharp))
    sheet = np.broadcast_to(rgb(0.98, 0.98, 0.975), picture.shape)
    return mix(picture, sheet, _rectangle(x, y, (75, 50, 165, 110), sharp))


def _cloth(rng: np.random.Generator, height: int, width: int, depth: float) -> Floats:
    """Light on hanging cloth, around 0.87: folds that run down, creases and the weave."""
    light = np.full((height, width), 0.87, np.float32)
    for slope, long, strength in ((2.9, 3, 0.065), (2.3, 2, 0.028)):
        relief = Image.fromarray(noise(rng, max(8, height // long), width, slope))
        surface = np.asarray(relief.resize((width, height), Image.Resampling.BICUBIC))
        # Lit from the upper left.
        tilt = np.gradient(surface, axis=1) + 0.6 * np.gradient(surface, axis=0)
        light += depth * strength * np.tanh(tilt / (1.2 * tilt.std()))
    weave = 0.008 * noise(rng, height, width, 0.1)
    return np.asarray(np.clip(light + weave, 0.35, 1), np.float32)


def _outline(size: tuple[int, int], points: list[tuple[float, float]], rounding: float) -> Floats:
    """1 inside a shape whose points are in shares of the width, its corners rounded."""
    width, height = size
    shape = Image.new("L", (2 * width, 2 * height))
    ImageDraw.Draw(shape).polygon([(2 * x * width, 2 * y * width) for x, y in points], fill=255)
    soft = shape.filter(ImageFilter.GaussianBlur(max(1.0, 2 * rounding * width))).reduce(2)
    # A narrow step through the middle of the blur: rounded, and sharp again.
    step = 0.5 / max(1.0, rounding * width)
    levels = np.asarray(soft, np.float32) / 255
    return smoothstep(0.5 - step, 0.5 + step, levels)


def _shadowed(wall: Floats, shape: Floats, shift: tuple[float, float], soft: float) -> Floats:
    """A wall with the shadow of something that hangs before it."""
    width = shape.shape[1]
    image = Image.fromarray((shape * 255).astype(np.uint8))
    moved = Image.new("L", image.size)
    moved.paste(image, (round(shift[0] * width), round(shift[1] * width)))
    blurred = moved.filter(ImageFilter.GaussianBlur(soft * width))
    return np.asarray(wall * (1 - 0.42 * np.asarray(blurred, np.float32) / 255)[..., None])


def _backdrop(rng: np.random.Generator, height: int, width: int, colour: Floats) -> Floats:
    down, across = grid(height, width)
    light = 1.03 - 0.30 * np.hypot(across + 0.25, down - 0.2) + 0.008 * noise(rng, height, width, 1)
    return np.asarray(colour * light[..., None], np.float32)


def _bag(rng: np.random.Generator, scale: float) -> _Drawn:
    """A cotton bag on a hook; designs are printed whole, in the middle."""
    width, height = _pixels(_BAG, scale)
    down, across = grid(height, width)
    x = np.asarray(across * height / width + 0.5, np.float32)
    y = np.asarray(down * height / width, np.float32)
    cotton = rgb(0.93, 0.90, 0.83)
    sides = [(0.20, 0.46), (0.80, 0.44), (0.845, 1.13), (0.155, 1.15)]
    body = _outline((width, height), sides, 0.008)
    light = _cloth(rng, height, width, 1.0)
    hem = smoothstep(0.004, 0.0, np.abs(y - 0.515 + 0.033 * (x - 0.5)))
    light = light * (1 - 0.16 * hem) * (1.04 - 0.26 * np.abs(x - 0.46) ** 1.5)
    straps = [_strap(x, y, turn) for turn in (0.035, 0.0)]
    wall = _backdrop(rng, height, width, rgb(0.62, 0.68, 0.66))
    picture = _shadowed(wall, np.maximum(body, straps[1]), (0.022, 0.026), 0.020)
    picture = mix(picture, cotton * 0.72 * light[..., None], straps[0])
    picture = mix(picture, cotton * light[..., None], body)
    picture = mix(picture, cotton * 0.97 * light[..., None], straps[1])
    corners = [(0.235, 0.585), (0.765, 0.571), (0.79, 1.06), (0.21, 1.075)]
    description = {
        "base": "base.jpg",
        "place": {
            "quad": [[round(one * width, 2) for one in corner] for corner in corners],
            "fit": "contain",
        },
        "layers": [{"file": "folds.png", "mode": "multiply"}],
    }
    return picture, {"folds.png": np.clip(light * 1.06, 0, 1)}, description


def _strap(x: Floats, y: Floats, turn: float) -> Floats:
    """A band from the hem up to the hook and down again."""
    reach = np.hypot((x - 0.5 - turn) / 0.17, (y - 0.50) / 0.40)
    band = smoothstep(0.019, 0.016, np.abs(reach - 1) * 0.20)
    return np.asarray(band * (y < 0.53 - turn), np.float32)


#: The right half of a shirt, from its collar round to the hem, in shares of the width.
_SHIRT_HALF = [
    (0.500, 0.205), (0.545, 0.198), (0.585, 0.170), (0.605, 0.150), (0.690, 0.178),
    (0.770, 0.215), (0.820, 0.290), (0.895, 0.440), (0.780, 0.505), (0.725, 0.405),
    (0.722, 0.560), (0.732, 0.760), (0.738, 0.900), (0.620, 0.915), (0.500, 0.918),
]  # fmt: skip


def _shirt(rng: np.random.Generator, scale: float) -> _Drawn:
    """A shirt printed all over: the design is cut by a mask that follows its outline."""
    width, height = _pixels(_SHIRT, scale)
    down, across = grid(height, width)
    x, y = across + 0.5, down
    mirrored = [(1 - along, below) for along, below in reversed(_SHIRT_HALF)]
    shape = _outline((width, height), _SHIRT_HALF + mirrored, 0.006)
    light = _cloth(rng, height, width, 1.25)
    for side in (0.272, 0.728):
        # Where a sleeve is sewn on.
        seam = np.abs(x - side - np.sign(0.5 - side) * 0.05 * smoothstep(0.42, 0.2, y))
        light = light * (1 - 0.22 * smoothstep(0.005, 0.0, seam) * (y > 0.19) * (y < 0.41))
    light = light * (1.02 - 0.9 * np.clip(np.abs(x - 0.5) - 0.12, 0, 1) ** 1.6)
    reach = np.hypot((x - 0.5) / 0.112, (y - 0.142) / 0.073)
    ring = smoothstep(1.27, 1.24, reach) * smoothstep(0.97, 1.0, reach) * shape
    light = light * (1 - 0.14 * ring * smoothstep(1.0, 1.27, reach))
    wall = _backdrop(rng, height, width, rgb(0.86, 0.83, 0.80))
    picture = _shadowed(wall, shape, (0.010, 0.016), 0.016)
    back = 0.142 + 0.020 * (1 - ((x - 0.5) / 0.11) ** 2)
    inside = smoothstep(1.06, 1.03, reach) * smoothstep(0, 0.002, y - back)
    picture = mix(picture, np.full_like(picture, 0.66) * light[..., None], inside)
    picture = mix(picture, rgb(0.95, 0.95, 0.95) * light[..., None], shape)
    mask = shape * smoothstep(1.25, 1.28, reach)
    box = [round(side * width) for side in (0.10, 0.14, 0.80, 0.785)]
    description = {
        "base": "base.jpg",
        "place": {"box": box, "crop": "center"},
        "mask": "mask.png",
        "layers": [{"file": "folds.png", "mode": "multiply"}],
    }
    return picture, {"mask.png": mask, "folds.png": np.clip(light * 1.05, 0, 1)}, description


_DRAWERS: Mapping[str, Callable[[np.random.Generator, float], _Drawn]] = {
    "poster": _poster,
    "bag": _bag,
    "shirt": _shirt,
}

#: The names of the templates.
TEMPLATES: tuple[str, ...] = tuple(_DRAWERS)
