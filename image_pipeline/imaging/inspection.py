"""One look at a file: is it a picture, of what size, and what does it look like."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from image_pipeline.imaging.decoding import Header, decode
from image_pipeline.imaging.fingerprint import Fingerprint, fingerprint, pixel_hash
from image_pipeline.imaging.placeholder import dominant_color, placeholder
from image_pipeline.settings import Limits

#: Shorter side, in pixels, down to which a JPEG may be decoded at a fraction of its size. The
#: 256-bit pHash looks at 64 x 64 pixels: eight times that loses nothing it sees.
DRAFT_SIDE = 512

#: Longest side down to which hashes, colours and placeholder lose nothing they see.
SMALL_SIDE = 512


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a picture. ``width`` and ``height`` in pixels after orientation.

    ``flags``: ``animated`` (only the first frame is used), ``converted_profile``,
    ``broken_profile``, ``cmyk_without_profile``. ``dominant_color`` is ``#rrggbb``,
    ``placeholder`` a data URI.
    """

    format: str
    width: int
    height: int
    orientation: int
    has_alpha: bool
    animated: bool
    lossless: bool
    mode: str
    flags: tuple[str, ...]
    fingerprint: Fingerprint
    dominant_color: str
    placeholder: str


def inspect_image(data: bytes, limits: Limits) -> Inspection:
    """Decode a whole file and describe it. Raises ``Rejected`` with the reason if it is bad.

    A JPEG is decoded at a fraction of its size: every byte is read all the same, so damage is
    found, at a quarter of the cost.
    """
    decoded = decode(data, limits, _draft)
    image, header = decoded.image, decoded.header
    has_alpha = image.mode == "RGBA"
    small = small_copy(image)
    width, height = decoded.full_size
    return Inspection(
        format=header.format,
        width=width,
        height=height,
        orientation=header.orientation,
        has_alpha=has_alpha,
        animated=header.animated,
        lossless=header.lossless,
        mode=header.mode,
        flags=decoded.flags,
        fingerprint=fingerprint(small, pixel_hash(image, decoded.full_size)),
        dominant_color=dominant_color(small),
        placeholder=placeholder(small),
    )


def small_copy(image: Image.Image) -> Image.Image:
    """An RGB copy of less than twice :data:`SMALL_SIDE` pixels a side, transparency over white.

    It is reduced by a whole factor: every pixel counts the same, and it is quick.
    """
    factor = max(1, max(image.size) // SMALL_SIDE)
    small = image.reduce(factor) if factor > 1 else image
    if small.mode == "RGBA":
        white = Image.new("RGBA", small.size, (255, 255, 255, 255))
        small = Image.alpha_composite(white, small).convert("RGB")
    return small


def _draft(header: Header) -> tuple[int, int]:
    shorter = min(header.width, header.height)
    scale = min(1.0, DRAFT_SIDE / shorter)
    return max(1, int(header.width * scale)), max(1, int(header.height * scale))
