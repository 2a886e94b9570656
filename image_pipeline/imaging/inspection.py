"""One look at a file: is it a picture, of what size, and what does it look like."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from image_pipeline.imaging.crop import focal_point
from image_pipeline.imaging.decoding import Decoded, Header, decode
from image_pipeline.imaging.fingerprint import Fingerprint, fingerprint, pixel_hash
from image_pipeline.imaging.placeholder import dominant_color, placeholder
from image_pipeline.imaging.thumbhash import thumbhash
from image_pipeline.settings import Limits

#: Shorter side, in pixels, down to which a JPEG may be decoded at a fraction of its size. The
#: 256-bit pHash looks at 64 x 64 pixels: eight times that loses nothing it sees.
DRAFT_SIDE = 512

#: Longest side down to which hashes, colours and placeholder lose nothing they see.
SMALL_SIDE = 512


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a picture. ``width`` and ``height`` in pixels after orientation.

    ``frames`` are those of an animation, 1 for a still; everything here is of the first.
    ``quality`` is what a JPEG was saved at (1 to 100, estimated), ``has_profile`` whether an ICC
    profile was embedded. ``flags``: ``animated``, ``converted_profile``, ``broken_profile``,
    ``cmyk_without_profile``. ``dominant_color`` is ``#rrggbb``, ``placeholder`` a data URI,
    ``focal_point`` shares 0-1 of width and height, ``thumbhash`` base64.
    """

    format: str
    width: int
    height: int
    orientation: int
    has_alpha: bool
    animated: bool
    frames: int
    lossless: bool
    quality: int | None
    has_profile: bool
    mode: str
    flags: tuple[str, ...]
    fingerprint: Fingerprint
    dominant_color: str
    placeholder: str
    focal_point: tuple[float, float]
    thumbhash: str


def inspect_image(data: bytes, limits: Limits) -> Inspection:
    """Decode a whole file and describe it. Raises ``Rejected`` with the reason if it is bad.

    A JPEG is decoded at a fraction of its size: every byte is read all the same, so damage is
    found, at a quarter of the cost.
    """
    return describe(decode(data, limits, sufficient_size))


def describe(decoded: Decoded) -> Inspection:
    """Describe decoded pixels, of a JPEG at whatever fraction of its size they are."""
    image, header = decoded.image, decoded.header
    reduced = small_copy(image)
    small = _over_white(reduced)
    width, height = decoded.full_size
    return Inspection(
        format=header.format,
        width=width,
        height=height,
        orientation=header.orientation,
        has_alpha=image.mode == "RGBA",
        animated=header.animated,
        frames=header.frames,
        lossless=header.lossless,
        quality=header.quality,
        has_profile=header.has_profile,
        mode=header.mode,
        flags=decoded.flags,
        fingerprint=fingerprint(small, pixel_hash(image, decoded.full_size), decoded.full_size),
        dominant_color=dominant_color(small),
        placeholder=placeholder(small),
        focal_point=focal_point(reduced),
        thumbhash=thumbhash(reduced),
    )


def small_copy(image: Image.Image) -> Image.Image:
    """A copy of less than twice :data:`SMALL_SIDE` pixels a side.

    It is reduced by a whole factor: every pixel counts the same, and it is quick.
    """
    factor = max(1, max(image.size) // SMALL_SIDE)
    return image.reduce(factor) if factor > 1 else image


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def sufficient_size(header: Header) -> tuple[int, int]:
    """The stored size in pixels at which a JPEG shows all that is looked at here."""
    shorter = min(header.width, header.height)
    scale = min(1.0, DRAFT_SIDE / shorter)
    return max(1, int(header.width * scale)), max(1, int(header.height * scale))
