"""Files made to hurt, each a few kB at most, and the verdict each must get."""

from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import sys
import zlib
from functools import cache
from pathlib import Path

from PIL import Image

from image_pipeline.imaging.inspection import inspect_image
from image_pipeline.imaging.verdict import Reason, Rejected

from .builders import (
    LIMITS,
    TiffValue,
    behind_soi,
    encoded,
    gif,
    gif_frame,
    jpeg_segment,
    noise,
    png,
    png_chunk,
    tiff,
)

#: Bytes of address space a hostile file may take on top of what is mapped.
ALLOWANCE = 150_000_000


@cache
def bombs() -> dict[str, tuple[bytes, Reason]]:
    """Files that would take more memory or time than they weigh."""
    return {
        "png 30,000 x 30,000": (png(30_000, 30_000, 1, 0, b""), Reason.too_many_pixels),
        "png 2^31-1": (png(2**31 - 1, 2**31 - 1, 8, 2, b""), Reason.too_many_pixels),
        "png one long line": (png(99_999_999, 1, 1, 0, b""), Reason.too_many_pixels),
        "png flat 15,000 x 15,000": (flat_png(15_000), Reason.too_many_pixels),
        "png 65,535 x 65,535": (png(65_535, 65_535, 8, 6, b""), Reason.too_many_pixels),
        "png zTXt of 200 MB": (_with_chunk(b"zTXt", b"a\0\0"), Reason.too_much_metadata),
        "png iTXt of 200 MB": (_with_chunk(b"iTXt", b"a\0\1\0\0\0"), Reason.too_much_metadata),
        "png iCCP of 200 MB": (_with_chunk(b"iCCP", b"a\0\0"), Reason.too_much_metadata),
        "png of 50 profiles of 15 MB": (_png_profiles(50), Reason.too_much_metadata),
        "png of 70,000 texts": (_png_texts(70_000), Reason.too_much_metadata),
        "jpeg of 70,000 comments": (_jpeg_comments(70_000), Reason.too_much_metadata),
        "gif of 70,000 comments": (_gif_comments(70_000), Reason.too_much_metadata),
        "gif 65,535 x 65,535": (_gif(65_535), Reason.too_many_pixels),
        "gif 13,000 x 13,000": (_gif(13_000), Reason.too_many_pixels),
        "gif of 20,000 frames": (_gif(1, frames=20_000), Reason.too_many_frames),
        "jpeg 64,250 x 64,250": (_jpeg(64_250), Reason.too_many_pixels),
        "jpeg 13,370 x 13,370": (_jpeg(13_370), Reason.too_many_pixels),
        "jpeg of 200 scans": (scan_bomb(200), Reason.too_many_scans),
        "webp 16,383 x 16,383": (_webp(16_383), Reason.too_many_pixels),
        "webp 10,001 x 10,001": (_webp(10_001), Reason.too_many_pixels),
        "webp extended 2^24": (_webp_extended(2**24), Reason.too_many_pixels),
        "tiff 200,000 x 200,000": (_tiff(200_000), Reason.too_many_pixels),
        "tiff 65,535 x 65,535": (_tiff(65_535), Reason.too_many_pixels),
        "tiff 10,001 x 10,001": (_tiff(10_001), Reason.too_many_pixels),
        "tiff of 40,000 values in one place": (_tiff_values(40_000), Reason.too_much_metadata),
        "heif 65,535 x 65,535": (_iso("HEIF", 65_535), Reason.too_many_pixels),
        "heif 10,001 x 10,001": (_iso("HEIF", 10_001), Reason.too_many_pixels),
        "heif 9,999 x 9,999": (_iso("HEIF", 9_999), Reason.decode_error),
        "avif 65,535 x 65,535": (_iso("AVIF", 65_535), Reason.decode_error),
        "avif 10,001 x 10,001": (_iso("AVIF", 10_001), Reason.too_many_pixels),
        "avif of 70,000 boxes": (_iso_boxes(70_000), Reason.too_much_metadata),
        "bmp 20,000 x 20,000": (_bmp(20_000), Reason.too_many_pixels),
    }


