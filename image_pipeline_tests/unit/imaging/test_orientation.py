"""EXIF orientation: whatever a camera stored, the picture comes out as it was seen."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.inspection import inspect_image
from image_pipeline.imaging.rendering import render
from image_pipeline.imaging.verdict import Reason, Rejected

from .builders import (
    LIMITS,
    SMALL_RECIPE,
    a_photograph,
    corners,
    encoded,
    exif_of,
    pixels,
    published,
    stored_for,
)

UPRIGHT = [*range(1, 9)]
NONSENSE = [0, 9, 200, 65_535]
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}


def stored(image: Image.Image, orientation: int) -> Image.Image:
    return Image.fromarray(stored_for(np.asarray(image), orientation))


@pytest.mark.parametrize("orientation", UPRIGHT + NONSENSE)
@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_files_are_turned_exactly(kind: str, orientation: int) -> None:
    file = encoded(
        stored(corners(), orientation), kind, exif=exif_of(orientation), **LOSSLESS[kind]
    )
    decoded = decode(file, LIMITS)
    assert np.array_equal(pixels(decoded.image), pixels(corners()))
    assert decoded.full_size == (48, 32)
    assert decoded.header.orientation == (orientation if orientation in UPRIGHT else 1)
    assert decoded.header.upright == (48, 32)


@pytest.mark.parametrize("orientation", UPRIGHT + NONSENSE)
@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_files_are_turned(kind: str, orientation: int) -> None:
    file = encoded(stored(corners(), orientation), kind, quality=90, exif=exif_of(orientation))
    decoded = decode(file, LIMITS)
    assert decoded.full_size == (48, 32)
    quarters = np.s_[8::16, 12::24]
    assert np.abs(pixels(decoded.image)[quarters] - pixels(corners())[quarters]).max() < 12


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_heif_is_turned_once_by_its_own_transformation(orientation: int) -> None:
    """ISO/IEC 23008-12: ``irot`` and ``imir`` count, EXIF is a remark."""
    image = stored(corners(), orientation)
    image.info["exif"] = exif_of(orientation).tobytes()  # which the encoder makes into irot, imir
    file = encoded(image, "HEIF", quality=95)
    assert (b"irot" in file or b"imir" in file) == (orientation != 1)
    decoded = decode(file, LIMITS)
    assert decoded.full_size == (48, 32)
    inside = np.s_[4:-4:4, 4:-4:4]
    assert np.abs(pixels(decoded.image)[inside] - pixels(corners())[inside]).mean() < 8


@pytest.mark.parametrize("kind", ["JPEG", *LOSSLESS])
def test_every_orientation_has_the_same_fingerprint(kind: str) -> None:
    options = LOSSLESS.get(kind, {"quality": 95})
    picture = a_photograph()
    found = [
        inspect_image(encoded(stored(picture, each), kind, exif=exif_of(each), **options), LIMITS)
        for each in [*UPRIGHT, *NONSENSE]
    ]
    assert {(one.width, one.height) for one in found} == {picture.size}
    prints = [one.fingerprint for one in found]
    if kind != "JPEG":
        assert len(set(prints)) == 1
    first = prints[0]
    # A turned JPEG has other blocks; its pixels differ a little.
    assert all((one.phash64 ^ first.phash64).bit_count() <= 2 for one in prints)
    assert all((one.dhash64 ^ first.dhash64).bit_count() <= 2 for one in prints)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_jpeg_decoded_at_a_fraction_is_turned_too(orientation: int) -> None:
    picture = a_photograph(1200, 800)
    file = encoded(stored(picture, orientation), "JPEG", quality=92, exif=exif_of(orientation))
    decoded = decode(file, LIMITS, lambda header: (header.width // 4, header.height // 4))
    assert decoded.image.size == (300, 200)
    assert decoded.full_size == (1200, 800)
    reference = pixels(picture.reduce(4))
    assert np.abs(pixels(decoded.image) - reference).mean() < 4


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_variants_are_upright(orientation: int) -> None:
    """128 x 96 of a 1200 x 800 original: the decoder is asked for a fraction."""
    picture = a_photograph(1200, 800)
    file = encoded(stored(picture, orientation), "JPEG", quality=92, exif=exif_of(orientation))
    for variant in published(render(file, SMALL_RECIPE, LIMITS, roles=["responsive"])):
        plan = variant.plan
        expected = pixels(picture.resize((plan.width, plan.height), Image.Resampling.BOX))
        assert np.abs(pixels(variant.data) - expected).mean() < 8, plan


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_tiff_by_libtiff(orientation: int) -> None:
    """Compressed files take another way through Pillow, which turns them while loading."""
    image = stored(corners(), orientation)
    file = encoded(image, "TIFF", exif=exif_of(orientation), compression="tiff_lzw")
    decoded = decode(file, LIMITS)
    assert np.array_equal(pixels(decoded.image), pixels(corners()))
    assert decoded.header.upright == (48, 32)


def test_damaged_exif_counts_as_none() -> None:
    """A tag that holds text (type 2 of TIFF 6.0), a cut directory, and noise."""
    text = b"II*\0\x08\0\0\0" + b"\1\0" + b"\x12\1\2\0\2\0\0\x006\0\0\0" + b"\0\0\0\0"
    for exif in (text, exif_of(6).tobytes()[:20], b"\xff" * 40):
        file = encoded(corners(), "PNG", exif=exif)
        assert np.array_equal(pixels(decode(file, LIMITS).image), pixels(corners()))


def test_damaged_pixels_before_the_exif_of_a_png_are_damage() -> None:
    """Reading the EXIF of a PNG loads its pixels; what goes wrong there is not about EXIF."""
    data = encoded(a_photograph(64, 48), "PNG")
    broken = data[: len(data) // 2]
    with pytest.raises(Rejected) as refused:
        decode(broken, LIMITS)
    assert refused.value.reason is Reason.truncated


def test_the_tag_is_not_published() -> None:
    file = encoded(stored(corners(), 6), "JPEG", exif=exif_of(6))
    for variant in published(render(file, SMALL_RECIPE, LIMITS)):
        with Image.open(io.BytesIO(variant.data)) as opened:
            assert 0x0112 not in opened.getexif()
