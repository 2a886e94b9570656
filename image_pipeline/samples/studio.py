"""Still lifes of solids: fruit, a mug, a vase and a bust."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from image_pipeline.samples.canvas import (
    Floats,
    bilinear,
    colour_ramp,
    grid,
    mix,
    noise,
    rgb,
    smoothstep,
)
from image_pipeline.samples.solids import (
    Camera,
    Distance,
    Solid,
    capsule,
    ellipsoid,
    render,
    smooth_union,
)


def _mottled(
    rng: np.random.Generator, first: Floats, second: Floats, fineness: float
) -> Callable[[Floats], Floats]:
    """A colour that wanders between two over a surface."""
    field = noise(rng, 512, 512, 1.2)

    def colour(points: Floats) -> Floats:
        v = (points[1] + 0.6 * points[2]) * 90 * fineness
        u = (points[0] - 0.5 * points[2]) * 90 * fineness
        return mix(first, second, smoothstep(-1.5, 1.5, bilinear(field, v, u)))

    return colour


def _bokeh(rng: np.random.Generator, height: int, width: int, low: Floats, high: Floats) -> Floats:
    """Lights far out of focus: bright discs over a soft background."""
    down, _ = grid(height, width)
    picture = colour_ramp(down, (0.0, high), (1.0, low))
    picture = picture * (1 + 0.3 * noise(rng, height, width, 2.2))[..., None]
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
        disc = smoothstep(1.0, 0.93, away) * (0.7 + 0.3 * away**4) * rng.uniform(0.08, 0.4)
        discs[v, u] += disc[..., None] * tints[rng.integers(len(tints))]
    return np.asarray(picture + discs, np.float32)


def _planks(rng: np.random.Generator) -> Callable[[Floats], Floats]:
    """A wooden table: boards along x, each with its own grain."""
    grain = noise(rng, 1024, 256, 1.1)

    def colour(points: Floats) -> Floats:
        board = np.floor(points[2] / 0.62)
        edge = np.abs(points[2] / 0.62 - board - 0.5) * 2
        ring = bilinear(grain, points[2] * 260 + board * 77, points[0] * 11 + board * 31)
        wood = mix(rgb(0.36, 0.21, 0.12), rgb(0.62, 0.41, 0.25), smoothstep(-1.8, 1.8, ring))
        return np.asarray(
            wood * ((0.92 + 0.16 * np.sin(board * 12.9)) * smoothstep(1.0, 0.97, edge))[:, None]
        )

    return colour


def _apple(x: float, z: float, size: float) -> Distance:
    """A round fruit with a dent at the top and one below."""

    def distance(points: Floats) -> Floats:
        local = (points - rgb(x, size * 0.86, z)[:, None]) / size
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


def fruit(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A still life: apples, oranges and grapes on a table before distant lights."""
    dimples = noise(rng, 256, 256, 0.4)

    def orange(x: float, z: float, size: float) -> Distance:
        ball = ellipsoid(x, size, z, radii=(size, size * 0.95, size))
        return lambda p: (
            ball(p) + np.float32(0.0009) * bilinear(dimples, p[1] * 60, (p[0] + p[2]) * 60)
        )

    red = _mottled(rng, rgb(0.60, 0.04, 0.05), rgb(0.74, 0.20, 0.09), 0.5)
    green = _mottled(rng, rgb(0.42, 0.56, 0.12), rgb(0.66, 0.70, 0.22), 0.6)
    peel = _mottled(rng, rgb(0.92, 0.44, 0.04), rgb(0.98, 0.55, 0.10), 1.0)
    skin = _mottled(rng, rgb(0.17, 0.05, 0.15), rgb(0.30, 0.11, 0.22), 0.8)
    stem = _mottled(rng, rgb(0.25, 0.16, 0.08), rgb(0.34, 0.24, 0.12), 1.0)
    solids = [
        Solid(_apple(-0.75, 0.1, 0.52), red, 0.5, (-0.75, 0.45, 0.1, 0.62)),
        Solid(
            capsule(rgb(-0.75, 0.7, 0.1), rgb(-0.68, 1.02, 0.1), 0.022),
            stem,
            0.1,
            (-0.72, 0.86, 0.1, 0.2),
        ),
        Solid(_apple(0.05, -0.75, 0.50), green, 0.45, (0.05, 0.43, -0.75, 0.6)),
        Solid(
            capsule(rgb(0.05, 0.7, -0.75), rgb(0.0, 0.98, -0.73), 0.022),
            stem,
            0.1,
            (0.02, 0.84, -0.74, 0.2),
        ),
        Solid(orange(0.32, 0.42, 0.44), peel, 0.3, (0.32, 0.44, 0.42, 0.46)),
        Solid(orange(-1.5, -0.7, 0.46), peel, 0.3, (-1.5, 0.46, -0.7, 0.48)),
        Solid(_grapes(rng), skin, 0.4, (1.35, 0.22, 0.72, 0.65)),
    ]
    background = _bokeh(rng, height, width, rgb(0.20, 0.12, 0.07), rgb(0.08, 0.10, 0.09))
    camera = Camera(rgb(0.2, 1.25, 4.6), rgb(0.05, 0.52, 0.0), 1.55)
    return render(solids, background, camera, rgb(-0.8, 0.9, 0.55), _planks(rng))[0]


