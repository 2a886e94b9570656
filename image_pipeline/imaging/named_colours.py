"""A profile for pictures that name their colour space by numbers instead of embedding one."""

from __future__ import annotations

import struct
from functools import cache

from image_pipeline.imaging.containers import named_colours

#: Colour primaries of SMPTE EG 432-1, which are Display P3's, and the transfer function of sRGB
#: (ITU-T H.273, tables 2 and 3).
_DISPLAY_P3 = (12, 13)

#: Red, green and blue of Display P3 in XYZ under D50, as in the profile that Apple ships.
_COLORANTS = {
    b"rXYZ": (0.515_121, 0.241_196, -0.001_053),
    b"gXYZ": (0.291_977, 0.692_245, 0.041_885),
    b"bXYZ": (0.157_104, 0.066_574, 0.784_073),
}

#: D50 (ICC.1:2022, 7.2.16).
_WHITE = (0.9642, 1.0, 0.8249)

#: Exponent, a, b, c and d of sRGB's curve (IEC 61966-2-1) as a parametric curve of type 3.
_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def named_profile(data: bytes) -> bytes | None:
    """An ICC profile of the colours that an AVIF or HEIF names, or None if they are sRGB's.

    Only Display P3 with the curve of sRGB is known, which is what phones and browsers write. HDR
    curves need tone mapping, and everything else is left as it is.
    """
    return _display_p3() if named_colours(data) == _DISPLAY_P3 else None


@cache
def _display_p3() -> bytes:
    """A display profile of a matrix and one curve (ICC.1:2022, 8.3)."""
    curve = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(_CURVE)
    blocks = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 3) + b"P3\0" + bytes(78),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(_WHITE),
        **{name: b"XYZ \0\0\0\0" + _fixed(value) for name, value in _COLORANTS.items()},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body = struct.pack(">I", len(blocks)), b""
    start = 128 + 4 + 12 * len(blocks)
    for name, block in blocks.items():
        table += name + struct.pack(">II", start + len(body), len(block))
        body += block + bytes(-len(block) % 4)
    head = struct.pack(">I4sI", start + len(body), b"\0\0\0\0", 0x0210_0000)
    head += b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28) + _fixed(_WHITE)
    return head.ljust(128, b"\0") + table + body


def _fixed(values: tuple[float, ...]) -> bytes:
    """Numbers as s15Fixed16 (ICC.1:2022, 4.6)."""
    return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))
