"""Files made to hurt, each a few kB at most, and the verdict each must get."""

from __future__ import annotations

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

from .builders import LIMITS, encoded, noise, png, png_chunk

#: Bytes of address space a hostile file may take on top of what is mapped.
ALLOWANCE = 150_000_000


@cache
def bombs() -> dict[str, tuple[bytes, Reason]]:
    """Files that would take more memory or time than they weigh."""
    return {
        "png 30,000 x 30,000": (png(30_000, 30_000, 1, 0, b""), Reason.too_many_pixels),
        "png 2^31-1": (png(2**31 - 1, 2**31 - 1, 8, 2, b""), Reason.too_many_pixels),
        "png one long line": (png(99_999_999, 1, 1, 0, b""), Reason.too_many_pixels),
        "png flat 15,000 x 15,000": (_flat_png(15_000), Reason.too_many_pixels),
        "png zTXt of 200 MB": (_with_chunk(b"zTXt", b"a\0\0"), Reason.decode_error),
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
        "tiff 10,001 x 10,001": (_tiff(10_001), Reason.too_many_pixels),
        "bmp 20,000 x 20,000": (_bmp(20_000), Reason.too_many_pixels),
    }


def _flat_png(side: int) -> bytes:
    return png(side, side, 1, 0, zlib.compress(bytes((side + 7) // 8 + 1) * side, 9))


def _with_chunk(name: bytes, prefix: bytes) -> bytes:
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    pixel = zlib.compress(b"\0\0")
    return png(1, 1, 8, 0, pixel, png_chunk(name, prefix + body))


def iccp_bomb() -> bytes:
    """A profile that inflates to 200 MB. The picture itself is good."""
    return _with_chunk(b"iCCP", b"a\0\0")


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
    zipped = b"PK\x03\x04" + bytes(60)
    return {
        "nothing": (b"", Reason.empty_file),
        "text.jpg": (b"This is no picture at all.\n" * 20, Reason.not_an_image),
        "prices.jpg": (b"BMW 320d, 2019, 14,900\n" * 20, Reason.not_an_image),
        "page.html": (b"<!doctype html><html><svg></svg></html>", Reason.not_an_image),
        "archive.zip": (zipped, Reason.not_an_image),
        "program": (b"\x7fELF" + bytes(60), Reason.not_an_image),
        "zeros": (bytes(5000), Reason.not_an_image),
        "riff.wav": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), Reason.not_an_image),
        "paper.pdf": (b"%PDF-1.7\n%\xe2\xe3", Reason.unsupported_format),
        "loop.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n", Reason.unsupported_format),
        "dos.eps": (b"\xc5\xd0\xd3\xc6" + bytes(40), Reason.unsupported_format),
        "drawing.svg": (b'<svg onload="alert(1)">', Reason.unsupported_format),
        "declared.svg": (
            b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg xmlns="x"/>',
            Reason.unsupported_format,
        ),
        "layers.psd": (b"8BPS\0\1" + bytes(30), Reason.unsupported_format),
        "codestream.jxl": (b"\xff\x0a\xfa\x7f", Reason.unsupported_format),
        "container.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", Reason.unsupported_format),
        "film.mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", Reason.unsupported_format),
        "film.mov": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", Reason.unsupported_format),
        "raw.cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(30), Reason.unsupported_format),
        "raw.cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", Reason.unsupported_format),
        "film.webm": (b"\x1aE\xdf\xa3" + bytes(20), Reason.unsupported_format),
        "site.ico": (b"\0\0\1\0\1\0" + bytes(20), Reason.unsupported_format),
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
