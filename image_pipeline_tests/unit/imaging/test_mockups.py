"""Designs on products: light, masks and edges worked out by hand, and bad templates refused."""

from __future__ import annotations

import hashlib
import io
import pickle
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageCms

from image_pipeline.imaging import mockups
from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.mockup_template import Template, TemplateError, read_template
from image_pipeline.imaging.mockups import (
    Scene,
    compose,
    compose_file,
    prepare,
    render_mockup,
)
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits

from .builders import LIMITS, a_photograph, encoded, noise, published

SIZE = (120, 90)
BOX = {"box": [20, 10, 60, 40], "fit": "stretch"}
#: No side upright, all four corners inside.
TILTED = {"quad": [[20.5, 12.2], [100.1, 8.7], [104.4, 80.3], [16.8, 74.9]], "fit": "stretch"}

Levels = NDArray[np.float64]


def a_template(place: Any, **changes: Any) -> Template:
    described = {"base": "base.png", "place": place, **changes}
    return read_template("test", yaml.safe_dump(described).encode())


def png(levels: Any) -> bytes:
    image = levels if isinstance(levels, Image.Image) else Image.fromarray(levels)
    return encoded(image, "PNG")


def grey(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, SIZE[::-1], np.uint8)


def levels(image: Image.Image) -> Levels:
    return np.asarray(image, np.float64)


def a_scene(place: Any, base: Any = None, files: Any = None, **changes: Any) -> Scene:
    base = noise(*SIZE, seed=5) if base is None else base
    named = {name: png(file) for name, file in (files or {}).items()}
    return prepare(a_template(place, **changes), {"base.png": png(base), **named})


@pytest.mark.parametrize("place", [BOX, TILTED])
def test_the_base_is_untouched_where_the_design_is_not(place: Any) -> None:
    scene = a_scene(place)
    composed = compose(scene, Image.new("RGB", (60, 40), "red"))
    assert (composed.mode, composed.size) == ("RGB", SIZE)
    outside = np.ones(SIZE[::-1], bool)
    outside[7:81, 16:105] = False
    assert np.array_equal(levels(composed)[outside], levels(scene.base)[outside])
    # Not even the scene itself has changed: it is used for many designs.
    assert compose(scene, Image.new("RGBA", (60, 40))).tobytes() == scene.base.tobytes()


def test_a_design_of_the_size_of_its_box_keeps_its_pixels() -> None:
    design = noise(60, 40, seed=9)
    composed = compose(a_scene(BOX), design)
    assert composed.crop((20, 10, 80, 50)).tobytes() == design.tobytes()


def test_mask_and_layers_are_what_arithmetic_says() -> None:
    """Two layers of both modes, one with an alpha of its own, a mask and a half clear design."""
    shade, glow, mask = grey(1), grey(2), grey(3)
    tint = np.dstack([grey(4), grey(5), grey(6), grey(7)])
    rgba = np.dstack([np.asarray(noise(60, 40, seed=9)), grey(8)[:40, :60]])
    scene = a_scene(
        BOX,
        files={"shade.png": shade, "glow.png": glow, "tint.png": tint, "mask.png": mask},
        mask="mask.png",
        layers=[
            {"file": "shade.png", "mode": "multiply", "opacity": 0.7},
            {"file": "glow.png", "mode": "screen", "opacity": 0.4},
            {"file": "tint.png", "mode": "multiply"},
        ],
    )
    found = levels(compose(scene, Image.fromarray(rgba)))

    window = (slice(10, 50), slice(20, 80))
    one = rgba[..., :3] / 255.0
    # W3C Compositing and Blending, 10.1.2 and 10.1.3, mixed by opacity.
    light = shade[window][..., None] / 255
    one = one + 0.7 * (one * light - one)
    light = glow[window][..., None] / 255
    one = one + 0.4 * ((one + light - one * light) - one)
    light, share = tint[window][..., :3] / 255, tint[window][..., 3:] / 255
    one = one + share * (one * light - one)
    alpha = rgba[..., 3:] / 255 * (mask[window][..., None] / 255)
    expected = one * alpha + levels(scene.base)[window] / 255 * (1 - alpha)
    # A weighted colour of 8 bits lies within half a level of its alpha's share; then one rounding.
    assert np.abs(found[window] - expected * 255).max() <= 1.01


def test_full_and_empty_layers_change_all_and_nothing() -> None:
    white, black = np.full(SIZE[::-1], 255, np.uint8), np.zeros(SIZE[::-1], np.uint8)
    design = noise(60, 40, seed=9)
    for mode, plain, full in (("multiply", white, black), ("screen", black, white)):
        layers = [{"file": "l.png", "mode": mode}]
        idle = compose(a_scene(BOX, files={"l.png": plain}, layers=layers), design)
        assert idle.crop((20, 10, 80, 50)).tobytes() == design.tobytes()
        all_of_it = compose(a_scene(BOX, files={"l.png": full}, layers=layers), design)
        assert all_of_it.crop((20, 10, 80, 50)).getextrema() == ((int(full[0, 0]),) * 2,) * 3


