"""A flat picture seen in perspective: the homography of four corners, and a warp by it.

Coordinates are continuous: pixel ``i`` of a row covers ``i`` to ``i + 1``, and y points down. A
homography is a 3x3 matrix of float64 whose last element is 1 (Hartley and Zisserman, "Multiple
View Geometry", 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = NDArray[np.float64]

    #: (height, width, 4): red, green and blue weighted by alpha, and alpha, all 0 to 1.
    Pixels: TypeAlias = NDArray[np.float32]

Point = tuple[float, float]

#: Four corners, clockwise from the upper left one of the picture.
Quad = tuple[Point, Point, Point, Point]

#: Left, top, right, bottom in whole pixels.
Tile = tuple[int, int, int, int]

#: Draws a part of what is warped.
Drawn: TypeAlias = "Callable[[Tile], Pixels]"

UNIT: Quad = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))

#: Points a side at which each pixel is sampled, from a picture that has as many pixels there.
#: Frequencies that the points cannot tell apart (more than 1 cycle per pixel) then fall on some
#: that pixels do not show either (more than half a cycle), even where the picture lies at 45
#: degrees and reaches up to 1.4; and the last filter takes both away.
SAMPLES = 2

#: Pixels a side that are drawn at a time: small enough that scale hardly changes within, so that
#: every part of a picture in steep perspective is as sharp as it can be without aliasing.
_SIDE = 128

#: Pixels around a tile that are drawn with it: the reach of the last filter (Lanczos, 3 lobes).
_REACH = 3

#: Pixels of the reduced picture by which its edge is continued, for what the filters see beyond:
#: twice the reach, two for the bicubic kernel, and as many again for a scale that grows outwards.
_BEYOND = 16


def homography(source: Sequence[Point], target: Sequence[Point]) -> Matrix:
    """The homography that takes each corner of ``source`` to that of ``target``.

    Both have four, and have to be convex and to go round the same way. (0, 0) may not lie on the
    vanishing line of ``source``, as it never does if it is one of the corners.
    """
    import numpy as np

    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
        values += [u, v]
    solved = np.linalg.solve(np.array(rows, np.float64), np.array(values, np.float64))
    return np.append(solved, 1.0).reshape(3, 3)


def project(matrix: Matrix, points: Matrix) -> Matrix:
    """Points (n, 2) taken by a homography."""
    import numpy as np

    homogeneous = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    projected: Matrix = homogeneous[:, :2] / homogeneous[:, 2:]
    return projected


def jacobians(matrix: Matrix, points: Matrix) -> Matrix:
    """Derivatives of a homography at points (n, 2): (n, i, j) is of coordinate i by point[j]."""
    import numpy as np

    weights = np.column_stack([points, np.ones(len(points))]) @ matrix[2]
    projected = project(matrix, points)
    steps = matrix[None, :2, :2] - projected[:, :, None] * matrix[2, :2]
    derivatives: Matrix = steps / weights[:, None, None]
    return derivatives


def extents(quad: Quad) -> tuple[float, float]:
    """Pixels that the picture's whole width and height would have at the scale of its nearest part.

    :data:`SAMPLES` times as many are all that a warp into ``quad`` makes use of.
    """
    import numpy as np

    steps = jacobians(homography(UNIT, quad), np.array(UNIT))
    wide, high = np.hypot(steps[:, 0], steps[:, 1]).max(axis=0)
    return float(wide), float(high)


def coverage(quad: Quad, tile: Tile) -> NDArray[np.float32]:
    """The share of each pixel of a tile inside a convex quad, 0 to 1, shape (height, width).

    Exact along the sides; where two sides meet within a pixel, their product.
    """
    import numpy as np

    left, top, right, bottom = tile
    x = np.arange(left, right)[None, :] + 0.5
    y = np.arange(top, bottom)[:, None] + 0.5
    share = np.ones((bottom - top, right - left))
    for (ax, ay), (bx, by) in zip(quad, quad[1:] + quad[:1], strict=True):
        across, down = bx - ax, by - ay
        length = np.hypot(across, down)
        inside = (across * (y - ay) - down * (x - ax)) / length
        share *= _half_plane(inside, abs(down) / length, abs(across) / length)
    return share.astype(np.float32)


def _half_plane(inside: Matrix, one: float, other: float) -> Matrix:
    """The share of a unit square in a half plane, from how far inside of it its centre is.

    ``one`` and ``other`` are the sizes of the components of the half plane's normal. Seen along
    the normal the square is a trapezoid, as wide at the foot as their sum.
    """
    import numpy as np

    steep, flat = max(one, other), min(one, other)
    away = np.abs(inside)
    outer = np.clip((steep + flat) / 2 - away, 0, None) ** 2 / max(2 * steep * flat, 1e-12)
    lesser = np.where(away <= (steep - flat) / 2, 0.5 - away / steep, outer)
    share: Matrix = np.where(inside > 0, 1 - lesser, lesser)
    return share


def tiles(within: Tile) -> Iterator[Tile]:
    """The parts of a rectangle that are drawn at a time."""
    left, top, right, bottom = within
    for y in range(top, bottom, _SIDE):
        for x in range(left, right, _SIDE):
            yield x, y, min(x + _SIDE, right), min(y + _SIDE, bottom)


def bounds(quad: Quad, size: tuple[int, int]) -> Tile:
    """The whole pixels of a picture of a size that a quad may touch; empty ones if none."""
    import math

    xs, ys = zip(*quad, strict=True)
    left, top = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
    right, bottom = min(size[0], math.ceil(max(xs))), min(size[1], math.ceil(max(ys)))
    return left, top, max(left, right), max(top, bottom)


def drawn(picture: Image.Image, window: Tile, quad: Quad) -> Drawn:
    """Something that draws a window of a picture (RGB, or RGBa) into a quad, tile by tile.

    For every tile its part of the picture goes through a Lanczos filter, so far reduced (or
    enlarged) in width and height that it has :data:`SAMPLES` pixels for one where it is reduced
    most; is warped by bicubic interpolation at as many points; and comes down to pixels through a
    Lanczos filter again. Sides are cut by their exact coverage, whatever the scale.

    Into an upright rectangle at whole pixels it is one resize; without a change of scale the
    pixels stay what they are.
    """
    (left, top), _, (right, bottom), _ = quad
    upright = ((left, top), (right, top), (right, bottom), (left, bottom))
    if (
        quad == upright
        and left < right
        and all(value == int(value) for value in (*upright[0], *upright[2]))
    ):
        size = int(right - left), int(bottom - top)
        same = window[2:] == (window[0] + size[0], window[1] + size[1])
        fitting = (
            picture.crop(window)
            if same
            else picture.resize(size, Image.Resampling.LANCZOS, box=window)
        )

        def sampled(tile: Tile) -> Image.Image:
            x, y, beyond, below = tile
            shift = int(left), int(top)
            return fitting.crop((x - shift[0], y - shift[1], beyond - shift[0], below - shift[1]))
    else:
        import numpy as np

        # Not solved for: the base's own corner may lie on the vanishing line, the design's never.
        matrix = np.asarray(np.linalg.inv(homography(UNIT, quad)), np.float64)

        def sampled(tile: Tile) -> Image.Image:
            return _warped(picture, window, quad, matrix, tile)

    return lambda tile: _pixels(sampled(tile)) * coverage(quad, tile)[..., None]


def _pixels(image: Image.Image) -> Pixels:
    import numpy as np

    pixels = np.ones((image.height, image.width, 4), np.float32)
    pixels[..., : len(image.getbands())] = np.asarray(image)
    pixels[..., : len(image.getbands())] /= 255
    return pixels


def _warped(
    picture: Image.Image, window: Tile, quad: Quad, matrix: Matrix, tile: Tile
) -> Image.Image:
    """The pixels of a tile, continued beyond the sides of the quad as far as filters reach.

    ``matrix`` takes ``quad`` to the unit square.
    """
    import numpy as np

    left, top = tile[0] - _REACH, tile[1] - _REACH
    size = tile[2] - left + _REACH, tile[3] - top + _REACH
    seen = _clipped(quad, (left, top, left + size[0], top + size[1]))
    if not len(seen):
        return Image.new(picture.mode, (tile[2] - tile[0], tile[3] - tile[1]))
    sides = np.array([window[2] - window[0], window[3] - window[1]], np.float64)
    # The shares of width and height that one pixel of it may take: the steepest decide.
    steps = np.hypot(*jacobians(matrix, seen).transpose(2, 0, 1)).max(axis=0) / SAMPLES
    part, pixels = _part(project(matrix, seen), steps)
    (x, y), (beyond, below) = part * sides + window[:2]
    reduced = picture.resize(pixels, Image.Resampling.LANCZOS, box=(x, y, beyond, below))
    per_unit = pixels / (part[1] - part[0])
    to_reduced = np.diag([*per_unit, 1.0])
    to_reduced[:2, 2] = _BEYOND - part[0] * per_unit
    from_grid = np.array([[1 / SAMPLES, 0, left], [0, 1 / SAMPLES, top], [0, 0, 1]])
    whole = to_reduced @ matrix @ from_grid
    # Where the grid begins on the vanishing line, the weight that all is divided by is nothing.
    coefficients = whole / (whole[2, 2] or 1e-12)
    warped = _continued(reduced).transform(
        (size[0] * SAMPLES, size[1] * SAMPLES),
        Image.Transform.PERSPECTIVE,
        tuple(coefficients.ravel()[:8]),
        Image.Resampling.BICUBIC,
    )
    within = warped.resize(size, Image.Resampling.LANCZOS)
    return within.crop((_REACH, _REACH, size[0] - _REACH, size[1] - _REACH))


def _part(seen: Matrix, steps: Matrix) -> tuple[Matrix, tuple[int, int]]:
    """The part of the unit square that is needed, (upper left, lower right), and its pixels."""
    import numpy as np

    margin = _BEYOND * steps
    low = np.clip(seen.min(axis=0) - margin, 0, 1)
    high = np.clip(seen.max(axis=0) + margin, 0, 1)
    wide, down = np.ceil((high - low) / steps)
    return np.stack([low, high]), (int(wide), int(down))


def _continued(image: Image.Image) -> Image.Image:
    """The picture with the pixels at its edge repeated outwards."""
    import numpy as np

    around = ((_BEYOND, _BEYOND), (_BEYOND, _BEYOND), (0, 0))
    wider = np.pad(np.asarray(image), around, mode="edge")
    return Image.frombuffer(
        image.mode, wider.shape[1::-1], wider.tobytes(), "raw", image.mode, 0, 1
    )


def _clipped(quad: Quad, tile: Tile) -> Matrix:
    """The corners (n, 2) of what a convex quad and a tile share (Sutherland and Hodgman, 1974)."""
    import numpy as np

    corners = list(quad)
    for axis, bound, sign in ((0, tile[0], 1), (1, tile[1], 1), (0, tile[2], -1), (1, tile[3], -1)):
        kept: list[Point] = []
        for one, other in zip(corners, corners[1:] + corners[:1], strict=True):
            here, there = (one[axis] - bound) * sign, (other[axis] - bound) * sign
            if here >= 0:
                kept.append(one)
            if (here > 0 > there) or (here < 0 < there):
                way = here / (here - there)
                kept.append(
                    (one[0] + way * (other[0] - one[0]), one[1] + way * (other[1] - one[1]))
                )
        corners = kept
    return np.array(corners, np.float64).reshape(-1, 2)
