"""Walking the structure of image files without decoding them."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: A marker: fill bytes 0xFF, then a code. In entropy-coded data 0xFF is followed by 0 or by the
#: code of a restart (ITU-T T.81, B.1.1).
_MARKER = re.compile(rb"\xff+([^\x00\xff])")

EOI, SCAN, COMMENT = 0xD9, 0xDA, 0xFE

#: Codes without a segment behind them: restarts and the two ends of the image. Those below
#: the first frame header are reserved; decoders step over the marker alone.
_ALONE = frozenset((*range(0xC0), *range(0xD0, 0xDA)))

#: A stretch of a file: its kind, where its content begins, and how many bytes that has.
Part = tuple[bytes, int, int]

#: What the bookkeeping of a decoder adds to each piece of metadata, in bytes, roughly: an
#: object, its name, its place in a list. Else a million empty comments would weigh nothing.
PIECE_BYTES = 256

#: Chunks of a PNG that make the picture or its animation; the others say something about it.
_PNG_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT")

#: Bytes that a second profile in a PNG counts as, and every further one: there may be one (PNG,
#: 5.6), and decoders inflate each of them, which takes 60 ms for 16 MB.
PROFILE_BYTES = 1_000_000

#: Chunks of a WebP that hold metadata.
_WEBP_METADATA = (b"ICCP", b"EXIF", b"XMP ")

#: Boxes that hold coded pictures: of the file, and the film that phones append to a photograph.
_PICTURE_BOXES = (b"mdat", b"mpvd")

#: Bytes of a value by its type (TIFF 6.0, section 2, 13 for a directory, 16-18 of BigTIFF).
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_COMPRESSION, _PHOTOMETRIC, _SUB_DIRECTORIES, _DNG_VERSION = 259, 262, 330, 50_706

#: Photoshop's layers, beside the flat picture: pixels again, of any size.
_TIFF_LAYERS = 37_724

#: A colour filter array, and linear RAW (TIFF/EP, ISO 12234-2; DNG 1.4).
_RAW_PHOTOMETRICS = (32_803, 34_892)

#: Sony's, Samsung's, Nikon's and Pentax' own compressions (as ExifTool lists them).
_RAW_COMPRESSIONS = (32_767, 32_769, 32_770, 34_713, 65_535)

#: Cameras write up to five directories below the first: previews, the picture, a thumbnail.
_MAX_SUB_DIRECTORIES = 8


# ----------------------------------------------------------------------------------------- JPEG


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


def _jpeg_metadata(data: bytes) -> Iterator[Part]:
    """Application segments and comments before the first scan: decoders keep no later ones."""
    for code, at in jpeg_markers(data):
        if code == SCAN:
            return
        if 0xE0 <= code <= 0xEF or code == COMMENT:
            yield bytes([code]), at + 2, max(0, int.from_bytes(data[at : at + 2], "big") - 2)


# ---------------------------------------------------------------------------------- PNG and GIF


def png_chunks(data: bytes) -> Iterator[Part]:
    """Every chunk of a PNG whose name lies in the file (PNG, third edition, 5.3)."""
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, length
        at += 12 + length


def _png_metadata(data: bytes) -> Iterator[Part]:
    return (part for part in png_chunks(data) if part[0] not in _PNG_PICTURE)


def gif_blocks(data: bytes) -> Iterator[Part]:
    """Every block of a GIF: ``,`` an image, ``!`` an extension, ``;`` the end.

    The content is their data sub-blocks (GIF89a, 15). Ends at the trailer, where the data
    does, or at a byte that begins no block.
    """
    at = 13 + _gif_colours(data[10:11])
    while at < len(data):
        kind = data[at : at + 1]
        if kind == b",":
            start = at + 11 + _gif_colours(data[at + 9 : at + 10])
        elif kind == b"!":
            start = at + 2
        else:
            if kind == b";":
                yield kind, at + 1, 0
            return
        at = _after_sub_blocks(data, start)
        yield kind, start, at - start


def _gif_colours(flags: bytes) -> int:
    """Bytes of a colour table by the flags that announce it."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += data[at] + 1
    return at + 1


