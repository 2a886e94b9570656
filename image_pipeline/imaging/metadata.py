"""Finding metadata in an encoded file by walking its structure, without an image library.

Used to prove that nothing of the original but its pixels is published. What the encoders are
told to leave out is not believed; the bytes are looked at. The one thing that may be kept, a
copyright notice, is packed here as well, so that it can be told from anything else.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from image_pipeline.imaging.containers import COMMENT, EOI, jpeg_markers

#: What :func:`find_metadata` calls an EXIF block that is a copyright notice and nothing else.
COPYRIGHT = "copyright"

#: What stands before the TIFF structure of EXIF in a JPEG (CIPA DC-008, 4.7.2).
EXIF_HEAD = b"Exif\0\0"

#: A little-endian TIFF whose first directory follows at once and has one entry, a text in the
#: copyright tag (TIFF 6.0, section 2).
_NOTICE_HEAD = struct.pack("<2sHIHHH", b"II", 42, 8, 1, 0x8298, 2)

#: Where a text stands that does not fit into its entry: behind it and the number of the next
#: directory, which is none.
_TEXT_AT = len(_NOTICE_HEAD) + 4 + 4 + 4

_JPEG_NAMES = {0xE1: "EXIF or XMP", 0xE2: "ICC profile", 0xED: "IPTC", COMMENT: "comment"}
_WEBP_NAMES = {b"XMP ": "XMP", b"ICCP": "ICC profile"}


def copyright_exif(notice: str | None) -> bytes:
    """The TIFF structure of an EXIF block with this notice alone; nothing without a notice.

    The tag is for ASCII; other characters are written as UTF-8, as the Metadata Working Group
    recommends and readers expect.
    """
    if not notice:
        return b""
    text = notice.encode() + b"\0"
    inside = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack("<I", _TEXT_AT)
    entry = _NOTICE_HEAD + struct.pack("<I", len(text)) + inside + bytes(4)
    return entry if len(text) <= 4 else entry + text


def find_metadata(data: bytes) -> list[str]:
    """Names of the metadata blocks in a JPEG, WebP or AVIF file; empty is what we want.

    Where a recipe keeps copyright notices, ``["copyright"]`` is as good. A file whose structure
    cannot be followed to its end is reported as such.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return sorted(set(_in_jpeg(data)))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return sorted(set(_in_webp(data)))
        if data[4:8] == b"ftyp":
            return sorted(set(_in_avif(data)))
    except (IndexError, ValueError) as error:
        return [f"unreadable structure: {error}"]
    return ["unknown container"]


def _exif_name(tiff: bytes, otherwise: str = "EXIF") -> str:
    """Whether a block is what :func:`copyright_exif` writes, to the last byte."""
    text = tiff[_TEXT_AT:] or tiff[len(_NOTICE_HEAD) + 4 : _TEXT_AT - 4]
    try:
        notice = text.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return otherwise
    return COPYRIGHT if notice and tiff == copyright_exif(notice) else otherwise


def _in_jpeg(data: bytes) -> Iterator[str]:
    """Segments of all scans (ITU-T T.81, annex B). APP0 is JFIF, APP14 Adobe's colour transform."""
    markers = list(jpeg_markers(data))
    for code, at in markers:
        name = _JPEG_NAMES.get(code)
        body = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        if name and body.startswith(EXIF_HEAD):
            yield _exif_name(body.removeprefix(EXIF_HEAD), name)
        elif name:
            yield name
        elif 0xE3 <= code <= 0xEF and code != 0xEE:
            yield f"APP{code - 0xE0}"
    if not markers or markers[-1][0] != EOI:
        raise ValueError("no end of the image")
    if markers[-1][1] < len(data):
        yield "data after the end"


def _in_webp(data: bytes) -> Iterator[str]:
    """Chunks of the RIFF container (WebP Container Specification)."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ValueError("the file is shorter than it says")
    at = 12
    while at + 8 <= end:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"EXIF":
            yield _exif_name(data[at + 8 : at + 8 + size])
        elif name in _WEBP_NAMES:
            yield _WEBP_NAMES[name]
        at += 8 + size + size % 2
    if end < len(data):
        yield "data after the end"


def _in_avif(data: bytes) -> Iterator[str]:
    """Items and properties of the meta box (ISO/IEC 14496-12, 23008-12)."""
    boxes = list(_boxes(data))
    if b"meta" not in dict(boxes):
        raise ValueError("no meta box")
    for kind, body in boxes:
        if kind == b"meta":
            yield from _in_meta(data, body[4:])
        elif kind in (b"moov", b"uuid"):
            yield kind.decode()


def _in_meta(data: bytes, body: bytes) -> Iterator[str]:
    boxes = dict(_boxes(body))
    places = _places(boxes[b"iloc"]) if b"iloc" in boxes else {}
    for kind, inner in _boxes(body):
        if kind == b"iinf":
            # A version 0 box counts its entries in two bytes, later ones in four.
            start = 6 if inner[0] == 0 else 8
            for entry, item in _boxes(inner[start:]):
                if entry == b"infe":
                    yield from _item(data, item, places)
        elif kind == b"iprp":
            for group, properties in _boxes(inner):
                if group == b"ipco":
                    yield from _properties(properties)


def _item(data: bytes, body: bytes, places: dict[int, tuple[int, int]]) -> Iterator[str]:
    # Version 2: a two-byte id, version 3: four; then a two-byte protection index and the type.
    at = 8 if body[0] == 2 else 10
    kind = body[at : at + 4]
    if kind == b"Exif":
        start, length = places.get(int.from_bytes(body[4 : at - 2], "big"), (0, 0))
        # Four bytes say how far behind them the TIFF structure begins (ISO/IEC 23008-12, A.2.1).
        block = data[start : start + length]
        yield _exif_name(block[4:]) if block[:4] == bytes(4) else "EXIF"
    elif kind in (b"mime", b"uri "):
        yield "XMP"


def _places(body: bytes) -> dict[int, tuple[int, int]]:
    """Offset and length in the file of the items in one piece (ISO/IEC 14496-12, 8.11.3)."""
    reader, version = io.BytesIO(body), body[0]
    wide = 2 if version < 2 else 4

    def number(size: int) -> int:
        read = reader.read(size)
        if len(read) < size:
            raise ValueError("a box ends early")
        return int.from_bytes(read, "big")

    reader.seek(4)
    offset_size, length_size = divmod(number(1), 16)
    base_size, index_size = divmod(number(1), 16)
    places = {}
    for _ in range(number(wide)):
        item = number(wide)
        inside = number(2) & 15 if version else 0
        number(2)  # another file: not in ours
        base = number(base_size)
        extents = number(2)
        for _ in range(extents):
            number(index_size if version else 0)
            place = base + number(offset_size), number(length_size)
            if extents == 1 and not inside:
                places[item] = place
    return places


def _properties(body: bytes) -> Iterator[str]:
    for kind, inner in _boxes(body):
        # nclx names a colour space by numbers, which every AVIF does; prof and rICC embed one.
        if kind == b"colr" and inner[:4] in (b"prof", b"rICC"):
            yield "ICC profile"


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = len(data) - at
        if size < head or at + size > len(data):
            raise ValueError("a box is longer than what holds it")
        yield data[at + 4 : at + 8], data[at + head : at + size]
        at += size
    if at < len(data):
        raise ValueError("bytes that are no box")
