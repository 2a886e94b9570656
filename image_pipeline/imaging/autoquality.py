"""The lowest encoder quality at which a picture looks as good as it is asked to.

One number for all pictures gives some more than they need and others less. Here every format is
tried on two small probes of the picture, at most :data:`MOST_ENCODES` times in all, and the
quality of each size is read off what was seen:

* the *whole* picture at about 640 px tells how it takes to compression at all;
* the *sheet*, 16 tiles of the largest size put together, tells the same at full size. How much a
  picture gains or loses with size cannot be guessed from a small copy: it depends on noise and
  texture that the copy does not have;
* sizes between the two lie between their scores; smaller ones follow the small probe.

Scores are SSIMULACRA2 (:mod:`image_pipeline.imaging.scoring`). The tables here were fitted to the
training half of 78 pictures (photographs of cameras, drones and phones, desktop backgrounds,
generated scenes), with libjpeg-turbo 3.2, libwebp 1.6 at method 4 and libavif 1.4 at speed 9.
They are where the search starts and how it interpolates; an encoder that differs from them
costs precision, not correctness.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import log, log2

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_pipeline.imaging.recipe import PlannedVariant
from image_pipeline.imaging.scoring import LEAST_SIDE, Reference
from image_pipeline.settings import FormatName

#: Encodes a picture in a format at a quality.
Encode = Callable[[Image.Image, FormatName, int], bytes]

MOST_ENCODES = 3

#: The sheet: 4 x 4 tiles of 144 px that fade into each other over 16 px. Of 20 pictures its score
#: differed from the whole picture's by 0.7 to 1.0 points (standard deviation) more or less than
#: on average; with hard seams, which no encoder expects, by 1.5 to 6 for WebP and AVIF. Steps of
#: 128 px keep the encoders' blocks of 8 and 16 px where they are in the picture.
TILES, TILE, FADE, BLOCK = 4, 144, 16, 16

#: Pixels of a probe: those of a sheet, as many as 648 x 430 has. Tiles of a third as many pixels
#: missed the whole picture's score by twice as much.
PROBE_PIXELS = (TILES * (TILE - FADE) + FADE) ** 2

#: Halvings of its side from picture to small probe from which a sheet is made. Below, it would
#: show the same pixels again.
SHEET_FROM = 0.5

#: Scores of the mean training picture at 640 px, by quality (the mean of the losses, see
#: :func:`_loss`). The loss of any picture is close to a straight line over the loss of this
#: one. The ends are the bounds of what is ever chosen: below, blocks and smear are plain in any
#: picture, and the metric was fitted to few pictures as bad; above, a point costs 11 to 18 % more
#: bytes, twice as much as in the middle, and is not seen.
_TYPICAL: dict[FormatName, tuple[tuple[int, float], ...]] = {
    "jpeg": (
        (25, 42.5), (35, 53.4), (45, 61.5), (55, 66.6), (65, 70.9), (72, 74.3), (78, 77.8),
        (82, 80.2), (86, 82.6), (89, 84.6), (92, 86.7), (95, 89.3),
    ),
    "webp": (
        (25, 47.4), (35, 54.3), (50, 62.4), (60, 66.2), (70, 69.5), (75, 71.2), (80, 75.6),
        (84, 78.9), (88, 82.1), (91, 84.5), (94, 86.8), (97, 88.5),
    ),
    "avif": (
        (25, 31.7), (32, 42.6), (38, 51.3), (45, 61.1), (52, 69.1), (57, 72.6), (62, 76.1),
        (66, 78.5), (70, 80.7), (75, 82.9), (80, 84.8), (88, 87.7),
    ),
}  # fmt: skip

#: By how much the loss of a sheet is below that of the picture it stands for, on average.
_SHEET_FLATTERS: dict[FormatName, float] = {"jpeg": 0.062, "webp": 0.068, "avif": 0.065}

#: By how much the loss at the largest size of the mean training picture is below that of its
#: small probe. Only where the search on the sheet starts.
_GAIN_OF_SIZE: dict[FormatName, float] = {"jpeg": 0.05, "webp": -0.05, "avif": 0.02}

#: By how much the loss of a size falls with each halving of its side below the small probe's.
_GAIN_BELOW: dict[FormatName, float] = {"jpeg": 0.02, "webp": 0.08, "avif": 0.0}

#: A loss this close to the target's (2 points at 75) needs no further encode of that probe: from
#: there its line is good to a few tenths, and the sheet can use the encode better.
CLOSE = 0.08

#: How much faster or slower than the mean picture's a loss may move with quality. Nine in ten
#: training pictures lie within; a line steeper or flatter comes of two points too close together.
_STEEPNESS = (0.7, 1.4)

#: How far the losses of two tries must lie apart to tell a steepness (about 2 points at 75): a
#: score is uncertain by a few tenths, because encoders decide block by block.
FAR = 0.08

#: How far in loss from a try its line is followed (about 6 points at 75). The tries of nearly all
#: pictures end within; beyond it are JPEG originals that are not made smaller, which are seen
#: again as good as new at the quality they were saved with, and only there.
REACH = 0.3


@dataclass(frozen=True, slots=True)
class _Probe:
    """A small picture that stands for one of ``pixels`` (its width x height)."""

    picture: Image.Image
    reference: Reference
    pixels: int
    is_sheet: bool

    def loss(self, kind: FormatName, quality: int, encode: Encode) -> float:
        """The loss at a quality of the picture that this one stands for."""
        with Image.open(io.BytesIO(encode(self.picture, kind, quality))) as opened:
            found = _loss(self.reference.score(opened.convert("RGB")))
        return found + _SHEET_FLATTERS[kind] if self.is_sheet else found


@dataclass(frozen=True, slots=True)
class _Line:
    """A probe's loss as a straight line over the mean picture's."""

    typical: float
    loss: float
    steepness: float

    def reaches(self, loss: float) -> float:
        """The loss of the mean picture where this one has ``loss``."""
        return self.typical + (loss - self.loss) / self.steepness

    def near(self, loss: float) -> float:
        """The same, but no further from what was tried than can be relied on."""
        return min(self.typical + REACH, max(self.typical - REACH, self.reaches(loss)))


@dataclass(frozen=True, slots=True)
class _Found:
    """What the probes told of a format: (pixels, line) of the whole and perhaps of the sheet."""

    kind: FormatName
    whole: tuple[int, _Line]
    sheet: tuple[int, _Line] | None

    def quality(self, pixels: int, target: float) -> int:
        """The quality for a size of ``pixels`` that comes nearest to a loss of ``target``."""
        below, line = self.whole
        if self.sheet is None or pixels <= below:
            gain = max(0.0, log2(below / pixels) / 2) * _GAIN_BELOW[self.kind]
            return _quality_at(self.kind, line.near(target + gain))
        share = _share_of_sheet(log2(pixels / below) / log2(self.sheet[0] / below))
        typical = (1 - share) * line.near(target) + share * self.sheet[1].near(target)
        return _quality_at(self.kind, typical)


def choose_qualities(
    picture: Image.Image, plans: Sequence[PlannedVariant], target: float, encode: Encode
) -> list[PlannedVariant]:
    """The plans of a picture with the qualities that are expected to come nearest to ``target``.

    ``picture`` is the largest picture of the plans, in RGB; a crop only if all are crops.
    ``target`` is a score of SSIMULACRA2 (70 good, 80 high, 90 not to be told from the original).
    ``encode`` is called at most :data:`MOST_ENCODES` times a format, with pictures of about 640
    px. The result depends on nothing else. A picture too small to be scored (below 8 pixels a
    side) keeps the qualities it has.
    """
    if min(picture.size) < LEAST_SIDE:
        return list(plans)
    whole, sheet = _probes(picture)
    loss = _loss(target)
    found = {
        kind: _search(kind, whole, sheet, loss, encode)
        for kind in dict.fromkeys(plan.format for plan in plans)
    }
    return [
        replace(plan, quality=found[plan.format].quality(plan.width * plan.height, loss))
        for plan in plans
    ]


def _probes(picture: Image.Image) -> tuple[_Probe, _Probe | None]:
    """The whole picture made small, and the sheet where that leaves something to be seen."""
    width, height = picture.size
    scale = min(1.0, (PROBE_PIXELS / (width * height)) ** 0.5)
    small = (max(LEAST_SIDE, round(width * scale)), max(LEAST_SIDE, round(height * scale)))
    if -log2(scale) < SHEET_FROM:
        return _Probe(picture, Reference(picture), width * height, is_sheet=False), None
    whole = picture.resize(small, Image.Resampling.LANCZOS, reducing_gap=2.0)
    sheet = sheet_of(picture)
    return (
        _Probe(whole, Reference(whole), small[0] * small[1], is_sheet=False),
        _Probe(sheet, Reference(sheet), width * height, is_sheet=True),
    )


def sheet_of(picture: Image.Image) -> Image.Image:
    """Tiles from all over an RGB picture, faded into each other to one of 528 x 528 pixels.

    Of a picture less wide or high than a tile, the tiles are as wide or high as it is.
    """
    pixels = np.asarray(picture)
    rows, columns = _cuts(pixels.shape[0]), _cuts(pixels.shape[1])
    sheet = np.zeros((rows[-1].end, columns[-1].end, 3), np.float32)
    for row in rows:
        for column in columns:
            weight = row.weight[:, None, None] * column.weight[:, None]
            sheet[row.place, column.place] += weight * pixels[row.source, column.source]
    return Image.fromarray(np.rint(sheet).astype(np.uint8))


@dataclass(frozen=True, slots=True)
class _Cut:
    """One side of a tile: where it comes from, where it goes, how much of it shows."""

    source: slice
    place: slice
    weight: NDArray[np.float32]

    @property
    def end(self) -> int:
        return int(self.place.stop)


def _cuts(side: int) -> list[_Cut]:
    """The tiles along a side, evenly spread and on the encoders' grid. Weights add up to one."""
    length = min(TILE, side)
    fade = min(FADE, length // 2)
    rise = (np.arange(fade, dtype=np.float32) + 0.5) / fade if fade else np.empty(0, np.float32)
    cuts = []
    for number in range(TILES):
        middle = (number + 0.5) / TILES * side
        start = int(middle - length / 2) // BLOCK * BLOCK
        start = max(0, min(start, side - length))
        place = number * (length - fade)
        weight = np.ones(length, np.float32)
        if number:
            weight[:fade] = rise
        if number < TILES - 1:
            weight[length - fade :] = rise[::-1]
        cuts.append(_Cut(slice(start, start + length), slice(place, place + length), weight))
    return cuts


def _search(
    kind: FormatName, whole: _Probe, sheet: _Probe | None, target: float, encode: Encode
) -> _Found:
    """Try a format on both probes, on the sheet where the whole picture's line leads."""
    most = MOST_ENCODES if sheet is None else MOST_ENCODES - 1
    line, used = _approach(kind, whole, target, target, most, encode)
    if sheet is None:
        return _Found(kind, (whole.pixels, line), None)
    start = line.reaches(target + _GAIN_OF_SIZE[kind])
    other, _ = _approach(kind, sheet, target, start, MOST_ENCODES - used, encode, line.steepness)
    return _Found(kind, (whole.pixels, line), (sheet.pixels, other))


def _approach(
    kind: FormatName,
    probe: _Probe,
    target: float,
    start: float,
    most: int,
    encode: Encode,
    steepness: float = 1.0,
) -> tuple[_Line, int]:
    """A line through the tries that came nearest to the target, and the number of tries.

    Begins where the mean picture has the loss ``start``; two tries far enough apart tell
    the line's steepness.
    """
    tried: dict[int, _Line] = {}
    line = _Line(start, target, steepness)
    for _ in range(most):
        quality = _quality_at(kind, line.reaches(target))
        if quality in tried:
            break
        typical, loss = _typical_at(kind, quality), probe.loss(kind, quality, encode)
        if tried and abs(typical - line.typical) >= FAR:
            steepness = (loss - line.loss) / (typical - line.typical)
            steepness = min(_STEEPNESS[1], max(_STEEPNESS[0], steepness))
        line = tried[quality] = _Line(typical, loss, steepness)
        if abs(loss - target) <= CLOSE:
            break
    nearest = min(tried.values(), key=lambda each: abs(each.loss - target))
    return replace(nearest, steepness=steepness), len(tried)


def _share_of_sheet(share: float) -> float:
    """How much of the sheet's loss a size has, by the share of the halvings it is away.

    Measured was 0.23 at 0.34 and 0.71 at 0.76 of the way from small probe to full size.
    """
    return float(min(1.0, share) ** 1.25)


def _loss(score: float) -> float:
    """The logarithm of what a score lacks to 100.

    The curves of all pictures meet at 100. In score, one that is above another is also flatter;
    in this they are parallel.
    """
    return log(max(0.1, 100.0 - score))


@cache
def _typical(kind: FormatName) -> tuple[list[float], list[float]]:
    """Qualities, falling, and losses of the mean training picture, rising."""
    table = _TYPICAL[kind][::-1]
    return [float(quality) for quality, _ in table], [_loss(score) for _, score in table]


def _typical_at(kind: FormatName, quality: int) -> float:
    qualities, losses = _typical(kind)
    return float(np.interp(quality, qualities[::-1], losses[::-1]))


def _quality_at(kind: FormatName, typical: float) -> int:
    """The quality, within bounds, at which the mean picture comes nearest to a loss."""
    qualities, losses = _typical(kind)
    return round(float(np.interp(typical, losses, qualities)))