def test_what_a_mask_hides() -> None:
    """Black and transparent alike; a mask that is only transparency is one as editors save it."""
    shown = np.zeros((*SIZE[::-1], 4), np.uint8)
    shown[..., :3] = 255
    shown[:, 50:, 3] = 255
    as_levels = np.where(np.arange(SIZE[0]) >= 50, 255, 0).astype(np.uint8)
    by_levels = np.tile(as_levels, (SIZE[1], 1))
    design = Image.new("RGB", (60, 40), "red")
    one, other = (
        compose(a_scene(BOX, files={"m.png": mask}, mask="m.png"), design)
        for mask in (shown, by_levels)
    )
    assert one.tobytes() == other.tobytes()
    assert one.getpixel((50, 30)) == (255, 0, 0)
    assert one.getpixel((49, 30)) == a_scene(BOX).base.getpixel((49, 30))


def test_edges_show_neither_dark_nor_light() -> None:
    """A white design on a white base is white all over, at every edge and angle."""
    white = Image.new("RGB", SIZE, "white")
    cutout = np.full((200, 200, 4), 255, np.uint8)
    cutout[:60] = cutout[:, :70] = (0, 0, 0, 0)
    for design in (Image.new("RGB", (300, 200), "white"), Image.fromarray(cutout)):
        composed = compose(a_scene(TILTED, base=white), design)
        assert np.asarray(composed).min() >= 254


def test_a_clear_base_stays_clear_and_its_colours_right() -> None:
    """A red design on a base that is half clear: colours are red or the base's, weighted once."""
    base = np.zeros((*SIZE[::-1], 4), np.uint8)
    base[..., :3] = (10, 200, 30)
    base[:, :60, 3] = 128
    composed = compose(a_scene(BOX, base=base), Image.new("RGBA", (60, 40), (255, 0, 0, 51)))
    assert composed.mode == "RGBA"
    assert composed.getpixel((5, 5)) == (10, 200, 30, 128)
    assert composed.getpixel((110, 80))[3] == 0
    # On nothing: the design as it is. On half: over (Porter and Duff), 0.2 of it.
    assert composed.getpixel((70, 30)) == (255, 0, 0, 51)
    behind = 128 / 255 * 0.8
    alpha = 0.2 + behind
    expected = [(0.2 * one + behind * two) / alpha for one, two in ((255, 10), (0, 200), (0, 30))]
    assert composed.getpixel((30, 30)) == pytest.approx([*expected, alpha * 255], abs=0.6)


@pytest.mark.parametrize("place", [{"box": [20, 10, 60, 40]}, {**TILTED, "aspect": 1.5}])
@pytest.mark.parametrize("crop", ["center", [0.0, 0.0], [1.0, 1.0], "attention"])
def test_cover_fills_the_place_and_cuts_where_it_should(place: Any, crop: Any) -> None:
    """Six stripes side by side, of which a place of 3:2 shows a half of a 3:1 design."""
    colours = np.array([[n * 40] * 3 for n in range(6)], np.uint8)
    design = Image.fromarray(
        np.repeat(np.repeat(colours[None], 100, 1), 200, 0).reshape(200, 600, 3)
    )
    place = {**place, "crop": crop, "fit": "cover"}
    composed = compose(a_scene(place, base=Image.new("RGB", SIZE, "red")), design)
    shown = {
        round(value / 40)
        for value in np.unique(np.asarray(composed.crop((30, 25, 72, 45)))[..., 1])
    }
    first = {"center": 1.5, "attention": None}.get(str(crop), 0 if crop == [0.0, 0.0] else 3)
    if first is not None:
        assert shown <= set(range(int(first), int(first + 3.5)))
        assert len(shown) >= 2
    # No red is left in the middle of the place.
    assert np.asarray(composed.crop((30, 25, 72, 45)))[..., 0].max() < 230


def test_contain_shows_all_of_the_design_and_fills_the_rest() -> None:
    place = {"box": [20, 10, 60, 40], "fit": "contain"}
    design = Image.new("RGB", (100, 200), "red")
    bare = compose(a_scene(place, base=Image.new("RGB", SIZE, "blue")), design)
    # 1:2 in 60 x 40: 20 x 40, in the middle.
    expected = Image.new("RGB", SIZE, "blue")
    expected.paste((255, 0, 0), (40, 10, 60, 50))
    assert bare.tobytes() == expected.tobytes()
    place["background"] = "#00ff00"
    filled = compose(a_scene(place, base=Image.new("RGB", SIZE, "blue")), design)
    expected.paste((0, 255, 0), (20, 10, 80, 50))
    expected.paste((255, 0, 0), (40, 10, 60, 50))
    assert filled.tobytes() == expected.tobytes()


