"""Every mode and profile ends as 8-bit sRGB. Expected values are computed from the standards."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.inspection import inspect_image
from image_pipeline.imaging.rendering import render

from .builders import (
    ADOBE_RGB,
    DISPLAY_P3,
    LIMITS,
    SMALL_RECIPE,
    SRGB,
    a_photograph,
    encoded,
    grey_profile,
    matrix_profile,
    pixels,
    png,
    png_chunk,
    published,
    srgb_curve,
    to_d50,
)

PATCHES = np.array(
    [
        (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 120, 60), (60, 160, 90),
        (90, 110, 190), (40, 40, 60), (220, 200, 180), (255, 0, 0), (0, 255, 0), (0, 0, 255),
    ],
    dtype=np.uint8,
)  # fmt: skip


def patches() -> Image.Image:
    return Image.fromarray(np.repeat(PATCHES[None], 4, axis=0))


def through_matrices(levels: Any, primaries: Any, gamma: float) -> Any:
    """sRGB levels of levels in another RGB space, by arithmetic alone."""
    linear = (np.asarray(levels, np.float64) / 255) ** gamma
    return srgb_curve(linear @ (np.linalg.inv(to_d50(SRGB)) @ to_d50(primaries)).T)


@pytest.mark.parametrize(
    ("primaries", "gamma"), [(DISPLAY_P3, 2.2), (ADOBE_RGB, 2.19921875), (SRGB, 1.0)]
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_profile_is_applied(kind: str, primaries: Any, gamma: float) -> None:
    """The last one is linear and called sRGB, which is not enough to be taken for sRGB."""
    profile = matrix_profile(primaries, gamma, "sRGB, or so it says")
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encoded(patches(), kind, icc_profile=profile, **options), LIMITS)
    expected = through_matrices(PATCHES, primaries, gamma)
    assert np.abs(pixels(decoded.image)[0] - expected).max() <= 2
    assert decoded.flags == ("converted_profile",)


def test_a_profile_is_applied_to_a_jpeg_and_to_avif() -> None:
    flat = Image.new("RGB", (64, 64), (200, 120, 60))
    profile = matrix_profile(DISPLAY_P3, 2.2, "wide")
    expected = through_matrices((200, 120, 60), DISPLAY_P3, 2.2)
    for kind in ("JPEG", "AVIF"):
        file = encoded(flat, kind, quality=100, subsampling="4:4:4", icc_profile=profile)
        decoded = decode(file, LIMITS)
        assert np.abs(pixels(decoded.image)[32, 32] - expected).max() <= 4, kind
        assert decoded.flags == ("converted_profile",)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_display_p3_named_by_numbers(kind: str) -> None:
    """Without a profile: primaries 12 and transfer function 13 (ITU-T H.273)."""
    for patch in PATCHES[3:8].tolist():
        flat = encoded(Image.new("RGB", (64, 64), tuple(patch)), kind, quality=100)
        at = flat.index(b"nclx") + 4
        file = flat[:at] + struct.pack(">2H", 12, 13) + flat[at + 4 :]
        decoded = decode(file, LIMITS)
        level = np.array(patch) / 255
        linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
        expected = srgb_curve(linear @ (np.linalg.inv(to_d50(SRGB)) @ to_d50(DISPLAY_P3)).T)
        assert np.abs(pixels(decoded.image)[32, 32] - expected).max() <= 5
        assert decoded.flags == ("converted_profile",)
        plain = decode(flat[:at] + struct.pack(">2H", 1, 13) + flat[at + 4 :], LIMITS)
        assert np.abs(pixels(plain.image)[32, 32] - patch).max() <= 4
        assert plain.flags == ()


def test_a_profile_leaves_alpha_alone() -> None:
    image = patches().convert("RGBA")
    alpha = np.arange(44, dtype=np.uint8).reshape(4, 11) * 5 + 1
    image.putalpha(Image.fromarray(alpha))
    profile = matrix_profile(ADOBE_RGB, 2.2, "wide")
    decoded = decode(encoded(image, "PNG", icc_profile=profile), LIMITS)
    assert np.array_equal(pixels(decoded.image)[..., 3], alpha)
    expected = through_matrices(PATCHES, ADOBE_RGB, 2.2)
    assert np.abs(pixels(decoded.image)[0, :, :3] - expected).max() <= 2


@pytest.mark.parametrize("name", ["sRGB", "anything"])
def test_srgb_is_recognised_by_what_it_does(name: str) -> None:
    """The curve of sRGB, its primaries, any name: no pixel is touched."""
    built_in = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    decoded = decode(encoded(patches(), "PNG", icc_profile=built_in), LIMITS)
    assert np.array_equal(pixels(decoded.image), pixels(patches()))
    assert decoded.flags == ()


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile(mode: str) -> None:
    """Gamma 1.8; white stays white and a mid-tone gets darker than it was under 2.2."""
    grey = Image.fromarray(np.linspace(0, 255, 32).astype(np.uint8)[None].repeat(4, axis=0))
    levels = pixels(grey)[0]
    expected = srgb_curve((levels / 255) ** 1.8)
    if mode == "I;16":
        grey = Image.fromarray((np.asarray(grey).astype(np.uint16)) << 8)
    elif mode == "LA":
        grey = grey.convert("LA")
        grey.putalpha(Image.new("L", grey.size, 77))
    decoded = decode(encoded(grey, "PNG", icc_profile=grey_profile(1.8)), LIMITS)
    assert decoded.flags == ("converted_profile",)
    assert np.abs(pixels(decoded.image)[0, :, :3] - expected[:, None]).max() <= 2
    if mode == "LA":
        assert (pixels(decoded.image)[..., 3] == 77).all()


def test_an_rgb_profile_on_grey_pixels() -> None:
    profile = matrix_profile(ADOBE_RGB, 1.0, "linear")
    decoded = decode(encoded(Image.new("L", (8, 8), 50), "PNG", icc_profile=profile), LIMITS)
    expected = srgb_curve(np.array(50 / 255))
    assert np.abs(pixels(decoded.image) - expected).max() <= 2


@pytest.mark.parametrize(
    ("image", "profile"),
    [
        (patches(), b"no profile at all"),
        (patches(), matrix_profile(ADOBE_RGB, 2.2, "cut")[:200]),
        (patches(), grey_profile(2.2)),
        (patches().convert("RGBA"), grey_profile(2.2)),
        (Image.new("CMYK", (8, 8), (10, 20, 30, 40)), matrix_profile(ADOBE_RGB, 2.2, "rgb")),
    ],
)
def test_a_broken_profile_is_said_and_the_picture_kept(image: Image.Image, profile: bytes) -> None:
    if image.mode == "RGBA":
        image.putalpha(128)
    file = encoded(image, "TIFF" if image.mode == "CMYK" else "PNG", icc_profile=profile)
    decoded = decode(file, LIMITS)
    assert decoded.flags == ("broken_profile",)
    assert np.array_equal(pixels(decoded.image)[..., :3], pixels(image.convert("RGB")))
    assert "broken_profile" in inspect_image(file, LIMITS).flags


def test_16_bit_grey_png() -> None:
    levels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    decoded = decode(png(256, 256, 16, 0, zlib.compress(raw)), LIMITS)
    assert decoded.header.mode == "I;16"
    assert np.abs(pixels(decoded.image)[..., 0] - levels / 257).max() < 1


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bit_grey_tiff(mode: str) -> None:
    levels = np.arange(65_536).reshape(256, 256)
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (256, 256), levels.astype(kind).tobytes())
    decoded = decode(encoded(image, "TIFF"), LIMITS)
    assert decoded.header.mode == mode
    assert np.abs(pixels(decoded.image)[..., 0] - levels / 257).max() < 1


@pytest.mark.parametrize("white", [1.0, 255.0, 65_535.0, 1e9])
def test_floating_point_tiff(white: float) -> None:
    levels = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    decoded = decode(encoded(Image.fromarray(levels * np.float32(white)), "TIFF"), LIMITS)
    assert decoded.header.mode == "F"
    assert np.abs(pixels(decoded.image)[..., 0] - levels * 255).max() <= 1


def test_16_bit_colour_png() -> None:
    levels = np.random.default_rng(3).integers(0, 65_536, (8, 8, 3)).astype(np.uint16)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    decoded = decode(png(8, 8, 16, 2, zlib.compress(raw)), LIMITS)
    assert np.abs(pixels(decoded.image) - levels / 257).max() < 1.01


def test_palette_with_partial_transparency() -> None:
    """tRNS gives alpha to the first colours of the palette, the others are opaque."""
    palette = bytes((200, 10, 20, 30, 210, 40, 50, 60, 220))
    rows = b"\0\0\1\2\0\2\1\0"
    file = png(
        3, 2, 8, 3, zlib.compress(rows), png_chunk(b"PLTE", palette), png_chunk(b"tRNS", b"\x40\0")
    )
    decoded = decode(file, LIMITS)
    assert decoded.image.mode == "RGBA"
    expected = [(200, 10, 20, 64), (30, 210, 40, 0), (50, 60, 220, 255)]
    assert [decoded.image.getpixel((x, 0)) for x in range(3)] == expected
    assert inspect_image(file, LIMITS).has_alpha


def test_a_transparent_colour_of_grey_and_of_rgb() -> None:
    grey = png(2, 1, 8, 0, zlib.compress(b"\0\x64\x65"), png_chunk(b"tRNS", b"\0\x64"))
    assert pixels(decode(grey, LIMITS).image)[0].tolist() == [[100] * 3 + [0], [101] * 3 + [255]]
    bits = png(2, 1, 1, 0, zlib.compress(b"\0\x40"), png_chunk(b"tRNS", b"\0\0"))
    assert pixels(decode(bits, LIMITS).image)[0].tolist() == [[0] * 4, [255] * 4]
    row, hidden = b"\0\1\2\3\4\5\6", struct.pack(">3H", 1, 2, 3)
    rgb = png(2, 1, 8, 2, zlib.compress(row), png_chunk(b"tRNS", hidden))
    assert pixels(decode(rgb, LIMITS).image)[0].tolist() == [[1, 2, 3, 0], [4, 5, 6, 255]]


def test_grey_with_alpha_and_1_bit() -> None:
    image = Image.new("LA", (4, 4), (90, 40))
    assert decode(encoded(image, "PNG"), LIMITS).image.getpixel((0, 0)) == (90, 90, 90, 40)
    bits = Image.fromarray(np.indices((8, 8)).sum(axis=0) % 2 == 0)
    assert bits.mode == "1"
    for kind in ("PNG", "TIFF", "BMP"):
        decoded = decode(encoded(bits, kind), LIMITS)
        assert decoded.image.mode == "RGB"
        assert np.array_equal(pixels(decoded.image)[..., 1], 255 * np.asarray(bits)), kind


def test_alpha_that_hides_nothing_is_dropped() -> None:
    image = a_photograph(60, 40).convert("RGBA")
    decoded = decode(encoded(image, "PNG"), LIMITS)
    assert decoded.image.mode == "RGB"
    assert not inspect_image(encoded(image, "PNG"), LIMITS).has_alpha


@pytest.mark.parametrize("mode", ["LAB", "YCbCr"])
def test_rare_modes_of_tiff(mode: str) -> None:
    """Pillow writes a Lab profile into the first, which says nothing that Lab does not."""
    decoded = decode(encoded(patches().convert(mode), "TIFF"), LIMITS)
    assert decoded.image.mode == "RGB"
    assert decoded.flags == ()
    muted = np.s_[:, :8]  # eight bits of Lab are too coarse for pure colours
    assert np.abs(pixels(decoded.image)[muted] - pixels(patches())[muted]).max() <= 5


def cmyk_jpeg(inks: tuple[int, int, int, int], **options: Any) -> bytes:
    """Pillow writes ink amounts inverted, with Adobe's marker, as Photoshop does."""
    return encoded(Image.new("CMYK", (32, 32), inks), "JPEG", quality=100, **options)


