"""Scenes under the sky: terrain, a city, a wood, dew on a leaf, the moon.

Far things fade into the sky exponentially (Beer-Lambert).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from image_pipeline.samples.canvas import (
    Floats,
    bilinear,
    colour_ramp,
    daylight,
    draw_sky,
    gaussian_blur,
    grid,
    mix,
    noise,
    reflected_in_water,
    rgb,
    smoothstep,
)

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
    up = bilinear(ground, eye[1] + steps + 0 * across, eye[0] + steps * across) - eye[2]
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
    return np.asarray(
        np.clip(facing, 0, 1) * (1 - smoothstep(-1.5, 1.5, between - ground)), np.float32
    )


def _ridges(rng: np.random.Generator, side: int, steepness: float) -> Floats:
    """A mountain range: folded noise is sharp on top and round in the valleys."""
    fold = 1 - np.abs(noise(rng, side, side, 1.9))
    tall = noise(rng, side, side, 2.2)
    return np.asarray(
        steepness * (34 * fold + 22 * tall) + 3 * noise(rng, side, side, 1.5), np.float32
    )


def _mountain_colours(rng: np.random.Generator, ground: Floats, snow: float) -> Floats:
    """Meadow and forest, then rock, then snow from ``snow`` up where it is not too steep."""
    side = len(ground)
    north, east = np.gradient(ground)
    steep = np.hypot(north, east)
    rough = noise(rng, side, side, 1.0)
    green = mix(
        np.broadcast_to(rgb(0.11, 0.16, 0.07), (side, side, 3)),
        np.broadcast_to(rgb(0.30, 0.33, 0.14), (side, side, 3)),
        smoothstep(-0.5, 1.5, rough),
    )
    green = green * (1 + 0.25 * noise(rng, side, side, 0.3))[..., None]
    rock = rgb(0.42, 0.39, 0.36) * (1 + 0.18 * rough)[..., None]
    colours = mix(green, rock, smoothstep(snow - 26, snow - 8, ground + 5 * rough + 9 * steep))
    white = np.broadcast_to(rgb(0.95, 0.96, 1.0), colours.shape)
    colours = mix(colours, white, smoothstep(snow, snow + 8, ground + 5 * rough - 9 * steep))
    gravel = np.broadcast_to(rgb(0.50, 0.47, 0.41), colours.shape)
    return mix(colours, gravel, 0.8 * smoothstep(1.4, 0.3, ground))


def lake(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Mountains behind a lake that mirrors them."""
    evening = bool(rng.random() < 0.3)
    light = daylight(rng, evening=evening)
    side, horizon = 1024, float(rng.uniform(0.40, 0.62))
    ground = _ridges(rng, side, float(rng.uniform(0.8, 1.3)))
    y, x = np.mgrid[:side, :side].astype(np.float32)
    shore = float(rng.uniform(60, 160))
    valley = np.exp(-(((x - 512 - rng.uniform(-120, 120)) / 110) ** 2)) * rng.uniform(20, 60)
    ground += 22 - valley - 190 * smoothstep(shore + 170, shore, y) + 45 * smoothstep(250, 700, y)
    colours = _mountain_colours(rng, ground, float(rng.uniform(34, 62)))
    sun = _sunlit(ground, float(np.sign(light.sun_x)) * 0.8, 0.35 if evening else 0.8)
    light_on = sun[..., None] * light.sun * 1.05 + light.zenith * 0.75 + 0.03
    lit = np.asarray(colours * light_on, np.float32)
    view = _look(np.maximum(ground, 0), (512.0, 8.0, 4.0), (height, width), horizon, 620)
    seen = np.isfinite(view.distance)
    air = 1 - np.exp(-np.where(seen, view.distance, 0) / 560)
    haze = np.broadcast_to(light.haze * 0.92, (height, width, 3))
    land = mix(bilinear(lit, view.y, view.x), haze, air)
    picture = np.where(seen[..., None], land, draw_sky(rng, height, width, horizon, light))
    deep = light.zenith * 0.3 + rgb(0.0, 0.05, 0.04)
    water = reflected_in_water(rng, picture, horizon, deep, float(rng.uniform(0.03, 0.3)))
    wet = seen & (bilinear(ground, view.y, view.x) <= 0)
    return np.where(wet[..., None], water, picture)


