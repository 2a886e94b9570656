"""How much a compressed picture differs from its original, as people see it: SSIMULACRA2.

An own implementation of version 2.1 of the metric (Jon Sneyers, Cloudinary, 2022-2023,
https://github.com/cloudinary/ssimulacra2, BSD), in numpy. 100 means the same picture, 90 cannot
be told from the original, 70 is good, 50 middling, 30 poor; below 0 is possible.

The picture is compared at six scales in XYB, a colour space like that of the eye, by the
structural similarity of small neighbourhoods, by edges that appeared (ringing, blocks) and by
edges that went (blur), and the mean and the 4-norm of each map are added up with weights
that were fitted to opinion scores. Most of the 108 weights are zero or next to it, and what they
weigh is not computed: that halves the work at full resolution and more.

Two things differ from the published code on purpose. Its blur is a recursive filter in single
precision, whose rounding errors add up along a row to as much as a point; here it is summed up,
which agrees with the published filter in double precision. And for pictures with a side below 113
pixels, which are not halved five times, it gives the maps of one colour the weights of another;
here every map keeps its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Planes = NDArray[np.float32]

#: Sides below this many pixels leave nothing to compare neighbourhoods in.
LEAST_SIDE = 8

X, Y, B = range(3)

#: Weights of a plane at a scale (0 is full resolution): of the mean of the similarity map, of the
#: edges gained and of the edges lost, then of their 4-norms. Published weights below 0.01 are left
#: out, and with them scale 5: together they move a score by less than 0.02 points.
_WEIGHTS: dict[tuple[int, int], tuple[float, float, float, float, float, float]] = {
    (0, Y): (0.0, 0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262),
    (1, X): (0.0, 0.0, 0.0, 1.1041726426657346, 0.0, 0.0),
    (1, Y): (0.0, 0.0, 0.0, 6.683678146179332, 0.0, 1.027889937768264),
    (2, X): (0.0, 0.0, 0.0, 1.8422455520539298, 11.441172603757666, 0.0),
    (2, Y): (225.20515300849274, 0.0, 0.0, 19.213238186143016, 0.0, 0.0),
    (3, X): (0.0, 0.0, 0.0, 1.8787594979546387, 10.94906990605142, 0.0),
    (3, Y): (176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757, 0.0),
    (3, B): (0.0, 0.0, 0.0, 8.826982764996862, 23.19243343998926, 0.0),
    (4, X): (0.0, 0.9677937080626833, 0.0, 0.0, 0.9981766977854967, 0.0),
    (4, Y): (0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0),
    (4, B): (
        95.1080498811086, 0.9863978034400682, 0.9834382792465353,
        0.0, 171.2667255897307, 0.9807858872435379,
    ),
}  # fmt: skip

_SCALES = 5
_CHANNELS = tuple(
    tuple(channel for scale, channel in _WEIGHTS if scale == wanted) for wanted in range(_SCALES)
)

#: The Gaussian of sigma 1.5 that the metric blurs with is a recursive filter (Charalampidis 2016),
#: whose response to a single pixel is exactly these values, on either side of the first.
_TAPS = np.array([0.264621105, 0.212928592, 0.109335373, 0.0360111147, 0.00941436781], np.float32)
_REACH = len(_TAPS) - 1

#: Linear sRGB to the responses of the three kinds of cones, and what they see in the dark
#: (libjxl, opsin_params.h).
_CONES = np.array(
    [
        [0.30, 0.622, 0.078],
        [0.23, 0.692, 0.078],
        [0.24342268924547819, 0.20476744424496821, 0.5518098665095536],
    ],
    dtype=np.float32,
)
_DARK = np.float32(0.0037930732552754493)

#: Keeps the similarity of flat neighbourhoods from being a quotient of rounding errors.
_C2 = np.float32(0.0009)


@dataclass(frozen=True, slots=True)
class _Level:
    """What a scale of the original brings to each comparison; (channels, height, width) each."""

    planes: Planes
    mean: Planes
    #: Variance around each pixel.
    variance: Planes
    #: 1 / (1 + strength of the edge).
    flatness: Planes


class Reference:
    """An original that compressed versions of it are compared with.

    Its own half of the work is done once, here. Takes an RGB picture of at least 8 x 8 pixels,
    else raises ``ValueError``.
    """

    __slots__ = ("_levels", "size")

    def __init__(self, picture: Image.Image) -> None:
        if min(picture.size) < LEAST_SIDE:
            raise ValueError(f"at least {LEAST_SIDE} x {LEAST_SIDE} pixels are needed")
        self.size = picture.size
        self._levels = tuple(_level(planes) for planes in _pyramid(picture))

    def score(self, other: Image.Image) -> float:
        """SSIMULACRA2 of ``other``, an RGB picture of the same size (else ``ValueError``)."""
        if other.size != self.size:
            raise ValueError(f"{other.size} is not the size of the original, {self.size}")
        total = 0.0
        for scale, planes in enumerate(_pyramid(other)):
            for channel, maps in zip(
                _CHANNELS[scale], _compared(self._levels[scale], planes), strict=True
            ):
                total += float(np.dot(_WEIGHTS[scale, channel], maps))
        return _on_the_scale_of_opinions(total)


def score(original: Image.Image, other: Image.Image) -> float:
    """SSIMULACRA2 of two RGB pictures of one size, at most 100. See :class:`Reference`."""
    return Reference(original).score(other)


def _on_the_scale_of_opinions(total: float) -> float:
    """The published curve from the weighted sum to a score."""
    total *= 0.9562382616834844
    total = (
        2.326765642916932 * total
        - 0.020884521182843837 * total**2
        + 6.248496625763138e-05 * total**3
    )
    return 100.0 - 10.0 * float(max(0.0, total) ** 0.6276336467831387)


@cache
def _linear() -> NDArray[np.float32]:
    """The 256 levels of sRGB as light, 0 to 1 (IEC 61966-2-1)."""
    level = np.arange(256) / 255
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _pyramid(picture: Image.Image) -> list[Planes]:
    """The planes that count at each scale, largest first; (channels, height, width) each."""
    light = _linear()[np.asarray(picture)]
    light = np.ascontiguousarray(light.transpose(2, 0, 1))
    levels = []
    for scale in range(_SCALES):
        if scale:
            # The published code looks at the size before it halves it.
            if min(light.shape[1:]) < LEAST_SIDE:
                break
            light = _halved(light)
        levels.append(_xyb(light, _CHANNELS[scale]))
    return levels


def _halved(light: Planes) -> Planes:
    """Means of 2 x 2 pixels; an odd last row or column counts twice."""
    _, height, width = light.shape
    if height % 2 or width % 2:
        light = np.pad(light, ((0, 0), (0, height % 2), (0, width % 2)), "edge")
    rows = light[:, ::2] + light[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) * np.float32(0.25)


def _xyb(light: Planes, channels: tuple[int, ...]) -> Planes:
    """The wanted channels of XYB, moved to about 0 to 1 as the metric has them."""
    seen = [_seen(light, cone) for cone in range(3 if B in channels else 2)]
    y = (seen[0] + seen[1]) * np.float32(0.5)
    planes = []
    for channel in channels:
        if channel == X:
            plane = (seen[0] - seen[1]) * np.float32(7) + np.float32(0.42)
        elif channel == Y:
            plane = y + np.float32(0.01)
        else:
            plane = seen[2] - y + np.float32(0.55)
        planes.append(plane)
    return np.stack(planes)


def _seen(light: Planes, cone: int) -> Planes:
    """What one kind of cone sees; (3, height, width) to (height, width)."""
    red, green, blue = _CONES[cone]
    seen: Planes = light[0] * red
    seen += light[1] * green
    seen += light[2] * blue
    seen += _DARK
    np.cbrt(seen, out=seen)
    seen -= np.cbrt(_DARK)
    return seen


def _level(planes: Planes) -> _Level:
    mean = _blurred(planes)
    variance = _blurred(planes * planes)
    variance -= mean * mean
    return _Level(planes, mean, variance, 1 / (1 + np.abs(planes - mean)))


def _compared(original: _Level, planes: Planes) -> NDArray[np.float64]:
    """Six figures a channel, as in ``_WEIGHTS``; (channels, 6)."""
    count = len(planes)
    mean, square, product = np.split(
        _blurred(np.concatenate([planes, planes * planes, planes * original.planes])), 3
    )
    product -= original.mean * mean
    product *= 2
    product += _C2
    square -= mean * mean
    square += original.variance
    square += _C2
    product /= square
    apart = original.mean - mean
    apart *= apart
    np.subtract(1, apart, out=apart)
    apart *= product
    unlike = np.maximum(1 - apart, 0)
    planes = planes - mean
    np.abs(planes, out=planes)
    planes += 1
    planes *= original.flatness
    planes -= 1
    maps = (unlike, np.maximum(planes, 0), np.maximum(-planes, 0))
    norms = [_norms(each.reshape(count, -1)) for each in maps]
    return np.concatenate([np.stack(part, axis=1) for part in zip(*norms, strict=True)], axis=1)


def _norms(maps: Planes) -> tuple[NDArray[Any], NDArray[Any]]:
    """The mean and the 4-norm of each map; (maps, pixels) to (maps,) twice."""
    squares = maps * maps
    fourth = np.einsum("ij,ij->i", squares, squares) / maps.shape[1]
    return maps.mean(axis=1), fourth**0.25


def _blurred(planes: Planes) -> Planes:
    """In both directions; around the picture there is nothing, that is zero."""
    out = np.empty_like(planes)
    height, width = planes.shape[1:]
    padded = np.zeros((height + 2 * _REACH, width + 2 * _REACH), np.float32)
    spare = np.empty((height + 2 * _REACH, width), np.float32)
    across = np.empty_like(spare)
    # Plane by plane, in the same memory: it stays in the processor's cache.
    for plane, found in zip(planes, out, strict=True):
        padded[_REACH:-_REACH, _REACH:-_REACH] = plane
        _weighted(padded.T, across.T, spare.T)
        _weighted(across, found, spare[:height])
    return out


def _weighted(rows: Planes, out: Planes, spare: Planes) -> None:
    """The sum of each row and its neighbours, into ``out``, which has ``2 x _REACH`` rows less.

    Not a product of matrices: a BLAS library would share such small ones among threads, which is
    slower on an idle machine and very much slower on a busy one.
    """
    height = len(out)
    np.multiply(rows[_REACH : _REACH + height], _TAPS[0], out=out)
    for away in range(1, _REACH + 1):
        before, after = _REACH - away, _REACH + away
        np.add(rows[before : before + height], rows[after : after + height], out=spare)
        np.multiply(spare, _TAPS[away], out=spare)
        np.add(out, spare, out=out)