def test_cmyk_without_profile() -> None:
    """Bright paper where there is no ink; a decoder that forgets the inversion gives black."""
    file = cmyk_jpeg((0, 0, 0, 0))
    assert b"Adobe" in file
    for inks, expected in (
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255)),
        ((0, 0, 255, 0), (255, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ):
        decoded = decode(cmyk_jpeg(inks), LIMITS)
        assert decoded.flags == ("cmyk_without_profile",)
        assert np.abs(pixels(decoded.image)[16, 16] - expected).max() <= 3, inks


def test_cmyk_with_profile() -> None:
    """A profile made for the test; where black lies in it is for LittleCMS to estimate."""
    profile = _printer()
    found = {
        inks: decode(cmyk_jpeg(inks, icc_profile=profile), LIMITS)
        for inks in ((0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255))
    }
    assert all(one.flags == ("converted_profile",) for one in found.values())
    levels = {inks: pixels(one.image)[16, 16] for inks, one in found.items()}
    assert np.abs(levels[0, 0, 0, 0] - 255).max() <= 3
    # L* 60, a* -40, b* -40 in sRGB, by the formulas of CIE 15 and IEC 61966-2-1.
    assert np.abs(levels[255, 0, 0, 0] - (0, 164, 213)).max() <= 6
    assert levels[0, 0, 0, 255].max() < 64


def _printer() -> bytes:
    """A CMYK output profile: an 8-bit table (lut8Type, ICC.1:2001-04, 6.5.8) with two points
    a channel, from ink to CIE Lab. Each ink darkens and colours the paper in proportion."""
    inks = {0: (60, -40, -40), 1: (50, 70, 0), 2: (90, 0, 90), 3: (10, 0, 0)}
    table = bytearray()
    for corner in np.ndindex(2, 2, 2, 2):
        lab = np.array([100.0, 0.0, 0.0])
        for ink, there in enumerate(corner):
            if there:
                lab = np.array([lab[0] * inks[ink][0] / 100, *(lab[1:] + inks[ink][1:])])
        table += bytes((round(lab[0] * 2.55), *(int(np.clip(v + 128, 0, 255)) for v in lab[1:])))
    identity = struct.pack(">9i", *(65_536 if n % 4 == 0 else 0 for n in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + bytes(table) + ramp * 3
    from .builders import _D50, _profile

    white = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65_536) for value in _D50))
    name = b"desc\0\0\0\0" + struct.pack(">I", 4) + b"ink\0" + bytes(78)
    profile = _profile(b"CMYK", {b"desc": name, b"wtpt": white, b"A2B0": lut})
    return profile[:12] + b"prtr" + profile[16:20] + b"Lab " + profile[24:]


def test_variants_are_converted_and_carry_no_profile() -> None:
    profile = matrix_profile(DISPLAY_P3, 2.2, "wide")
    flat = Image.new("RGB", (200, 150), (200, 120, 60))
    expected = through_matrices((200, 120, 60), DISPLAY_P3, 2.2)
    file = encoded(flat, "PNG", icc_profile=profile)
    for variant in published(render(file, SMALL_RECIPE, LIMITS)):
        with Image.open(io.BytesIO(variant.data)) as opened:
            assert "icc_profile" not in opened.info
            assert np.abs(pixels(opened.convert("RGB"))[20, 20] - expected).max() <= 5