def dunes(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Sand dunes in low sun, with ripples in the foreground."""
    light = daylight(rng, evening=bool(rng.random() < 0.4))
    side, horizon = 1024, float(rng.uniform(0.28, 0.5))
    bend = noise(rng, side, side, 2.3)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    # A dune rises slowly and falls steeply, so the wave is a skewed one; periods divide the map.
    turn = float(rng.choice([-1, 1]))
    phase = 2 * np.pi * (y * 9 + turn * x * float(rng.integers(3, 8))) / side + 2.4 * bend
    wave = np.sin(phase + 0.75 * np.sin(phase))
    ground = (9 * wave + 9 * bend + 1.2 * np.sin(phase * 3.1 + bend)).astype(np.float32)
    sun = _sunlit(ground, float(np.sign(light.sun_x)) * 0.9, 0.42)
    fine = noise(rng, side, side, 0.8)
    sand = rgb(0.86, 0.62 + rng.uniform(-0.06, 0.08), 0.38 + rng.uniform(-0.08, 0.14))
    lit = (
        sand
        * (1 + 0.035 * fine)[..., None]
        * (sun[..., None] * light.sun * 1.15 + light.middle * 0.33)
    )
    stand = float(ground[20:70, 490:534].max()) + float(rng.uniform(6, 22))
    view = _look(ground, (512.0, 30.0, stand), (height, width), horizon, 700)
    seen = np.isfinite(view.distance)
    reach = np.where(seen, view.distance, 0)
    ripple = np.sin(view.y * 7 + 4 * bilinear(bend, view.y * 6, view.x * 6) + turn * view.x * 2)
    ripples = (1 + 0.09 * ripple * np.exp(-reach / 28))[..., None]
    land = np.asarray(bilinear(lit, view.y, view.x) * ripples, np.float32)
    haze = np.broadcast_to(light.haze * 0.95, land.shape)
    land = mix(land, haze, 1 - np.exp(-reach / 520))
    return np.where(seen[..., None], land, draw_sky(rng, height, width, horizon, light))


def sunset(rng: np.random.Generator, height: int, width: int) -> Floats:
    """The sun over the sea, headlands one behind the other."""
    light = daylight(rng, evening=True)
    horizon = float(rng.uniform(0.48, 0.70))
    picture = draw_sky(rng, height, width, horizon, light)
    down, across = grid(height, width)
    for layer in range(int(rng.integers(1, 4))):
        line = noise(rng, 4, 4096, 1.15)[0, :width]
        side = float(rng.choice([-1, 1]))
        rise = np.clip(side * across[:1] * 0.35 + rng.uniform(-0.12, 0.05), 0, 0.3)
        top = horizon - rise[0] * np.clip(1 + 0.6 * line, 0.1, None)
        dark = light.haze * (0.42 - 0.12 * layer) * rgb(0.75, 0.8, 1.1)
        picture = mix(
            picture, np.broadcast_to(dark, picture.shape), smoothstep(0, 2 / height, down - top)
        )
    water = reflected_in_water(rng, picture, horizon, rgb(0.05, 0.08, 0.14), 0.45)
    near = np.clip((down - horizon) / (1 - horizon), 0.004, 1)
    crest = bilinear(noise(rng, 512, 512, 0.6), 50 / (near + 0.04), across / (near + 0.04) * 30)
    path = np.exp(-(((across - light.sun_x) / (0.05 + 0.16 * near)) ** 2))
    water += light.sun * (path * smoothstep(0.5, 1.6, crest) * 0.9 + 0.10 * path)[..., None]
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


def city(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A skyline at night across a river."""
    base = float(rng.uniform(0.55, 0.72))
    dusk = float(rng.uniform(0, 1))
    down, _ = grid(height, width)
    glow = rgb(0.55, 0.30 + 0.12 * dusk, 0.25 + 0.25 * dusk)
    sky = colour_ramp(
        down / base,
        (0.0, rgb(0.02, 0.03, 0.09 + 0.1 * dusk)),
        (0.6, rgb(0.10, 0.09, 0.22 + 0.1 * dusk)),
        (1.0, glow),
    )
    sky += (0.035 * noise(rng, height, width, 1.5) * (1 - down))[..., None] * glow
    picture, quay = sky, int(base * height)
    centre = rng.uniform(-0.5, 0.5)
    for layer in range(3):
        left = -int(rng.integers(0, height // 20))
        while left < width:
            across_here = (left - width / 2) / height - centre
            tall = (0.10 + 0.42 * np.exp(-((across_here / 0.33) ** 2))) * (1 - 0.27 * layer)
            top = quay - int(height * max(0.03, tall * rng.uniform(0.35, 1.15)))
            right = left + int(height * rng.uniform(0.03, 0.09))
            body = glow * (0.42 - 0.15 * layer) * rgb(0.6, 0.7, 1.0)
            if right > 0:
                box = (max(left, 0), max(top, 4), min(right, width), quay)
                _tower(rng, picture, box, body)
            left = right + int(height * rng.uniform(-0.005, 0.02))
    lamps = np.zeros_like(picture)
    spots = rng.integers(0, width, 60)
    lamps[quay - 3 : quay, spots] = rgb(6, 4.4, 2.4)
    picture = picture + gaussian_blur(lamps, height / 500) * 2
    picture = picture + 0.9 * gaussian_blur(np.clip(picture - 0.35, 0, 1), height / 60)
    # Long exposures smear reflections upright: squeeze the rows, then stretch them again.
    smear = np.asarray(picture[:quay].reshape(-1, width, 3))
    soft = gaussian_blur(smear, height / 300)
    mirror = picture.copy()
    mirror[:quay] = 0.35 * smear + 0.65 * soft
    water = reflected_in_water(rng, mirror, base, rgb(0.01, 0.015, 0.04), 0.8)
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
    rough = 0.12 * noise(rng, height, width, 0.9)
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


def forest(rng: np.random.Generator, height: int, width: int) -> Floats:
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
    lit = np.clip(0.55 - 0.55 * east - 0.45 * north, 0.05, 1.6) * smoothstep(-0.5, 0.8, dome)
    clearing = noise(rng, height, width, 2.2)
    picture = kinds[sort[tree]] * (tint[tree] * (0.25 + 1.1 * lit))[..., None]
    meadow = rgb(0.40, 0.43, 0.19) * (0.9 + 0.08 * noise(rng, height, width, 0.8))[..., None]
    picture = mix(picture, meadow, smoothstep(1.2, 1.3, clearing + 0.25 * dome))
    down, across = grid(height, width)
    turn = float(rng.uniform(0, np.pi))
    along = down * np.cos(turn) + across * np.sin(turn)
    aside = across * np.cos(turn) - (down - 0.5) * np.sin(turn)
    bend = 0.22 * np.sin(along * rng.uniform(4, 9) + rng.uniform(0, 6)) + rng.uniform(-0.3, 0.3)
    bank = np.abs(aside - bend) + 0.012 * noise(rng, height, width, 1.2) + 0.02 * dome
    wide = float(rng.uniform(0.03, 0.10))
    gravel = rgb(0.55, 0.52, 0.46) * (0.9 + 0.1 * noise(rng, height, width, 0.4))[..., None]
    picture = mix(picture, gravel, smoothstep(wide + 0.02, wide + 0.012, bank))
    stream = mix(
        np.broadcast_to(rgb(0.10, 0.28, 0.30), picture.shape),
        np.broadcast_to(rgb(0.25, 0.47, 0.46), picture.shape),
        smoothstep(0.3 * wide, wide, bank),
    )
    picture = mix(picture, stream, smoothstep(wide, wide - 0.008, bank))
    return picture * (1.05 + 0.13 * noise(rng, height, width, 2.4))[..., None]


# --------------------------------------------------------------------------------------- macro


def _leaf(rng: np.random.Generator, height: int, width: int) -> Floats:
    """The face of a leaf: midrib, side veins, and the net between them."""
    down, across = grid(height, width)
    turn = float(rng.uniform(-0.9, 0.9)) + float(rng.choice([0, np.pi / 2]))
    along = (down - 0.5) * np.cos(turn) + across * np.sin(turn)
    aside = across * np.cos(turn) - (down - 0.5) * np.sin(turn) + rng.uniform(-0.2, 0.2)
    aside = aside + 0.05 * along**2
    spread = along * 5.5 - np.abs(aside) * rng.uniform(3, 5) - 0.8 * np.abs(aside) ** 2
    side = np.abs(spread - np.round(spread)) / 5.5
    vein = np.exp(-((aside / 0.012) ** 2)) + 0.7 * np.exp(-((side / 0.006) ** 2))
    net = np.abs(noise(rng, height, width, 1.25))
    vein = vein + 0.28 * np.exp(-((net / 0.10) ** 2))
    swell = np.sin(np.pi * (spread - np.floor(spread))) + 0.25 * noise(rng, height, width, 1.4)
    hue = rng.uniform(0, 1)
    deep = rgb(0.10 + 0.25 * hue, 0.33 - 0.10 * hue, 0.08)
    pale = rgb(0.55 + 0.25 * hue, 0.70 - 0.15 * hue, 0.28)
    face = mix(
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
    lens = bilinear(picture, np.clip(rows, 0, height - 2), np.clip(columns, 0, width - 2))
    slant = np.clip(0.5 + 0.62 * (v + u), 0, 1.3)
    lens = (
        lens * (0.45 + 1.0 * slant)[..., None]
        + (0.22 * slant * smoothstep(0.95, 0.5, reach))[..., None]
    )
    lens *= (1 - 0.45 * smoothstep(0.78, 1.0, reach))[..., None]
    spark = np.exp(-(np.hypot((v + 0.42) * 1.1, u + 0.38) ** 2) / 0.016)
    lens += (1.2 * spark + 0.25 * np.exp(-((reach - 0.86) ** 2) / 0.004) * slant)[..., None]
    picture[top:bottom, left:right] = mix(patch, lens, smoothstep(1.0, 0.96, reach))


def dew(rng: np.random.Generator, height: int, width: int) -> Floats:
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


# ---------------------------------------------------------------------------------------- moon


def moon(rng: np.random.Generator, height: int, width: int) -> Floats:
    """The moon past its first quarter, with seas, craters and a ragged edge of night."""
    down, across = grid(height, width)
    y, x = (down - 0.5) / 0.40, across / 0.40
    inside = np.clip(1 - x * x - y * y, 0, 1)
    z = np.sqrt(inside)
    relief = 0.012 * noise(rng, height, width, 1.9)
    for radius in np.minimum(rng.pareto(1.7, 900) * 0.008 + 0.006, 0.11):
        a, b = rng.uniform(-1, 1, 2)
        half = int(radius * 0.9 * height) + 2
        r, c = int((a * 0.4 + 0.5) * height), int(b * 0.4 * height + width / 2)
        part = (slice(max(r - half, 0), r + half), slice(max(c - half, 0), c + half))
        away = np.hypot(y[part] - a, (x[part] - b) / max(0.35, 1 - b * b)) / radius
        bowl = np.where(away < 1, away**2 - 1, 0) + 0.5 * np.exp(-(((away - 1) / 0.18) ** 2))
        relief[part] += (0.22 * radius * bowl).astype(np.float32)
    north, east = np.gradient(relief * height * 0.4)
    sea = smoothstep(0.2, 0.9, noise(rng, height, width, 2.0))
    light = np.clip(0.80 * (x - 1.5 * east) + 0.55 * (z + 0.02) - 0.25 * (y - 1.5 * north), 0, None)
    shade = light**0.7 * (0.95 - 0.38 * sea) * smoothstep(0.0, 0.02, inside)
    return np.repeat(np.asarray(shade, np.float32)[..., None], 3, axis=2)
