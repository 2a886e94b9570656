"""Animations, frame by frame: any of them in, animated WebP out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, _webp

from image_pipeline.imaging.colour import to_8_bit, to_srgb, without_idle_alpha
from image_pipeline.imaging.decoding import open_within, profile_of, turned_upright
from image_pipeline.settings import Limits, Webp

#: Milliseconds up to which browsers take a frame's time for a slip, and what they show it for
#: instead (Chromium, Firefox and Safari alike; gif2webp writes it like this).
_SLIP, _ORDINARY = 10, 100

#: Least and most frames between two that are stored whole: gif2webp's for lossy frames.
_KEY_FRAMES = 3, 5

#: The most repetitions that the WebP container can hold.
_MOST_LOOPS = 65_535

_TRANSPARENT = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One upright picture in sRGB (RGB or RGBA), how long it is seen, and how often all are.

    ``loops`` counts how often the whole animation is played; 0 is for ever.
    """

    image: Image.Image
    milliseconds: int
    loops: int


def decode_frames(data: bytes, limits: Limits) -> Iterator[Frame]:
    """The frames of a GIF, APNG, WebP or AVIF in order, each whole, as a viewer sees it.

    One is in memory at a time. Raises ``Rejected`` as ``decode`` does, for damage in any frame.
    """
    with open_within(data, limits) as (opened, header):
        profile = profile_of(opened, header.format, data)
        loops = _loops(header.format, opened.info.get("loop"))
        # What an APNG shows to viewers that know no animations is no part of the animation.
        first = 1 if opened.info.get("default_image") else 0
        for number in range(first, header.frames):
            opened.seek(number)
            opened.load()
            turned = turned_upright(opened.copy(), header.orientation)
            image, _ = to_srgb(to_8_bit(turned), profile)
            image = without_idle_alpha(image)
            image.info = {}
            yield Frame(image, _milliseconds(opened.info.get("duration")), loops)


def _loops(kind: str, value: int | None) -> int:
    """A GIF counts how often its frames are repeated *after* they were played, others do not.

    Without a number a GIF is played once, and an AVIF for ever (as browsers do; Pillow does not
    tell what its edit list says).
    """
    if kind == "gif":
        value = 1 if value is None else value + 1 if value else 0
    return min(value or 0, _MOST_LOOPS)


def _milliseconds(value: float | None) -> int:
    rounded = round(value or 0)
    return rounded if rounded > _SLIP else _ORDINARY


class Film:
    """An animated WebP in the making, all frames of one size.

    Pillow's own way to save one wants all frames at once. This is what it does with them; the
    encoder only keeps the last two as pixels.
    """

    def __init__(self, size: tuple[int, int], quality: int, webp: Webp, loops: int) -> None:
        self._quality = quality
        self._method = webp.method
        self._milliseconds = 0
        smallest, mixed, verbose = False, False, False
        self._encoder: Any = _webp.WebPAnimEncoder(
            size, _TRANSPARENT, loops, smallest, *_KEY_FRAMES, mixed, verbose
        )

    def add(self, image: Image.Image, milliseconds: int) -> None:
        """Append a frame, RGB or RGBA."""
        self._put(image.getim())
        self._milliseconds += milliseconds

    def finish(self, exif: bytes) -> bytes:
        """The file, with a TIFF structure as its EXIF or with nothing but pixels."""
        self._put(None)
        data: bytes = self._encoder.assemble("", exif, "")
        return data

    def _put(self, pixels: object) -> None:
        lossless, alpha_quality = False, 100
        self._encoder.add(
            pixels, self._milliseconds, lossless, self._quality, alpha_quality, self._method
        )
