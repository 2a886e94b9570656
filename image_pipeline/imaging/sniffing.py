"""What a file is, by its first bytes; its name is not believed."""

from __future__ import annotations

import re

from image_pipeline.imaging.containers import is_raw
from image_pipeline.imaging.verdict import Reason, Rejected

#: First bytes of formats that are decoded.
_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
)

#: First bytes of formats that are recognised and refused, with a name for people.
_REFUSED = (
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"MM\0+", "BigTIFF in this byte order"),
    (b"8BPS", "a Photoshop document"),
    (b"gimp xcf", "a GIMP document"),
    (b"AT&TFORM", "a DjVu document"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"II\xbc", "JPEG XR"),
    (b"BPG\xfb", "BPG"),
    (b"\x8aMNG", "MNG"),
    (b"\x8bJNG", "JNG"),
    (b"\0\0\x01\0", "an icon"),
    (b"icns", "an icon"),
    (b"DDS ", "a DirectDraw surface"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"SIMPLE  =", "FITS"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"FUJIFILMCCD-RAW", "camera RAW"),
    (b"FOVb", "camera RAW"),
    (b"\0MRM", "camera RAW"),
    (b"II\x1a\0\0\0HEAPCCDR", "camera RAW"),
    (b"IIU\0", "camera RAW"),
    (b"IIRO", "camera RAW"),
    (b"IIRS", "camera RAW"),
    (b"MMOR", "camera RAW"),
    (b"IIII", "camera RAW"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"\0\0\x01\xba", "a video"),
    (b"FLV\x01", "a video"),
    (b"\x1f\x8b", "a compressed file"),
)

#: Sizes of the known headers of a bitmap: "BM" alone could begin a text.
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)

#: Brands of ISO base media files (ISO/IEC 23008-12, AV1 Image File Format).
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

#: First boxes of QuickTime films that are older than file type boxes.
_FILM_BOXES = (b"moov", b"mdat", b"wide", b"pnot")

#: Bytes that are looked at for a text format.
_TEXT_BYTES = 4096

#: Where readers look for the header of a PDF (ISO 32000-1, annex H, note 13).
_PDF_BYTES = 1024

#: Encodings of XML by its first bytes (XML 1.0, appendix F), longer marks first.
_XML_ENCODINGS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
    (b"\xef\xbb\xbf", "utf-8"),
)

#: The beginning of an SVG document: declarations and comments, then the root element or a
#: document type with its name. The group is atomic: hostile text cannot make it backtrack.
_SVG = re.compile(
    r"(?>\s+|<\?.*?\?>|<!--.*?-->)*+<(?:!doctype\s+)?(?:[\w.-]+:)?svg[\s:/>]", re.DOTALL | re.I
)

#: A Netpbm header: its number and two sizes, with comments between (P7 names its fields).
_NETPBM = re.compile(rb"P7\nWIDTH |P[1-6](?>\s+|#[^\n]*\n)+\d+\s+\d+\s")


def sniff(data: bytes) -> str:
    """The format of a file by its first bytes (4 kB are enough), in lower case.

    Camera RAW that stands in a TIFF is told from the directories that lie in ``data``.
    Raises :class:`Rejected` for formats that are not decoded and for what is no image.
    """
    for magic, name in _MAGIC:
        if data.startswith(magic):
            if name == "tiff" and is_raw(data):
                raise _refused("camera RAW")
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _sniff_media(data)
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    raise _foreign(data)


def _refused(name: str) -> Rejected:
    return Rejected(Reason.unsupported_format, f"{name} is not decoded")


def _sniff_media(data: bytes) -> str:
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[at : at + 4] for at in (8, *range(16, size, 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "avif"
    if any(brand in _HEIF_BRANDS for brand in brands):
        return "heif"
    raise _refused("a video or camera RAW file")


def _foreign(data: bytes) -> Rejected:
    """The verdict on first bytes that are those of no format that is decoded."""
    if not data:
        return Rejected(Reason.empty_file, "the file has no bytes")
    for magic, name in _REFUSED:
        if data.startswith(magic):
            return _refused(name)
    if data[4:8] in _FILM_BOXES or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return _refused("a video")
    if data[128:132] == b"DICM":
        return _refused("DICOM")
    return _text(data[:_TEXT_BYTES])


def _text(head: bytes) -> Rejected:
    """The verdict on text, or on what is nothing known at all."""
    if _SVG.match(_decoded(head)):
        return Rejected(Reason.unsupported_format, "SVG is not rasterised")
    # Printers take an end-of-transmission character (4) before a job, and so do files for them.
    if head.lstrip(b"\xef\xbb\xbf\x04\0 \t\r\n").startswith(b"%!PS"):
        return _refused("PostScript")
    if b"%PDF-" in head[:_PDF_BYTES]:
        return _refused("a PDF document")
    if _NETPBM.match(head):
        return _refused("Netpbm")
    return Rejected(Reason.not_an_image, "the first bytes are those of no known image format")


def _decoded(head: bytes) -> str:
    """Text by the rules of XML. ASCII is all that is looked for, so Latin-1 does for the rest."""
    encoding = next((name for mark, name in _XML_ENCODINGS if head.startswith(mark)), "latin-1")
    return head.decode(encoding, "ignore").lstrip("\ufeff")
