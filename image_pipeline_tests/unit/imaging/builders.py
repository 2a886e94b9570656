"""Pictures and files for the tests of this folder, built by hand where a library would choose."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_pipeline.imaging.rendering import RenderedVariant
from image_pipeline.samples import photograph
from image_pipeline.settings import Avif, Formats, Jpeg, Limits, Recipe, Size, Webp

Pixels = NDArray[np.uint8]

LIMITS = Limits()

#: Small boxes, so that a test encodes in milliseconds.
SMALL_RECIPE = Recipe(
    sizes={
        "thumbnail": Size(role="thumbnail", width=40, height=40, fit="cover"),
        "small": Size(width=64, height=48),
        "medium": Size(width=128, height=96),
    }
)


def recipe_of(**sizes: Size) -> Recipe:
    return Recipe(sizes=sizes, formats=Formats(avif=Avif(), webp=Webp(), jpeg=Jpeg()))


@cache
def a_photograph(width: int = 400, height: int = 300, seed: int = 1) -> Image.Image:
    return photograph(width, height, seed)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def published(variants: Sequence[RenderedVariant]) -> list[RenderedVariant]:
    """Those that are not dropped for being larger than the next format."""
    kept = [variant for variant in variants if not variant.dropped]
    assert kept
    return kept


def pixels(image: Image.Image | bytes) -> NDArray[np.int16]:
    """Levels, signed so that they can be subtracted."""
    if isinstance(image, bytes):
        with Image.open(io.BytesIO(image)) as opened:
            return np.asarray(opened).astype(np.int16)
    return np.asarray(image).astype(np.int16)


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Image.Image:
    shape = (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def corners() -> Image.Image:
    """48 x 32: red, green / blue, yellow. Every turn and flip of it is another picture."""
    levels = np.zeros((32, 48, 3), np.uint8)
    levels[:16, :24], levels[:16, 24:] = (230, 20, 20), (20, 200, 20)
    levels[16:, :24], levels[16:, 24:] = (20, 20, 230), (230, 210, 20)
    return Image.fromarray(levels)


def stored_for(levels: Pixels, orientation: int) -> Pixels:
    """What a camera stores so that ``levels`` are seen (CIPA DC-008, tag 274), by index alone.

    The tag names the sides of the scene where row 0 and column 0 of the file lie: 2 is top and
    right, 3 bottom and right, 4 bottom and left, 5 left and top, 6 right and top, 7 right and
    bottom, 8 left and bottom.
    """
    stored = {
        1: levels,
        2: levels[:, ::-1],
        3: levels[::-1, ::-1],
        4: levels[::-1],
        5: levels.transpose(1, 0, 2),
        6: levels[:, ::-1].transpose(1, 0, 2),
        7: levels[::-1, ::-1].transpose(1, 0, 2),
        8: levels[::-1].transpose(1, 0, 2),
    }
    return np.ascontiguousarray(stored.get(orientation, levels))


def exif_of(orientation: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# ---------------------------------------------------------------------------- PNG, chunk by chunk


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, bits: int, colour: int, body: bytes, *between: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    rest = (*between, png_chunk(b"IDAT", body), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(rest)


# ------------------------------------------------------------ JPEG, GIF and TIFF, piece by piece


def jpeg_segment(code: int, body: bytes) -> bytes:
    return bytes((0xFF, code)) + struct.pack(">H", len(body) + 2) + body


def behind_soi(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments in front."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def gif(
    width: int, height: int, *blocks: bytes, palette: bytes = bytes((0, 0, 0, 255, 255, 255))
) -> bytes:
    """A GIF of blocks as they are given; ``palette`` has 2 to 256 colours."""
    bits = (len(palette) // 3 - 1).bit_length()
    screen = struct.pack("<HHBBB", width, height, 0x80 | bits - 1, 0, 0)
    return b"GIF89a" + screen + palette + b"".join(blocks) + b";"


def gif_frame(
    width: int, height: int, indices: bytes | None = None, left: int = 0, top: int = 0
) -> bytes:
    """An image without compression: codes of 3 bits, and a clear code before the fourth.

    With two bits a pixel, the codes 0 to 3 are colours, 4 clears the table and 5 ends; a table
    that is cleared after every two colours never grows to codes of 4 bits.
    """
    codes, values = [], indices or bytes(width * height)
    for at in range(0, len(values), 2):
        codes += [4, *values[at : at + 2]]
    bits = sum(code << 3 * place for place, code in enumerate([*codes, 5]))
    packed = bits.to_bytes((3 * (len(codes) + 1) + 7) // 8, "little")
    blocks = b"".join(
        bytes([len(packed[at : at + 255])]) + packed[at : at + 255]
        for at in range(0, len(packed), 255)
    )
    where = struct.pack("<HHHHB", left, top, width, height, 0)
    return b"," + where + b"\2" + blocks + b"\0"


def gif_control(disposal: int = 0, transparent: int | None = None) -> bytes:
    """A graphic control extension (GIF89a, 23)."""
    flags = disposal << 2 | (transparent is not None)
    return b"!\xf9\4" + struct.pack("<BHB", flags, 10, transparent or 0) + b"\0"


TiffValue = int | list[int] | bytes


def tiff(
    tags: dict[int, TiffValue], pixels: bytes = b"\x80", order: str = "<", big: bool = False,
    following: int = 0,
) -> bytes:  # fmt: skip
    """A TIFF of one directory at the end, with ``pixels`` behind the header (TIFF 6.0, 2).

    Whole numbers are written as LONG, lists of them too, bytes as UNDEFINED. ``following`` is
    the place of a next directory. The pixels begin at byte 8, or 16 in a BigTIFF.
    """
    start, cell = (16, 8) if big else (8, 4)
    pixels += bytes(-len(pixels) % 2)
    entries, values = b"", b""
    table = start + len(pixels)
    far = table + (8 if big else 2) + len(tags) * (20 if big else 12) + cell
    for tag, value in sorted(tags.items()):
        numbers = [value] if isinstance(value, int) else value
        body = (
            value if isinstance(value, bytes) else struct.pack(f"{order}{len(numbers)}I", *numbers)
        )
        kind, count = (7, len(body)) if isinstance(value, bytes) else (4, len(numbers))
        entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count)
        if len(body) <= cell:
            entries += body.ljust(cell, b"\0")
        else:
            entries += struct.pack(order + ("Q" if big else "I"), far + len(values))
            values += body + bytes(len(body) % 2)
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), table)
    count_ = struct.pack(order + ("Q" if big else "H"), len(tags))
    end = struct.pack(order + ("Q" if big else "I"), following)
    return mark + head + pixels + count_ + entries + end + values


# ------------------------------------------------------------------ ICC, a matrix profile by hand

#: Chromaticities of red, green and blue; the white of all is D65.
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_D65, _D50 = (0.3127, 0.3290), np.array([0.9642, 1.0, 0.8249])

#: Bradford's cone responses (ICC.1:2022, annex E).
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _xyz(x: float, y: float) -> NDArray[np.float64]:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def to_d50(primaries: Any) -> NDArray[np.float64]:
    """The matrix from linear RGB to XYZ under D50, columns red, green and blue."""
    columns = np.stack([_xyz(*primary) for primary in primaries], axis=1)
    white = _xyz(*_D65)
    matrix = columns * np.linalg.solve(columns, white)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix


def matrix_profile(primaries: Any, gamma: float, name: str) -> bytes:
    """An ICC version 2 display profile of three primaries and one gamma (ICC.1:2001-04)."""
    matrix = to_d50(primaries)

    def xyz(values: Any) -> bytes:
        fixed = [round(float(value) * 65536) for value in values]
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *fixed)

    text = name.encode() + b"\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    blocks = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"wtpt": xyz(_D50),
        b"rXYZ": xyz(matrix[:, 0]),
        b"gXYZ": xyz(matrix[:, 1]),
        b"bXYZ": xyz(matrix[:, 2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
        b"cprt": b"text\0\0\0\0none\0",
    }
    return _profile(b"RGB ", blocks)


def grey_profile(gamma: float) -> bytes:
    """An ICC version 2 display profile of one grey channel."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in _D50))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    name = b"grey\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78)
    copyright_ = b"text\0\0\0\0none\0"
    blocks = {b"desc": description, b"wtpt": white, b"kTRC": curve, b"cprt": copyright_}
    return _profile(b"GRAY", blocks)


def _profile(space: bytes, blocks: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(blocks)), b""
    start = 128 + 4 + 12 * len(blocks)
    for tag, block in blocks.items():
        table += tag + struct.pack(">II", start + len(body), len(block))
        body += block + bytes(-len(block) % 4)
    white = struct.pack(">3i", *(round(value * 65536) for value in _D50))
    sizes = struct.pack(">I4sI", start + len(body), b"none", 0x02100000)
    header = sizes + b"mntr" + space + b"XYZ "
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white
    return header.ljust(128, b"\0") + table + body


def srgb_curve(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Levels 0-255 of linear light 0-1 (IEC 61966-2-1)."""
    light = np.clip(linear, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
