"""A design on a product: warped into place, masked, shaded, and rendered.

Colours are mixed as they are encoded, in sRGB. Templates are made in editors that multiply and
screen so, as does CSS (W3C, "Compositing and Blending Level 1", 10.1), and a layer of shading that
was taken from a photograph is right only in the light that it was taken in. Every picture is
weighted by its alpha first, so that no edge shows a colour that was hidden beside it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from PIL import Image, ImageColor

from image_pipeline.imaging.crop import crop_window
from image_pipeline.imaging.decoding import Header, decode
from image_pipeline.imaging.mockup_template import (
    LARGEST_SIDE,
    MEGAPIXELS,
    Layer,
    Place,
    Template,
    TemplateError,
    check_files,
)
from image_pipeline.imaging.perspective import (
    SAMPLES,
    UNIT,
    Drawn,
    Quad,
    Tile,
    bounds,
    coverage,
    drawn,
    extents,
    homography,
    project,
    tiles,
)
from image_pipeline.imaging.rendering import RenderedVariant, encode, render
from image_pipeline.imaging.verdict import Rejected
from image_pipeline.settings import FormatName, Limits, Recipe

if TYPE_CHECKING:
    from image_pipeline.imaging.perspective import Pixels

#: What a picture of a template may be. 32 MB hold 16 megapixels in a PNG of a photograph.
_LIMITS = Limits(megapixels=MEGAPIXELS, megabytes=32, side=LARGEST_SIDE, frames=1)


#: High, in any format: a preview is for looking at what was composed, not at its encoding.
_PREVIEW_QUALITY = 92

#: A composed picture is as large as its base.
_COMPOSED = Limits(megapixels=MEGAPIXELS, megabytes=4 * MEGAPIXELS + 16, side=LARGEST_SIDE)


@dataclass(frozen=True, slots=True)
class Scene:
    """A template with its pictures decoded and checked. Can be sent between processes.

    ``base`` is RGB or RGBA, ``mask`` L, and layers are L, RGB or RGBA; all of one size.
    """

    template: Template
    base: Image.Image
    mask: Image.Image | None
    layers: tuple[tuple[Layer, Image.Image], ...]


def prepare(template: Template, files: Mapping[str, bytes]) -> Scene:
    """Decode and check the pictures of a template. Raises ``TemplateError``."""
    check_files(template, files)
    about = template.description
    base = _decoded(template, "base", files[about.base])
    if about.size is not None and base.size != about.size:
        raise TemplateError(
            template.name, "size", f"{_is(base)}, the description says {about.size}"
        )
    _check_place(template, base)
    mask = None
    if about.mask:
        mask = _as_mask(_decoded(template, "mask", files[about.mask], base))
    layers = tuple(
        (layer, _grey_if_grey(_decoded(template, f"layers.{at}", files[layer.file], base)))
        for at, layer in enumerate(about.layers)
    )
    return Scene(template, base, mask, layers)


def _decoded(
    template: Template, field: str, data: bytes, base: Image.Image | None = None
) -> Image.Image:
    try:
        image = decode(data, _LIMITS).image
    except Rejected as refused:
        raise TemplateError(template.name, field, refused.message) from None
    if base is not None and image.size != base.size:
        message = f"{_is(image)}, the base {base.width} x {base.height}; they have to be the same"
        raise TemplateError(template.name, field, message)
    return image


def _is(image: Image.Image) -> str:
    return f"the picture is {image.width} x {image.height} pixels"


def _check_place(template: Template, base: Image.Image) -> None:
    """A box is inside the base; a quad may run over its edges, as a product may."""
    place = template.description.place
    over = (0, 0) if place.box else base.size
    for x, y in place.corners:
        if not (-over[0] <= x <= base.width + over[0] and -over[1] <= y <= base.height + over[1]):
            message = f"the corner ({x:g}, {y:g}) is too far outside; {_is(base)}"
            raise TemplateError(template.name, "place", message)
    left, top, right, bottom = bounds(place.corners, base.size)
    if left == right or top == bottom:
        raise TemplateError(template.name, "place", f"is nowhere on the base; {_is(base)}")


def _as_mask(image: Image.Image) -> Image.Image:
    """White shows the design; black hides it, and so does what is transparent."""
    if image.mode == "RGBA":
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image.convert("L")


def _grey_if_grey(image: Image.Image) -> Image.Image:
    """Shading is mostly grey, and takes a quarter of the memory as such."""
    if image.mode == "RGB":
        red, green, blue = (band.tobytes() for band in image.split())
        if red == green == blue:
            return image.getchannel(0)
    return image


def compose(scene: Scene, design: Image.Image) -> Image.Image:
    """The design (RGB or RGBA, sRGB) on the product: RGB or RGBA of the base's size.

    The base is untouched where the design is not: layers are light that falls on the design.
    Beside the two pictures it takes the design once more if it is RGBA, and a few MB.
    """
    place = scene.template.description.place
    picture = design.convert("RGBa") if design.mode == "RGBA" else design
    window = _window(place, picture)
    draw = drawn(picture, window, _quad(place, *picture.size))
    composed = scene.base.copy()
    for tile in tiles(bounds(place.corners, scene.base.size)):
        composed.paste(_over(scene, tile, _shaded(scene, tile, _placed(place, draw, tile))), tile)
    return composed


def _window(place: Place, picture: Image.Image) -> Tile:
    """The part of a design that is shown."""
    if place.fit != "cover":
        return (0, 0, *picture.size)
    return crop_window(picture, *_shape(place), place.crop)


def _shape(place: Place) -> tuple[int, int]:
    """Whole numbers with the ratio of a place, to four digits."""
    return max(1, round(place.ratio * 10_000)), 10_000


def _quad(place: Place, width: int, height: int) -> Quad:
    """Where the corners go of what is shown of a design of ``width`` x ``height`` pixels."""
    share = width / height / place.ratio
    if place.fit != "contain" or share == 1:
        return place.corners
    x, y = max(0.0, (1 - share) / 2), max(0.0, (1 - 1 / share) / 2)
    if place.box:
        # Whole pixels: an edge that falls between two is soft for no reason.
        left, top, wide, high = place.box
        x, y = round(x * wide), round(y * high)
        right, bottom = left + wide - x, top + high - y
        return (left + x, top + y), (right, top + y), (right, bottom), (left + x, bottom)
    import numpy as np

    inner = np.array([(x, y), (1 - x, y), (1 - x, 1 - y), (x, 1 - y)])
    corners = project(homography(UNIT, place.corners), inner)
    one, two, three, four = ((float(across), float(down)) for across, down in corners)
    return one, two, three, four


def _placed(place: Place, draw: Drawn, tile: Tile) -> Pixels:
    """The design and its background on nothing."""
    import numpy as np

    pixels = draw(tile)
    if place.background:
        colour = np.array([*ImageColor.getrgb(place.background)[:3], 255], np.float32) / 255
        # What the design leaves of the place, so that a side they share is covered once.
        left = np.clip(coverage(place.corners, tile) - pixels[..., 3], 0, 1)
        pixels += left[..., None] * colour
    return pixels


def _shaded(scene: Scene, tile: Tile, pixels: Pixels) -> Pixels:
    """The design in its light, behind its mask; both in place."""
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    for layer, picture in scene.layers:
        light = _levels(picture, tile)
        opacity = layer.opacity * (light[..., 3:] if light.shape[2] == 4 else 1)
        if layer.mode == "multiply":
            colours *= 1 - opacity * (1 - light[..., :3])
        else:
            colours += opacity * light[..., :3] * (alpha - colours)
    if scene.mask is not None:
        pixels *= _levels(scene.mask, tile)
    return pixels


def _over(scene: Scene, tile: Tile, pixels: Pixels) -> Image.Image:
    """The design over the base, as a picture of the base's mode."""
    import numpy as np

    base = _levels(scene.base, tile)
    clear = 1 - pixels[..., 3:]
    if scene.base.mode == "RGB":
        mixed = pixels[..., :3] + base * clear
    else:
        behind = base[..., 3:] * clear
        alpha = pixels[..., 3:] + behind
        colours = (pixels[..., :3] + base[..., :3] * behind) / np.maximum(alpha, 1e-6)
        mixed = np.concatenate([colours, alpha], axis=2)
    levels = np.clip(np.rint(mixed * 255), 0, 255).astype(np.uint8)
    return Image.fromarray(levels)


