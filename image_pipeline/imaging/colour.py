"""From any mode and profile that decoders give to 8-bit sRGB."""

from __future__ import annotations

import io
from itertools import product

from PIL import Image, ImageChops, ImageCms


def to_8_bit(image: Image.Image) -> Image.Image:
    """The picture in modes that colour management knows: L, RGB, RGBA, CMYK."""
    mode = image.mode
    if mode.startswith("I"):
        return _from_16_bit(image)
    if mode == "F":
        return _from_floats(image)
    if image.has_transparency_data:
        return image if mode == "RGBA" else image.convert("RGBA")
    if mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """The high byte: dividing by 257 instead differs by less than one step of 255."""
    if image.mode == "I;16B":
        # The only mode of the family that `point` does not know.
        image = image.convert("I")
    return image.point(lambda value: value * (1 / 256)).convert("L")


def _from_floats(image: Image.Image) -> Image.Image:
    """Floats have no white of their own: it is the next of those in use above the highest."""
    highest = image.getextrema()[1]
    assert isinstance(highest, float)
    white = next((top for top in (1.0, 255.0, 65535.0) if highest <= top), highest)
    return image.point(lambda value: value * (255 / white)).convert("L")


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Pixels as sRGB, RGB or RGBA, and what was done about colour."""
    if profile:
        try:
            converted = _through_profile(image, profile)
        except Exception:  # noqa: BLE001 - LittleCMS on bytes from outside; the picture is good
            return _plain(image), ("broken_profile",)
        if converted is not None:
            return converted, ("converted_profile",)
    elif image.mode == "CMYK":
        return _plain(image), ("cmyk_without_profile",)
    return _plain(image), ()


def _plain(image: Image.Image) -> Image.Image:
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The picture in sRGB, or None if its profile is sRGB under whatever name."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    if space == "GRAY" and image.mode == "RGBA":
        return _grey_with_alpha(image, opened)
    if space == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if space != {"L": "GRAY", "CMYK": "CMYK"}.get(image.mode, "RGB"):
        raise ValueError(f"a {space} profile on {image.mode} pixels")
    if space == "RGB" and _is_srgb(opened):
        return None
    return _converted(image, opened)


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    plain = "RGBA" if image.mode == "RGBA" else "RGB"
    transform = ImageCms.buildTransform(
        profile, ImageCms.createProfile("sRGB"), image.mode, plain, ImageCms.Intent.PERCEPTUAL
    )
    if image.mode == plain:
        ImageCms.applyTransform(image, transform, inPlace=True)
        return image
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


def _grey_with_alpha(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """A grey profile knows one channel, and a transparent grey picture has four by now."""
    red, green, blue, alpha = image.split()
    if red.tobytes() != green.tobytes() or red.tobytes() != blue.tobytes():
        raise ValueError("a GRAY profile on coloured pixels")
    converted = _converted(red, profile)
    converted.putalpha(alpha)
    return converted


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether a profile leaves colours where they are; names say little ("linear sRGB").

    Two levels of 255 are what well-known sRGB profiles differ by among themselves.
    """
    steps = (0, 51, 102, 153, 204, 255)
    colours = bytes(value for colour in product(steps, repeat=3) for value in colour)
    probe = Image.frombytes("RGB", (len(steps) ** 3, 1), colours)
    moved = ImageChops.difference(_converted(probe.copy(), profile), probe)
    return max(moved.tobytes()) <= 2


def without_idle_alpha(image: Image.Image) -> Image.Image:
    """The picture as RGB if no pixel of it is transparent."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image
