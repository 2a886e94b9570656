"""PNG of every colour type, depth, transparent colour and interlace, written here byte by byte.

Expected levels are computed from the samples by the standard (PNG, third edition, 13.12): a
sample of n bits is v / (2^n - 1) of full scale, and of 16 bits the upper 8 are kept.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.inspection import inspect_image

from .builders import LIMITS, exif_of, grey_profile, pixels, png_chunk, srgb_curve, stored_for

Samples = NDArray[np.int64]

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6

CHANNELS = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}

#: Colour type and depth: all that the standard allows (table 11.1).
KINDS = [
    *((GREY, bits) for bits in (1, 2, 4, 8, 16)),
    *((COLOUR, bits) for bits in (8, 16)),
    *((PALETTE, bits) for bits in (1, 2, 4, 8)),
    *((GREY_ALPHA, bits) for bits in (8, 16)),
    *((COLOUR_ALPHA, bits) for bits in (8, 16)),
]

#: Passes of Adam7: first column and row, steps between columns and rows (PNG, 8.1).
ADAM7 = [
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
]  # fmt: skip

#: Not multiples of eight: the last byte of a row is not full and passes differ in size.
WIDTH, HEIGHT = 13, 11


def write(samples: Samples, colour: int, bits: int, interlaced: bool, *between: bytes) -> bytes:
    """A PNG of samples (height, width, channels), without filters."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    body = b"".join(
        row for x, y, step_x, step_y in passes for row in rows(samples[y::step_y, x::step_x], bits)
    )
    chunks = (*between, png_chunk(b"IDAT", zlib.compress(body)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks)


def rows(samples: Samples, bits: int) -> Iterator[bytes]:
    """Rows of a pass, each behind its filter type 0; none of a pass without columns."""
    for row in samples if samples.shape[1] else ():
        number = 0
        for value in row.reshape(-1).tolist():
            number = number << bits | value
        short = -row.size * bits % 8
        yield b"\0" + (number << short).to_bytes((row.size * bits + short) // 8, "big")


def samples_of(colour: int, bits: int) -> Samples:
    """Every level where there are few, and neighbours that differ by one in 16 bits."""
    shape = (HEIGHT, WIDTH, CHANNELS[colour])
    made = np.random.default_rng(colour * 100 + bits).integers(0, 2**bits, shape)
    if bits == 16:
        made[::2] = made[:1, :1] + np.arange(WIDTH)[:, None] % 3 * (made[:1, :1] < 65_000)
    return made


def full_scale(samples: Samples, bits: int) -> Samples:
    return samples >> 8 if bits == 16 else samples * 255 // (2**bits - 1)


def expected_of(samples: Samples, colour: int, bits: int, palette: Samples) -> Samples:
    """RGB levels, or RGBA of types with alpha."""
    if colour == PALETTE:
        return palette[samples[..., 0]]
    levels = full_scale(samples, bits)
    if colour in (GREY, GREY_ALPHA):
        return np.concatenate([levels[..., :1].repeat(3, axis=2), levels[..., 1:]], axis=2)
    return levels


def palette_of(bits: int) -> Samples:
    return np.random.default_rng(bits).integers(0, 256, (2**bits, 3))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "bits"), KINDS)
def test_colour_types_and_depths(colour: int, bits: int, interlaced: bool) -> None:
    samples, palette = samples_of(colour, bits), palette_of(bits)
    chunks = [png_chunk(b"PLTE", palette.astype(np.uint8).tobytes())] if colour == PALETTE else []
    decoded = decode(write(samples, colour, bits, interlaced, *chunks), LIMITS)
    assert np.array_equal(pixels(decoded.image), expected_of(samples, colour, bits, palette))
    assert decoded.image.mode == ("RGBA" if colour in (GREY_ALPHA, COLOUR_ALPHA) else "RGB")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "bits"), [kind for kind in KINDS if kind[0] in (GREY, COLOUR)])
