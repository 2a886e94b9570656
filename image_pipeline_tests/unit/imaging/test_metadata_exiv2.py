"""What is published, read by Exiv2: the library of photographers' tools, and none of ours."""

from __future__ import annotations

import io
from functools import cache

import pyexiv2
import pytest
from PIL import Image, ImageCms

from image_pipeline.imaging.rendering import RenderedVariant, render
from image_pipeline.settings import Recipe

from .builders import LIMITS, SMALL_RECIPE, a_photograph, encoded, noise

NOTICE = "© 2026 Ann Example, all rights reserved"

EXIF = {
    "Exif.Image.Copyright": NOTICE,
    "Exif.Image.ImageDescription": "PLANTED",
    "Exif.Image.Artist": "PLANTED",
    "Exif.Image.Make": "PLANTED",
    "Exif.Image.Orientation": "1",
    "Exif.Photo.DateTimeOriginal": "2026:01:01 12:00:00",
    "Exif.Photo.BodySerialNumber": "PLANTED",
    "Exif.Photo.MakerNote": " ".join(str(byte) for byte in b"PLANTED-NOTE"),
    "Exif.GPSInfo.GPSLatitudeRef": "N",
    "Exif.GPSInfo.GPSLatitude": "48/1 51/1 30/1",
}
IPTC = {
    "Iptc.Application2.City": "PLANTED",
    "Iptc.Application2.Byline": "PLANTED",
    "Iptc.Application2.Copyright": "PLANTED",
}
XMP = {"Xmp.dc.creator": ["PLANTED"], "Xmp.dc.rights": {"lang=x-default": "PLANTED"}}


def read(data: bytes) -> dict[str, object]:
    """Everything that Exiv2 finds, without what is empty."""
    image = pyexiv2.ImageData(data)
    try:
        found = {
            "exif": image.read_exif(),
            "iptc": image.read_iptc(),
            "xmp": image.read_xmp(),
            "comment": image.read_comment(),
            "icc": image.read_icc(),
        }
    finally:
        image.close()
    return {name: value for name, value in found.items() if value}


@cache
def stuffed(kind: str) -> bytes:
    """A file with everything that Exiv2 can write into its format, and a profile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = a_photograph(200, 150) if kind != "PNG" else noise(60, 40, 4)
    image = pyexiv2.ImageData(encoded(picture, kind, icc_profile=profile))
    try:
        image.modify_exif(EXIF)
        image.modify_xmp(XMP)
        if kind != "WEBP":
            image.modify_iptc(IPTC)
        if kind in ("JPEG", "PNG"):
            image.modify_comment("PLANTED")
        return bytes(image.get_bytes())
    finally:
        image.close()


def variants(kind: str, recipe: Recipe = SMALL_RECIPE) -> list[RenderedVariant]:
    rendered = render(stuffed(kind), recipe, LIMITS)
    assert {one.plan.format for one in rendered} == {"avif", "webp", "jpeg"}
    return [one for one in rendered if not one.dropped]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_everything_was_there(kind: str) -> None:
    found = read(stuffed(kind))
    expected = {
        "JPEG": {"exif", "iptc", "xmp", "comment", "icc"},
        "PNG": {"exif", "iptc", "xmp", "comment", "icc"},
        "TIFF": {"exif", "iptc", "xmp", "icc"},
        "WEBP": {"exif", "xmp", "icc"},
    }
    assert set(found) == expected[kind]
    assert "PLANTED" in str(found["exif"])
    assert "Exif.GPSInfo.GPSLatitude" in str(found["exif"])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_nothing_is_left(kind: str) -> None:
    for variant in variants(kind):
        assert read(variant.data) == {}, variant.plan


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_copyright_notice_alone_is_left(kind: str) -> None:
    keeping = SMALL_RECIPE.model_copy(update={"keep_copyright": True})
    for variant in variants(kind, keeping):
        assert read(variant.data) == {"exif": {"Exif.Image.Copyright": NOTICE}}, variant.plan
        with Image.open(io.BytesIO(variant.data)) as image:
            image.load()


def test_the_copyright_notice_of_an_animation() -> None:
    frames = [noise(40, 30, seed=seed) for seed in range(3)]
    exif = Image.Exif()
    exif[0x8298] = "Ann Example"
    exif[0x010E] = "PLANTED"
    file = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], exif=exif)
    keeping = SMALL_RECIPE.model_copy(update={"keep_copyright": True, "animation": "keep"})
    for variant in render(file, keeping, LIMITS):
        if not variant.dropped:
            assert read(variant.data) == {"exif": {"Exif.Image.Copyright": "Ann Example"}}
