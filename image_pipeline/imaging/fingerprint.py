"""What pictures are compared by: a hash of the pixels, perceptual hashes, small grey copies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from PIL import Image

#: Rows hashed at a time: a whole picture would be copied first.
_ROWS = 256


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
    that ``phash64`` was made of, row by row. ``detail`` is the share of the resolution that is
    really there, 0-1: an enlarged copy has less than 1. ``content`` is None without a border.
    """

    phash64: int
    phash256: str
    dhash64: int
    texture: float
    pixels: str
    sketch: bytes
    detail: float = 1.0
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


def fingerprint(small: Image.Image, pixels: str) -> Fingerprint:
    """Hashes of a small RGB copy, see :class:`Fingerprint`."""
    import imagehash

    sketch = small.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    return Fingerprint(
        phash64=int(str(imagehash.phash(small, hash_size=8)), 16),
        phash256=str(imagehash.phash(small, hash_size=16)),
        dhash64=int(str(imagehash.dhash(small, hash_size=8)), 16),
        texture=texture(sketch),
        pixels=pixels,
        sketch=sketch.tobytes(),
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
