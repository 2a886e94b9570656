"""What a recipe makes of a picture of a given size, and the fingerprints in file names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from image_pipeline.settings import FormatName, Recipe, Role, Size

#: Raised whenever the same recipe would give other bytes: names must change with bytes.
RENDER_VERSION = 2

#: Shorter side in pixels below which there is no AVIF: its boxes alone weigh 300 bytes, twice as
#: much as such a picture in WebP, and encoders are not reliable there (imgproxy's bound too).
SMALLEST_AVIF = 16


@dataclass(frozen=True, slots=True)
class PlannedVariant:
    """One file to render: real ``width`` and ``height`` in pixels, ``quality`` 1 to 100.

    A recipe with automatic quality replaces ``quality`` when it meets the picture.
    """

    role: Role
    size: str
    format: FormatName
    width: int
    height: int
    quality: int
    animated: bool = False


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
    recipe: Recipe,
    width: int,
    height: int,
    roles: Collection[Role] | None = None,
    frames: int = 1,
) -> list[PlannedVariant]:
    """Every file of a recipe for an upright picture of ``width`` x ``height``, largest first.

    ``frames`` is the number of frames of an animation, 1 for a still picture.
    """
    moves = keeps_animation(recipe, width, height, frames)
    plans = []
    for name, (wide, high) in planned_sizes(recipe, width, height).items():
        size = recipe.sizes[name]
        if roles is not None and size.role not in roles:
            continue
        moving = moves and size.role == "responsive"
        for kind in _planned_formats(recipe, (wide, high), moving):
            level = quality(recipe, size, kind, width * height)
            animated = moving and kind == "webp"
            plans.append(PlannedVariant(size.role, name, kind, wide, high, level, animated))
    return plans


def keeps_animation(recipe: Recipe, width: int, height: int, frames: int) -> bool:
    """Whether the responsive variants of a file with these frames move.

    A longer animation than the recipe allows shows its first frame, as it does where the recipe
    has no WebP, the only format here that moves.
    """
    pixels = frames * width * height
    return (
        recipe.animation == "keep"
        and recipe.formats.webp is not None
        and frames > 1
        and pixels <= recipe.animation_megapixels * 1e6
    )


def _planned_formats(
    recipe: Recipe, pixels: tuple[int, int], moving: bool
) -> tuple[FormatName, ...]:
    """Formats of a size, best first. Beside a moving WebP, a browser would take a still AVIF."""
    names = recipe.formats.names
    if moving or min(pixels) < SMALLEST_AVIF:
        return tuple(kind for kind in names if kind != "avif") or names
    return names


def quality(recipe: Recipe, size: Size, kind: FormatName, pixels: int) -> int:
    """The encoder quality of a format at a size, 1 to 100 (95 for JPEG).

    ``pixels`` of the original decide whether the recipe's offset for large sources counts.
    """
    encoder = getattr(recipe.formats, kind)
    level = size.quality.get(kind, encoder.quality + size.offset(kind))
    large = recipe.large_sources
    if large and pixels > large.megapixels * 1e6:
        level += large.quality_offset
    most = 95 if kind == "jpeg" else 100
    return int(min(most, max(1, level)))


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
