"""From one decode to every size and format of a recipe."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image, ImageColor

from image_pipeline.imaging.crop import crop_window
from image_pipeline.imaging.decoding import Header, decode
from image_pipeline.imaging.inspection import Inspection, inspect_image
from image_pipeline.imaging.recipe import PlannedVariant, plan_variants, planned_sizes
from image_pipeline.settings import FormatName, Limits, Recipe, Role, Size

#: Nothing of the source but its pixels. Pillow would otherwise keep a profile in AVIF.
_NO_METADATA: dict[str, Any] = {"exif": b"", "xmp": b"", "icc_profile": None}


@dataclass(frozen=True, slots=True)
class RenderedVariant:
    """An encoded file and the SHA-256 (hex) of its bytes."""

    plan: PlannedVariant
    data: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class ProcessedImage:
    """What a file is and everything rendered from it."""

    inspection: Inspection
    variants: list[RenderedVariant]


def process_image(data: bytes, recipe: Recipe, limits: Limits) -> ProcessedImage:
    """Inspect and render in one call. Raises ``Rejected`` for a bad file."""
    return ProcessedImage(inspect_image(data, limits), render(data, recipe, limits))


def render(
    data: bytes, recipe: Recipe, limits: Limits, roles: Collection[Role] | None = None
) -> list[RenderedVariant]:
    """Render every variant of a recipe, or those of some roles, from one decode.

    Each size is made from the next larger one, largest first, and every format of a size is
    encoded while it is at hand. The bytes of a variant do not depend on ``roles``.
    """
    decoded = decode(data, limits, partial(_draft, recipe))
    plans: dict[str, list[PlannedVariant]] = {}
    for plan in plan_variants(recipe, *decoded.full_size):
        plans.setdefault(plan.size, []).append(plan)
    picture = _premultiplied(decoded.image)
    del decoded
    donors = _donors(recipe, plans)
    rendered: dict[str, list[RenderedVariant]] = {}
    for name in donors:
        if name in plans:
            picture = _resized(picture, plans[name][0])
            rendered[name] = _encode_all(picture, recipe, plans[name], roles)
        for cover in donors[name]:
            crop = _cropped(picture, recipe.sizes[cover], plans[cover][0])
            rendered[cover] = _encode_all(crop, recipe, plans[cover], roles)
    return [variant for name in plans for variant in rendered[name]]


def _draft(recipe: Recipe, header: Header) -> tuple[int, int]:
    """The stored size that is enough for every variant of a recipe, crops as well.

    A crop takes one side of the picture whole, so that a picture no smaller than the crop on
    either side need not be enlarged for it.
    """
    sizes = planned_sizes(recipe, *header.upright).values()
    widest, highest = max(wide for wide, _ in sizes), max(high for _, high in sizes)
    return (highest, widest) if header.orientation >= 5 else (widest, highest)


def _donors(recipe: Recipe, plans: dict[str, list[PlannedVariant]]) -> dict[str, list[str]]:
    """Pictures in the order they are made, each with the crops that are cut from it.

    The first is the original, named ``""``. A crop is cut from the smallest picture that has
    at least the crop's pixels.
    """
    donors: dict[str, list[str]] = {"": []}
    donors.update({name: [] for name in plans if recipe.sizes[name].fit == "inside"})
    for cover in plans:
        if recipe.sizes[cover].fit == "cover":
            crop = plans[cover][0]
            enough = [
                name
                for name in donors
                if name
                and plans[name][0].width >= crop.width
                and plans[name][0].height >= crop.height
            ]
            donors[enough[-1] if enough else ""].append(cover)
    return donors


def _premultiplied(image: Image.Image) -> Image.Image:
    """Colour weighted by alpha: a resize then mixes no hidden colour into the edges."""
    return image.convert("RGBa") if image.mode == "RGBA" else image


def _resized(image: Image.Image, plan: PlannedVariant) -> Image.Image:
    size = (plan.width, plan.height)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _cropped(image: Image.Image, size: Size, plan: PlannedVariant) -> Image.Image:
    window = crop_window(image, plan.width, plan.height, size.crop)
    return image.resize((plan.width, plan.height), Image.Resampling.LANCZOS, box=window)


def _encode_all(
    image: Image.Image,
    recipe: Recipe,
    plans: list[PlannedVariant],
    roles: Collection[Role] | None,
) -> list[RenderedVariant]:
    wanted = [plan for plan in plans if roles is None or plan.role in roles]
    if not wanted:
        return []
    straight = image.convert("RGBA") if image.mode == "RGBa" else image
    found = []
    for plan in wanted:
        data = encode(straight, recipe, plan.format, plan.quality)
        found.append(RenderedVariant(plan, data, hashlib.sha256(data).hexdigest()))
    return found


def encode(image: Image.Image, recipe: Recipe, kind: FormatName, quality: int) -> bytes:
    """Encode an RGB or RGBA picture without any metadata. The same pixels give the same bytes."""
    picture = _flattened(image, recipe.background) if kind == "jpeg" else image
    picture.info = {}
    data = io.BytesIO()
    picture.save(data, kind.upper(), quality=quality, **_options(recipe, kind), **_NO_METADATA)
    return data.getvalue()


def _options(recipe: Recipe, kind: FormatName) -> dict[str, Any]:
    formats = recipe.formats
    if kind == "avif" and formats.avif:
        # libavif's bytes depend on the number of threads, so it is always one.
        return {"speed": formats.avif.speed, "subsampling": "4:2:0", "max_threads": 1}
    if kind == "webp" and formats.webp:
        return {"method": formats.webp.method}
    progressive = formats.jpeg.progressive if formats.jpeg else True
    return {"progressive": progressive, "optimize": True, "subsampling": "4:2:0"}


def _flattened(image: Image.Image, background: str) -> Image.Image:
    if image.mode != "RGBA":
        return image
    below = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
    return Image.alpha_composite(below, image).convert("RGB")
