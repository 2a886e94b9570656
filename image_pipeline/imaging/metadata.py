"""Finding metadata in an encoded file by walking its structure, without an image library.

Used to prove that nothing of the original but its pixels is published. What the encoders are
told to leave out is not believed; the bytes are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from image_pipeline.imaging.containers import COMMENT, EOI, jpeg_markers, webp_chunks

_JPEG_NAMES = {0xE1: "EXIF or XMP", 0xE2: "ICC profile", 0xED: "IPTC", COMMENT: "comment"}
_WEBP_NAMES = {b"EXIF": "EXIF", b"XMP ": "XMP", b"ICCP": "ICC profile"}


def find_metadata(data: bytes) -> list[str]:
    """Names of the metadata blocks in a JPEG, WebP or AVIF file; empty is what we want.

    A file whose structure cannot be followed to its end is reported as such.
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


def _in_jpeg(data: bytes) -> Iterator[str]:
    """Segments of all scans (ITU-T T.81, annex B). APP0 is JFIF, APP14 Adobe's colour transform."""
    markers = list(jpeg_markers(data))
    for code, _ in markers:
        if code in _JPEG_NAMES or (0xE3 <= code <= 0xEF and code != 0xEE):
            yield _JPEG_NAMES.get(code, f"APP{code - 0xE0}")
    if not markers or markers[-1][0] != EOI:
        raise ValueError("no end of the image")
    if markers[-1][1] < len(data):
        yield "data after the end"


def _in_webp(data: bytes) -> Iterator[str]:
    """Chunks of the RIFF container (WebP Container Specification)."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ValueError("the file is shorter than it says")
    for name in webp_chunks(data):
        if name in _WEBP_NAMES:
            yield _WEBP_NAMES[name]
    if end < len(data):
        yield "data after the end"


def _in_avif(data: bytes) -> Iterator[str]:
    """Items and properties of the meta box (ISO/IEC 14496-12, 23008-12)."""
    boxes = list(_boxes(data))
    if b"meta" not in dict(boxes):
        raise ValueError("no meta box")
    for kind, body in boxes:
        if kind == b"meta":
            yield from _in_meta(body[4:])
        elif kind in (b"moov", b"uuid"):
            yield kind.decode()


def _in_meta(body: bytes) -> Iterator[str]:
    for kind, inner in _boxes(body):
        if kind == b"iinf":
            # A version 0 box counts its entries in two bytes, later ones in four.
            start = 6 if inner[0] == 0 else 8
            for entry, item in _boxes(inner[start:]):
                if entry == b"infe":
                    yield from _item(item)
        elif kind == b"iprp":
            for group, properties in _boxes(inner):
                if group == b"ipco":
                    yield from _properties(properties)


def _item(body: bytes) -> Iterator[str]:
    # Version 2: a two-byte id, version 3: four; then a two-byte protection index and the type.
    at = 8 if body[0] == 2 else 10
    kind = body[at : at + 4]
    if kind == b"Exif":
        yield "EXIF"
    elif kind in (b"mime", b"uri "):
        yield "XMP"


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