def test_a_contained_design_ends_between_pixels_nowhere() -> None:
    """A box is at whole pixels, and so is what is put inside of it: its edges are sharp."""
    place = {"box": [20, 10, 60, 40], "fit": "contain"}
    scene = a_scene(place, base=Image.new("RGB", SIZE, "blue"))
    composed = compose(scene, Image.new("RGB", (77, 100), "red"))
    assert {colour for _, colour in composed.getcolors() or ()} == {(0, 0, 255), (255, 0, 0)}


def test_contain_in_perspective_keeps_the_middle_in_the_middle() -> None:
    """Lines between opposite corners meet where the centre is seen, in the place and the design."""
    place = {**TILTED, "fit": "contain", "aspect": 1.0, "background": "#00ff00"}
    composed = np.asarray(compose(a_scene(place), Image.new("RGB", (200, 100), "red")), np.float64)
    corners = np.array(TILTED["quad"])
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = corners
    along = np.linalg.solve([[cx - ax, -(dx - bx)], [cy - ay, -(dy - by)]], [bx - ax, by - ay])
    x, y = ax + along[0] * (cx - ax), ay + along[0] * (cy - ay)
    column = composed[:, int(x)]
    red = np.flatnonzero(column[:, 0] > 128)
    red = red[(red > 25) & (red < 65)]
    green = np.flatnonzero((column[:, 1] > 250) & (column[:, 0] < 5) & (column[:, 2] < 5))
    assert red.min() < y < red.max()
    # Half of the place, more or less, is the design's.
    assert 0.4 < len(red) / (len(red) + len(green)) < 0.6


def test_a_background_lies_under_a_clear_design() -> None:
    clear = Image.new("RGBA", (60, 40), (255, 0, 0, 0))
    for place in (BOX, TILTED):
        composed = compose(a_scene({**place, "background": "#336699"}), clear)
        assert composed.getpixel((50, 40)) == (0x33, 0x66, 0x99)


def test_a_background_does_not_show_around_a_design_that_covers_it() -> None:
    """Both end on the same side: its pixels are shared by base and design, and nobody else."""
    design = Image.new("RGB", (300, 200), "red")
    scenes = [a_scene({**TILTED, **more}) for more in ({}, {"background": "#00ff00"})]
    one, other = (levels(compose(scene, design)) for scene in scenes)
    assert np.abs(one - other).max() <= 1


def test_a_place_may_run_over_the_edge_of_the_base() -> None:
    place = {"quad": [[-30, -20], [80, -25], [90, 60], [-35, 70]], "fit": "stretch"}
    composed = compose(a_scene(place), Image.new("RGB", (50, 50), "red"))
    assert composed.getpixel((0, 0)) == (255, 0, 0)
    assert composed.getpixel((70, 50)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"box": [100, 10, 60, 40]}, "too far outside; the picture is 120 x 90"),
        ({"quad": [[500, 0], [600, 0], [600, 90], [500, 90]]}, "too far outside"),
        ({"quad": [[130, 0], [200, 0], [200, 90], [130, 90]]}, "is nowhere on the base"),
    ],
)
def test_a_place_that_is_not_on_the_base(place: Any, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        a_scene(place)


def test_pictures_of_other_sizes_are_refused() -> None:
    small = Image.new("L", (60, 45), 255)
    with pytest.raises(
        TemplateError, match="mask: the picture is 60 x 45 pixels, the base 120 x 90"
    ):
        a_scene(BOX, files={"m.png": small}, mask="m.png")
    with pytest.raises(TemplateError, match=r"layers\.0: the picture is 60 x 45"):
        a_scene(BOX, files={"l.png": small}, layers=[{"file": "l.png", "mode": "screen"}])
    with pytest.raises(TemplateError, match=r"size: .* says \(1200, 900\)"):
        a_scene(BOX, size=[1200, 900])
    assert a_scene(BOX, size=list(SIZE)).base.size == SIZE


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no bytes"),
        (b"text", "base: "),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 50, "base: "),
        (encoded(Image.new("L", (8200, 8)), "PNG"), "8192 a side"),
        (encoded(Image.new("1", (4100, 4100)), "PNG"), "16 megapixels"),
    ],
)
def test_pictures_that_cannot_be_used(data: bytes, words: str) -> None:
    with pytest.raises(TemplateError) as refused:
        prepare(a_template(BOX), {"base.png": data})
    assert words in str(refused.value)


