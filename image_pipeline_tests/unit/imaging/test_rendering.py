"""From a file to its variants: sizes, pixels, alpha, and nothing of the file but its pixels."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw
from PIL.PngImagePlugin import PngInfo

from image_pipeline.imaging import autoquality, rendering
from image_pipeline.imaging.decoding import Header
from image_pipeline.imaging.inspection import inspect_image
from image_pipeline.imaging.metadata import find_metadata
from image_pipeline.imaging.recipe import PlannedVariant
from image_pipeline.imaging.rendering import RenderedVariant, encode, process_image, render
from image_pipeline.settings import AutoQuality, Avif, Formats, Jpeg, Recipe, Role, Size, Webp

from .builders import (
    ADOBE_RGB,
    LIMITS,
    SMALL_RECIPE,
    a_photograph,
    encoded,
    matrix_profile,
    noise,
    pixels,
    recipe_of,
)


def opened(variant: RenderedVariant) -> Image.Image:
    with Image.open(io.BytesIO(variant.data)) as image:
        image.load()
        return image


def of(variants: list[RenderedVariant], size: str, kind: str) -> Image.Image:
    found = [one for one in variants if (one.plan.size, one.plan.format) == (size, kind)]
    assert len(found) == 1
    return opened(found[0])


def each_alone(file: bytes, recipe: Recipe) -> list[RenderedVariant]:
    """Every format of a recipe rendered without the others, so that none is dropped for them."""
    found = []
    for kind in recipe.formats.names:
        formats = Formats.model_validate({kind: getattr(recipe.formats, kind)})
        found += render(file, recipe.model_copy(update={"formats": formats}), LIMITS)
    assert not any(variant.dropped for variant in found)
    return found


# -------------------------------------------------------------------------------------- sizes


@given(
    width=st.integers(1, 300), height=st.integers(1, 300),
    kind=st.sampled_from(["PNG", "JPEG"]), alpha=st.booleans(),
)  # fmt: skip
@settings(max_examples=60)
def test_every_variant_has_the_planned_size_and_format(
    width: int, height: int, kind: str, alpha: bool
) -> None:
    file = encoded(noise(width, height, 4 if alpha and kind == "PNG" else 3), kind)
    variants = each_alone(file, SMALL_RECIPE)
    assert variants
    for variant in variants:
        image, plan = opened(variant), variant.plan
        assert image.format == plan.format.upper()
        assert image.size == (plan.width, plan.height)
        assert image.width <= width
        assert image.height <= height
        assert variant.sha256 == hashlib.sha256(variant.data).hexdigest()
        assert variant.length == len(variant.data)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 3000), (3000, 1), (2, 2), (15, 16)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_tiny_and_thin_pictures(kind: str, size: tuple[int, int]) -> None:
    found = process_image(encoded(noise(*size), kind), SMALL_RECIPE, LIMITS)
    assert (found.inspection.width, found.inspection.height) == size
    assert {one.plan.format for one in found.variants} == {"webp", "jpeg"}
    for variant in found.variants:
        assert variant.dropped or opened(variant).size == (variant.plan.width, variant.plan.height)


def test_variants_look_like_the_picture() -> None:
    """Against one resize from the original; cascades and codecs may cost a little."""
    picture = a_photograph(800, 600)
    recipe = recipe_of(
        large=Size(width=400, height=400), middle=Size(width=200, height=200),
        small=Size(width=100, height=100),
    )  # fmt: skip
    for variant in each_alone(encoded(picture, "PNG"), recipe):
        size = (variant.plan.width, variant.plan.height)
        expected = pixels(picture.resize(size, Image.Resampling.LANCZOS))
        error = np.mean((pixels(opened(variant).convert("RGB")) - expected) ** 2.0)
        assert 10 * np.log10(255**2 / error) > 30, variant.plan  # dB


def test_a_crop_shows_the_object_and_keeps_its_shape() -> None:
    """A disc on the right of a panorama, in a square thumbnail: still round, all of it there."""
    image = Image.new("RGB", (900, 300), (60, 70, 80))
    ImageDraw.Draw(image).ellipse((640, 60, 820, 240), fill=(240, 120, 30))
    thumbnail = of(each_alone(encoded(image, "PNG"), SMALL_RECIPE), "thumbnail", "webp")
    red = pixels(thumbnail.convert("RGB"))[..., 0] > 150
    rows, columns = np.nonzero(red)
    assert thumbnail.size == (40, 40)
    # 180 of 300 pixels across, both ways.
    assert abs(np.ptp(rows) + 1 - 24) <= 1
    assert abs(np.ptp(columns) + 1 - 24) <= 1


def test_a_crop_larger_than_every_whole_picture_comes_from_the_original() -> None:
    """1,200 x 60: inside 100 x 100 it is 5 pixels high; the 50 x 50 crop needs all 60."""
    picture = a_photograph(1200, 60)
    recipe = recipe_of(
        whole=Size(width=100, height=100),
        square=Size(width=50, height=50, fit="cover", crop="center"),
    )
    square = of(each_alone(encoded(picture, "PNG"), recipe), "square", "webp")
    expected = picture.crop((570, 0, 630, 60)).resize((50, 50), Image.Resampling.LANCZOS)
    assert np.abs(pixels(square) - pixels(expected)).mean() < 6


def test_a_crop_around_a_focal_point_of_the_recipe() -> None:
    picture = a_photograph(1200, 300)
    recipe = recipe_of(square=Size(width=60, height=60, fit="cover", crop=(0.75, 0.5)))
    square = of(each_alone(encoded(picture, "PNG"), recipe), "square", "webp")
    expected = picture.crop((750, 0, 1050, 300)).resize((60, 60), Image.Resampling.LANCZOS)
    assert np.abs(pixels(square) - pixels(expected)).mean() < 6


# ------------------------------------------------------------------------------ never larger


@pytest.mark.parametrize(
    "image",
    [
        a_photograph(400, 300),
        noise(200, 150),
        noise(120, 90, 4),
        Image.new("RGB", (400, 300), "#336699"),
        Image.effect_mandelbrot((300, 200), (-2.0, -1.0, 1.0, 1.0), 30).convert("RGB"),
    ],
)
def test_a_format_is_dropped_if_it_is_not_smaller_than_the_next_that_stays(
    image: Image.Image,
) -> None:
    file = encoded(image, "PNG")
    alone = {(one.plan.size, one.plan.format): one for one in each_alone(file, SMALL_RECIPE)}
    variants = render(file, SMALL_RECIPE, LIMITS)
    for size in {one.plan.size for one in variants}:
        stays: list[int] = []
        for kind in ("jpeg", "webp", "avif"):
            bare = alone[size, kind]
            (found,) = [one for one in variants if (one.plan.size, one.plan.format) == (size, kind)]
            assert found.dropped == (kind != "jpeg" and bare.length >= stays[-1])
            # What came out is told either way.
            assert (found.sha256, found.length) == (bare.sha256, bare.length)
            assert found.data == (b"" if found.dropped else bare.data)
            if not found.dropped:
                stays.append(found.length)


def test_both_outcomes_are_met_above() -> None:
    """Noise costs WebP more than JPEG; a photograph costs AVIF less than both."""
    variants = [
        *render(encoded(noise(200, 150), "PNG"), SMALL_RECIPE, LIMITS),
        *render(encoded(a_photograph(400, 300), "PNG"), SMALL_RECIPE, LIMITS),
    ]
    met = {(one.plan.format, one.dropped) for one in variants}
    assert met >= {("webp", True), ("avif", False), ("webp", False)}
    assert ("jpeg", True) not in met


def test_equal_bytes_are_not_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "encode", lambda *_: b"12345")
    for variant in render(encoded(noise(200, 150), "PNG"), SMALL_RECIPE, LIMITS):
        assert variant.dropped == (variant.plan.format != "jpeg")


def test_without_jpeg_the_last_format_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "encode", lambda *_: b"12345")
    recipe = SMALL_RECIPE.model_copy(update={"formats": Formats(avif=Avif(), webp=Webp())})
    for variant in render(encoded(noise(200, 150), "PNG"), recipe, LIMITS):
        assert variant.dropped == (variant.plan.format == "avif")


# ------------------------------------------------------------------------- automatic quality


class TestAutomaticQuality:
    RECIPE = SMALL_RECIPE.model_copy(update={"quality": AutoQuality(target=71.0)})

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """What the search is asked; it answers with a quality by format."""
        calls: list[dict[str, Any]] = []

        def choose(
            picture: Image.Image, plans: Sequence[PlannedVariant], target: float, encode: Any
        ) -> list[PlannedVariant]:
            calls.append({"picture": picture, "plans": plans, "target": target, "encode": encode})
            levels = {"avif": 33, "webp": 44, "jpeg": 55}
            return [replace(plan, quality=levels[plan.format]) for plan in plans]

        monkeypatch.setattr(autoquality, "choose_qualities", choose)
        return calls

    def test_is_found_once_on_the_largest_picture(self, asked: list[dict[str, Any]]) -> None:
        variants = render(encoded(cutout(), "PNG"), self.RECIPE, LIMITS)
        (call,) = asked
        assert (call["picture"].mode, call["picture"].size) == ("RGB", (96, 96))
        assert call["picture"].getpixel((0, 0)) == (255, 255, 255)  # flattened
        assert call["target"] == 71.0
        assert call["plans"] == rendering.plan_variants(self.RECIPE, 400, 400)
        assert {(one.plan.format, one.plan.quality) for one in variants} == {
            ("avif", 33), ("webp", 44), ("jpeg", 55)
        }  # fmt: skip

    def test_decides_the_bytes(self, asked: list[dict[str, Any]]) -> None:
        file = encoded(a_photograph(400, 300), "PNG")
        fixed = Formats(avif=Avif(quality=33), webp=Webp(quality=44), jpeg=Jpeg(quality=55))
        sizes = {
            name: size.model_copy(update={"quality_offset": 0})
            for name, size in SMALL_RECIPE.sizes.items()
        }
        expected = render(file, Recipe(sizes=sizes, formats=fixed), LIMITS)
        assert render(file, self.RECIPE, LIMITS) == expected
        assert asked

    def test_tries_what_will_be_written(self, asked: list[dict[str, Any]]) -> None:
        render(encoded(a_photograph(400, 300), "PNG"), self.RECIPE, LIMITS)
        picture = noise(40, 30)
        found = asked[0]["encode"](picture, "webp", 61)
        assert found == encode(picture, self.RECIPE, "webp", 61)

    @pytest.mark.parametrize("roles", [["thumbnail"], ["responsive"]])
    def test_does_not_depend_on_roles(self, roles: list[Role]) -> None:
        file = encoded(a_photograph(400, 300), "PNG")
        whole = render(file, self.RECIPE, LIMITS)
        some = render(file, self.RECIPE, LIMITS, roles)
        assert some == [one for one in whole if one.plan.role in roles]

    def test_crops_from_the_original_come_before_it(self, asked: list[dict[str, Any]]) -> None:
        recipe = self.RECIPE.model_copy(
            update={
                "sizes": {
                    "whole": Size(width=100, height=100),
                    "square": Size(width=50, height=50, fit="cover"),
                }
            }
        )
        variants = render(encoded(a_photograph(1200, 60), "PNG"), recipe, LIMITS)
        assert asked[0]["picture"].size == (100, 5)
        assert {one.plan.size for one in variants} == {"whole", "square"}

    def test_of_crops_alone(self, asked: list[dict[str, Any]]) -> None:
        sizes = {
            "tile": Size(width=20, height=20, fit="cover"),
            "square": Size(width=50, height=50, fit="cover"),
        }
        recipe = self.RECIPE.model_copy(update={"sizes": sizes})
        variants = render(encoded(a_photograph(200, 100), "PNG"), recipe, LIMITS)
        assert asked[0]["picture"].size == (50, 50)
        assert {one.plan.size for one in variants} == {"tile", "square"}


class TestDraft:
    def header(self, width: int, height: int, orientation: int = 1) -> Header:
        return Header("jpeg", width, height, orientation, "RGB", False, False, ())

    def test_asks_for_no_more_than_the_largest_variant_and_the_inspection(self) -> None:
        """5,119 x 2,880 in 2,560 x 1,440 is 2,560 x 1,440: half of the file is just enough."""
        recipe = recipe_of(only=Size(width=2560, height=1440))
        assert rendering._draft(recipe, self.header(5120, 2880)) == (2560, 1440)
        assert rendering._draft(recipe, self.header(2880, 5120, 6)) == (2560, 1440)[::-1]
        small = recipe_of(only=Size(width=64, height=64))
        assert rendering._draft(small, self.header(5120, 2560)) == (1024, 512)

    @given(
        width=st.integers(1, 9000), height=st.integers(1, 9000), orientation=st.integers(1, 8),
        wide=st.integers(1, 3000), high=st.integers(1, 3000),
        fit=st.sampled_from(["inside", "cover"]),
    )  # fmt: skip
    def test_never_leaves_too_little(
        self, width: int, height: int, orientation: int, wide: int, high: int, fit: str
    ) -> None:
        """By Pillow's rule for the fraction (its JpegImageFile.draft) every variant is smaller
        than what is decoded, on both sides."""
        recipe = recipe_of(
            one=Size.model_validate({"width": wide, "height": high, "fit": fit}),
            two=Size(width=40, height=40, fit="cover"),
        )
        header = self.header(width, height, orientation)
        asked = rendering._draft(recipe, header)
        scale = min(width // asked[0], height // asked[1])
        fraction = max((each for each in (8, 4, 2, 1) if each <= scale), default=1)
        stored = (-(-width // fraction), -(-height // fraction))
        upright = stored[::-1] if orientation >= 5 else stored
        for plan in rendering.plan_variants(recipe, *header.upright):
            assert plan.width <= upright[0]
            assert plan.height <= upright[1]

    def test_the_decoder_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[int, int]] = []
        original = rendering._premultiplied

        def spy(image: Image.Image) -> Image.Image:
            seen.append(image.size)
            return original(image)

        monkeypatch.setattr(rendering, "_premultiplied", spy)
        variants = render(encoded(a_photograph(2400, 1600), "JPEG"), SMALL_RECIPE, LIMITS)
        assert seen == [(1200, 800)]  # 128 x 85 is the largest variant, 512 what is inspected
        assert (variants[0].plan.width, variants[0].plan.height) == (128, 85)


# -------------------------------------------------------------------------------------- alpha


def cutout() -> Image.Image:
    """A green disc; the pixels around it are transparent, and magenta underneath."""
    image = Image.new("RGBA", (400, 400), (255, 0, 255, 0))
    ImageDraw.Draw(image).ellipse((60, 60, 340, 340), fill=(0, 160, 0, 255))
    return image


def test_hidden_colours_do_not_bleed() -> None:
    for kind in ("PNG", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        variants = each_alone(encoded(cutout(), kind, **options), SMALL_RECIPE)
        for variant in variants:
            if variant.plan.format == "jpeg":
                continue  # has no alpha, and is looked at below
            levels = pixels(opened(variant).convert("RGBA"))
            seen = levels[levels[..., 3] > 100]
            # Magenta would raise red and blue together.
            assert np.minimum(seen[:, 0], seen[:, 2]).max() < 60, variant.plan


def test_alpha_survives_in_webp_and_avif() -> None:
    variants = each_alone(encoded(cutout(), "PNG"), SMALL_RECIPE)
    for size in ("medium", "small", "thumbnail"):
        for kind in ("webp", "avif"):
            image = of(variants, size, kind)
            assert image.mode == "RGBA"
            assert image.getpixel((0, 0))[3] <= 3
            assert image.getpixel((image.width // 2, image.height // 2))[3] == 255


def test_no_dark_fringes() -> None:
    """A white disc on transparent black, put on white: every pixel is white again.

    The encoders are part of it: what they do not see as black cannot bleed.
    """
    image = Image.new("RGBA", (401, 397), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((37, 41, 350, 333), fill=(255, 255, 255, 255))
    for variant in each_alone(encoded(image, "PNG"), SMALL_RECIPE):
        shown = opened(variant).convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        darkest = pixels(Image.alpha_composite(white, shown))[..., :3].min()
        assert darkest >= 252, variant.plan


def test_colours_under_transparency_are_not_stored() -> None:
    """What is hidden may be a secret. It is replaced by what is seen: here there is only green."""
    variants = each_alone(encoded(cutout(), "PNG"), SMALL_RECIPE)
    for variant in variants:
        levels = pixels(opened(variant).convert("RGBA"))
        if variant.plan.format != "jpeg":
            hidden = levels[levels[..., 3] == 0]
            assert len(hidden) > 100
            assert np.minimum(hidden[:, 0], hidden[:, 2]).max() < 40, variant.plan


def test_what_is_seen_stays_as_it_was() -> None:
    """Only pixels of at most 3 % opacity change, and only their colour."""
    levels = np.asarray(noise(64, 48, 4, seed=3)).copy()
    levels[:, :, 3] = np.arange(64) * 4
    picture = Image.fromarray(levels).convert("RGBa")
    found, expected = pixels(rendering._straight(picture)), pixels(picture.convert("RGBA"))
    assert (found[..., 3] == expected[..., 3]).all()
    seen = expected[..., 3] > 8
    assert (found[seen] == expected[seen]).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 9), (17, 1)])
def test_hidden_colours_of_tiny_pictures(size: tuple[int, int]) -> None:
    empty = Image.new("RGBA", size, (255, 0, 255, 0)).convert("RGBa")
    assert rendering._straight(empty).tobytes() == bytes(4 * size[0] * size[1])
    assert rendering._straight(noise(*size)).size == size


@pytest.mark.parametrize("background", ["#ffffff", "#102030"])
def test_jpeg_is_flattened_on_the_background(background: str) -> None:
    recipe = SMALL_RECIPE.model_copy(update={"background": background})
    expected = tuple(int(background[at : at + 2], 16) for at in (1, 3, 5))
    for size in ("medium", "thumbnail"):
        image = of(render(encoded(cutout(), "PNG"), recipe, LIMITS), size, "jpeg")
        assert image.mode == "RGB"
        assert np.abs(np.array(image.getpixel((1, 1))) - expected).max() <= 6
        # Between disc and background nothing is pink.
        green, red = pixels(image)[..., 1], pixels(image)[..., 0]
        assert (red - green).max() < 30


# ------------------------------------------------------------------------ nothing but the pixels

PLANTED = b"PLANTED-48.8584N"


def exif_with_gps() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = PLANTED.decode()  # ImageDescription
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 30.0), 29: "2026:01:01"}  # GPS
    return exif.tobytes()


def planted() -> dict[str, bytes]:
    """One photograph with everything that formats can carry."""
    picture, xmp = a_photograph(200, 150), b"<x:xmpmeta>" + PLANTED + b"</x:xmpmeta>"
    profile = matrix_profile(ADOBE_RGB, 2.2, PLANTED.decode())
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngInfo()
    text.add_text("Comment", PLANTED.decode())
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    all_of_it = {"exif": exif_with_gps(), "xmp": xmp, "icc_profile": profile}
    return {
        "jpeg": encoded(picture, "JPEG", comment=PLANTED, **all_of_it),
        "jpeg, sRGB": encoded(picture, "JPEG", comment=PLANTED, icc_profile=srgb),
        "png": encoded(picture, "PNG", pnginfo=text, exif=exif_with_gps(), icc_profile=profile),
        "webp": encoded(picture, "WEBP", **all_of_it),
        "webp, alpha": encoded(noise(60, 40, 4), "WEBP", **all_of_it),
        "avif": encoded(picture, "AVIF", **all_of_it),
        "gif": encoded(picture, "GIF", comment=PLANTED),
        "tiff": encoded(picture, "TIFF", description=PLANTED.decode(), icc_profile=profile),
    }


@pytest.mark.parametrize("name", planted())
def test_nothing_but_pixels_is_published(name: str) -> None:
    file = planted()[name]
    assert PLANTED in file
    found = process_image(file, SMALL_RECIPE, LIMITS)
    variants = each_alone(file, SMALL_RECIPE)
    assert len(variants) == len(found.variants) == 9 or name == "webp, alpha"
    for variant in variants:
        assert find_metadata(variant.data) == []
        for word in (b"PLANTED", b"GPS", b"Exif", b"xmp", b"ICC_PROFILE", b"acsp", b"2026"):
            assert word not in variant.data, (variant.plan, word)
    assert "PLANTED" not in repr(found.inspection)


# ---------------------------------------------------------------------------------- repeatability


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_inspecting_along_the_way_changes_no_file(kind: str) -> None:
    """A recipe that needs less of a JPEG than the inspection does: 2,400 pixels for 120."""
    file = encoded(a_photograph(2400, 1800), kind)
    together = process_image(file, SMALL_RECIPE, LIMITS)
    assert together.variants == render(file, SMALL_RECIPE, LIMITS)
    alone = inspect_image(file, LIMITS)
    assert (together.inspection.width, together.inspection.height) == (2400, 1800)
    assert together.inspection == alone


def test_a_recipe_that_needs_more_of_a_jpeg_moves_a_few_bits_of_its_hash() -> None:
    file = encoded(a_photograph(2400, 1800), "JPEG")
    found = process_image(file, Recipe(), LIMITS).inspection.fingerprint
    alone = inspect_image(file, LIMITS).fingerprint
    assert (found.phash64 ^ alone.phash64).bit_count() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_same_file_gives_the_same_bytes(kind: str) -> None:
    file = encoded(a_photograph(400, 300), kind)
    first = render(file, SMALL_RECIPE, LIMITS)
    assert first == render(file, SMALL_RECIPE, LIMITS)


def test_another_process_gives_the_same_bytes() -> None:
    """Nothing of this process counts: neither what it did before nor how it orders sets."""
    file = encoded(a_photograph(400, 300), "PNG")
    program = (
        "import sys, json\n"
        "from image_pipeline.imaging.rendering import render\n"
        "from image_pipeline.settings import Limits, Recipe\n"
        "recipe = Recipe.model_validate_json(sys.argv[1])\n"
        "found = render(sys.stdin.buffer.read(), recipe, Limits())\n"
        "print(json.dumps([[one.plan.size, one.plan.format, one.sha256] for one in found]))\n"
    )
    recipe = TestAutomaticQuality.RECIPE
    answer = subprocess.run(
        [sys.executable, "-c", program, recipe.model_dump_json()],
        input=file, capture_output=True, check=True, env={"PYTHONHASHSEED": "12345"},
    )  # fmt: skip
    expected = [
        [one.plan.size, one.plan.format, one.sha256] for one in render(file, recipe, LIMITS)
    ]
    assert json.loads(answer.stdout) == expected


@pytest.mark.parametrize("image", [a_photograph(400, 300), cutout(), a_photograph(900, 60)])
def test_roles_do_not_change_bytes(image: Image.Image) -> None:
    file = encoded(image, "PNG")
    whole = render(file, SMALL_RECIPE, LIMITS)
    thumbnails = render(file, SMALL_RECIPE, LIMITS, roles=["thumbnail"])
    responsive = render(file, SMALL_RECIPE, LIMITS, roles=["responsive"])
    assert thumbnails
    assert responsive
    assert [one for one in whole if one.plan.role == "thumbnail"] == thumbnails
    assert [one for one in whole if one.plan.role == "responsive"] == responsive
    assert render(file, SMALL_RECIPE, LIMITS, roles=[]) == []


def test_a_recipe_of_crops_alone() -> None:
    recipe = recipe_of(square=Size(width=30, height=30, fit="cover"))
    variants = each_alone(encoded(a_photograph(200, 100), "JPEG"), recipe)
    assert {opened(one).size for one in variants} == {(30, 30)}


# ---------------------------------------------------------------------------------- the encoders


@pytest.mark.parametrize("quality", [1, 78, 90, 94, 95])
def test_noise_fits_the_buffer_of_the_jpeg_encoder(quality: int) -> None:
    """Optimised and progressive JPEGs are written in one piece, whose room is estimated."""
    data = encode(noise(700, 500), SMALL_RECIPE, "jpeg", quality)
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def test_options_reach_the_encoders() -> None:
    picture = a_photograph(200, 150)
    plain = Formats(jpeg=Jpeg(progressive=False), webp=Webp(method=0), avif=Avif(speed=7))
    other = Recipe(sizes=SMALL_RECIPE.sizes, formats=plain)
    for kind in ("jpeg", "webp", "avif"):
        assert encode(picture, SMALL_RECIPE, kind, 60) != encode(picture, other, kind, 60)
        smaller, larger = (encode(picture, other, kind, quality) for quality in (30, 90))
        assert len(smaller) < len(larger)
    # SOF2 and SOF0: progressive and baseline (ITU-T T.81, table B.1).
    assert b"\xff\xc2" in encode(picture, SMALL_RECIPE, "jpeg", 60)
    assert b"\xff\xc0" in encode(picture, other, "jpeg", 60)


def test_avif_is_encoded_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of threads may change an AVIF's bytes, and machines have different numbers."""
    seen: list[object] = []
    original = Image.Image.save

    def spy(image: Image.Image, *arguments: Any, **options: Any) -> None:
        seen.append(options["max_threads"])
        original(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", spy)
    encode(noise(8, 8), SMALL_RECIPE, "avif", 60)
    assert seen == [1]


def test_colour_is_stored_at_half_resolution() -> None:
    """4:2:0 in all formats: the sampling factors of the JPEG's frame header say so."""
    data = encode(a_photograph(64, 48), SMALL_RECIPE, "jpeg", 90)
    at = data.index(b"\xff\xc2")
    components = [data[at + 10 + 3 * n : at + 13 + 3 * n] for n in range(3)]
    assert [one[1] for one in components] == [0x22, 0x11, 0x11]