def test_a_transparent_colour(colour: int, bits: int, interlaced: bool) -> None:
    """It is compared at the depth of the file: a colour that is one off in 16 bits stays."""
    samples = samples_of(colour, bits)
    key = samples[0, 0]
    chunk = png_chunk(b"tRNS", struct.pack(f">{key.size}H", *key))
    file = write(samples, colour, bits, interlaced, chunk)
    decoded = decode(file, LIMITS)
    hidden = (samples == key).all(axis=2)
    assert 0 < hidden.sum() < hidden.size
    assert decoded.image.mode == "RGBA"
    assert np.array_equal(pixels(decoded.image)[..., 3], np.where(hidden, 0, 255))
    seen = expected_of(samples, colour, bits, palette_of(bits))[~hidden]
    assert np.array_equal(pixels(decoded.image)[~hidden][:, :3], seen)
    assert inspect_image(file, LIMITS).has_alpha


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_with_alpha(bits: int, interlaced: bool) -> None:
    """tRNS gives alpha to the first colours; the rest are opaque (PNG, 11.3.1.1)."""
    samples, palette = samples_of(PALETTE, bits), palette_of(bits)
    alpha = np.full(2**bits, 255)
    alpha[: 2**bits // 2] = np.random.default_rng(7).integers(0, 256, 2**bits // 2)
    file = write(
        samples, PALETTE, bits, interlaced,
        png_chunk(b"PLTE", palette.astype(np.uint8).tobytes()),
        png_chunk(b"tRNS", alpha[: 2**bits // 2].astype(np.uint8).tobytes()),
    )  # fmt: skip
    found = pixels(decode(file, LIMITS).image)
    assert np.array_equal(found[..., 3], alpha[samples[..., 0]])
    seen = found[..., 3] > 0
    assert np.array_equal(found[seen][:, :3], palette[samples[..., 0]][seen])


@pytest.mark.parametrize(("colour", "bits"), [(GREY, 2), (GREY, 4), (GREY, 16), (COLOUR, 16)])
def test_a_transparent_colour_that_is_nowhere(colour: int, bits: int) -> None:
    samples = samples_of(colour, bits) | 1
    chunk = png_chunk(b"tRNS", bytes(2 * CHANNELS[colour]))
    decoded = decode(write(samples, colour, bits, False, chunk), LIMITS)
    assert decoded.image.mode == "RGB"
    assert np.array_equal(pixels(decoded.image), expected_of(samples, colour, bits, samples))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("colour", [GREY, COLOUR])
def test_a_transparent_colour_of_16_bits_is_turned_with_the_picture(
    colour: int, orientation: int
) -> None:
    samples = samples_of(colour, 16)
    key = samples[0, 0]
    stored = stored_for(samples, orientation)
    exif = png_chunk(b"eXIf", exif_of(orientation).tobytes().removeprefix(b"Exif\0\0"))
    chunk = png_chunk(b"tRNS", struct.pack(f">{key.size}H", *key))
    decoded = decode(write(stored, colour, 16, False, chunk, exif), LIMITS)
    hidden = (samples == key).all(axis=2)
    assert np.array_equal(pixels(decoded.image)[..., 3], np.where(hidden, 0, 255))


def test_a_transparent_colour_of_16_bits_with_a_grey_profile() -> None:
    samples = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH, 1) * 400
    profile = png_chunk(b"iCCP", b"grey\0\0" + zlib.compress(grey_profile(1.8)))
    file = write(samples, GREY, 16, False, profile, png_chunk(b"tRNS", struct.pack(">H", 4000)))
    decoded = decode(file, LIMITS)
    assert decoded.flags == ("converted_profile",)
    found, expected = pixels(decoded.image), srgb_curve((samples / 65_535) ** 1.8)
    hidden = samples[..., 0] == 4000
    assert np.array_equal(found[..., 3] == 0, hidden)
    assert np.abs(found[~hidden][:, :3] - expected[~hidden]).max() <= 3


def test_a_profile_of_megabytes_is_used() -> None:
    """Pillow takes 1 MB for an attack; table profiles of scanners are larger."""
    samples = np.full((4, 4, 1), 100)
    padded = bytearray(grey_profile(1.8) + bytes(3_000_000))
    padded[:4] = struct.pack(">I", len(padded))
    profile = png_chunk(b"iCCP", b"grey\0\0" + zlib.compress(bytes(padded)))
    decoded = decode(write(samples, GREY, 8, False, profile), LIMITS)
    assert decoded.flags == ("converted_profile",)
    assert np.abs(pixels(decoded.image) - srgb_curve(np.array((100 / 255) ** 1.8))).max() <= 2


def test_texts_of_megabytes_cost_no_picture() -> None:
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 3_000_000))
    decoded = decode(write(np.full((4, 4, 1), 100), GREY, 8, False, text), LIMITS)
    assert (pixels(decoded.image) == 100).all()
