"""GIF, BMP, CMYK JPEG and HEIF: what each of them stores in a way of its own."""

from __future__ import annotations

import base64
import io
import struct

import numpy as np
import pytest
from PIL import Image

from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.inspection import inspect_image

from .builders import LIMITS, encoded, gif, gif_control, gif_frame, jpeg_segment, pixels

FOUR = bytes((250, 0, 0, 0, 240, 0, 0, 0, 230, 220, 220, 0))
COLOURS = [[250, 0, 0], [0, 240, 0], [0, 0, 230], [220, 220, 0]]


class TestGif:
    def test_colours(self) -> None:
        file = gif(4, 2, gif_frame(4, 2, bytes((0, 1, 2, 3, 3, 2, 1, 0))), palette=FOUR)
        assert pixels(decode(file, LIMITS).image).tolist() == [COLOURS, COLOURS[::-1]]

    def test_a_transparent_colour(self) -> None:
        file = gif(4, 1, gif_control(0, 2), gif_frame(4, 1, bytes((0, 1, 2, 3))), palette=FOUR)
        found = pixels(decode(file, LIMITS).image)[0]
        assert found[:, 3].tolist() == [255, 255, 0, 255]
        assert found[[0, 1, 3], :3].tolist() == [COLOURS[0], COLOURS[1], COLOURS[3]]

    @pytest.mark.parametrize("disposal", [0, 1, 2, 3])
    def test_what_becomes_of_the_first_frame_does_not_concern_it(self, disposal: int) -> None:
        first = gif_control(disposal) + gif_frame(4, 1, bytes((0, 1, 2, 3)))
        second = gif_control(disposal, 1) + gif_frame(2, 1, bytes((3, 3)), left=1)
        found = decode(gif(4, 1, first, second, palette=FOUR), LIMITS)
        assert pixels(found.image).tolist() == [COLOURS]
        assert (found.header.frames, found.flags) == (2, ("animated",))

    def test_a_first_frame_smaller_than_the_screen(self) -> None:
        """Around it nothing was painted (GIF89a: browsers leave the screen transparent)."""
        first = gif_control(0, 3) + gif_frame(2, 1, bytes((0, 1)), left=1, top=1)
        found = decode(gif(4, 3, first, palette=FOUR), LIMITS)
        assert found.full_size == (4, 3)
        alpha = pixels(found.image)[..., 3]
        assert alpha.tolist() == [[0] * 4, [0, 255, 255, 0], [0] * 4]

    def test_interlace(self) -> None:
        """Rows in the order 0, 8, 4, 2, 6, 1, 3, ... (GIF89a, appendix E)."""
        order = [0, 8, 4, 2, 6, 1, 3, 5, 7]
        frame = bytearray(gif_frame(1, 9, bytes(row % 4 for row in order)))
        frame[9] |= 0x40
        found = pixels(decode(gif(1, 9, bytes(frame), palette=FOUR), LIMITS).image)
        assert found[:, 0].tolist() == [COLOURS[row % 4] for row in range(9)]

    def test_ten_thousand_frames(self) -> None:
        found = inspect_image(gif(1, 1, gif_frame(1, 1) * 10_000), LIMITS)
        assert found.animated


