"""Published images for the tests of this folder."""

from __future__ import annotations

from typing import Any

from image_pipeline.delivery.manifest import PublishedImage, Variant

PLACEHOLDER = "data:image/webp;base64,UklGRg=="


def a_variant(kind: str, width: int, height: int, weight: int, **changes: Any) -> Variant:
    role = changes.pop("role", "responsive")
    size = changes.pop("size", "small")
    key = changes.pop("key", f"variants/a1/{size}-{width}x{height}.f00.{kind}")
    return Variant(role, size, kind, width, height, weight, "5e", key)


def an_image(*variants: Variant, **changes: Any) -> PublishedImage:
    fields: dict[str, Any] = {
        "id": "a1",
        "source": "photos",
        "width": 3000,
        "height": 2000,
        "has_alpha": False,
        "animated": False,
        "dominant_color": "#336699",
        "placeholder": PLACEHOLDER,
        "variants": variants,
        "uploads": ("uploads/photos/sea.jpg",),
        "aliases": (),
    }
    return PublishedImage(**{**fields, **changes})


def on_cdn(key: str) -> str:
    return f"https://cdn.test/{key}"
