"""What a recipe makes of a picture of a given size, and the fingerprints in file names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from image_pipeline.settings import FormatName, Recipe, Role, Size

#: Raised whenever the same recipe would give other bytes: names must change with bytes.
RENDER_VERSION = 1


@dataclass(frozen=True, slots=True)
class PlannedVariant:
    """One file to render: real ``width`` and ``height`` in pixels, ``quality`` 1 to 100."""

    role: Role
    size: str
    format: FormatName
    width: int
    height: int
    quality: int


def fitted(size: Size, width: int, height: int) -> tuple[int, int]:
    """The pixels that a size gives a picture of ``width`` x ``height``. Never enlarges.

    ``inside`` keeps the aspect ratio, at least one pixel a side. ``cover`` keeps the box's: a
    picture smaller than the box gives the largest crop of that ratio.
    """
    if size.fit == "inside":
        scale = min(1.0, size.width / width, size.height / height)
        return max(1, round(width * scale)), max(1, round(height * scale))
    scale = min(1.0, width / size.width, height / size.height)
    return max(1, round(size.width * scale)), max(1, round(size.height * scale))


def planned_sizes(recipe: Recipe, width: int, height: int) -> dict[str, tuple[int, int]]:
    """Size names and their pixels for a picture, largest first.

    Where two sizes of a role come out equal, as they do for a picture smaller than both, only
    the one with the smaller box stays. A picture between two steps so gets one variant of its
    own size.
    """
    boxes = sorted(recipe.sizes.items(), key=lambda item: (item[1].width * item[1].height, item[0]))
    kept: dict[tuple[str, str, int, int], str] = {}
    for name, size in boxes:
        pixels = fitted(size, width, height)
        kept.setdefault((size.role, size.fit, *pixels), name)
    pixels_of = {name: (found[2], found[3]) for found, name in kept.items()}
    return dict(sorted(pixels_of.items(), key=lambda item: (-item[1][0] * item[1][1], item[0])))


def plan_variants(
    recipe: Recipe, width: int, height: int, roles: Collection[Role] | None = None
) -> list[PlannedVariant]:
    """Every file of a recipe for an upright picture of ``width`` x ``height``, largest first."""
    return [
        PlannedVariant(
            recipe.sizes[name].role, name, kind, *pixels, quality(recipe, recipe.sizes[name], kind)
        )
        for name, pixels in planned_sizes(recipe, width, height).items()
        for kind in recipe.formats.names
        if roles is None or recipe.sizes[name].role in roles
    ]


def quality(recipe: Recipe, size: Size, kind: FormatName) -> int:
    """The encoder quality of a format at a size, 1 to 100 (95 for JPEG)."""
    encoder = getattr(recipe.formats, kind)
    most = 95 if kind == "jpeg" else 100
    return int(min(most, max(1, encoder.quality + size.offset)))


@lru_cache(maxsize=64)
def _fingerprint(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()[:12]


def recipe_fingerprint(recipe: Recipe) -> str:
    """12 hex digits that change with the recipe, this code's version and the encoders'."""
    document = {
        "recipe": recipe.model_dump(mode="json"),
        "render": RENDER_VERSION,
        "encoders": encoder_versions(),
    }
    return _fingerprint(json.dumps(document, sort_keys=True))


def variant_fingerprint(image: str, recipe: str) -> str:
    """12 hex digits for the names of an image's variants, from its id and its recipe's print."""
    return _fingerprint(f"{image}/{recipe}")


@lru_cache(maxsize=1)
def _encoder_versions() -> tuple[tuple[str, str], ...]:
    import PIL
    from PIL import features

    names = {"libjpeg-turbo": "libjpeg_turbo", "webp": "webp", "avif": "avif"}
    found = [(name, str(features.version(feature))) for name, feature in names.items()]
    return (("pillow", PIL.__version__), *found)


def encoder_versions() -> dict[str, str]:
    """Versions of Pillow and of the encoders it brings."""
    return dict(_encoder_versions())


def mime_type(kind: FormatName) -> str:
    """The media type of a format (IANA)."""
    return f"image/{kind}"


def extension(kind: FormatName) -> str:
    """The file extension of a format, without the dot."""
    return "jpg" if kind == "jpeg" else kind
