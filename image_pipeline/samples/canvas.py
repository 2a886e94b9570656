"""What every scene is drawn with: noise, colours, light, sky and water.

Pictures are float32 arrays (height, width, 3) of display values, nominally 0 to 1. Terrain and
clouds have power spectra that fall as a power of the frequency (Mandelbrot, "The Fractal
Geometry of Nature", 1982).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Floats = NDArray[np.float32]

#: Draws a picture: (rng, height, width) -> display values (height, width, 3).
Scene = Callable[[np.random.Generator, int, int], Floats]


def rgb(*values: float) -> Floats:
    """Return a colour (red, green, blue), or a place (x, y, z), as float32."""
    return np.array(values, np.float32)


def noise(rng: np.random.Generator, height: int, width: int, slope: float) -> Floats:
    """Periodic noise (height, width), mean 0 and deviation 1; amplitude ~ frequency ** -slope."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    down = np.fft.fftfreq(height)[:, None] * height / min(height, width)
    across = np.fft.rfftfreq(width)[None, :] * width / min(height, width)
    frequency = np.hypot(down * min(height, width), across * min(height, width))
    frequency[0, 0] = 1
    spectrum *= frequency**-slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (height, width)).astype(np.float32)
    return np.asarray(field / field.std(), np.float32)


def bilinear(field: Floats, down: NDArray[Any], across: NDArray[Any]) -> Floats:
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


def smoothstep(low: float, high: float, value: NDArray[Any]) -> Floats:
    """0 below ``low``, 1 above ``high``, a smooth cubic between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def mix(first: NDArray[Any], second: NDArray[Any], share: NDArray[Any]) -> Floats:
    """``first`` where ``share`` is 0, ``second`` where it is 1; ``share`` has no channels."""
    return np.asarray(first + (second - first) * share[..., None], np.float32)


def grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Down 0..1 and across -a..a, in heights of the picture (a is half the aspect ratio)."""
    down = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    across = (np.arange(width, dtype=np.float32)[None, :] + 0.5 - width / 2) / height
    return np.broadcast_to(down, (height, width)), np.broadcast_to(across, (height, width))


def colour_ramp(down: Floats, *stops: tuple[float, Floats]) -> Floats:
    """Colours (..., 3) at ``down``, interpolated between stops (place, colour)."""
    places = [place for place, _ in stops]
    channels = [np.interp(down, places, [colour[i] for _, colour in stops]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def gaussian_blur(picture: Floats, radius: float) -> Floats:
    """Gaussian blur of display values, in 8 bits; ``radius`` in pixels."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    return blurred / np.float32(255)


@dataclass(frozen=True, slots=True)
class Light:
    """Sun, sky and haze outdoors: colours, and where the sun stands.

    ``sun_x`` (from the middle) and ``sun_up`` (from the horizon) are in heights of the picture.
    Clouds begin where their noise, of deviation 1, exceeds ``clear``.
    """

    zenith: Floats
    middle: Floats
    haze: Floats
    sun: Floats
    cloud: Floats
    sun_x: float
    sun_up: float
    clear: float


def daylight(rng: np.random.Generator, *, evening: bool = False) -> Light:
    """A clear or cloudy day, or with ``evening`` the last quarter of an hour of one."""
    sun_x = float(rng.uniform(0.15, 0.55) * rng.choice([-1, 1]))
    clear = float(rng.uniform(-0.9, 0.7))
    if evening:
        warm = 0.1 * float(rng.uniform(0, 1))
        return Light(
            zenith=rgb(0.13, 0.16 + 0.8 * warm, 0.36),
            middle=rgb(0.66, 0.36 + warm, 0.40),
            haze=rgb(1.0, 0.58 + warm, 0.28),
            sun=rgb(1.0, 0.80, 0.50),
            cloud=rgb(0.66, 0.40, 0.44),
            sun_x=sun_x * 0.6,
            sun_up=float(rng.uniform(0.03, 0.10)),
            clear=clear,
        )
    return Light(
        zenith=rgb(0.20, 0.38, 0.62) * np.float32(rng.uniform(0.75, 1.0)),
        middle=rgb(0.45, 0.62, 0.80),
        haze=rgb(0.80, 0.86, 0.90),
        sun=rgb(1.0, 0.96, 0.86),
        cloud=rgb(0.98, 0.98, 1.0),
        sun_x=sun_x,
        sun_up=float(rng.uniform(0.45, 0.9)),
        clear=clear,
    )


def draw_sky(
    rng: np.random.Generator, height: int, width: int, horizon: float, light: Light
) -> Floats:
    """A sky with a sun and a flat layer of clouds that recedes to ``horizon`` (0..1 down)."""
    down, across = grid(height, width)
    up = np.clip((horizon - down) / max(horizon, 0.1), 0, 1)
    sky = colour_ramp(up, (0.0, light.haze), (0.45, light.middle), (1.0, light.zenith))
    reach = np.hypot(across - light.sun_x, down - horizon + light.sun_up)
    sky += light.sun * (0.30 * np.exp(-reach * 4) + 0.30 * np.exp(-reach * 14))[..., None]
    sky = mix(sky, np.broadcast_to(light.sun * 1.2, sky.shape), smoothstep(0.032, 0.026, reach))
    field = noise(rng, 1024, 1024, 1.55)
    far = 1 / (up + 0.16)
    v, u = far * 190, across * far * 190
    puff = bilinear(field, v, u)
    shade = puff - bilinear(field, v + 14, u - light.sun_x * 20)
    cover = smoothstep(light.clear, light.clear + 1.6, puff) * smoothstep(0.0, 0.15, up)
    bright = np.clip(0.86 + 0.16 * shade - 0.05 * puff, 0.55, 1.1)
    lit = light.cloud * bright[..., None] + light.sun * (0.45 * np.exp(-reach * 3.5))[..., None]
    return mix(sky, mix(lit, sky, 0.35 * np.exp(-up * 4)), cover * 0.9)


def reflected_in_water(
    rng: np.random.Generator, picture: Floats, horizon: float, deep: Floats, waves: float
) -> Floats:
    """What is above ``horizon`` (0..1 down) mirrored in water that fills the picture below it.

    ``deep`` is the colour of the water itself; with ``waves`` 0 it is flat, at 0.45 a calm sea.
    """
    height, width = picture.shape[:2]
    down, across = grid(height, width)
    near = np.clip((down - horizon) / (1 - horizon), 0.004, 1)
    swell = noise(rng, 512, 512, 1.1)
    slope = bilinear(swell, 60 / (near + 0.03), across / (near + 0.03) * 26) * waves
    rows = (2 * horizon - down + slope * (0.01 + 0.16 * near)) * height
    columns = np.arange(width, dtype=np.float32) + slope * near * 0.03 * height
    mirror = bilinear(
        picture, np.clip(rows, 0, horizon * height - 2), np.clip(columns, 0, width - 2)
    )
    # Water mirrors more the flatter it is seen (Fresnel).
    share = np.clip(0.86 - 0.55 * near + 0.5 * slope * near, 0.05, 0.95)
    return mix(np.broadcast_to(deep, picture.shape), mirror * 0.94, share)