# ---------------------------------------------------------------------------------------- WebP


def webp_chunks(data: bytes) -> Iterator[bytes]:
    """Names of the chunks in a WebP file's RIFF container (WebP Container Specification)."""
    return (name for name, _, _ in _riff_chunks(data))


def _riff_chunks(data: bytes) -> Iterator[Part]:
    at, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, size
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


# ---------------------------------------------------------------------------------------- TIFF


@dataclass(frozen=True, slots=True)
class TiffField:
    """An entry of a directory: ``size`` bytes of values that begin at ``at`` in the file."""

    tag: int
    kind: int
    count: int
    at: int
    size: int
    inside: bool
    """Whether the values stand in the entry itself."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How numbers lie in a TIFF: classic (TIFF 6.0, section 2) or BigTIFF, whose are wider."""

    order: str
    big: bool

    @property
    def counter(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQQ" if self.big else "HHII"))

    @property
    def pointer(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "I"))


def _tiff_layout(data: bytes) -> _Layout:
    return _Layout("<" if data[:2] == b"II" else ">", 43 in data[2:4])


def tiff_fields(data: bytes, start: int | None = None) -> list[TiffField]:
    """The entries of a directory, by default the first, as far as they lie in the file."""
    layout = _tiff_layout(data)
    try:
        if start is None:
            (start,) = layout.pointer.unpack_from(data, 8 if layout.big else 4)
        (count,) = layout.counter.unpack_from(data, start)
    except (struct.error, OverflowError):
        return []
    first = start + layout.counter.size
    last = min(first + count * layout.entry.size, len(data) - layout.entry.size + 1)
    return [_tiff_field(data, at, layout) for at in range(first, last, layout.entry.size)]


def _tiff_field(data: bytes, at: int, layout: _Layout) -> TiffField:
    tag, kind, count, place = layout.entry.unpack_from(data, at)
    size = _TIFF_SIZES.get(kind, 1) * count
    inside = size <= layout.pointer.size
    where = at + layout.entry.size - layout.pointer.size if inside else place
    return TiffField(tag, kind, count, where, size, inside)


def _tiff_numbers(data: bytes, field: TiffField | None, most: int) -> list[int]:
    """The first whole numbers of a field, at most so many; none if they lie elsewhere."""
    if field is None or field.kind not in (3, 4, 13, 16, 18):
        return []
    width, order = _TIFF_SIZES[field.kind], "little" if data[:2] == b"II" else "big"
    end = min(field.at + width * min(field.count, most), len(data) - width + 1)
    return [
        int.from_bytes(data[at : at + width], "little" if order == "little" else "big")
        for at in range(field.at, end, width)
    ]


def is_raw(data: bytes) -> bool:
    """Whether a TIFF holds what a camera's sensor saw: DNG, NEF, ARW, CR2, PEF and their kin.

    Their first directory is often a small preview that would pass for the picture. Told by the
    tags of the first directory and of those below it (TIFF/EP, ISO 12234-2).
    """
    if data[8:10] == b"CR":
        return True
    fields = {field.tag: field for field in tiff_fields(data)}
    if _DNG_VERSION in fields or _is_sensor_data(data, fields):
        return True
    below = _tiff_numbers(data, fields.get(_SUB_DIRECTORIES), _MAX_SUB_DIRECTORIES)
    return any(
        _is_sensor_data(data, {field.tag: field for field in tiff_fields(data, at)}) for at in below
    )


def _is_sensor_data(data: bytes, fields: dict[int, TiffField]) -> bool:
    photometric = _tiff_numbers(data, fields.get(_PHOTOMETRIC), 1)
    compression = _tiff_numbers(data, fields.get(_COMPRESSION), 1)
    return photometric[:1] in ([kind] for kind in _RAW_PHOTOMETRICS) or (
        compression[:1] in ([kind] for kind in _RAW_COMPRESSIONS)
    )


def _tiff_metadata(data: bytes) -> Iterator[Part]:
    """Values outside the entries of the first directory, which is all that is read.

    Places of strips and tiles are among them: each becomes an object in a decoder.
    """
    tags = set()
    for field in tiff_fields(data):
        if not field.inside and (field.tag != _TIFF_LAYERS or field.tag in tags):
            yield b"field", field.at, field.size
        tags.add(field.tag)


