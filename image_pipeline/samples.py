"""Photographs made by arithmetic: the pictures of the demo, the tests and the benchmarks.

Every scene is a function ``(rng, height, width) -> float32 array (height, width, 3)`` of
display values, nominally 0 to 1. A scene is drawn at no more than :data:`_DRAWN` pixels a side,
then developed: enlarged to its final size, given a vignette, a tone curve and, at full
resolution, the grain of a sensor. The same seed gives the same pixels.

Rules of thumb used throughout: terrain and clouds have power spectra that fall as a power of
the frequency (Mandelbrot, "The Fractal Geometry of Nature", 1982); solids are drawn by marching
along signed distances (Hart, "Sphere tracing", The Visual Computer 12, 1996); far things fade
into the sky exponentially (Beer-Lambert).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Floats = NDArray[np.float32]
Scene = Callable[[np.random.Generator, int, int], Floats]
Distance = Callable[[Floats], Floats]


def _rgb(*values: float) -> Floats:
    return np.array(values, np.float32)


def _noise(rng: np.random.Generator, height: int, width: int, slope: float) -> Floats:
    """Periodic noise, mean 0 and deviation 1, of amplitude ~ frequency ** -slope."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    down = np.fft.fftfreq(height)[:, None] * height / min(height, width)
    across = np.fft.rfftfreq(width)[None, :] * width / min(height, width)
    frequency = np.hypot(down * min(height, width), across * min(height, width))
    frequency[0, 0] = 1
    spectrum *= frequency**-slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (height, width)).astype(np.float32)
    return np.asarray(field / field.std(), np.float32)


def _at(field: Floats, down: NDArray[Any], across: NDArray[Any]) -> Floats:
    """A periodic field (rows, columns[, channels]) between its samples, bilinearly."""
    rows, columns = field.shape[:2]
    top, left = np.floor(down), np.floor(across)
    v, u = (down - top).astype(np.float32), (across - left).astype(np.float32)
    if field.ndim == 3:
        v, u = v[..., None], u[..., None]
    r0, c0 = top.astype(np.int32) % rows, left.astype(np.int32) % columns
    r1, c1 = (r0 + 1) % rows, (c0 + 1) % columns
    upper = field[r0, c0] * (1 - u) + field[r0, c1] * u
    lower = field[r1, c0] * (1 - u) + field[r1, c1] * u
    return np.asarray(upper * (1 - v) + lower * v, np.float32)


def _step(low: float, high: float, value: NDArray[Any]) -> Floats:
    """0 below ``low``, 1 above ``high``, a smooth cubic between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _mix(first: NDArray[Any], second: NDArray[Any], share: NDArray[Any]) -> Floats:
    """``first`` where ``share`` is 0, ``second`` where it is 1; ``share`` has no channels."""
    return np.asarray(first + (second - first) * share[..., None], np.float32)


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Down 0..1 and across -a..a, in heights of the picture (a is half the aspect ratio)."""
    down = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    across = (np.arange(width, dtype=np.float32)[None, :] + 0.5 - width / 2) / height
    return np.broadcast_to(down, (height, width)), np.broadcast_to(across, (height, width))


