"""What pictures are compared by: a hash of the pixels, perceptual hashes, small grey copies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Levels = NDArray[np.uint8]

#: Rows hashed at a time: a whole picture would be copied first.
_ROWS = 256

#: Levels (0-255) that a border's pixels may lie from its colour: a flat block of a JPEG is
#: flat at any quality, but ringing of a few levels reaches into the block at its inner edge.
BORDER_TOLERANCE = 10

#: Share of a line's pixels that must be of the border's colour: all but a speck.
BORDER_SHARE = 0.995

#: Share of the side that a border takes: less is a line of rounding, more is a background.
LEAST_BORDER, MOST_BORDER = 0.01, 0.30

#: Share of a line that must leave the border's colour at once where it ends straight. A part of
#: the picture may be as dark as a black bar; a skyline touches one line in a few points only.
STRAIGHT_SHARE = 0.5

#: Pixels of the shorter side below which no border is looked for: 1 % of it is no pixel.
MIN_BORDERED_SIDE = 32


@dataclass(frozen=True, slots=True)
class Content:
    """What is left of a picture without its uniform border.

    ``width`` and ``height`` in pixels of the original; ``phash64`` and ``sketch`` as in
    :class:`Fingerprint`, of the content alone.
    """

    width: int
    height: int
    phash64: int
    sketch: bytes


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Perceptual hashes of the upright picture in sRGB, as imagehash computes them.

    ``phash64`` and ``dhash64`` are unsigned 64-bit integers, the first bit the most
    significant; ``phash256`` is 64 hex digits. ``texture`` is the median distance of the 64
    lowest DCT coefficients (orthonormal, of 32 x 32 pixels of luma 0-255) from their median:
    how far a bit of the pHash is from tipping over. Below 5 the hashes are noise.

    ``pixels`` is the SHA-256 (hex) of the decoded pixels, ``sketch`` the 32 x 32 luma values
    that ``phash64`` was made of, row by row. ``chroma`` is 64 hex digits: Cb and Cr (0-255, 128
    is grey) of 4 x 4 cells, row by row. All else here is blind to colour. ``content`` is None
    without a border.
    """

    phash64: int
    phash256: str
    dhash64: int
    texture: float
    pixels: str
    sketch: bytes
    chroma: str
    content: Content | None = None


def pixel_hash(image: Image.Image, full_size: tuple[int, int]) -> str:
    """SHA-256 (hex) of the upright sRGB pixels, their mode and the size of the original.

    Metadata does not matter, nor does how losslessly the pixels were packed.
    """
    digest = hashlib.sha256(f"{image.mode} {image.size} {full_size}".encode())
    for top in range(0, image.height, _ROWS):
        strip = (0, top, image.width, min(top + _ROWS, image.height))
        digest.update(image.crop(strip).tobytes())
    return digest.hexdigest()


def fingerprint(small: Image.Image, pixels: str, full_size: tuple[int, int]) -> Fingerprint:
    """Hashes of a small RGB copy of a picture of ``full_size``; see :class:`Fingerprint`."""
    import imagehash

    grey = small.convert("L")
    sketch = _sketch(grey)
    return Fingerprint(
        phash64=_phash64(grey),
        phash256=str(imagehash.phash(grey, hash_size=16)),
        dhash64=int(str(imagehash.dhash(grey, hash_size=8)), 16),
        texture=texture(sketch),
        pixels=pixels,
        sketch=sketch.tobytes(),
        chroma=_chroma(small),
        content=_content(small, grey, full_size),
    )


def texture(sketch: Image.Image) -> float:
    """How much there is for a pHash to hold on to, in steps of luma; see :class:`Fingerprint`."""
    import numpy as np

    pixels = np.asarray(sketch, dtype=np.float64)
    frequency, place = np.arange(8)[:, None], np.arange(32)[None, :]
    # The first rows of the orthonormal DCT-II; the constant one has another weight.
    basis = np.sqrt(2 / 32) * np.cos(np.pi * (2 * place + 1) * frequency / 64)
    basis[0] = np.sqrt(1 / 32)
    low = basis @ pixels @ basis.T
    return round(float(np.median(np.abs(low - np.median(low)))), 3)