class TestBmp:
    """Bitmaps put together by hand (Windows' BITMAPINFOHEADER and its kin)."""

    LEVELS = np.random.default_rng(5).integers(0, 256, (5, 7, 3))

    def bitmap(
        self, body: bytes, bits: int, compression: int = 0, more: bytes = b"", height: int = 5
    ) -> bytes:
        info = struct.pack("<IiiHHIIiiII", 40, 7, height, 1, bits, compression, 0, 0, 0, 0, 0)
        start = 14 + len(info) + len(more)
        head = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
        return head + info + more + body

    def rows(self, *, bottom_up: bool = True) -> bytes:
        rows = self.LEVELS[::-1] if bottom_up else self.LEVELS
        return b"".join(row[:, ::-1].astype(np.uint8).tobytes() + b"\0" * 3 for row in rows)

    def test_24_bits(self) -> None:
        found = decode(self.bitmap(self.rows(), 24), LIMITS)
        assert np.array_equal(pixels(found.image), self.LEVELS)

    def test_top_down(self) -> None:
        file = self.bitmap(self.rows(bottom_up=False), 24, height=-5)
        assert np.array_equal(pixels(decode(file, LIMITS).image), self.LEVELS)

    def test_32_bits(self) -> None:
        """The fourth byte is padding, whatever stands there."""
        padded = np.concatenate([self.LEVELS[::-1, :, ::-1], self.LEVELS[..., :1]], axis=2)
        found = decode(self.bitmap(padded.astype(np.uint8).tobytes(), 32), LIMITS)
        assert np.array_equal(pixels(found.image), self.LEVELS)

    def test_16_bits(self) -> None:
        """Five bits a colour: v / 31 of full scale."""
        red, green, blue = (self.LEVELS[::-1, :, channel] >> 3 for channel in range(3))
        rows = (red << 10 | green << 5 | blue).astype("<u2")
        body = b"".join(row.tobytes() + b"\0\0" for row in rows)
        found = pixels(decode(self.bitmap(body, 16), LIMITS).image)
        assert np.abs(found - (self.LEVELS >> 3) * 255 / 31).max() < 1

    def test_16_bits_by_masks(self) -> None:
        """BITFIELDS: six bits of green."""
        red, green, blue = (
            self.LEVELS[::-1, :, channel] >> shift for channel, shift in ((0, 3), (1, 2), (2, 3))
        )
        rows = (red << 11 | green << 5 | blue).astype("<u2")
        body = b"".join(row.tobytes() + b"\0\0" for row in rows)
        masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
        found = pixels(decode(self.bitmap(body, 16, 3, masks), LIMITS).image)
        expected = np.stack(
            [(self.LEVELS[..., 0] >> 3) * 255 / 31, (self.LEVELS[..., 1] >> 2) * 255 / 63,
             (self.LEVELS[..., 2] >> 3) * 255 / 31], axis=2,
        )  # fmt: skip
        assert np.abs(found - expected).max() < 1

    @pytest.mark.parametrize("bits", [1, 4, 8])
    def test_palettes(self, bits: int) -> None:
        indices = np.random.default_rng(bits).integers(0, 2**bits, (5, 7))
        palette = np.random.default_rng(8).integers(0, 256, (2**bits, 4))
        body = b""
        for row in indices[::-1]:
            number = 0
            for value in row.tolist():
                number = number << bits | value
            size = (7 * bits + 31) // 32 * 4
            body += (number << 8 * size - 7 * bits).to_bytes(size, "big")
        file = self.bitmap(body, bits, 0, palette.astype(np.uint8).tobytes())
        expected = palette[indices][..., 2::-1]
        assert np.array_equal(pixels(decode(file, LIMITS).image), expected)

    def test_runs(self) -> None:
        """RLE8: a count and an index; 0 0 ends a row, 0 1 the picture."""
        palette = bytes((1, 2, 3, 0)) + bytes((40, 50, 60, 0)) + bytes(254 * 4)
        body = b"\3\1\4\0\0\0" * 5 + b"\0\1"
        found = pixels(decode(self.bitmap(body, 8, 1, palette), LIMITS).image)
        assert found.tolist() == [[[60, 50, 40]] * 3 + [[3, 2, 1]] * 4] * 5