def mug(rng: np.random.Generator, height: int, width: int) -> Floats:
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
        return np.asarray(np.maximum(smooth_union(wall, handle, 0.08), -hollow), np.float32)

    speckle = noise(rng, 512, 512, 0.3)

    def glaze(points: Floats) -> Floats:
        aside = np.hypot(points[0], points[2])
        turn = np.arctan2(points[2], points[0])
        dots = smoothstep(2.0, 2.4, bilinear(speckle, points[1] * 110, turn * 90))
        edge = 1.15 + 0.02 * np.sin(turn * 9)
        blue = mix(rgb(0.10, 0.25, 0.42), rgb(0.05, 0.10, 0.18), dots * 0.8)
        cream = np.where((aside < 0.63) | (points[1] > edge), 1, 0).astype(np.float32)
        return mix(blue, rgb(0.90, 0.87, 0.80), cream)

    white = np.full((height, width, 3), 0.97, np.float32)
    camera = Camera(rgb(1.2, 2.3, 4.6), rgb(0.2, 0.72, 0.0), 2.0)
    solids = [Solid(body, glaze, 0.5, (0.2, 0.8, 0, 1.35))]
    return render(solids, white, camera, rgb(-0.7, 1.0, 0.45), lambda p: np.full_like(p.T, 0.98))[0]


def vase(rng: np.random.Generator, height: int, width: int) -> tuple[Floats, Floats]:
    """A turned vase, cut out: the picture and its coverage, 0 to 1."""

    def body(points: Floats) -> Floats:
        up = points[1]
        profile = (
            0.42 + 0.30 * np.sin(np.clip(up, 0, 2.2) * 2.3 + 0.1) + 0.09 * smoothstep(1.7, 2.2, up)
        )
        flutes = 0.012 * np.cos(14 * np.arctan2(points[2], points[0]))
        side = np.hypot(points[0], points[2]) - profile - flutes
        return np.asarray(
            np.maximum(np.maximum(side, -(side + 0.07)) * 0.6, np.abs(up - 1.1) - 1.1), np.float32
        )

    clay = _mottled(rng, rgb(0.62, 0.26, 0.15), rgb(0.74, 0.36, 0.22), 0.8)

    def painted(points: Floats) -> Floats:
        band = np.abs(np.sin(points[1] * 7.1)) + 0.1 * np.sin(14 * np.arctan2(points[2], points[0]))
        return mix(clay(points), rgb(0.90, 0.84, 0.72), smoothstep(0.18, 0.10, band))

    grey = np.full((height, width, 3), 0.5, np.float32)
    camera = Camera(rgb(0.0, 2.0, 5.6), rgb(0, 1.1, 0), 1.9)
    solids = [Solid(body, painted, 0.25, (0, 1.1, 0, 1.4))]
    return render(solids, grey, camera, rgb(-0.8, 0.8, 0.6))


