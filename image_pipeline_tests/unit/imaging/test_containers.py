"""Files are walked by their structure; the files are put together here, byte by byte."""

from __future__ import annotations

import struct
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.imaging.containers import (
    PIECE_BYTES,
    PROFILE_BYTES,
    gif_blocks,
    is_cut,
    is_raw,
    metadata_bytes,
    png_chunks,
    tiff_fields,
)

from .builders import encoded, gif, gif_frame, jpeg_segment, noise, png, png_chunk, tiff

#: A picture of one pixel: width, height, bits, compression, photometric, strip, rows, bytes.
PIXEL = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}

FORMATS = ("jpeg", "png", "gif", "webp", "tiff", "avif", "heif", "bmp")


def weight(*sizes: int) -> int:
    return sum(sizes) + PIECE_BYTES * len(sizes)


class TestMetadataBytes:
    def test_of_a_jpeg(self) -> None:
        """Application segments and comments up to the first scan, of the first image."""
        bare = b"\xff\xd8" + jpeg_segment(0xDB, bytes(65)) + jpeg_segment(0xDA, bytes(6))
        late = jpeg_segment(0xFE, bytes(30))
        end = (
            b"\x12"
            + late
            + b"\xff\xd9"
            + jpeg_segment(0xE1, bytes(50))
            + jpeg_segment(0xFE, bytes(7))
        )
        assert metadata_bytes(bare + end, "jpeg") == 0
        said = jpeg_segment(0xE1, bytes(500)) + jpeg_segment(0xFE, b"") + jpeg_segment(0xEF, b"abc")
        assert metadata_bytes(bare[:2] + said + bare[2:] + end, "jpeg") == weight(500, 0, 3)

    def test_of_a_png(self) -> None:
        text, profile = png_chunk(b"tEXt", b"a\0hello"), png_chunk(b"iCCP", b"a\0\0none")
        assert metadata_bytes(png(1, 1, 8, 0, b"data", png_chunk(b"tRNS", b"\0\0")), "png") == 0
        assert metadata_bytes(png(1, 1, 8, 0, b"data", text, profile), "png") == weight(7, 7)
        twice = png(1, 1, 8, 0, b"data", profile, profile)
        assert metadata_bytes(twice, "png") == weight(7, 7) + PROFILE_BYTES

    def test_of_a_gif(self) -> None:
        comment = b"!\xfe\3abc\5defgh\0"
        found = metadata_bytes(gif(1, 1, gif_frame(1, 1), comment, gif_frame(1, 1)), "gif")
        assert found == weight(11)  # two counts, eight characters, and the end
        assert metadata_bytes(gif(1, 1, gif_frame(1, 1)), "gif") == 0

    def test_of_a_webp(self) -> None:
        chunks = b""
        for name, size in ((b"VP8X", 10), (b"ICCP", 33), (b"VP8L", 90), (b"EXIF", 7), (b"XMP ", 8)):
            chunks += name + struct.pack("<I", size) + bytes(size + size % 2)
        data = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
        assert metadata_bytes(data, "webp") == weight(33, 7, 8)

    def test_of_a_tiff(self) -> None:
        """Values that do not fit into an entry; the layers of Photoshop are pixels."""
        for big in (False, True):
            assert metadata_bytes(tiff(PIXEL, big=big), "tiff") == 0
            data = tiff(PIXEL | {700: b"x" * 300, 37_724: b"layers" * 100}, big=big)
            assert metadata_bytes(data, "tiff") == weight(300)

    @pytest.mark.parametrize("name", ["avif", "heif"])
    def test_of_boxes(self, name: str) -> None:
        def box(kind: bytes, body: bytes) -> bytes:
            return struct.pack(">I", 8 + len(body)) + kind + body

        wide = struct.pack(">I", 1) + b"uuid" + struct.pack(">Q", 16 + 20) + bytes(20)
        film, rest = box(b"mpvd", bytes(5000)), struct.pack(">I", 0) + b"free" + bytes(9)
        data = box(b"ftyp", b"1234") + box(b"meta", bytes(50)) + box(b"mdat", bytes(999))
        # The wide size is 8 bytes longer than the short one, and they count.
        assert metadata_bytes(data + film + wide + rest, name) == weight(4, 50, 28, 9)

    def test_of_a_bitmap_is_none(self) -> None:
        assert metadata_bytes(encoded(noise(4, 4), "BMP"), "bmp") == 0

    def test_counting_stops_where_it_is_enough(self) -> None:
        data = b"\xff\xd8" + jpeg_segment(0xFE, bytes(100)) * 1000
        assert metadata_bytes(data, "jpeg") == weight(*[100] * 1000)
        assert metadata_bytes(data, "jpeg", 5000) == weight(*[100] * 15)

    def test_what_reaches_beyond_the_file_is_left_to_the_decoder(self) -> None:
        whole = png(1, 1, 8, 0, b"data", png_chunk(b"tEXt", bytes(1000)))
        assert metadata_bytes(whole, "png") == weight(1000)
        assert metadata_bytes(whole[:900], "png") == 0

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"])
    def test_a_profile_is_counted_in_what_pillow_writes(self, kind: str) -> None:
        profile = noise(40, 40).tobytes()  # noise does not compress
        bare = metadata_bytes(encoded(noise(8, 8), kind), kind.lower())
        found = metadata_bytes(encoded(noise(8, 8), kind, icc_profile=profile), kind.lower())
        # Where no profile is, HEIF has a colour space by numbers.
        assert len(profile) - 20 < found - bare < len(profile) + 1000

    @given(data=st.binary(max_size=200), which=st.sampled_from(FORMATS))
    def test_any_bytes_can_be_walked(self, data: bytes, which: str) -> None:
        assert metadata_bytes(data, which) <= weight(*[0] * len(data)) + 200 * 200
        is_cut(data, which)

    @given(data=st.binary(max_size=200), order=st.sampled_from([b"II*\0", b"MM\0*", b"II+\0"]))
    def test_any_tiff_can_be_walked(self, data: bytes, order: bytes) -> None:
        is_raw(order + data)
        is_cut(order + data, "tiff")
        metadata_bytes(order + data, "tiff")


