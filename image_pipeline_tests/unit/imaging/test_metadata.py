"""Metadata is found where encoders that are not ours put it."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from image_pipeline.imaging.containers import jpeg_markers, webp_size
from image_pipeline.imaging.metadata import EXIF_HEAD, copyright_exif, find_metadata

from .builders import ADOBE_RGB, a_photograph, encoded, matrix_profile, noise

EXIF = Image.Exif()
EXIF[0x010E] = "a description"  # a bare orientation would become a property in AVIF
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
ICC = matrix_profile(ADOBE_RGB, 2.2, "wide")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_planted_blocks_are_found(kind: str, mode: str) -> None:
    if (kind, mode) == ("JPEG", "RGBA"):
        mode = "L"
    image = noise(40, 30, 4).convert(mode)
    one_name = "EXIF or XMP" if kind == "JPEG" else None
    assert find_metadata(encoded(image, kind)) == []
    assert find_metadata(encoded(image, kind, exif=EXIF)) == [one_name or "EXIF"]
    assert find_metadata(encoded(image, kind, xmp=XMP)) == [one_name or "XMP"]
    assert find_metadata(encoded(image, kind, icc_profile=ICC)) == ["ICC profile"]
    everything = encoded(image, kind, exif=EXIF, xmp=XMP, icc_profile=ICC)
    assert len(find_metadata(everything)) == (2 if kind == "JPEG" else 3)


def test_comments_and_other_segments_of_a_jpeg() -> None:
    assert find_metadata(encoded(noise(8, 8), "JPEG", comment=b"hello")) == ["comment"]
    plain = encoded(noise(8, 8), "JPEG")
    for code, name in ((0xED, "IPTC"), (0xE3, "APP3"), (0xEF, "APP15")):
        segment = bytes((0xFF, code)) + b"\0\x05abc"
        assert find_metadata(plain[:2] + segment + plain[2:]) == [name]


def test_a_comment_between_two_scans() -> None:
    data = encoded(noise(32, 32), "JPEG", progressive=True)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    hidden = data[:second] + b"\xff\xfe\0\x08hidden" + data[second:]
    with Image.open(io.BytesIO(hidden)) as image:
        image.load()  # decoders do not mind
    assert find_metadata(hidden) == ["comment"]


# ------------------------------------------------------------------------------ copyright notices


def with_exif(kind: str, tiff: bytes, mode: str = "RGB", xmp: bytes = b"") -> bytes:
    head = EXIF_HEAD if kind == "JPEG" else b""
    return encoded(noise(40, 30, 4).convert(mode), kind, exif=head + tiff, xmp=xmp)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("notice", ["Ann", "Anna", "A", "© 2026 Ann Example", "x" * 1000])
def test_a_notice_alone_has_a_name_of_its_own(kind: str, notice: str) -> None:
    file = with_exif(kind, copyright_exif(notice))
    assert find_metadata(file) == ["copyright"]
    with Image.open(io.BytesIO(file)) as image:
        exif = image.getexif()
        assert dict(exif) == {0x8298: notice.encode().decode("latin-1")}  # as Pillow reads bytes


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_a_notice_beside_transparency(kind: str) -> None:
    assert find_metadata(with_exif(kind, copyright_exif("Ann"), "RGBA")) == ["copyright"]


@given(notice=st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=1000))
def test_a_notice_is_one_directory_of_one_ascii_entry(notice: str) -> None:
    """TIFF 6.0, section 2: header, count, tag, type 2, bytes with the final zero, no successor."""
    tiff, text = copyright_exif(notice), notice.encode() + b"\0"
    mark, magic, start, count, tag, kind, size = struct.unpack_from("<2sHIHHHI", tiff)
    assert (mark, magic, start, count, tag, kind, size) == (
        b"II", 42, 8, 1, 0x8298, 2, len(text)
    )  # fmt: skip
    assert tiff[22:26] == bytes(4)
    at = struct.unpack_from("<I", tiff, 18)[0] if size > 4 else 18
    assert tiff[at : at + size] == text
    assert len(tiff) == (26 + size if size > 4 else 26)


def test_without_a_notice_there_is_no_block() -> None:
    assert copyright_exif(None) == copyright_exif("") == b""


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_a_notice_with_anything_else_is_no_notice(kind: str) -> None:
    name = "EXIF or XMP" if kind == "JPEG" else "EXIF"
    good = copyright_exif("Ann Example")
    another = Image.Exif()
    another[0x8298], another[0x010F] = "Ann Example", "a camera"
    described = Image.Exif()
    described[0x010E] = "Ann Example"
    for tiff in (
        good + b"48.8584N",  # behind the text
        good + b"\0",
        good.replace(bytes(4) + b"Ann", b"\x08\0\0\0Ann"),  # another directory
        another.tobytes().removeprefix(EXIF_HEAD),
        described.tobytes().removeprefix(EXIF_HEAD),
    ):
        assert find_metadata(with_exif(kind, tiff)) == [name], tiff
    assert find_metadata(with_exif(kind, good, xmp=XMP)) == [
        "EXIF or XMP" if kind == "JPEG" else "XMP",
        "copyright",
    ]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_bytes_behind_the_end(kind: str) -> None:
    data = encoded(noise(8, 8), kind)
    assert find_metadata(data + b"GPS") == ["data after the end"]


def test_a_video_in_avif() -> None:
    frames = [noise(16, 16, seed=seed) for seed in range(2)]
    data = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    assert "moov" in find_metadata(data)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_what_cannot_be_followed_is_not_clean(kind: str) -> None:
    data = encoded(a_photograph(60, 40), kind)
    for length in range(12, len(data), max(1, len(data) // 40)):
        assert find_metadata(data[:length]) != [], length
    assert find_metadata(b"") == ["unknown container"]
    assert find_metadata(encoded(noise(8, 8), "PNG")) == ["unknown container"]


@given(data=st.binary(max_size=200), head=st.sampled_from(["jpeg", "webp", "avif"]))
def test_any_bytes_get_an_answer(data: bytes, head: str) -> None:
    starts = {
        "jpeg": b"\xff\xd8",
        "webp": b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP",
        "avif": b"\0\0\0\x10ftypavif\0\0\0\0\0\0\1\0meta\0\0\0\0",
    }
    assert isinstance(find_metadata(starts[head] + data), list)


def test_markers_of_a_jpeg_in_order() -> None:
    """SOI, APP0, a fill byte, DQT, SOS with a restart and a stuffed FF in its data, EOI, rest."""
    data = (
        b"\xff\xd8" b"\xff\xe0\0\x04JF" b"\xff\xff\xdb\0\x03q" b"\xff\xda\0\x02"
        b"data\xff\0\xff\xd0data" b"\xff\xd9" b"\xff\xda"
    )  # fmt: skip
    assert [code for code, _ in jpeg_markers(data)] == [0xE0, 0xDB, 0xDA, 0xD0, 0xD9]


@given(width=st.integers(1, 300), height=st.integers(1, 300), which=st.integers(0, 3))
def test_size_of_a_webp(width: int, height: int, which: int) -> None:
    options = [{}, {"lossless": True}, {"xmp": XMP}, {"lossless": True, "icc_profile": ICC}][which]
    data = encoded(Image.new("RGB", (width, height)), "WEBP", **options)
    assert webp_size(data) == (width, height)


def test_size_of_no_webp() -> None:
    assert webp_size(b"RIFF\0\0\0\0WEBPVP9 ") == (0, 0)
    assert webp_size(b"RIFF") == (0, 0)
