"""Walking the structure of image files without decoding them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

#: A marker: fill bytes 0xFF, then a code. In entropy-coded data 0xFF is followed by 0 or by the
#: code of a restart (ITU-T T.81, B.1.1).
_MARKER = re.compile(rb"\xff+([^\x00\xff])")

EOI, COMMENT = 0xD9, 0xFE

#: Codes without a segment behind them: restarts and the two ends of the image. Those below
#: the first frame header are reserved; decoders step over the marker alone.
_ALONE = frozenset((*range(0xC0), *range(0xD0, 0xDA)))

#: Bytes of a value by its type (TIFF 6.0, section 2, and 13 for a directory).
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


def jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Code and end position of every marker of a JPEG's first image, in order.

    Ends after the end-of-image marker or where the data does. Bytes between segments that are
    no marker are stepped over, as libjpeg does.
    """
    found = _MARKER.search(data, 2)
    while found is not None:
        code, at = found[1][0], found.end()
        yield code, at
        if code == EOI:
            return
        skipped = 0 if code in _ALONE else int.from_bytes(data[at : at + 2], "big")
        found = _MARKER.search(data, at + skipped)


def webp_chunks(data: bytes) -> Iterator[bytes]:
    """Names of the chunks in a WebP file's RIFF container (WebP Container Specification)."""
    at, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        yield data[at : at + 4]
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def webp_size(data: bytes) -> tuple[int, int]:
    """Canvas of a WebP file in pixels (RFC 9649, section 2); (0, 0) without a known header."""
    name, body = data[12:16], data[20:30].ljust(10, b"\0")
    if name == b"VP8X":
        width, height = body[4:7], body[7:10]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if name == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == b"VP8 ":
        width, height = body[6:8], body[8:10]
        return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF
    return 0, 0


def is_cut(data: bytes, name: str) -> bool:
    """Whether a damaged file of a format (in lower case) lacks its end, by its own structure.

    Some decoders only say that they know no such file. False where the structure does not tell.
    """
    whole: dict[str, Callable[[bytes], bool]] = {
        "jpeg": lambda data: b"\xff\xd9" in data[-64:],
        "png": lambda data: b"IEND" in data[-64:],
        "gif": lambda data: data.endswith(b";"),
        "webp": lambda data: 8 + int.from_bytes(data[4:8], "little") <= len(data),
        "avif": _boxes_fit,
        "heif": _boxes_fit,
        "tiff": _directory_fits,
    }
    return name in whole and not whole[name](data)


def _boxes_fit(data: bytes) -> bool:
    """Whether every top-level box ends inside the file (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 0:
            return True  # this box runs to the end of the file
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        at += max(size, 8)
    return at == len(data)


def _directory_fits(data: bytes) -> bool:
    """Whether the first directory and the values it points to lie inside the file.

    TIFF 6.0, section 2. BigTIFF is laid out otherwise and left to the decoder.
    """
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 8:
        return False
    magic, at = struct.unpack_from(order + "HI", data, 2)
    if magic != 42:
        return True
    entries = int.from_bytes(data[at : at + 2], "little" if order == "<" else "big")
    at += 2
    if at + 12 * entries > len(data):
        return False
    for start in range(at, at + 12 * entries, 12):
        _, kind, count, place = struct.unpack_from(order + "HHII", data, start)
        size = _TIFF_SIZES.get(kind, 1) * count
        if size > 4 and place + size > len(data):
            return False
    return True