def test_a_missing_picture_is_named() -> None:
    with pytest.raises(TemplateError, match=r"base\.png is not in the template's folder"):
        prepare(a_template(BOX), {})


def test_a_scene_survives_a_pipe_between_processes() -> None:
    scene = a_scene(
        TILTED, files={"l.png": grey(1)}, layers=[{"file": "l.png", "mode": "multiply"}]
    )
    design = noise(60, 40, seed=9)
    assert scene.layers[0][1].mode == "L"
    again = pickle.loads(pickle.dumps(scene))
    assert compose(again, design).tobytes() == compose(scene, design).tobytes()


def test_a_design_is_decoded_as_everything_else() -> None:
    """Upright by its EXIF, in sRGB by its profile, within the limits of its source."""
    scene = a_scene(BOX, base=Image.new("RGB", SIZE, "white"))
    turned = Image.new("RGB", (40, 60), "blue")
    turned.paste((255, 0, 0), (0, 0, 40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored upper half is the right half
    found = compose_file(encoded(turned, "PNG", exif=exif.tobytes()), scene, LIMITS)
    assert found.getpixel((30, 30)) == (0, 0, 255)
    assert found.getpixel((70, 30)) == (255, 0, 0)

    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    assert compose_file(
        encoded(Image.new("RGB", (60, 40), (9, 90, 200)), "PNG", icc_profile=lab.tobytes()),
        scene, LIMITS,
    ).getpixel((50, 30)) == (9, 90, 200)  # fmt: skip

    with pytest.raises(Rejected) as refused:
        compose_file(png(Image.new("RGB", (2000, 1000))), scene, Limits(megapixels=1))
    assert refused.value.reason is Reason.too_many_pixels
    with pytest.raises(Rejected):
        compose_file(b"not a picture", scene, LIMITS)


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(fit: str, orientation: int) -> None:
    size = (1600, 896) if orientation == 1 else (896, 1600)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(a_photograph(*size), "JPEG", quality=92, exif=exif.tobytes())
    scene = a_scene({**TILTED, "fit": fit, "crop": "center"})
    place = scene.template.description.place
    small = decode(data, LIMITS, lambda header: mockups._draft(place, header)).image
    # The place is about 84 x 68 pixels, a contained design 84 x 47, and twice as many are made use
    # of: an eighth of 1600 x 896 is enough for the latter, the next for the others.
    assert sorted(small.size) == ([112, 200] if fit == "contain" else [224, 400])
    found = levels(compose_file(data, scene, LIMITS))
    full = levels(compose(scene, decode(data, LIMITS).image))
    assert np.abs(found - full).mean() < 1
    # Where it is cut is rounded to its pixels, which are four times as large: a fifth of one here.
    assert np.percentile(np.abs(found - full), 99) < 8


def test_every_size_and_format_of_the_output() -> None:
    output = {
        "sizes": {"small": {"width": 60, "height": 60}, "square": {
            "role": "thumbnail", "width": 30, "height": 30, "fit": "cover"}},
        "formats": {"webp": None, "jpeg": None},
    }  # fmt: skip
    template = a_template(TILTED, output=output)
    files = {"base.png": png(a_photograph(*SIZE))}
    data = png(a_photograph(300, 200))
    variants = render_mockup(data, template, files, LIMITS)
    names = {(one.plan.size, one.plan.role, one.plan.format, one.plan.width, one.plan.height)
             for one in variants}  # fmt: skip
    assert names == {
        ("small", "responsive", "webp", 60, 45), ("small", "responsive", "jpeg", 60, 45),
        ("square", "thumbnail", "webp", 30, 30), ("square", "thumbnail", "jpeg", 30, 30),
    }  # fmt: skip
    composed = compose_file(data, prepare(template, files), LIMITS)
    for one in published(variants):
        assert one.sha256 == hashlib.sha256(one.data).hexdigest()
        with Image.open(io.BytesIO(one.data)) as image:
            assert image.size == (one.plan.width, one.plan.height)
            if one.plan.size == "small":
                small = levels(composed.resize(image.size, Image.Resampling.LANCZOS))
                assert np.abs(levels(image.convert("RGB")) - small).mean() < 5
    again = render_mockup(data, template, files, LIMITS)
    assert [one.sha256 for one in again] == [one.sha256 for one in variants]


def test_a_clear_mockup_is_rendered_with_its_alpha() -> None:
    base = np.zeros((*SIZE[::-1], 4), np.uint8)
    template = a_template(BOX, output={"formats": {"webp": None}})
    variants = render_mockup(png(a_photograph(300, 200)), template, {"base.png": png(base)}, LIMITS)
    with Image.open(io.BytesIO(published(variants)[0].data)) as image:
        assert image.mode == "RGBA"
        assert image.getchannel("A").getextrema() == (0, 255)