# ------------------------------------------------------------------------------------------ ISO


def _boxes(data: bytes) -> Iterator[Part]:
    """Boxes of a file or of a box's content (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 0:
            size = len(data) - at  # this box runs to the end of the file
        elif size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        size = max(size, 8)
        yield data[at + 4 : at + 8], at + 8, size - 8
        at += size


def named_colours(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer function by number (ITU-T H.273) of an AVIF or HEIF, if it has any.

    Of several pictures in a file, the first that says so speaks for all.
    """
    # A meta box has a version before its boxes.
    properties = _content(_content(_content(data, b"meta")[4:], b"iprp"), b"ipco")
    for name, at, size in _boxes(properties):
        if name == b"colr" and properties[at : at + 4] == b"nclx" and size >= 8:
            primaries, transfer = properties[at + 4 : at + 6], properties[at + 6 : at + 8]
            return int.from_bytes(primaries, "big"), int.from_bytes(transfer, "big")
    return None


def _content(data: bytes, wanted: bytes) -> bytes:
    """The content of the first box of a name; nothing if there is none."""
    found = (data[at : at + size] for name, at, size in _boxes(data) if name == wanted)
    return next(found, b"")


def _iso_metadata(data: bytes) -> Iterator[Part]:
    return (box for box in _boxes(data) if box[0] not in _PICTURE_BOXES)


# ----------------------------------------------------------------------------- over all formats


def metadata_bytes(data: bytes, name: str, enough: float = math.inf) -> int:
    """What the metadata of a file weighs, in bytes: its own and :data:`PIECE_BYTES` a piece.

    ``name`` is the format in lower case; 0 for formats without metadata. Counting stops above
    ``enough``. Pieces that reach beyond the file are left to the decoder, which refuses them.
    """
    walks: dict[str, Callable[[bytes], Iterator[Part]]] = {
        "jpeg": _jpeg_metadata,
        "png": _png_metadata,
        "gif": lambda data: (part for part in gif_blocks(data) if part[0] == b"!"),
        "webp": lambda data: (part for part in _riff_chunks(data) if part[0] in _WEBP_METADATA),
        "tiff": _tiff_metadata,
        "avif": _iso_metadata,
        "heif": _iso_metadata,
    }
    total = profiles = 0
    for kind, at, size in walks[name](data) if name in walks else ():
        if at + size <= len(data):
            total += size + PIECE_BYTES
            if kind == b"iCCP":
                total += PROFILE_BYTES if profiles else 0
                profiles += 1
            if total > enough:
                break
    return total


def is_cut(data: bytes, name: str) -> bool:
    """Whether a damaged file of a format (in lower case) lacks its end, by its own structure.

    Some decoders only say that they know no such file. False where the structure does not tell.
    """
    whole: dict[str, Callable[[bytes], bool]] = {
        "jpeg": lambda data: b"\xff\xd9" in data[-64:],
        "png": lambda data: b"IEND" in data[-64:],
        "gif": lambda data: any(kind == b";" for kind, _, _ in gif_blocks(data)),
        "webp": lambda data: 8 + int.from_bytes(data[4:8], "little") <= len(data),
        "avif": _boxes_fit,
        "heif": _boxes_fit,
        "tiff": _directory_fits,
    }
    return name in whole and not whole[name](data)


def _boxes_fit(data: bytes) -> bool:
    return sum(8 + size for _, _, size in _boxes(data)) == len(data)


def _directory_fits(data: bytes) -> bool:
    """Whether the first directory and the values it points to lie inside the file."""
    layout = _tiff_layout(data)
    try:
        (start,) = layout.pointer.unpack_from(data, 8 if layout.big else 4)
        (count,) = layout.counter.unpack_from(data, start)
    except (struct.error, OverflowError):
        return False
    fields = tiff_fields(data)
    return len(fields) == count and all(
        field.inside or field.at + field.size <= len(data) for field in fields
    )