def _ramp(down: Floats, *stops: tuple[float, Floats]) -> Floats:
    """Colours interpolated between stops."""
    places = [place for place, _ in stops]
    channels = [np.interp(down, places, [colour[i] for _, colour in stops]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _blurred(picture: Floats, radius: float) -> Floats:
    """Gaussian blur of display values, in 8 bits; ``radius`` in pixels."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    return blurred / np.float32(255)


@dataclass(frozen=True, slots=True)
class _Light:
    """Sun, sky and haze outdoors. Places are in heights of the picture, from the horizon."""

    zenith: Floats
    middle: Floats
    haze: Floats
    sun: Floats
    cloud: Floats
    sun_x: float
    sun_up: float
    clear: float


def _daylight(rng: np.random.Generator, *, evening: bool = False) -> _Light:
    """A clear or cloudy day, or with ``evening`` the last quarter of an hour of one."""
    sun_x = float(rng.uniform(0.15, 0.55) * rng.choice([-1, 1]))
    clear = float(rng.uniform(-0.9, 0.7))
    if evening:
        warm = 0.1 * float(rng.uniform(0, 1))
        return _Light(
            zenith=_rgb(0.13, 0.16 + 0.8 * warm, 0.36),
            middle=_rgb(0.66, 0.36 + warm, 0.40),
            haze=_rgb(1.0, 0.58 + warm, 0.28),
            sun=_rgb(1.0, 0.80, 0.50),
            cloud=_rgb(0.66, 0.40, 0.44),
            sun_x=sun_x * 0.6,
            sun_up=float(rng.uniform(0.03, 0.10)),
            clear=clear,
        )
    return _Light(
        zenith=_rgb(0.20, 0.38, 0.62) * np.float32(rng.uniform(0.75, 1.0)),
        middle=_rgb(0.45, 0.62, 0.80),
        haze=_rgb(0.80, 0.86, 0.90),
        sun=_rgb(1.0, 0.96, 0.86),
        cloud=_rgb(0.98, 0.98, 1.0),
        sun_x=sun_x,
        sun_up=float(rng.uniform(0.45, 0.9)),
        clear=clear,
    )


def _sky(
    rng: np.random.Generator, height: int, width: int, horizon: float, light: _Light
) -> Floats:
    """A sky with a sun and a flat layer of clouds that recedes to ``horizon`` (0..1 down)."""
    down, across = _grid(height, width)
    up = np.clip((horizon - down) / max(horizon, 0.1), 0, 1)
    sky = _ramp(up, (0.0, light.haze), (0.45, light.middle), (1.0, light.zenith))
    reach = np.hypot(across - light.sun_x, down - horizon + light.sun_up)
    sky += light.sun * (0.30 * np.exp(-reach * 4) + 0.30 * np.exp(-reach * 14))[..., None]
    sky = _mix(sky, np.broadcast_to(light.sun * 1.2, sky.shape), _step(0.032, 0.026, reach))
    field = _noise(rng, 1024, 1024, 1.55)
    far = 1 / (up + 0.16)
    v, u = far * 190, across * far * 190
    puff = _at(field, v, u)
    shade = puff - _at(field, v + 14, u - light.sun_x * 20)
    cover = _step(light.clear, light.clear + 1.6, puff) * _step(0.0, 0.15, up)
    bright = np.clip(0.86 + 0.16 * shade - 0.05 * puff, 0.55, 1.1)
    lit = light.cloud * bright[..., None] + light.sun * (0.45 * np.exp(-reach * 3.5))[..., None]
    return _mix(sky, _mix(lit, sky, 0.35 * np.exp(-up * 4)), cover * 0.9)


def _reflected(
    rng: np.random.Generator, picture: Floats, horizon: float, deep: Floats, waves: float
) -> Floats:
    """What is above ``horizon`` mirrored in water that fills the picture below it."""
    height, width = picture.shape[:2]
    down, across = _grid(height, width)
    near = np.clip((down - horizon) / (1 - horizon), 0.004, 1)
    swell = _noise(rng, 512, 512, 1.1)
    slope = _at(swell, 60 / (near + 0.03), across / (near + 0.03) * 26) * waves
    rows = (2 * horizon - down + slope * (0.01 + 0.16 * near)) * height
    columns = np.arange(width, dtype=np.float32) + slope * near * 0.03 * height
    mirror = _at(picture, np.clip(rows, 0, horizon * height - 2), np.clip(columns, 0, width - 2))
    # Water mirrors more the flatter it is seen (Fresnel).
    share = np.clip(0.86 - 0.55 * near + 0.5 * slope * near, 0.05, 0.95)
    return _mix(np.broadcast_to(deep, picture.shape), mirror * 0.94, share)


# ------------------------------------------------------------------------------------ terrain


@dataclass(frozen=True, slots=True)
class _View:
    """Where each pixel of a terrain lies on its map, and how far away (infinite: sky)."""

    x: Floats
    y: Floats
    distance: Floats


def _look(
    ground: Floats,
    eye: tuple[float, float, float],
    size: tuple[int, int],
    horizon: float,
    far: float,
) -> _View:
    """See a height map from ``eye`` (x, y, up), along growing y, one march per column.

    The first step whose ground stands above a pixel's line of sight is what the pixel shows.
    """
    height, width = size
    steps = np.geomspace(4.0, far, 700, dtype=np.float32)[:, None]
    across = (np.arange(width, dtype=np.float32)[None, :] + 0.5 - width / 2) / height
    up = _at(ground, eye[1] + steps + 0 * across, eye[0] + steps * across) - eye[2]
    top = np.minimum.accumulate((horizon - up / steps) * height, axis=0)
    rows = np.arange(height, dtype=np.float32)
    first = np.stack([np.searchsorted(-top[:, i], -rows) for i in range(width)], axis=1)
    seen, last = first < len(steps), np.minimum(first, len(steps) - 1)
    before, columns = np.maximum(last - 1, 0), np.arange(width)[None, :]
    above, below = top[last, columns], top[before, columns]
    part = np.clip((below - rows[:, None]) / np.maximum(below - above, 1e-3), 0, 1)
    reach = steps[before, 0] * (1 - part) + steps[last, 0] * part
    distance = np.where(seen, reach, np.inf).astype(np.float32)
    return _View(eye[0] + reach * across, eye[1] + reach, distance)


def _sunlit(ground: Floats, east: float, rise: float) -> Floats:
    """Share of sunlight on each cell, 0 to 1, with the shadows that the terrain throws."""
    north, right = np.gradient(ground)
    to_sun = np.array([east, -0.4, rise]) / np.linalg.norm([east, -0.4, rise])
    facing = (to_sun[2] - right * to_sun[0] - north * to_sun[1]) / np.sqrt(right**2 + north**2 + 1)
    between = np.full_like(ground, -np.inf)
    run = float(np.hypot(east, 0.4))
    for i in range(1, 60, 2):
        shift = (round(0.4 * i / run), round(-east * i / run))
        np.maximum(between, np.roll(ground, shift, (0, 1)) - rise / run * i, out=between)
    return np.asarray(np.clip(facing, 0, 1) * (1 - _step(-1.5, 1.5, between - ground)), np.float32)


def _ridges(rng: np.random.Generator, side: int, steepness: float) -> Floats:
    """A mountain range: folded noise is sharp on top and round in the valleys."""
    fold = 1 - np.abs(_noise(rng, side, side, 1.9))
    tall = _noise(rng, side, side, 2.2)
    return np.asarray(
        steepness * (34 * fold + 22 * tall) + 3 * _noise(rng, side, side, 1.5), np.float32
    )


def _mountain_colours(rng: np.random.Generator, ground: Floats, snow: float) -> Floats:
    """Meadow and forest, then rock, then snow from ``snow`` up where it is not too steep."""
    side = len(ground)
    north, east = np.gradient(ground)
    steep = np.hypot(north, east)
    rough = _noise(rng, side, side, 1.0)
    green = _mix(
        np.broadcast_to(_rgb(0.11, 0.16, 0.07), (side, side, 3)),
        np.broadcast_to(_rgb(0.30, 0.33, 0.14), (side, side, 3)),
        _step(-0.5, 1.5, rough),
    )
    green = green * (1 + 0.25 * _noise(rng, side, side, 0.3))[..., None]
    rock = _rgb(0.42, 0.39, 0.36) * (1 + 0.18 * rough)[..., None]
    colours = _mix(green, rock, _step(snow - 26, snow - 8, ground + 5 * rough + 9 * steep))
    white = np.broadcast_to(_rgb(0.95, 0.96, 1.0), colours.shape)
    colours = _mix(colours, white, _step(snow, snow + 8, ground + 5 * rough - 9 * steep))
    gravel = np.broadcast_to(_rgb(0.50, 0.47, 0.41), colours.shape)
    return _mix(colours, gravel, 0.8 * _step(1.4, 0.3, ground))


def _lake(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Mountains behind a lake that mirrors them."""
    evening = bool(rng.random() < 0.3)
    light = _daylight(rng, evening=evening)
    side, horizon = 1024, float(rng.uniform(0.40, 0.62))
    ground = _ridges(rng, side, float(rng.uniform(0.8, 1.3)))
    y, x = np.mgrid[:side, :side].astype(np.float32)
    shore = float(rng.uniform(60, 160))
    valley = np.exp(-(((x - 512 - rng.uniform(-120, 120)) / 110) ** 2)) * rng.uniform(20, 60)
    ground += 22 - valley - 190 * _step(shore + 170, shore, y) + 45 * _step(250, 700, y)
    colours = _mountain_colours(rng, ground, float(rng.uniform(34, 62)))
    sun = _sunlit(ground, float(np.sign(light.sun_x)) * 0.8, 0.35 if evening else 0.8)
    light_on = sun[..., None] * light.sun * 1.05 + light.zenith * 0.75 + 0.03
    lit = np.asarray(colours * light_on, np.float32)
    view = _look(np.maximum(ground, 0), (512.0, 8.0, 4.0), (height, width), horizon, 620)
    seen = np.isfinite(view.distance)
    air = 1 - np.exp(-np.where(seen, view.distance, 0) / 560)
    haze = np.broadcast_to(light.haze * 0.92, (height, width, 3))
    land = _mix(_at(lit, view.y, view.x), haze, air)
    picture = np.where(seen[..., None], land, _sky(rng, height, width, horizon, light))
    deep = light.zenith * 0.3 + _rgb(0.0, 0.05, 0.04)
    water = _reflected(rng, picture, horizon, deep, float(rng.uniform(0.03, 0.3)))
    wet = seen & (_at(ground, view.y, view.x) <= 0)
    return np.where(wet[..., None], water, picture)


def _dunes(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Sand dunes in low sun, with ripples in the foreground."""
    light = _daylight(rng, evening=bool(rng.random() < 0.4))
    side, horizon = 1024, float(rng.uniform(0.28, 0.5))
    bend = _noise(rng, side, side, 2.3)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    # A dune rises slowly and falls steeply, so the wave is a skewed one; periods divide the map.
    turn = float(rng.choice([-1, 1]))
    phase = 2 * np.pi * (y * 9 + turn * x * float(rng.integers(3, 8))) / side + 2.4 * bend
    wave = np.sin(phase + 0.75 * np.sin(phase))
    ground = (9 * wave + 9 * bend + 1.2 * np.sin(phase * 3.1 + bend)).astype(np.float32)
    sun = _sunlit(ground, float(np.sign(light.sun_x)) * 0.9, 0.42)
    fine = _noise(rng, side, side, 0.8)
    sand = _rgb(0.86, 0.62 + rng.uniform(-0.06, 0.08), 0.38 + rng.uniform(-0.08, 0.14))
    lit = (
        sand
        * (1 + 0.035 * fine)[..., None]
        * (sun[..., None] * light.sun * 1.15 + light.middle * 0.33)
    )
    stand = float(ground[20:70, 490:534].max()) + float(rng.uniform(6, 22))
    view = _look(ground, (512.0, 30.0, stand), (height, width), horizon, 700)
    seen = np.isfinite(view.distance)
    reach = np.where(seen, view.distance, 0)
    ripple = np.sin(view.y * 7 + 4 * _at(bend, view.y * 6, view.x * 6) + turn * view.x * 2)
    ripples = (1 + 0.09 * ripple * np.exp(-reach / 28))[..., None]
    land = np.asarray(_at(lit, view.y, view.x) * ripples, np.float32)
    haze = np.broadcast_to(light.haze * 0.95, land.shape)
    land = _mix(land, haze, 1 - np.exp(-reach / 520))
    return np.where(seen[..., None], land, _sky(rng, height, width, horizon, light))


def _sunset(rng: np.random.Generator, height: int, width: int) -> Floats:
    """The sun over the sea, headlands one behind the other."""
    light = _daylight(rng, evening=True)
    horizon = float(rng.uniform(0.48, 0.70))
    picture = _sky(rng, height, width, horizon, light)
    down, across = _grid(height, width)
    for layer in range(int(rng.integers(1, 4))):
        line = _noise(rng, 4, 4096, 1.15)[0, :width]
        side = float(rng.choice([-1, 1]))
        rise = np.clip(side * across[:1] * 0.35 + rng.uniform(-0.12, 0.05), 0, 0.3)
        top = horizon - rise[0] * np.clip(1 + 0.6 * line, 0.1, None)
        dark = light.haze * (0.42 - 0.12 * layer) * _rgb(0.75, 0.8, 1.1)
        picture = _mix(
            picture, np.broadcast_to(dark, picture.shape), _step(0, 2 / height, down - top)
        )
    water = _reflected(rng, picture, horizon, _rgb(0.05, 0.08, 0.14), 0.45)
    near = np.clip((down - horizon) / (1 - horizon), 0.004, 1)
    crest = _at(_noise(rng, 512, 512, 0.6), 50 / (near + 0.04), across / (near + 0.04) * 30)
    path = np.exp(-(((across - light.sun_x) / (0.05 + 0.16 * near)) ** 2))
    water += light.sun * (path * _step(0.5, 1.6, crest) * 0.9 + 0.10 * path)[..., None]
    return np.where((down > horizon)[..., None], water, picture)


# --------------------------------------------------------------------------------- city, woods


def _tower(
    rng: np.random.Generator, picture: Floats, box: tuple[int, int, int, int], body: Floats
) -> None:
    """Draw a building with lit windows into ``box`` (left, top, right, bottom)."""
    left, top, right, base = box
    rows, columns = base - top, right - left
    pitch = max(3, round(picture.shape[0] / 130))
    floors, bays = rows // pitch + 1, columns // pitch + 1
    lamps = rng.choice(
        np.array([[1.0, 0.78, 0.45], [1.0, 0.9, 0.7], [0.75, 0.88, 1.0]]), (floors, bays)
    )
    on = rng.random((floors, bays)) < rng.uniform(0.12, 0.55)
    glow = (lamps * (on * rng.uniform(0.25, 0.95, (floors, bays)))[..., None]).astype(np.float32)
    frame = np.zeros((pitch, pitch, 1), np.float32)
    frame[: max(1, pitch * 2 // 3), : max(1, pitch * 2 // 3)] = 1
    lights = (glow[:, None, :, None, :] * frame[None, :, None, :, :]).reshape(
        floors * pitch, bays * pitch, 3
    )
    side = np.linspace(1.15, 0.75, columns, dtype=np.float32)[None, :, None]
    picture[top:base, left:right] = body * side + lights[:rows, :columns]


def _city(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A skyline at night across a river."""
    base = float(rng.uniform(0.55, 0.72))
    dusk = float(rng.uniform(0, 1))
    down, _ = _grid(height, width)
    glow = _rgb(0.55, 0.30 + 0.12 * dusk, 0.25 + 0.25 * dusk)
    sky = _ramp(
        down / base,
        (0.0, _rgb(0.02, 0.03, 0.09 + 0.1 * dusk)),
        (0.6, _rgb(0.10, 0.09, 0.22 + 0.1 * dusk)),
        (1.0, glow),
    )
    sky += (0.035 * _noise(rng, height, width, 1.5) * (1 - down))[..., None] * glow
    picture, quay = sky, int(base * height)
    centre = rng.uniform(-0.5, 0.5)
    for layer in range(3):
        left = -int(rng.integers(0, height // 20))
        while left < width:
            across_here = (left - width / 2) / height - centre
            tall = (0.10 + 0.42 * np.exp(-((across_here / 0.33) ** 2))) * (1 - 0.27 * layer)
            top = quay - int(height * max(0.03, tall * rng.uniform(0.35, 1.15)))
            right = left + int(height * rng.uniform(0.03, 0.09))
            body = glow * (0.42 - 0.15 * layer) * _rgb(0.6, 0.7, 1.0)
            if right > 0:
                box = (max(left, 0), max(top, 4), min(right, width), quay)
                _tower(rng, picture, box, body)
            left = right + int(height * rng.uniform(-0.005, 0.02))
    lamps = np.zeros_like(picture)
    spots = rng.integers(0, width, 60)
    lamps[quay - 3 : quay, spots] = _rgb(6, 4.4, 2.4)
    picture = picture + _blurred(lamps, height / 500) * 2
    picture = picture + 0.9 * _blurred(np.clip(picture - 0.35, 0, 1), height / 60)
    # Long exposures smear reflections upright: squeeze the rows, then stretch them again.
    smear = np.asarray(picture[:quay].reshape(-1, width, 3))
    soft = _blurred(smear, height / 300)
    mirror = picture.copy()
    mirror[:quay] = 0.35 * smear + 0.65 * soft
    water = _reflected(rng, mirror, base, _rgb(0.01, 0.015, 0.04), 0.8)
    return np.where((down > base)[..., None], water * 1.1, picture)


def _crowns(
    rng: np.random.Generator, height: int, width: int, cell: float
) -> tuple[Floats, NDArray[np.intp]]:
    """Tree tops from above: the highest dome at each pixel (0 to 1) and the number of its tree.

    Trees stand one to a cell of a jittered grid, so only the nine nearest can cover a pixel.
    """
    rows, columns = int(height / cell) + 3, int(width / cell) + 3
    place = rng.random((2, rows, columns), dtype=np.float32)
    girth = rng.uniform(0.75, 1.25, (rows, columns)).astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(cell) + 1
    rough = 0.12 * _noise(rng, height, width, 0.9)
    best = np.full((height, width), -1.0, np.float32)
    tree = np.zeros((height, width), np.intp)
    i, j = y.astype(np.int32), x.astype(np.int32)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            r, c = i + di, j + dj
            away = np.hypot(y - r - place[0, r, c], x - c - place[1, r, c]) / girth[r, c]
            dome = girth[r, c] * (1 - away**2) + rough
            higher = dome > best
            best[higher] = dome[higher]
            tree[higher] = (r * columns + c)[higher]
    return best, tree


def _forest(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A wood from above, in summer or in autumn, with a river through it."""
    autumn = float(rng.uniform(0, 1))
    dome, tree = _crowns(rng, height, width, height / rng.uniform(28, 55))
    kinds = np.array(
        [
            [0.12, 0.21, 0.08],
            [0.20, 0.30, 0.10],
            [0.30, 0.34, 0.10],
            [0.62, 0.40, 0.09],
            [0.58, 0.24, 0.07],
            [0.72, 0.55, 0.14],
        ],
        np.float32,
    )
    share = np.array([0.4, 0.35, 0.25, 0, 0, 0]) * (1 - autumn) + autumn * np.array(
        [0.25, 0.15, 0.1, 0.2, 0.15, 0.15]
    )
    sort = rng.choice(len(kinds), int(tree.max()) + 1, p=share)
    tint = rng.uniform(0.75, 1.25, len(sort)).astype(np.float32)
    north, east = np.gradient(dome * height / 60)
    lit = np.clip(0.55 - 0.55 * east - 0.45 * north, 0.05, 1.6) * _step(-0.5, 0.8, dome)
    clearing = _noise(rng, height, width, 2.2)
    picture = kinds[sort[tree]] * (tint[tree] * (0.25 + 1.1 * lit))[..., None]
    meadow = _rgb(0.40, 0.43, 0.19) * (0.9 + 0.08 * _noise(rng, height, width, 0.8))[..., None]
    picture = _mix(picture, meadow, _step(1.2, 1.3, clearing + 0.25 * dome))
    down, across = _grid(height, width)
    turn = float(rng.uniform(0, np.pi))
    along = down * np.cos(turn) + across * np.sin(turn)
    aside = across * np.cos(turn) - (down - 0.5) * np.sin(turn)
    bend = 0.22 * np.sin(along * rng.uniform(4, 9) + rng.uniform(0, 6)) + rng.uniform(-0.3, 0.3)
    bank = np.abs(aside - bend) + 0.012 * _noise(rng, height, width, 1.2) + 0.02 * dome
    wide = float(rng.uniform(0.03, 0.10))
    gravel = _rgb(0.55, 0.52, 0.46) * (0.9 + 0.1 * _noise(rng, height, width, 0.4))[..., None]
    picture = _mix(picture, gravel, _step(wide + 0.02, wide + 0.012, bank))
    stream = _mix(
        np.broadcast_to(_rgb(0.10, 0.28, 0.30), picture.shape),
        np.broadcast_to(_rgb(0.25, 0.47, 0.46), picture.shape),
        _step(0.3 * wide, wide, bank),
    )
    picture = _mix(picture, stream, _step(wide, wide - 0.008, bank))
    return picture * (1.05 + 0.13 * _noise(rng, height, width, 2.4))[..., None]


# --------------------------------------------------------------------------------------- macro


def _leaf(rng: np.random.Generator, height: int, width: int) -> Floats:
    """The face of a leaf: midrib, side veins, and the net between them."""
    down, across = _grid(height, width)
    turn = float(rng.uniform(-0.9, 0.9)) + float(rng.choice([0, np.pi / 2]))
    along = (down - 0.5) * np.cos(turn) + across * np.sin(turn)
    aside = across * np.cos(turn) - (down - 0.5) * np.sin(turn) + rng.uniform(-0.2, 0.2)
    aside = aside + 0.05 * along**2
    spread = along * 5.5 - np.abs(aside) * rng.uniform(3, 5) - 0.8 * np.abs(aside) ** 2
    side = np.abs(spread - np.round(spread)) / 5.5
    vein = np.exp(-((aside / 0.012) ** 2)) + 0.7 * np.exp(-((side / 0.006) ** 2))
    net = np.abs(_noise(rng, height, width, 1.25))
    vein = vein + 0.28 * np.exp(-((net / 0.10) ** 2))
    swell = np.sin(np.pi * (spread - np.floor(spread))) + 0.25 * _noise(rng, height, width, 1.4)
    hue = rng.uniform(0, 1)
    deep = _rgb(0.10 + 0.25 * hue, 0.33 - 0.10 * hue, 0.08)
    pale = _rgb(0.55 + 0.25 * hue, 0.70 - 0.15 * hue, 0.28)
    face = _mix(
        np.broadcast_to(deep, (height, width, 3)),
        np.broadcast_to(pale, (height, width, 3)),
        np.clip(vein * 0.6, 0, 0.8),
    )
    light = (
        0.85
        + 0.28 * swell
        + 0.5 * (0.5 - down) * rng.uniform(-1, 1)
        + 0.5 * across * rng.uniform(-1, 1)
    )
    return np.asarray(face * light[..., None], np.float32)


def _drop(picture: Floats, y: float, x: float, radius: float) -> None:
    """One water drop: a lens that turns what lies under it upside down, lit from the top left."""
    height, width = picture.shape[:2]
    top, left = max(0, int(y - 1.5 * radius)), max(0, int(x - 1.5 * radius))
    bottom, right = min(height, int(y + 1.7 * radius) + 1), min(width, int(x + 1.7 * radius) + 1)
    v, u = np.mgrid[top:bottom, left:right].astype(np.float32)
    v, u = (v - y) / radius, (u - x) / radius
    patch = picture[top:bottom, left:right]
    shade = np.exp(-(np.maximum(np.hypot(v - 0.16, u - 0.16) - 0.85, 0) ** 2) / 0.035)
    patch *= (1 - 0.5 * shade)[..., None]
    reach = np.hypot(v, u)
    rows, columns = y - v * radius * 1.3, x - u * radius * 1.3
    lens = _at(picture, np.clip(rows, 0, height - 2), np.clip(columns, 0, width - 2))
    slant = np.clip(0.5 + 0.62 * (v + u), 0, 1.3)
    lens = (
        lens * (0.45 + 1.0 * slant)[..., None] + (0.22 * slant * _step(0.95, 0.5, reach))[..., None]
    )
    lens *= (1 - 0.45 * _step(0.78, 1.0, reach))[..., None]
    spark = np.exp(-(np.hypot((v + 0.42) * 1.1, u + 0.38) ** 2) / 0.016)
    lens += (1.2 * spark + 0.25 * np.exp(-((reach - 0.86) ** 2) / 0.004) * slant)[..., None]
    picture[top:bottom, left:right] = _mix(patch, lens, _step(1.0, 0.96, reach))


def _dew(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Water drops on a leaf, close up."""
    picture = _leaf(rng, height, width)
    taken: list[tuple[float, float, float]] = []
    sizes = np.sort(rng.pareto(1.6, 260) * 0.009 + 0.006)[::-1] * height
    for radius in np.minimum(sizes, 0.15 * height):
        y, x = float(rng.uniform(0, height)), float(rng.uniform(0, width))
        if all(np.hypot(y - a, x - b) > 1.08 * (radius + c) for a, b, c in taken):
            taken.append((y, x, float(radius)))
            _drop(picture, y, x, float(radius))
    return picture


# ---------------------------------------------------------------------------------- the studio


@dataclass(frozen=True, slots=True)
class _Thing:
    """A solid: signed distance at points (3, n), colour there (n, 3), how much it shines.

    ``around`` is a ball that holds it (x, y, z, radius): far from it, its own distance is
    never worked out.
    """

    exact: Distance
    colour: Callable[[Floats], Floats]
    shine: float
    around: tuple[float, float, float, float]

    def distance(self, points: Floats, margin: float = 0.1) -> Floats:
        """Signed distance, or a lower bound of it where that is ``margin`` or more."""
        x, y, z, radius = self.around
        bound = _length(points[0] - x, points[1] - y, points[2] - z) - np.float32(radius)
        near = np.flatnonzero(bound < margin)
        # In blocks that stay in a core's cache: three times as fast.
        for start in range(0, len(near), 8192):
            block = near[start : start + 8192]
            bound[block] = self.exact(points[:, block])
        return bound


def _length(x: Floats, y: Floats, z: Floats) -> Floats:
    return np.asarray(np.sqrt(x * x + y * y + z * z), np.float32)


def _ball(*centre: float, radii: tuple[float, float, float]) -> Distance:
    """An ellipsoid; its distance to first order, the value over the slope of its equation."""
    (a, b, c), (x, y, z) = radii, centre

    def distance(points: Floats) -> Floats:
        u, v, w = (points[0] - x) / a, (points[1] - y) / b, (points[2] - z) / c
        value = _length(u, v, w)
        slope = np.maximum(_length(u / a, v / b, w / c), np.float32(1e-6))
        return np.asarray(value * (value - 1) / slope, np.float32)

    return distance


def _stick(start: Floats, end: Floats, radius: float) -> Distance:
    """A rod with round ends."""
    span = end - start
    square = float(span @ span)

    def distance(points: Floats) -> Floats:
        apart = points - start[:, None]
        part = np.clip(span @ apart / square, 0, 1)
        return _length(*(apart - part * span[:, None])) - np.float32(radius)

    return distance


def _blend(first: Floats, second: Floats, width: float) -> Floats:
    """The union of two solids, rounded where they meet."""
    part = np.clip(width - np.abs(first - second), 0, None) / width
    return np.asarray(np.minimum(first, second) - part * part * width / 4, np.float32)


def _march(distance: Distance, eye: Floats, rays: Floats, reach: Floats) -> Floats:
    """Way along each ray to the solid; infinite where it is missed before ``reach``."""
    way = np.full(rays.shape[1], 0.02, np.float32)
    found = np.full_like(way, np.inf)
    active = np.arange(len(way))
    for _ in range(70):
        gap = distance(eye[:, None] + way[active] * rays[:, active])
        close = gap < 0.002
        found[active[close]] = way[active[close]]
        way[active] += gap * 0.9
        active = active[~close & (way[active] < reach[active])]
        if not len(active):
            break
    return found


def _normals(distance: Distance, points: Floats) -> Floats:
    """Outward directions at the surface, from differences."""
    total = np.zeros_like(points)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        offset = _rgb(*corner)[:, None]
        total += offset * distance(points + offset * np.float32(0.003))
    return np.asarray(total / _length(*total), np.float32)


def _sunlight(distance: Distance, points: Floats, to_light: Floats) -> Floats:
    """Share of a broad lamp that reaches each point, 0 to 1: narrow misses are half shadow."""
    share = np.ones(points.shape[1], np.float32)
    way = np.full_like(share, 0.04)
    active = np.arange(len(share))
    for _ in range(20):
        gap = distance(points[:, active] + way[active] * to_light[:, None])
        share[active] = np.minimum(share[active], 0.5 + 0.5 * gap / (0.12 * way[active]))
        way[active] += np.clip(gap, 0.04, 0.4)
        # What the lamp passes at 3.5 or more is too far to throw an edge one would see.
        active = active[(share[active] > 0) & (way[active] < 3.5)]
    share = np.clip(share, 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


@dataclass(frozen=True, slots=True)
class _Camera:
    """A camera at ``eye`` that looks at ``aim``; ``zoom`` is focal length over picture height."""

    eye: Floats
    aim: Floats
    zoom: float

    def rays(self, height: int, width: int) -> Floats:
        """Return the unit direction of each pixel, row by row, shape (3, height * width)."""
        down, across = _grid(height, width)
        ahead = (self.aim - self.eye) / np.linalg.norm(self.aim - self.eye)
        right = np.cross(ahead, _rgb(0, 1, 0))
        right /= np.linalg.norm(right)
        above = np.cross(right, ahead)[:, None]
        rays = self.zoom * ahead[:, None] + across.ravel() * right[:, None]
        rays = rays + (0.5 - down.ravel()) * above
        return np.asarray(rays / _length(*rays), np.float32)


def _studio(
    things: list[_Thing],
    background: Floats,
    camera: _Camera,
    lamp: Floats,
    floor: Callable[[Floats], Floats] | None = None,
) -> tuple[Floats, Floats]:
    """Things on a floor at height 0 before a background; the picture and the things' coverage."""

    def coarse(points: Floats) -> Floats:
        return np.asarray(np.min([thing.distance(points) for thing in things], axis=0))

    height, width = background.shape[:2]
    eye, rays = camera.eye, camera.rays(height, width)
    to_floor = np.where(rays[1] < -1e-4, -eye[1] / np.minimum(rays[1], -1e-4), 30)
    to_floor = to_floor.astype(np.float32)
    way = _march(coarse, eye, rays, np.minimum(to_floor, 30))
    hit = np.isfinite(way)
    picture = background.reshape(-1, 3).copy()
    lamp = lamp / np.linalg.norm(lamp)
    picture[hit] = _shaded(things, eye[:, None] + way[hit] * rays[:, hit], rays[:, hit], lamp)
    ground = ~hit & (to_floor < 14)
    if floor is not None:
        spots = np.asarray(eye[:, None] + to_floor[ground] * rays[:, ground], np.float32)
        lit = floor(spots) * _floor_light(things, spots, lamp)[:, None]
        picture[ground] = _mix(lit, picture[ground], _step(5, 13, to_floor[ground]))
    coverage = hit.reshape(height, width).astype(np.float32)
    return picture.reshape(height, width, 3), coverage


def _fine(things: list[_Thing]) -> Distance:
    """Return the distance to the nearest thing, exact as far as shadows and hollows reach."""
    # 0.12 times 3.5, the widest half shadow; less, and the balls around things would show.
    return lambda points: np.asarray(
        np.min([thing.distance(points, margin=0.42) for thing in things], axis=0)
    )


def _floor_light(things: list[_Thing], spots: Floats, lamp: Floats) -> Floats:
    """Light on the floor, 0 to 1: less of the room near things, less lamp behind them."""
    distance = _fine(things)
    room = np.clip(0.35 + 0.65 * distance(spots) / 0.42, 0, 1)
    return np.asarray(0.42 * room + 0.58 * _sunlight(distance, spots, lamp), np.float32)


def _shaded(things: list[_Thing], points: Floats, rays: Floats, lamp: Floats) -> Floats:
    """Colours (n, 3) of surface points under a lamp, a pale ceiling and a window behind us."""
    distance = _fine(things)
    normals = _normals(distance, points)
    nearest = np.argmin([thing.distance(points) for thing in things], axis=0)
    colours = np.zeros((points.shape[1], 3), np.float32)
    shine = np.zeros(points.shape[1], np.float32)
    for number, thing in enumerate(things):
        mine = np.flatnonzero(nearest == number)
        colours[mine] = thing.colour(points[:, mine])
        shine[mine] = thing.shine
    facing = np.clip(lamp @ normals, 0, 1)
    sun, bright = np.zeros_like(facing), np.flatnonzero(facing > 0)
    lit = points[:, bright] + np.float32(0.01) * normals[:, bright]
    sun[bright] = facing[bright] * _sunlight(distance, lit, lamp)
    hollow = np.clip(distance(points + np.float32(0.25) * normals) / 0.25, 0.25, 1)
    ceiling = (0.30 + 0.22 * normals[1]) * hollow
    rim = (1 + (rays * normals).sum(axis=0)) ** 3
    half = lamp[:, None] - rays
    glint = np.clip((half / _length(*half) * normals).sum(axis=0), 0, 1)
    gloss = shine * ((sun > 0) * (glint**60 + 0.35 * glint**12) + 0.35 * rim * hollow)
    key = 0.85 * sun[:, None] * _rgb(1.0, 0.96, 0.88)
    fill = ceiling[:, None] * _rgb(0.90, 0.97, 1.08)
    return np.asarray(colours * (key + fill) + gloss[:, None], np.float32)


def _mottled(
    rng: np.random.Generator, first: Floats, second: Floats, fineness: float
) -> Callable[[Floats], Floats]:
    """A colour that wanders between two over a surface."""
    field = _noise(rng, 512, 512, 1.2)

    def colour(points: Floats) -> Floats:
        v = (points[1] + 0.6 * points[2]) * 90 * fineness
        u = (points[0] - 0.5 * points[2]) * 90 * fineness
        return _mix(first, second, _step(-1.5, 1.5, _at(field, v, u)))

    return colour


def _bokeh(rng: np.random.Generator, height: int, width: int, low: Floats, high: Floats) -> Floats:
    """Lights far out of focus: bright discs over a soft background."""
    down, _ = _grid(height, width)
    picture = _ramp(down, (0.0, high), (1.0, low))
    picture = picture * (1 + 0.3 * _noise(rng, height, width, 2.2))[..., None]
    tints = np.array(
        [[1.0, 0.75, 0.4], [1.0, 0.9, 0.65], [0.6, 0.9, 0.6], [0.9, 0.5, 0.4]], np.float32
    )
    discs = np.zeros((height, width, 3), np.float32)
    for _ in range(55):
        radius = height * float(rng.uniform(0.02, 0.065))
        y, x = float(rng.uniform(-0.1, 0.75) * height), float(rng.uniform(0, width))
        top, left = max(0, int(y - radius) - 2), max(0, int(x - radius) - 2)
        v, u = np.mgrid[top : max(top, int(y + radius) + 2), left : int(x + radius) + 2]
        v, u = v[: height - top, : width - left], u[: height - top, : width - left]
        away = (np.hypot(v - y, u - x) / radius).astype(np.float32)
        disc = _step(1.0, 0.93, away) * (0.7 + 0.3 * away**4) * rng.uniform(0.08, 0.4)
        discs[v, u] += disc[..., None] * tints[rng.integers(len(tints))]
    return np.asarray(picture + discs, np.float32)


def _planks(rng: np.random.Generator) -> Callable[[Floats], Floats]:
    """A wooden table: boards along x, each with its own grain."""
    grain = _noise(rng, 1024, 256, 1.1)

    def colour(points: Floats) -> Floats:
        board = np.floor(points[2] / 0.62)
        edge = np.abs(points[2] / 0.62 - board - 0.5) * 2
        ring = _at(grain, points[2] * 260 + board * 77, points[0] * 11 + board * 31)
        wood = _mix(_rgb(0.36, 0.21, 0.12), _rgb(0.62, 0.41, 0.25), _step(-1.8, 1.8, ring))
        return np.asarray(
            wood * ((0.92 + 0.16 * np.sin(board * 12.9)) * _step(1.0, 0.97, edge))[:, None]
        )

    return colour


def _apple(x: float, z: float, size: float) -> Distance:
    """A round fruit with a dent at the top and one below."""

    def distance(points: Floats) -> Floats:
        local = (points - _rgb(x, size * 0.86, z)[:, None]) / size
        aside = np.hypot(local[0], local[2])
        dent = 0.32 * np.exp(-((aside / 0.26) ** 2)) * np.sign(local[1]) * local[1]
        away = np.sqrt(aside**2 + (local[1] * 1.06) ** 2)
        return np.asarray((away - 0.98 + dent) * size * 0.7, np.float32)

    return distance


def _grapes(rng: np.random.Generator) -> Distance:
    """A heap of berries, two layers high."""
    heap = [
        (1.05 + 0.17 * column + 0.085 * (row % 2), 0.13 + 0.19 * layer, 0.45 + 0.17 * row)
        for layer in range(2)
        for row in range(4 - layer)
        for column in range(4 - layer)
    ]
    berries = (np.array(heap) + rng.uniform(-0.03, 0.03, (len(heap), 3))).astype(np.float32)

    def distance(points: Floats) -> Floats:
        square = np.full(points.shape[1], np.inf, np.float32)
        for x, y, z in berries:
            apart = (points[0] - x) ** 2 + (points[1] - y) ** 2 + (points[2] - z) ** 2
            np.minimum(square, apart, out=square)
        return np.asarray(np.sqrt(square) - 0.125, np.float32)

    return distance


def _fruit(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A still life: apples, oranges and grapes on a table before distant lights."""
    dimples = _noise(rng, 256, 256, 0.4)

    def orange(x: float, z: float, size: float) -> Distance:
        ball = _ball(x, size, z, radii=(size, size * 0.95, size))
        return lambda p: ball(p) + np.float32(0.0009) * _at(dimples, p[1] * 60, (p[0] + p[2]) * 60)

    red = _mottled(rng, _rgb(0.60, 0.04, 0.05), _rgb(0.74, 0.20, 0.09), 0.5)
    green = _mottled(rng, _rgb(0.42, 0.56, 0.12), _rgb(0.66, 0.70, 0.22), 0.6)
    peel = _mottled(rng, _rgb(0.92, 0.44, 0.04), _rgb(0.98, 0.55, 0.10), 1.0)
    skin = _mottled(rng, _rgb(0.17, 0.05, 0.15), _rgb(0.30, 0.11, 0.22), 0.8)
    stem = _mottled(rng, _rgb(0.25, 0.16, 0.08), _rgb(0.34, 0.24, 0.12), 1.0)
    things = [
        _Thing(_apple(-0.75, 0.1, 0.52), red, 0.5, (-0.75, 0.45, 0.1, 0.62)),
        _Thing(
            _stick(_rgb(-0.75, 0.7, 0.1), _rgb(-0.68, 1.02, 0.1), 0.022),
            stem,
            0.1,
            (-0.72, 0.86, 0.1, 0.2),
        ),
        _Thing(_apple(0.05, -0.75, 0.50), green, 0.45, (0.05, 0.43, -0.75, 0.6)),
        _Thing(
            _stick(_rgb(0.05, 0.7, -0.75), _rgb(0.0, 0.98, -0.73), 0.022),
            stem,
            0.1,
            (0.02, 0.84, -0.74, 0.2),
        ),
        _Thing(orange(0.32, 0.42, 0.44), peel, 0.3, (0.32, 0.44, 0.42, 0.46)),
        _Thing(orange(-1.5, -0.7, 0.46), peel, 0.3, (-1.5, 0.46, -0.7, 0.48)),
        _Thing(_grapes(rng), skin, 0.4, (1.35, 0.22, 0.72, 0.65)),
    ]
    background = _bokeh(rng, height, width, _rgb(0.20, 0.12, 0.07), _rgb(0.08, 0.10, 0.09))
    camera = _Camera(_rgb(0.2, 1.25, 4.6), _rgb(0.05, 0.52, 0.0), 1.55)
    return _studio(things, background, camera, _rgb(-0.8, 0.9, 0.55), _planks(rng))[0]


def _mug(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A product photograph: a blue mug on seamless white."""

    def body(points: Floats) -> Floats:
        aside = np.hypot(points[0], points[2])
        wall = (
            np.hypot(np.maximum(aside - 0.62, 0), np.maximum(np.abs(points[1] - 0.8) - 0.7, 0))
            - 0.09
        )
        hollow = np.maximum(aside - 0.60, 0.2 - points[1])
        ring = np.hypot(points[0] - 0.72, points[1] - 0.8) - 0.42
        handle = np.hypot(ring, points[2]) - 0.085
        return np.asarray(np.maximum(_blend(wall, handle, 0.08), -hollow), np.float32)

    speckle = _noise(rng, 512, 512, 0.3)

    def glaze(points: Floats) -> Floats:
        aside = np.hypot(points[0], points[2])
        turn = np.arctan2(points[2], points[0])
        dots = _step(2.0, 2.4, _at(speckle, points[1] * 110, turn * 90))
        edge = 1.15 + 0.02 * np.sin(turn * 9)
        blue = _mix(_rgb(0.10, 0.25, 0.42), _rgb(0.05, 0.10, 0.18), dots * 0.8)
        cream = np.where((aside < 0.63) | (points[1] > edge), 1, 0).astype(np.float32)
        return _mix(blue, _rgb(0.90, 0.87, 0.80), cream)

    white = np.full((height, width, 3), 0.97, np.float32)
    camera = _Camera(_rgb(1.2, 2.3, 4.6), _rgb(0.2, 0.72, 0.0), 2.0)
    mug = _Thing(body, glaze, 0.5, (0.2, 0.8, 0, 1.35))
    return _studio([mug], white, camera, _rgb(-0.7, 1.0, 0.45), lambda p: np.full_like(p.T, 0.98))[
        0
    ]


def _vase(rng: np.random.Generator, height: int, width: int) -> tuple[Floats, Floats]:
    """A turned vase, cut out: the picture and its coverage, 0 to 1."""

    def body(points: Floats) -> Floats:
        up = points[1]
        profile = 0.42 + 0.30 * np.sin(np.clip(up, 0, 2.2) * 2.3 + 0.1) + 0.09 * _step(1.7, 2.2, up)
        flutes = 0.012 * np.cos(14 * np.arctan2(points[2], points[0]))
        side = np.hypot(points[0], points[2]) - profile - flutes
        return np.asarray(
            np.maximum(np.maximum(side, -(side + 0.07)) * 0.6, np.abs(up - 1.1) - 1.1), np.float32
        )

    clay = _mottled(rng, _rgb(0.62, 0.26, 0.15), _rgb(0.74, 0.36, 0.22), 0.8)

    def painted(points: Floats) -> Floats:
        band = np.abs(np.sin(points[1] * 7.1)) + 0.1 * np.sin(14 * np.arctan2(points[2], points[0]))
        return _mix(clay(points), _rgb(0.90, 0.84, 0.72), _step(0.18, 0.10, band))

    grey = np.full((height, width, 3), 0.5, np.float32)
    camera = _Camera(_rgb(0.0, 2.0, 5.6), _rgb(0, 1.1, 0), 1.9)
    vase = _Thing(body, painted, 0.25, (0, 1.1, 0, 1.4))
    return _studio([vase], grey, camera, _rgb(-0.8, 0.8, 0.6))


def _head(points: Floats) -> Floats:
    """Head and shoulders of nobody, about 3 units tall; the face looks along +z."""
    p = points.copy()
    p[0] = np.abs(p[0])
    skull = _ball(0, 2.28, -0.06, radii=(0.50, 0.58, 0.60))(p)
    jaw = _ball(0, 1.98, 0.14, radii=(0.34, 0.42, 0.38))(p)
    face = _blend(skull, jaw, 0.25)
    face = -_blend(-face, _ball(0.19, 2.22, 0.56, radii=(0.13, 0.085, 0.12))(p), 0.12)
    nose = _stick(_rgb(0, 2.24, 0.50), _rgb(0, 2.04, 0.66), 0.055)(p)
    tip = _ball(0.05, 2.03, 0.60, radii=(0.075, 0.06, 0.08))(p)
    face = _blend(face, _blend(nose, tip, 0.05), 0.08)
    face = _blend(face, _ball(0.17, 2.22, 0.44, radii=(0.085, 0.07, 0.075))(p), 0.02)
    face = _blend(face, _stick(_rgb(0.06, 2.34, 0.52), _rgb(0.27, 2.35, 0.42), 0.04)(p), 0.07)
    face = _blend(face, _stick(_rgb(0, 1.865, 0.50), _rgb(0.11, 1.85, 0.44), 0.034)(p), 0.03)
    face = _blend(face, _stick(_rgb(0, 1.795, 0.49), _rgb(0.09, 1.80, 0.44), 0.040)(p), 0.03)
    face = _blend(face, _ball(0, 1.64, 0.38, radii=(0.13, 0.10, 0.12))(p), 0.12)
    ear = _ball(0.50, 2.14, -0.04, radii=(0.06, 0.16, 0.10))(p)
    neck = _stick(_rgb(0, 1.85, -0.06), _rgb(0, 1.1, -0.14), 0.27)(p)
    chest = _ball(0, 0.45, -0.15, radii=(0.95, 0.85, 0.48))(p)
    arm = _ball(0.80, 0.72, -0.15, radii=(0.42, 0.42, 0.36))(p)
    body = _blend(_blend(chest, arm, 0.3), neck, 0.28)
    return _blend(_blend(face, ear, 0.06), body, 0.12)


def _bust(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A portrait: a marble bust of nobody, before a garden out of focus."""
    locks = _noise(rng, 512, 512, 1.0)

    def hair(points: Floats) -> Floats:
        cap = _ball(0, 2.42, -0.16, radii=(0.57, 0.56, 0.62))(points)
        bun = _ball(0, 2.42, -0.80, radii=(0.27, 0.27, 0.25))(points)
        waves = _at(locks, points[1] * 60, (points[0] + points[2]) * 120)
        strands = 0.02 * np.sin(points[0] * 26 + 3 * points[1] + 1.1 * waves) + 0.008 * waves
        face = _ball(0, 2.02, 0.62, radii=(0.42, 0.56, 0.62))(points)
        return np.asarray(np.maximum(_blend(cap, bun, 0.1) + strands, -face) * 0.7, np.float32)

    marble = _mottled(rng, _rgb(0.86, 0.83, 0.78), _rgb(0.70, 0.67, 0.64), 0.35)
    turn = np.float32(0.45)
    spin = np.array(
        [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]], np.float32
    )
    things = [
        _Thing(lambda p: _head(spin @ p), lambda p: marble(spin @ p), 0.16, (0, 1.3, 0, 1.85)),
        _Thing(lambda p: hair(spin @ p), lambda p: marble(spin @ p), 0.12, (0, 2.45, 0, 1.1)),
    ]
    background = _bokeh(rng, height, width, _rgb(0.12, 0.20, 0.09), _rgb(0.34, 0.42, 0.24))
    camera = _Camera(_rgb(0.0, 2.0, 6.0), _rgb(0, 1.82, 0), 2.2)
    return _studio(things, background, camera, _rgb(0.75, 0.7, 0.6))[0]


def _moon(rng: np.random.Generator, height: int, width: int) -> Floats:
    """The moon past its first quarter, with seas, craters and a ragged edge of night."""
    down, across = _grid(height, width)
    y, x = (down - 0.5) / 0.40, across / 0.40
    inside = np.clip(1 - x * x - y * y, 0, 1)
    z = np.sqrt(inside)
    relief = 0.012 * _noise(rng, height, width, 1.9)
    for radius in np.minimum(rng.pareto(1.7, 900) * 0.008 + 0.006, 0.11):
        a, b = rng.uniform(-1, 1, 2)
        half = int(radius * 0.9 * height) + 2
        r, c = int((a * 0.4 + 0.5) * height), int(b * 0.4 * height + width / 2)
        part = (slice(max(r - half, 0), r + half), slice(max(c - half, 0), c + half))
        away = np.hypot(y[part] - a, (x[part] - b) / max(0.35, 1 - b * b)) / radius
        bowl = np.where(away < 1, away**2 - 1, 0) + 0.5 * np.exp(-(((away - 1) / 0.18) ** 2))
        relief[part] += (0.22 * radius * bowl).astype(np.float32)
    north, east = np.gradient(relief * height * 0.4)
    sea = _step(0.2, 0.9, _noise(rng, height, width, 2.0))
    light = np.clip(0.80 * (x - 1.5 * east) + 0.55 * (z + 0.02) - 0.25 * (y - 1.5 * north), 0, None)
    shade = light**0.7 * (0.95 - 0.38 * sea) * _step(0.0, 0.02, inside)
    return np.repeat(np.asarray(shade, np.float32)[..., None], 3, axis=2)


# --------------------------------------------------------------------------------- developing


def _develop(
    rng: np.random.Generator, picture: Floats, width: int, height: int, grain: float = 3.0
) -> Image.Image:
    """A drawn scene as a photograph of the given size in pixels.

    ``grain`` is the deviation of the sensor's noise in 8-bit levels; about 3 is what a camera
    shows at ISO 400. Half of it again is independent between the colours.
    """
    down, across = _grid(*picture.shape[:2])
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


def _size_drawn(width: int, height: int, most: int) -> tuple[int, int]:
    """(height, width) to draw at: the picture's shape, with no more than ``most`` pixels."""
    shrink = min(1.0, (most / (width * height)) ** 0.5)
    return max(8, round(height * shrink)), max(8, round(width * shrink))


_OUTDOORS: tuple[Scene, ...] = (_lake, _dunes, _sunset, _city, _forest, _dew)


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """One scene of any size (in pixels, RGB); another seed is another place, light and view.

    Meant for tests and benchmarks: about 1 s for 12 megapixels on one core.
    """
    rng = np.random.default_rng(seed)
    scene = _OUTDOORS[int(rng.integers(len(_OUTDOORS)))]
    picture = scene(rng, *_size_drawn(width, height, 700_000))
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    return _develop(rng, picture, width, height)


# ------------------------------------------------------------------------------------- samples

Form = Literal["jpeg", "cmyk", "truncated", "webp", "cutout", "grey16", "copy", "smaller", "text"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One file of the demo: its name, and what it is for, as shown to people.

    ``width`` and ``height`` are of the upright picture at scale 1, in pixels; ``orientation``
    is the EXIF tag (CIPA DC-008, 274). A copy or a smaller version is made ``of`` another file.
    """

    name: str
    note: str
    form: Form
    scene: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    of: str = ""


SAMPLES: tuple[Sample, ...] = (
    Sample(
        "Ferien am See +1.jpg",
        "24 megapixels, a space and a plus in its name, GPS in its EXIF",
        "jpeg",
        "lake",
        6000,
        4000,
    ),
    Sample(
        "Ferien am See (klein).jpg",
        "the same picture saved again at 60 % and lower quality",
        "smaller",
        of="Ferien am See +1.jpg",
    ),
    Sample("夕焼け.webp", "WebP with a Japanese name", "webp", "sunset", 3840, 2560),
    Sample(
        "IMG_4711.JPG",
        "portrait, camera held upright (orientation 6)",
        "jpeg",
        "bust",
        3024,
        4032,
        6,
    ),
    Sample("IMG_4711 Kopie.JPG", "an exact copy under another name", "copy", of="IMG_4711.JPG"),
    Sample(
        "night_city.jpeg", "camera held upside down (orientation 3)", "jpeg", "city", 4608, 3072, 3
    ),
    Sample(
        "tautropfen.jpg",
        "close-up, camera turned the other way (orientation 8)",
        "jpeg",
        "dew",
        3000,
        4000,
        8,
    ),
    Sample(
        "still life.jpg", "a busy table, so that crops have to choose", "jpeg", "fruit", 4000, 3000
    ),
    Sample("mug-white-01.jpg", "a product on white", "jpeg", "mug", 3500, 3500),
    Sample("dunes.jpg", "a wide view with few details", "jpeg", "dunes", 5200, 2600),
    Sample("vase cut-out.png", "PNG with transparency", "cutout", "vase", 2400, 3200),
    Sample("moon.png", "16-bit grey PNG", "grey16", "moon", 2000, 2000),
    Sample("forest_print.jpg", "CMYK JPEG, as print shops send them", "cmyk", "forest", 3600, 2400),
    Sample(
        "IMG_0815.jpg",
        "a transfer that broke off: the end of the file is missing",
        "truncated",
        "lake",
        4000,
        2667,
    ),
    Sample("shopping list.jpg", "a text file that calls itself a JPEG", "text"),
)

#: Pixels drawn per scene: solids cost ten times the time, and a million of the rest 250 MB.
_SCENES: dict[str, tuple[Scene, int]] = {
    "lake": (_lake, 900_000),
    "sunset": (_sunset, 900_000),
    "city": (_city, 1_000_000),
    "dew": (_dew, 1_200_000),
    "dunes": (_dunes, 800_000),
    "forest": (_forest, 1_000_000),
    "bust": (_bust, 500_000),
    "fruit": (_fruit, 500_000),
    "mug": (_mug, 600_000),
    "moon": (_moon, 1_200_000),
}


def write_samples(
    folder: Path,
    *,
    scale: float = 1.0,
    seed: int = 9,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the files of :data:`SAMPLES` and return their paths, in that order.

    ``scale`` multiplies both sides of every picture. Files that exist are kept as they are, so
    a second call returns at once; none is ever seen half written. ``progress`` is told how many
    of how many files are there, from this thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    # Two at a time: each takes up to 250 MB while it draws and develops.
    with ThreadPoolExecutor(2) as threads:
        for derived in (False, True):
            samples = [sample for sample in SAMPLES if bool(sample.of) == derived]
            # The slow scenes first, so that no thread is left alone with one at the end.
            samples.sort(key=lambda sample: sample.scene not in ("bust", "fruit"))
            for _ in threads.map(lambda sample: _write(folder, sample, scale, seed), samples):
                done += 1
                if progress:
                    progress(done, len(SAMPLES))
    return [folder / sample.name for sample in SAMPLES]


def _write(folder: Path, sample: Sample, scale: float, seed: int) -> None:
    path = folder / sample.name
    if path.exists():
        return
    draft = folder / f".{sample.name}.part"
    draft.write_bytes(_encoded(folder, sample, scale, seed))
    draft.replace(path)


def _encoded(folder: Path, sample: Sample, scale: float, seed: int) -> bytes:
    """Return the bytes of a sample; the file it is made of must be there."""
    if sample.form == "text":
        return b"2 lemons\nolive oil\nbread\nfilm for the camera\n"
    if sample.form == "copy":
        return (folder / sample.of).read_bytes()
    if sample.form == "smaller":
        return _saved_again(folder / sample.of)
    return _drawn(sample, scale, seed)


def _drawn(sample: Sample, scale: float, seed: int) -> bytes:
    # Seeded by its name: a file is the same whatever else is written, and in whatever order.
    rng = np.random.default_rng([seed, zlib.crc32(sample.name.encode())])
    width, height = (max(16, round(side * scale)) for side in (sample.width, sample.height))
    if sample.form == "cutout":
        return _cutout(rng, width, height)
    scene, most = _SCENES[sample.scene]
    picture = scene(rng, *_size_drawn(width, height, most))
    if sample.form == "grey16":
        return _grey16(rng, picture, width, height)
    image = _develop(rng, picture, width, height)
    if sample.form == "webp":
        return _saved(image, "WEBP", quality=86, method=1)
    if sample.form == "cmyk":
        return _saved(image.convert("CMYK"), "JPEG", quality=90)
    data = _camera_jpeg(image, sample.orientation)
    return data[: len(data) * 3 // 5] if sample.form == "truncated" else data


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


#: How a camera that was turned stores an upright picture.
_STORED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def _camera_jpeg(upright: Image.Image, orientation: int) -> bytes:
    """A JPEG as a camera writes it, with everything in its EXIF that should not be published.

    Tags: CIPA DC-008-2019. The place is the Null Island weather buoy's, where nobody lives.
    """
    exif = Image.Exif()
    exif.update(
        {
            271: "Sample Optical",
            272: "Model S",
            274: orientation,
            305: "Firmware 1.4",
            306: "2024:06:21 18:30:00",
            315: "A. Photographer",
        }
    )
    exif.get_ifd(0x8769).update(
        {
            33434: 1 / 250,
            33437: 5.6,
            34855: 400,
            36867: "2024:06:21 18:30:00",
            37386: 35.0,
            42033: "SN-0012345",
            42036: "35mm F2",
        }
    )
    exif.get_ifd(0x8825).update(
        {
            1: "N",
            2: (0.0, 0.0, 36.0),
            3: "E",
            4: (0.0, 0.0, 36.0),
            5: b"\x00",
            6: 2.0,
        }
    )
    turned = _STORED.get(orientation)
    image = upright.transpose(turned) if turned is not None else upright
    return _saved(image, "JPEG", quality=91, exif=exif)


def _saved_again(original: Path) -> bytes:
    """What a messenger makes of a picture: 60 % of its size, lower quality, no EXIF."""
    with Image.open(original) as image:
        smaller = image.resize(
            (round(image.width * 0.6), round(image.height * 0.6)), Image.Resampling.BICUBIC
        )
    return _saved(smaller, "JPEG", quality=75)


def _cutout(rng: np.random.Generator, width: int, height: int) -> bytes:
    """The vase without its background."""
    picture, coverage = _vase(rng, *_size_drawn(width, height, 500_000))
    image = _develop(rng, picture, width, height, grain=1.0)
    mask = Image.fromarray((coverage * 255).astype(np.uint8))
    mask = mask.filter(ImageFilter.GaussianBlur(0.6)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    # Under full transparency the colour is plain, which is what editors write.
    clean = Image.composite(
        image, Image.new("RGB", image.size), mask.point(lambda a: 255 * (a > 0))
    )
    clean.putalpha(mask)
    return _saved(clean, "PNG", compress_level=3)


def _grey16(rng: np.random.Generator, picture: Floats, width: int, height: int) -> bytes:
    """16 bits of grey, with a 14-bit sensor's noise."""
    tall = Image.fromarray(picture[..., 0]).resize((width, height), Image.Resampling.BICUBIC)
    levels = np.clip(np.asarray(tall), 0, 1) * 60_000 + 900
    levels = levels + rng.standard_normal(levels.shape, np.float32) * 120
    return _saved(
        Image.fromarray(np.clip(levels, 0, 65_535).astype(np.uint16)), "PNG", compress_level=1
    )
