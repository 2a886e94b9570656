"""TIFF as its many writers make it, put together here; levels by TIFF 6.0, not by a library."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.inspection import inspect_image
from image_pipeline.imaging.verdict import Reason, Rejected

from .builders import LIMITS, TiffValue, encoded, pixels, stored_for, tiff

Levels = NDArray[np.int64]

WIDTH, HEIGHT = 32, 16

RANDOM = np.random.default_rng(11)

GREY = RANDOM.integers(0, 256, (HEIGHT, WIDTH))
COLOUR = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3))
GREY_16 = RANDOM.integers(0, 65_536, (HEIGHT, WIDTH))
COLOUR_16 = RANDOM.integers(0, 65_536, (HEIGHT, WIDTH, 3))
BITS = RANDOM.integers(0, 2, (HEIGHT, WIDTH))

BLACK_IS_ZERO, WHITE_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 1, 0, 2, 3, 5, 6


def written(
    body: bytes, photometric: int, bits: list[int], order: str = "<", big: bool = False,
    **tags: TiffValue,
) -> bytes:  # fmt: skip
    """A TIFF without compression in one strip; more tags by their number, as ``t277=3``."""
    start = 16 if big else 8
    more = {int(name[1:]): value for name, value in tags.items()}
    fields: dict[int, TiffValue] = {
        256: WIDTH, 257: HEIGHT, 258: bits if len(bits) > 1 else bits[0], 259: 1,
        262: photometric, 277: len(bits),
    }  # fmt: skip
    if 324 not in more:  # no tiles
        fields |= {273: start, 278: HEIGHT, 279: len(body)}
    return tiff(fields | more, body, order, big)


def eight(levels: Levels) -> bytes:
    return levels.astype(np.uint8).tobytes()


def words(levels: Levels, order: str) -> bytes:
    return levels.astype(order + "u2").tobytes()


def found(file: bytes) -> NDArray[np.int16]:
    return pixels(decode(file, LIMITS).image)


def grey(levels: Levels) -> Levels:
    return levels[..., None].repeat(3, axis=2)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
class TestByteOrders:
    def test_8_bit(self, order: str, big: bool) -> None:
        assert np.array_equal(found(written(eight(COLOUR), RGB, [8, 8, 8], order, big)), COLOUR)

    def test_16_bit_colour(self, order: str, big: bool) -> None:
        file = written(words(COLOUR_16, order), RGB, [16, 16, 16], order, big)
        assert np.array_equal(found(file), COLOUR_16 >> 8)

    def test_16_bit_grey(self, order: str, big: bool) -> None:
        file = written(words(GREY_16, order), BLACK_IS_ZERO, [16], order, big)
        assert np.array_equal(found(file), grey(GREY_16 >> 8))

    def test_floats(self, order: str, big: bool) -> None:
        levels = (GREY / 255).astype(order + "f4")
        levels.flat[:2] = 0, 1
        file = written(levels.tobytes(), BLACK_IS_ZERO, [32], order, big, t339=3)
        assert np.abs(found(file) - grey(np.rint(levels * 255))).max() <= 1


class TestWhiteIsZero:
    def test_1_bit(self) -> None:
        body = np.packbits(BITS, axis=1).tobytes()
        assert np.array_equal(found(written(body, WHITE_IS_ZERO, [1])), grey(255 - 255 * BITS))
        assert np.array_equal(found(written(body, BLACK_IS_ZERO, [1])), grey(255 * BITS))

    @pytest.mark.parametrize(("photometric", "sign"), [(BLACK_IS_ZERO, 1), (WHITE_IS_ZERO, -1)])
    def test_4_bits(self, photometric: int, sign: int) -> None:
        values = GREY >> 4
        body = eight(values[:, ::2] << 4 | values[:, 1::2])
        expected = values * 17 if sign > 0 else 255 - values * 17
        assert np.array_equal(found(written(body, photometric, [4])), grey(expected))

    def test_8_bits(self) -> None:
        assert np.array_equal(found(written(eight(GREY), WHITE_IS_ZERO, [8])), grey(255 - GREY))

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_16_bits(self, orientation: int) -> None:
        stored = stored_for(grey(GREY_16), orientation)[..., 0]
        height, width = stored.shape
        file = written(
            words(stored, "<"),
            WHITE_IS_ZERO,
            [16],
            t256=width,
            t257=height,
            t278=height,
            t274=orientation,
        )
        assert np.array_equal(found(file), grey((65_535 - GREY_16) >> 8))

    @pytest.mark.parametrize("compression", ["group4", "tiff_lzw", "tiff_adobe_deflate"])
    def test_a_fax(self, compression: str) -> None:
        """Pillow writes white as zero for these where it is told to."""
        bits = Image.fromarray(BITS.astype(bool))
        file = encoded(bits, "TIFF", compression=compression, tiffinfo={262: WHITE_IS_ZERO})
        assert np.array_equal(found(file), grey(255 * BITS))


class TestLayouts:
    @pytest.mark.parametrize("compression", [1, 8])
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("bits", [8, 16])
    def test_planes(self, bits: int, order: str, compression: int) -> None:
        """Planar configuration 2: all of red, then green, then blue. 8 is Deflate."""
        levels = COLOUR if bits == 8 else COLOUR_16
        planes = [eight(p) if bits == 8 else words(p, order) for p in levels.transpose(2, 0, 1)]
        if compression == 8:
            planes = [zlib.compress(plane).ljust(2000, b"\0") for plane in planes]
        sizes = [len(plane) for plane in planes]
        file = written(
            b"".join(planes), RGB, [bits] * 3, order, t284=2, t259=compression,
            t273=[8, 8 + sizes[0], 8 + 2 * sizes[0]], t279=sizes,
        )  # fmt: skip
        assert np.array_equal(found(file), levels if bits == 8 else levels >> 8)

    def test_planes_of_16_bit_inks_are_refused(self) -> None:
        """Pillow has no way to read them, and would show rubbish if it were not stopped."""
        step = 2 * HEIGHT * WIDTH
        places = [8 + step * plane for plane in range(4)]
        file = written(bytes(4 * step), CMYK, [16] * 4, t284=2, t273=places, t279=[step] * 4)
        with pytest.raises(Rejected) as refused:
            decode(file, LIMITS)
        assert refused.value.reason is Reason.decode_error

    def test_tiles(self) -> None:
        """16 x 16 pixels each, left to right."""
        left, right = eight(COLOUR[:, :16]), eight(COLOUR[:, 16:])
        file = written(
            left + right, RGB, [8, 8, 8], t322=16, t323=16, t324=[8, 8 + len(left)],
            t325=[len(left)] * 2,
        )  # fmt: skip
        assert np.array_equal(found(file), COLOUR)

    def test_strips_in_any_order(self) -> None:
        rows = [eight(COLOUR[at : at + 4]) for at in (0, 4, 8, 12)]
        size = len(rows[0])
        file = written(
            b"".join(reversed(rows)), RGB, [8, 8, 8], t278=4,
            t273=[8 + size * place for place in (3, 2, 1, 0)], t279=[size] * 4,
        )  # fmt: skip
        assert np.array_equal(found(file), COLOUR)

    def test_the_first_of_several_pages(self) -> None:
        pages = [Image.fromarray(eight_array(COLOUR)), Image.new("RGB", (5, 5))]
        file = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
        assert np.array_equal(found(file), COLOUR)
        assert not inspect_image(file, LIMITS).animated

    @pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
    def test_compressions(self, compression: str) -> None:
        image = Image.fromarray(eight_array(COLOUR))
        assert np.array_equal(found(encoded(image, "TIFF", compression=compression)), COLOUR)

    def test_unknown_layouts_are_refused(self) -> None:
        """Colours of floats are for light, not for the web."""
        with pytest.raises(Rejected) as refused:
            decode(written(bytes(WIDTH * HEIGHT * 12), RGB, [32] * 3, t339=[3] * 3), LIMITS)
        assert refused.value.reason is Reason.decode_error


def eight_array(levels: Levels) -> NDArray[np.uint8]:
    return levels.astype(np.uint8)


class TestColour:
    def test_a_palette(self) -> None:
        """All reds, all greens, all blues, 16 bits each (TIFF 6.0, ColorMap)."""
        colours = RANDOM.integers(0, 256, (256, 3))
        table = struct.pack("<768H", *(colours.T.reshape(-1) * 257))
        file = written(eight(GREY), PALETTE, [8], t320=table)
        # ColorMap is of kind SHORT; the builder writes bytes.
        file = file.replace(struct.pack("<HHI", 320, 7, 1536), struct.pack("<HHI", 320, 3, 768))
        assert np.array_equal(found(file), colours[GREY])

    @pytest.mark.parametrize("bits", [8, 16])
    def test_inks(self, bits: int) -> None:
        """255 is full ink; without a profile, light is what the inks leave."""
        inks = np.zeros((HEIGHT, WIDTH, 4), np.int64)
        inks[:, :8, 0] = inks[:, 8:16, 3] = inks[:, 16:24, 1] = 255
        body = eight(inks) if bits == 8 else words(inks * 257, "<")
        decoded = decode(written(body, CMYK, [bits] * 4), LIMITS)
        assert decoded.flags == ("cmyk_without_profile",)
        colours = pixels(decoded.image)[8, [4, 12, 20, 28]]
        assert colours.tolist() == [[0, 255, 255], [0] * 3, [255, 0, 255], [255] * 3]

    def test_ycbcr_of_full_resolution(self) -> None:
        """Levels by ITU-R BT.601, which TIFF 6.0 takes unless it is told otherwise."""
        y, cb, cr = (COLOUR[..., channel] // 4 + 96 for channel in range(3))
        file = written(eight(np.stack([y, cb, cr], axis=2)), YCBCR, [8] * 3, t530=b"\1\0\1\0")
        red = y + 1.402 * (cr - 128)
        green = y - 0.344_136 * (cb - 128) - 0.714_136 * (cr - 128)
        blue = y + 1.772 * (cb - 128)
        expected = np.stack([red, green, blue], axis=2)
        assert np.abs(found(file) - expected).max() <= 1.5

    @pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw"])
    def test_ycbcr_compressed(self, compression: str) -> None:
        flat = Image.new("YCbCr", (WIDTH, HEIGHT), (120, 90, 160))
        file = encoded(flat, "TIFF", compression=compression)
        expected = (120 + 1.402 * 32, 120 + 0.344_136 * 38 - 0.714_136 * 32, 120 - 1.772 * 38)
        assert np.abs(found(file)[8, 16] - expected).max() <= 4

    @pytest.mark.parametrize(("extra", "expected"), [(2, 200), (1, 250)])
    def test_alpha(self, extra: int, expected: int) -> None:
        """1 is associated: colours are multiplied by alpha already, 200 / (204 / 255) = 250."""
        body = eight(np.full((HEIGHT, WIDTH, 4), (200, 200, 200, 204)))
        levels = found(written(body, RGB, [8] * 4, t338=extra))
        assert (levels == (expected, expected, expected, 204)).all()

    def test_more_channels_than_colours(self) -> None:
        """Extra samples of no known meaning (0) are left out."""
        body = eight(np.concatenate([COLOUR, COLOUR[..., :1]], axis=2))
        assert np.array_equal(found(written(body, RGB, [8] * 4, t338=0)), COLOUR)


class TestLoops:
    @pytest.mark.parametrize("tag", [330, 34_665, 34_853, 40_965])
    def test_a_directory_below_itself(self, tag: int) -> None:
        """Directories below, EXIF, GPS and interoperability."""
        plain = written(eight(GREY), BLACK_IS_ZERO, [8])
        where = len(plain) - 4 - 9 * 12 - 2
        file = written(eight(GREY), BLACK_IS_ZERO, [8], **{f"t{tag}": where})
        assert file[where : where + 2] == b"\x0a\0"
        assert np.array_equal(found(file), grey(GREY))

    def test_a_directory_that_follows_itself(self) -> None:
        plain = written(eight(GREY), BLACK_IS_ZERO, [8])
        where = len(plain) - 4 - 9 * 12 - 2
        file = plain[:-4] + struct.pack("<I", where)
        assert np.array_equal(found(file), grey(GREY))
        assert inspect_image(file, LIMITS).width == WIDTH