def content_box(small: Image.Image) -> tuple[int, int, int, int] | None:
    """What a uniform border leaves of an RGB picture: left, top, right, bottom; None without one.

    A side belongs to a border if its lines are of one colour. Four sides of the same colour
    are a border however the picture meets them, so the background of a product shot is one.
    Any other side, which may be a sky or a night, has to end in a straight edge.
    """
    import numpy as np

    if min(small.size) < MIN_BORDERED_SIDE:
        return None
    levels = np.asarray(small)
    rows, columns = levels, levels.transpose(1, 0, 2)
    sides = [_side(side) for side in (columns, rows, columns[::-1], rows[::-1])]
    colours = np.array([colour for _, colour in sides])
    left, top, right, bottom = (depth for depth, _ in sides)
    if not (all((left, top, right, bottom)) and np.ptp(colours, axis=0).max() <= BORDER_TOLERANCE):
        top, bottom = _straight_side(rows), _straight_side(rows[::-1])
        # Bars above and below are of another colour than those beside the picture.
        columns = rows[top : len(rows) - bottom].transpose(1, 0, 2)
        left, right = _straight_side(columns), _straight_side(columns[::-1])
    if not any((left, top, right, bottom)):
        return None
    return left, top, small.width - right, small.height - bottom


def _sketch(grey: Image.Image) -> Image.Image:
    return grey.resize((32, 32), Image.Resampling.LANCZOS)


def _chroma(small: Image.Image) -> str:
    import numpy as np

    cells = small.resize((4, 4), Image.Resampling.BOX).convert("YCbCr")
    return np.asarray(cells)[..., 1:].tobytes().hex()


def _phash64(grey: Image.Image) -> int:
    import imagehash

    return int(str(imagehash.phash(grey, hash_size=8)), 16)


def _content(small: Image.Image, grey: Image.Image, full_size: tuple[int, int]) -> Content | None:
    box = content_box(small)
    if box is None:
        return None
    inner = grey.crop(box)
    return Content(
        width=max(1, round(inner.width * full_size[0] / small.width)),
        height=max(1, round(inner.height * full_size[1] / small.height)),
        phash64=_phash64(inner),
        sketch=_sketch(inner).tobytes(),
    )


def _side(levels: Levels) -> tuple[int, NDArray[np.int16]]:
    """How many rows from the first on are of one colour, and which; 0 if too few or too many."""
    import numpy as np

    most, least = int(len(levels) * MOST_BORDER), max(1, round(len(levels) * LEAST_BORDER))
    colour = np.median(levels[0], axis=0).astype(np.int16)

    def uniform(rows: Levels) -> NDArray[np.bool_]:
        away = abs(rows.astype(np.int16) - colour).max(axis=2)
        return np.asarray((away <= BORDER_TOLERANCE).mean(axis=1) >= BORDER_SHARE)

    # Most pictures end here, after a hundredth of the work.
    if not uniform(levels[:least]).all():
        return 0, colour
    like = uniform(levels[: most + 1])
    return (0 if like.all() else int(np.argmin(like))), colour


def _straight_side(levels: Levels) -> int:
    """As :func:`_side`, but 0 if the rows of one colour do not end in a straight edge."""
    import numpy as np

    depth, _ = _side(levels)
    if not depth:
        return 0
    # The reduced copy may blend the last line of the border with the picture: two lines on.
    # Compared with the line before, or the slope of a clear sky would end in a straight edge.
    edge = levels[depth - 1 : depth + 3].astype(np.int16)
    away = abs(edge[1:] - edge[0]).max(axis=(0, 2)) > BORDER_TOLERANCE
    return depth if np.mean(away) >= STRAIGHT_SHARE else 0