def flat_png(side: int) -> bytes:
    """All black, in a thousandth of a bit a pixel."""
    return png(side, side, 1, 0, zlib.compress(bytes((side + 7) // 8 + 1) * side, 9))


def _with_chunk(name: bytes, prefix: bytes) -> bytes:
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    pixel = zlib.compress(b"\0\0")
    return png(1, 1, 8, 0, pixel, png_chunk(name, prefix + body))


def _png_profiles(profiles: int) -> bytes:
    """Each inflates to just under what is allowed."""
    body = b"a\0\0" + zlib.compress(bytes(15_000_000), 9)
    return png(1, 1, 8, 0, zlib.compress(b"\0\0"), *[png_chunk(b"iCCP", body)] * profiles)


def _png_texts(texts: int) -> bytes:
    return png(1, 1, 8, 0, zlib.compress(b"\0\0"), png_chunk(b"tEXt", b"a\0b") * texts)


def _jpeg_comments(comments: int) -> bytes:
    return behind_soi(encoded(noise(8, 8), "JPEG"), jpeg_segment(0xFE, b"") * comments)


def _gif_comments(comments: int) -> bytes:
    return gif(1, 1, b"!\xfe\1a\0" * comments, gif_frame(1, 1))


def _tiff_values(fields: int) -> bytes:
    """Every entry of the directory says that the same kilobytes are its values."""
    tags: dict[int, TiffValue] = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 279: 1}
    data = tiff(tags | dict.fromkeys(range(1000, 1000 + fields), 8), bytes(100_000))
    return data.replace(struct.pack("<HII", 4, 1, 8), struct.pack("<HII", 7, 100_000, 8))


def _iso(kind: str, side: int) -> bytes:
    """A small picture that says it is larger (``ispe``, ISO/IEC 23008-12, 6.5.3)."""
    data = bytearray(encoded(noise(64, 64), kind))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", side, side)
    return bytes(data)


def _iso_boxes(boxes: int) -> bytes:
    return encoded(noise(64, 64), "AVIF") + struct.pack(">I4s", 8, b"free") * boxes


def _gif(side: int, frames: int = 1) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0"
    return screen + frame * frames + b";"


def _jpeg(side: int) -> bytes:
    """A small grey JPEG whose frame header (SOF0) says otherwise."""
    data = bytearray(encoded(Image.new("L", (8, 8)), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def scan_bomb(scans: int) -> bytes:
    """A progressive JPEG whose last scan is there many times over."""
    data = encoded(noise(16, 16), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def _webp(side: int) -> bytes:
    """A lossless WebP of one colour (RFC 9649, 3.4): 14 bits a side, then no data."""
    bits = (side - 1) | (side - 1) << 14
    body = b"\x2f" + struct.pack("<I", bits) + b"\x88\x88\x08\x07\x10\x11\x11"
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def _webp_extended(side: int) -> bytes:
    body = bytes(4) + (side - 1).to_bytes(3, "little") * 2
    inner = _webp(16)[12:]
    chunk = b"VP8X" + struct.pack("<I", len(body)) + body + inner
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def _tiff(side: int) -> bytes:
    """One strip of packed bits that ends at once."""
    tags = [
        (256, side), (257, side), (258, 1), (259, 32_773), (262, 1), (273, 8), (277, 1),
        (278, side), (279, 1),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    header = b"II*\0" + struct.pack("<I", 10) + bytes(2)  # the strip
    return header + struct.pack("<H", len(tags)) + entries + bytes(4)


def _bmp(side: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 1, 0, 0, 0, 0, 2, 0)
    return b"BM" + struct.pack("<IHHI", 62, 0, 0, 62) + header + bytes(8)


def foreign() -> dict[str, tuple[bytes, Reason]]:
    """What is put into a folder of pictures by mistake or on purpose."""
    drawings = {name: (data, Reason.unsupported_format) for name, data in _drawings().items()}
    raw = {name: (data, Reason.unsupported_format) for name, data in _raw().items()}
    others = {name: (data, Reason.unsupported_format) for name, data in _others().items()}
    return _no_pictures() | drawings | raw | others


def _no_pictures() -> dict[str, tuple[bytes, Reason]]:
    zipped = b"PK\x03\x04" + bytes(60)
    inline = b"<!doctype html>\n<!-- <svg> --><html><body><svg></svg></body></html>"
    files = {
        "text.jpg": b"This is no picture at all.\n" * 20,
        "prices.jpg": b"BMW 320d, 2019, 14,900\n" * 20,
        "headphones.txt": b"P5 in ear, 29,90\n" * 20,
        "page.html": b"<!doctype html><html><svg></svg></html>",
        "inline.html": inline,
        "utf16.html": inline.decode().encode("utf-16"),
        "page.xhtml": b'<?xml version="1.0"?><html xmlns="x"><svg/></html>',
        "comments.html": b"<!-- -->" * 500 + b"<html>",
        "archive.zip": zipped,
        "letter.docx": zipped + b"[Content_Types].xml",
        "program": b"\x7fELF" + bytes(60),
        "zeros": bytes(5000),
        "riff.wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
        "image.tga": b"\0\0\2\0\0\0\0\0\0\0\0\0\4\0\4\0\x18\0" + bytes(48),
    }
    return {"nothing": (b"", Reason.empty_file)} | {
        name: (data, Reason.not_an_image) for name, data in files.items()
    }


def _drawings() -> dict[str, bytes]:
    """Vectors and documents. They are not rasterised, however they begin."""
    root = '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
    kind = '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd" [ <!ENTITY a "b"> ]>\n'
    return {
        "drawing.svg": b'<svg onload="alert(1)">',
        "declared.svg": b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg xmlns="x"/>',
        "commented.svg": f"\n<!-- <html> -->\n<!-- two -->{root}".encode(),
        "typed.svg": f'<?xml version="1.0"?>\n<!-- Illustrator -->{kind}{root}'.encode(),
        "long.svg": kind.replace("b", "b" * 9000).encode() + root.encode(),
        "prefixed.svg": b'<svg:svg xmlns:svg="http://www.w3.org/2000/svg"/>',
        **{
            f"{encoding}.svg": f'\ufeff<?xml version="1.0"?>{root}'.encode(encoding)
            for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        },
        "unmarked.svg": root.encode("utf-16-be"),
        "packed.svgz": gzip.compress(root.encode(), mtime=0),
        "paper.pdf": b"%PDF-1.7\n%\xe2\xe3",
        "blanks.pdf": b"\r\n  \n%PDF-1.4\n",
        "scanner.pdf": bytes(range(1, 200)) * 5 + b"%PDF-1.3\n",
        "loop.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n",
        "blanks.eps": b"\r\n \t%!PS-Adobe-3.0 EPSF-3.0\n",
        "printer.ps": b"\x04%!PS-Adobe-2.0\n",
        "dos.eps": b"\xc5\xd0\xd3\xc6" + bytes(40),
        "placeable.wmf": b"\xd7\xcd\xc6\x9a" + bytes(40),
        "book.djvu": b"AT&TFORM" + bytes(20),
    }


def _raw() -> dict[str, bytes]:
    """Camera RAW. Where it is a TIFF, the first directory is a preview as of a TIFF."""
    preview: dict[int, TiffValue] = {
        254: 1, 256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1,
    }  # fmt: skip
    sensor = tiff({256: 1, 257: 1, 258: 16, 259: 1, 262: 32_803, 273: 8, 277: 1, 279: 2})
    below = sensor[8:]  # which begins with its pixels
    nikon = tiff(preview | {330: 10}, below)
    return {
        "linear.dng": tiff(preview | {50_706: b"\1\4\0\0"}),
        "big-endian.dng": tiff(preview | {50_706: b"\1\1\0\0"}, order=">"),
        "big.dng": tiff(preview | {50_706: b"\1\6\0\0"}, big=True),
        "array.tif": tiff(preview | {262: 32_803}),
        "nikon.nef": nikon,
        "several.nef": tiff(preview | {330: [8, 10]}, below),
        "sony.arw": tiff(preview | {259: 32_767}),
        "pentax.pef": tiff(preview | {259: 65_535}, order=">"),
        "samsung.srw": tiff(preview | {259: 32_770}),
        "nikon-packed.nef": tiff(preview | {259: 34_713}),
        "canon.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(30),
        "canon.cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        "canon.crw": b"II\x1a\0\0\0HEAPCCDR\2\0",
        "panasonic.rw2": b"IIU\0\x18\0\0\0" + bytes(30),
        "olympus.orf": b"IIRO\x08\0\0\0" + bytes(30),
        "fuji.raf": b"FUJIFILMCCD-RAW 0201" + bytes(30),
        "sigma.x3f": b"FOVb" + bytes(30),
    }


def _others() -> dict[str, bytes]:
    return {
        "motorola.tif": tiff({256: 1, 257: 1, 273: 16}, order=">", big=True),
        "layers.psd": b"8BPS\0\1" + bytes(30),
        "layers.xcf": b"gimp xcf v011\0" + bytes(30),
        "codestream.jxl": b"\xff\x0a\xfa\x7f",
        "container.jxl": b"\0\0\0\x0cJXL \r\n\x87\n",
        "container.jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
        "codestream.j2k": b"\xff\x4f\xff\x51" + bytes(20),
        "picture.jxr": b"II\xbc\1" + bytes(20),
        "picture.bpg": b"BPG\xfb" + bytes(20),
        "picture.mng": b"\x8aMNG\r\n\x1a\n" + bytes(20),
        "film.mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
        "film.mov": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
        "old.mov": b"\0\0\x10\0moov" + bytes(30),
        "film.avi": b"RIFF\x24\0\0\0AVI LIST" + bytes(30),
        "film.webm": b"\x1aE\xdf\xa3" + bytes(20),
        "film.mpg": b"\0\0\1\xba" + bytes(20),
        "site.ico": b"\0\0\1\0\1\0" + bytes(20),
        "mac.icns": b"icns" + bytes(20),
        "texture.dds": b"DDS \x7c\0\0\0" + bytes(20),
        "light.exr": b"v/1\1\2\0\0\0" + bytes(20),
        "light.hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
        "ok.qoi": b"qoif\0\0\0\1\0\0\0\1\3\0" + bytes(20),
        "plain.pgm": b"P2\n# by hand\n2 1\n255\n0 255\n",
        "grey.pgm": b"P5 2 1 255\n\0\xff",
        "any.pam": b"P7\nWIDTH 1\nHEIGHT 1\n",
        "stars.fits": b"SIMPLE  =                    T" + bytes(50),
        "scan.dcm": bytes(128) + b"DICM" + bytes(20),
    }


def main(folder: Path) -> None:
    """Judge the files of a folder in this process, whose memory is limited from now on."""
    files = sorted(folder.iterdir())
    inspect_image(encoded(noise(16, 16), "WEBP"), LIMITS)  # what is imported late comes first
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ALLOWANCE, mapped + ALLOWANCE))
    verdicts = {}
    for file in files:
        try:
            verdicts[file.name] = inspect_image(file.read_bytes(), LIMITS).format
        except Rejected as rejected:
            verdicts[file.name] = str(rejected.reason)
    io.TextIOWrapper(sys.stdout.buffer, write_through=True).write(json.dumps(verdicts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
