"""What a file says before its pixels are decoded: quality, frames, profile, copyright."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from image_pipeline.imaging.copyright import MAX_CHARACTERS, iptc_notice, notice
from image_pipeline.imaging.decoding import Header, decode
from image_pipeline.imaging.jpeg_quality import jpeg_quality

from .builders import LIMITS, a_photograph, encoded, exif_of, grey_profile, noise

COPYRIGHT = 0x8298


def header_of(data: bytes) -> Header:
    return decode(data, LIMITS).header


class TestQuality:
    @pytest.mark.parametrize("quality", [1, 2, 3, *range(10, 96), 100])
    def test_of_libjpeg_is_exact(self, quality: int) -> None:
        for image in (noise(16, 16), Image.new("L", (16, 16)), Image.new("CMYK", (16, 16))):
            assert header_of(encoded(image, "JPEG", quality=quality)).quality == quality

    def test_is_that_of_the_whole_file_when_it_is_decoded_at_a_fraction(self) -> None:
        data = encoded(a_photograph(), "JPEG", quality=71, progressive=True)
        assert decode(data, LIMITS, lambda header: (50, 38)).header.quality == 71

    @pytest.mark.parametrize("quality", [30, 60, 90])
    def test_of_another_table_is_near(self, quality: int) -> None:
        """libjpeg's table with every divisor up to 12 % off, as by another encoder's rounding."""
        with Image.open(io.BytesIO(encoded(noise(16, 16), "JPEG", quality=quality))) as opened:
            table = np.array(opened.quantization[0])
        off = np.random.default_rng(quality).uniform(0.88, 1.12, 64)
        other = [int(value) for value in np.clip(np.rint(table * off), 1, 255)]
        found = header_of(encoded(noise(16, 16), "JPEG", qtables=[other, other])).quality
        assert found is not None
        assert abs(found - quality) <= 3
        assert found == jpeg_quality(other)

    def test_of_a_flat_table_lies_between_the_extremes(self) -> None:
        assert jpeg_quality([1] * 64) == 100
        assert jpeg_quality([255] * 64) == 1
        assert 40 < jpeg_quality([50] * 64) < 60

    @given(table=st.lists(st.integers(0, 65_535), min_size=64, max_size=64))
    def test_of_any_table_is_a_quality(self, table: list[int]) -> None:
        assert 1 <= jpeg_quality(table) <= 100

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "HEIF", "TIFF", "GIF", "BMP"])
    def test_of_other_formats_is_unknown(self, kind: str) -> None:
        assert header_of(encoded(noise(16, 16), kind)).quality is None


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_frames(kind: str) -> None:
    frames = [noise(16, 16, seed=seed) for seed in range(3)]
    several = header_of(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert (several.frames, several.animated) == (3, True)
    one = header_of(encoded(frames[0], kind))
    assert (one.frames, one.animated) == (1, False)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"])
def test_a_profile(kind: str) -> None:
    profile = grey_profile(2.2)
    assert header_of(encoded(noise(16, 16), kind, icc_profile=profile)).has_profile
    assert not header_of(encoded(noise(16, 16), kind)).has_profile


class TestCopyright:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"])
    def test_in_exif(self, kind: str) -> None:
        exif = exif_of(1)
        exif[COPYRIGHT] = "(c) 2026 A. Photographer"
        data = encoded(noise(16, 16), kind, exif=exif)
        assert header_of(data).copyright == "(c) 2026 A. Photographer"
        assert header_of(encoded(noise(16, 16), kind)).copyright is None

    def test_in_iptc_of_a_jpeg(self) -> None:
        data = with_iptc(encoded(noise(16, 16), "JPEG"), "© Agentur Süd".encode())
        assert header_of(data).copyright == "© Agentur Süd"

    def test_in_iptc_of_a_tiff(self) -> None:
        data = encoded(noise(16, 16), "TIFF", tiffinfo={33_723: data_set(2, 116, b"(c) Agency")})
        assert header_of(data).copyright == "(c) Agency"

    def test_exif_goes_before_iptc(self) -> None:
        exif = Image.Exif()
        exif[COPYRIGHT] = "from EXIF"
        assert (
            header_of(with_iptc(encoded(noise(16, 16), "JPEG", exif=exif), b"from IPTC")).copyright
            == "from EXIF"
        )

    @pytest.mark.parametrize(
        ("stored", "shown"),
        [
            (b"(c) Me\0", "(c) Me"),
            (b"photographer\0editor\0", "photographer; editor"),  # CIPA DC-008, tag 33432
            (b" \0editor\0", "editor"),
            ("© Jürgen Łoś".encode(), "© Jürgen Łoś"),
            ("© Jürgen".encode("latin-1"), "© Jürgen"),
            ("© Łoś".encode("utf-16"), "© Łoś"),
            ("\ufeff© Łoś".encode("utf-16-be"), "© Łoś"),
            ("© Mueller".encode("utf-16-le"), "© Mueller"),
            ("© Mueller".encode("utf-16-be"), "© Mueller"),
            (b"a\r\n\tb   c", "a b c"),
            (b"\x1b[31mred\x07\x00", "[31mred"),
            ("left\u202eright\u200b".encode(), "leftright"),
            (b"<script>alert('1')</script>", "<script>alert('1')</script>"),
            (b"", None),
            (b"\0\0\0\0", None),
            (b"  \r\n \0", None),
            (b"\x01\x02\x03", None),
            (7, None),
            ((1, 2), None),
            (None, None),
        ],
    )
    def test_becomes_a_clean_line(self, stored: object, shown: str | None) -> None:
        assert notice(stored) == shown

    @pytest.mark.parametrize("character", ["x", "ü", "語", "\U0001f600"])
    def test_of_megabytes_is_cut(self, character: str) -> None:
        found = notice((character * 3_000_000).encode())
        assert found == character * MAX_CHARACTERS

    @given(stored=st.binary(max_size=60) | st.text(max_size=40))
    def test_is_always_printable(self, stored: bytes | str) -> None:
        found = notice(stored)
        if found is not None:
            assert found
            assert found.isprintable()
            assert found == found.strip()
            found.encode()

    @pytest.mark.parametrize(
        "value", [b"\xff" * 40, b"A" * 60_000, b"\0" * 9, "語".encode("utf-16")]
    )
    def test_hostile_values_cost_no_picture(self, value: bytes) -> None:
        tag = struct.pack("<HHII", COPYRIGHT, 2, len(value), 26)
        exif = b"Exif\0\0II*\0\x08\0\0\0" + b"\1\0" + tag + bytes(4) + value
        found = header_of(encoded(noise(16, 16), "JPEG", exif=exif)).copyright
        assert found is None or (found.isprintable() and len(found) <= MAX_CHARACTERS)

    @given(block=st.binary(max_size=80))
    def test_any_bytes_may_stand_for_iptc(self, block: bytes) -> None:
        iptc_notice(block)
        found = iptc_notice(data_set(2, 5, b"title") + data_set(2, 116, b"mine") + block)
        assert found == "mine"


def data_set(record: int, number: int, value: bytes) -> bytes:
    """IPTC IIM 4.2, chapter 3, section 1.5."""
    return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value


def with_iptc(jpeg: bytes, copyright_: bytes) -> bytes:
    """A Photoshop resource block in APP13 (Adobe Photoshop File Formats, image resources)."""
    block = data_set(2, 0, b"\0\4") + data_set(2, 116, copyright_)
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(block)) + block + bytes(len(block) % 2)
    body = b"Photoshop 3.0\0" + resource
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