def _head(points: Floats) -> Floats:
    """Head and shoulders of nobody, about 3 units tall; the face looks along +z."""
    p = points.copy()
    p[0] = np.abs(p[0])
    skull = ellipsoid(0, 2.28, -0.06, radii=(0.50, 0.58, 0.60))(p)
    jaw = ellipsoid(0, 1.98, 0.14, radii=(0.34, 0.42, 0.38))(p)
    face = smooth_union(skull, jaw, 0.25)
    face = -smooth_union(-face, ellipsoid(0.19, 2.22, 0.56, radii=(0.13, 0.085, 0.12))(p), 0.12)
    nose = capsule(rgb(0, 2.24, 0.50), rgb(0, 2.04, 0.66), 0.055)(p)
    tip = ellipsoid(0.05, 2.03, 0.60, radii=(0.075, 0.06, 0.08))(p)
    face = smooth_union(face, smooth_union(nose, tip, 0.05), 0.08)
    face = smooth_union(face, ellipsoid(0.17, 2.22, 0.44, radii=(0.085, 0.07, 0.075))(p), 0.02)
    face = smooth_union(face, capsule(rgb(0.06, 2.34, 0.52), rgb(0.27, 2.35, 0.42), 0.04)(p), 0.07)
    face = smooth_union(face, capsule(rgb(0, 1.865, 0.50), rgb(0.11, 1.85, 0.44), 0.034)(p), 0.03)
    face = smooth_union(face, capsule(rgb(0, 1.795, 0.49), rgb(0.09, 1.80, 0.44), 0.040)(p), 0.03)
    face = smooth_union(face, ellipsoid(0, 1.64, 0.38, radii=(0.13, 0.10, 0.12))(p), 0.12)
    ear = ellipsoid(0.50, 2.14, -0.04, radii=(0.06, 0.16, 0.10))(p)
    neck = capsule(rgb(0, 1.85, -0.06), rgb(0, 1.1, -0.14), 0.27)(p)
    chest = ellipsoid(0, 0.45, -0.15, radii=(0.95, 0.85, 0.48))(p)
    arm = ellipsoid(0.80, 0.72, -0.15, radii=(0.42, 0.42, 0.36))(p)
    body = smooth_union(smooth_union(chest, arm, 0.3), neck, 0.28)
    return smooth_union(smooth_union(face, ear, 0.06), body, 0.12)


def bust(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A portrait: a marble bust of nobody, before a garden out of focus."""
    locks = noise(rng, 512, 512, 1.0)

    def hair(points: Floats) -> Floats:
        cap = ellipsoid(0, 2.42, -0.16, radii=(0.57, 0.56, 0.62))(points)
        bun = ellipsoid(0, 2.42, -0.80, radii=(0.27, 0.27, 0.25))(points)
        waves = bilinear(locks, points[1] * 60, (points[0] + points[2]) * 120)
        strands = 0.02 * np.sin(points[0] * 26 + 3 * points[1] + 1.1 * waves) + 0.008 * waves
        face = ellipsoid(0, 2.02, 0.62, radii=(0.42, 0.56, 0.62))(points)
        return np.asarray(
            np.maximum(smooth_union(cap, bun, 0.1) + strands, -face) * 0.7, np.float32
        )

    marble = _mottled(rng, rgb(0.86, 0.83, 0.78), rgb(0.70, 0.67, 0.64), 0.35)
    turn = np.float32(0.45)
    spin = np.array(
        [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]], np.float32
    )
    solids = [
        Solid(lambda p: _head(spin @ p), lambda p: marble(spin @ p), 0.16, (0, 1.3, 0, 1.85)),
        Solid(lambda p: hair(spin @ p), lambda p: marble(spin @ p), 0.12, (0, 2.45, 0, 1.1)),
    ]
    background = _bokeh(rng, height, width, rgb(0.12, 0.20, 0.09), rgb(0.34, 0.42, 0.24))
    camera = Camera(rgb(0.0, 2.0, 6.0), rgb(0, 1.82, 0), 2.2)
    return render(solids, background, camera, rgb(0.75, 0.7, 0.6))[0]