class TestWalks:
    def test_gif_blocks(self) -> None:
        """Kinds in order, over colour tables, local ones too, up to the trailer."""
        local = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0x81) + bytes(12) + b"\2\1\x44\0"
        data = gif(1, 1, b"!\xf9\4\0\0\0\0\0", local, gif_frame(1, 1)) + b"behind,,,"
        assert [kind for kind, _, _ in gif_blocks(data)] == [b"!", b",", b",", b";"]
        assert [kind for kind, _, _ in gif_blocks(data[:-20])][-1] != b";"

    def test_png_chunks(self) -> None:
        data = png(1, 1, 8, 0, b"data", png_chunk(b"tEXt", b"a\0b"))
        assert [name for name, _, _ in png_chunks(data)] == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
        assert [data[at : at + size] for _, at, size in png_chunks(data)][1:3] == [b"a\0b", b"data"]

    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_tiff_fields(self, order: str, big: bool) -> None:
        data = tiff(PIXEL | {700: b"elsewhere"}, order=order, big=big)
        fields = {field.tag: field for field in tiff_fields(data)}
        assert list(fields) == [*PIXEL, 700]
        assert all(field.inside for tag, field in fields.items() if tag != 700)
        far = fields[700]
        assert (far.inside, data[far.at : far.at + far.size]) == (False, b"elsewhere")

    def test_endless_structures_end(self) -> None:
        """A box or a chunk of no length must not be walked for ever."""
        boxes = (struct.pack(">I", 2) + b"free") * 3
        assert metadata_bytes(boxes, "avif") == weight(0, 0, 0)
        assert len(list(islice(png_chunks(bytes(120)), 1000))) <= 10


class TestIsCut:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF"])
    def test_of_what_pillow_writes(self, kind: str) -> None:
        data, name = encoded(noise(40, 30), kind), kind.lower()
        assert not is_cut(data, name)
        assert is_cut(data[: len(data) // 2], name)

    def test_a_gif_may_be_padded(self) -> None:
        assert not is_cut(gif(1, 1, gif_frame(1, 1)) + bytes(500), "gif")
        assert is_cut(gif(1, 1, gif_frame(1, 1))[:-1] + bytes(500), "gif")

    @pytest.mark.parametrize("big", [False, True])
    def test_of_a_tiff(self, big: bool) -> None:
        data = tiff(PIXEL | {700: b"x" * 300}, big=big)
        assert not is_cut(data, "tiff")
        assert is_cut(data[:-1], "tiff")  # the values come last
        assert is_cut(data[:40], "tiff")