def _levels(image: Image.Image, tile: Tile) -> Pixels:
    """A part of a picture, 0 to 1, (height, width, channels)."""
    import numpy as np

    levels = np.asarray(image.crop(tile), np.float32) / np.float32(255)
    return levels[..., None] if levels.ndim == 2 else levels


def compose_file(data: bytes, scene: Scene, limits: Limits) -> Image.Image:
    """:func:`compose` with the design in ``data``. Raises ``Rejected`` for a bad one.

    A JPEG is decoded at the fraction of its size that the place has samples for.
    """
    place = scene.template.description.place
    return compose(scene, decode(data, limits, partial(_draft, place)).image)


def _draft(place: Place, header: Header) -> tuple[int, int]:
    """The stored size that is enough for a design."""
    width, height = header.upright
    shown = min(width, height * place.ratio), min(height, width / place.ratio)
    if place.fit != "cover":
        shown = float(width), float(height)
    wide, high = extents(_quad(place, width, height))
    share = min(1.0, SAMPLES * max(wide / shown[0], high / shown[1]))
    enough = max(1, round(width * share)), max(1, round(height * share))
    return (enough[1], enough[0]) if header.orientation >= 5 else enough


def render_mockup(
    data: bytes, template: Template, files: Mapping[str, bytes], limits: Limits
) -> list[RenderedVariant]:
    """Compose the design in ``data`` and render the result in every size and format.

    ``plan.size`` of what comes back is the name of the size alone, without the template's.
    Raises ``Rejected`` for a bad design and ``TemplateError`` for a bad template.
    """
    composed = compose_file(data, prepare(template, files), limits)
    # Rendering begins with a file. This one is packed and not compressed: it costs next to nothing.
    return render(_png(composed, compress_level=0), template.recipe, _COMPOSED)


def preview(
    data: bytes,
    template: Template,
    files: Mapping[str, bytes],
    limits: Limits,
    kind: FormatName | Literal["png"],
) -> bytes:
    """One file of the mockup at the size of its base. Raises what ``render_mockup`` raises."""
    composed = compose_file(data, prepare(template, files), limits)
    if kind == "png":
        return _png(composed)
    return encode(composed, Recipe(), kind, _PREVIEW_QUALITY)


def _png(image: Image.Image, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()