class TestInks:
    """JPEG of four inks. Adobe's marker says that inks are inverted and how they are coded."""

    def jpeg(self, stored: tuple[int, int, int, int], marker: bytes | None) -> bytes:
        """A JPEG whose four components are these samples, with Adobe's marker or none."""
        # Pillow inverts inks as it writes them, and marks them as not transformed (0).
        inks = tuple(255 - value for value in stored)
        file = encoded(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
        at = file.index(b"\xff\xee")
        rest = file[at + 2 + int.from_bytes(file[at + 2 : at + 4], "big") :]
        return file[:at] + (jpeg_segment(0xEE, marker) if marker else b"") + rest

    @pytest.mark.parametrize(
        ("stored", "colour"),
        [
            ((255, 255, 255, 255), (255, 255, 255)),
            ((0, 255, 255, 255), (0, 255, 255)),
            ((255, 255, 255, 0), (0, 0, 0)),
            ((128, 255, 128, 128), (64, 128, 64)),
        ],
    )
    def test_inverted(
        self, stored: tuple[int, int, int, int], colour: tuple[int, int, int]
    ) -> None:
        """Adobe's: 255 is no ink. Light is what cyan, and then black, leave of it."""
        decoded = decode(self.jpeg(stored, ADOBE + b"\0"), LIMITS)
        assert decoded.flags == ("cmyk_without_profile",)
        assert np.abs(pixels(decoded.image)[8, 8] - colour).max() <= 3

    @pytest.mark.parametrize(
        ("stored", "colour"),
        [
            ((0, 0, 0, 0), (255, 255, 255)),
            ((255, 0, 0, 0), (0, 255, 255)),
            ((0, 0, 0, 255), (0, 0, 0)),
        ],
    )
    def test_plain(self, stored: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
        """Without the marker, 255 is full ink."""
        decoded = decode(self.jpeg(stored, None), LIMITS)
        assert decoded.flags == ("cmyk_without_profile",)
        assert np.abs(pixels(decoded.image)[8, 8] - colour).max() <= 3

    def test_as_luminance(self) -> None:
        """YCCK (2): Y, Cb and Cr of 255 less the stored inks, and black as it is (T.872, 6.5.3)."""
        y, cb, cr, black = 100, 140, 110, 200
        decoded = decode(self.jpeg((y, cb, cr, black), ADOBE + b"\2"), LIMITS)
        light = 255 - np.array(
            [
                y + 1.402 * (cr - 128),
                y - 0.344_136 * (cb - 128) - 0.714_136 * (cr - 128),
                y + 1.772 * (cb - 128),
            ]
        )
        assert np.abs(pixels(decoded.image)[8, 8] - light * black / 255).max() <= 4
        assert decoded.flags == ("cmyk_without_profile",)


#: Adobe's marker but for its last byte, the transform: version 100, no flags.
ADOBE = b"Adobe\0\x64\0\0\0\0"


#: 32 x 32 pixels of 10 bits, 4:4:4, by libavif's avifenc: 200, 600, 900 of 1,023 in the upper
#: half, white in the lower, but blue is 100 in the left half.
AVIF_10_BITS = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAA"
    "AAAAAAAAAAAAAGxpYmF2aWYAAAAADnBpdG0AAAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAAEQAAAAo"
    "aWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IAAAAAamlwcnAAAABLaXBjbwAAABRpc3BlAAAAAAAA"
    "ACAAAAAgAAAAEHBpeGkAAAAAAwoKCgAAAAxhdjFDgSBAAAAAABNjb2xybmNseAABAA0ABoAAAAAXaXBtYQAAAAAA"
    "AAABAAEEAQKDBAAAAExtZGF0EgAKCDgRP/5wENBpMjYQgAAAQAC00VMlmmcbHIr6Ke/HbK9sGG+YUNH3/ltqFjOd"
    "sTf5FaPLW/FzfWyzx+VC0JusPQg="
)


def test_avif_of_10_bits() -> None:
    found = pixels(decode(AVIF_10_BITS, LIMITS).image)[8::16, 8::16]
    blue, light = 100 / 1023, 900 / 1023
    share = [[[200 / 1023, 600 / 1023, blue], [200 / 1023, 600 / 1023, light]],
             [[1, 1, blue], [1, 1, 1]]]  # fmt: skip
    assert np.abs(found - np.array(share) * 255).max() <= 2


class TestHeif:
    def test_10_bits(self) -> None:
        """Levels of 1,023 come out as levels of 255."""
        import pillow_heif

        levels = np.full((64, 64, 3), 1023)
        levels[:32], levels[:, :32, 2] = (200, 600, 900), 100
        wide = (levels << 6).astype("<u2")
        file = io.BytesIO()
        pillow_heif.from_bytes("RGB;16", (64, 64), wide.tobytes()).save(
            file, quality=100, chroma=444
        )
        assert b"hvcC" in file.getvalue()
        found = pixels(decode(file.getvalue(), LIMITS).image)
        inside = np.s_[8:-8:16, 8:-8:16]
        assert np.abs(found[inside] - levels[inside] / 1023 * 255).max() <= 6

    def test_several_pictures(self) -> None:
        """The primary one counts, wherever it stands, and is no animation."""
        import pillow_heif

        made = pillow_heif.HeifFile()
        for colour in ("red", "lime", "blue"):
            made.add_from_pillow(Image.new("RGB", (64, 64), colour))
        file = io.BytesIO()
        made.save(file, primary_index=1, quality=90)
        decoded = decode(file.getvalue(), LIMITS)
        assert (decoded.header.frames, decoded.flags) == (1, ())
        assert np.abs(pixels(decoded.image)[32, 32] - (0, 255, 0)).max() <= 8

    def test_alpha(self) -> None:
        image = Image.new("RGBA", (64, 64), (200, 100, 50, 255))
        image.paste((200, 100, 50, 0), (0, 0, 32, 64))
        found = pixels(decode(encoded(image, "HEIF", quality=95), LIMITS).image)
        assert found[32, 8, 3] <= 4
        assert found[32, 56, 3] >= 251
