"""What happens to photographs on their way through editors, messengers and shops.

Each edit takes an original and returns the bytes of another file that shows the same picture.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Family = Literal[
    "copy",
    "re-encoding",
    "rescale",
    "tone",
    "colour",
    "filter",
    "logo",
    "crop",
    "border",
    "turn",
    "tilt",
]

#: What originals are saved with; what cameras call "fine".
ORIGINAL = {"quality": 92, "subsampling": "4:2:0"}

#: What edited pictures are saved with: the usual setting of an export dialogue.
EXPORT = {"quality": 85}

_Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Original:
    """A photograph: the bytes of a JPEG without EXIF, and the RGB pixels they decode to.

    ``repacked`` is a progressive JPEG of the same coefficients.
    """

    data: bytes
    repacked: bytes
    pixels: Image.Image


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit. ``apply`` returns the bytes of the edited file."""

    name: str
    family: Family
    apply: Callable[[Original], bytes]


def original_of(pixels: Image.Image) -> Original:
    """An original of RGB pixels."""
    data = encode(pixels, "JPEG", **ORIGINAL)
    # The same pixels quantised by the same tables: the same coefficients, packed otherwise.
    repacked = encode(pixels, "JPEG", **ORIGINAL, optimize=True, progressive=True)
    with Image.open(io.BytesIO(data)) as image:
        return Original(data, repacked, image.convert("RGB"))


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of a picture in one of Pillow's formats."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


# --------------------------------------------------------------------------- the same pixels


def _copy(original: Original) -> bytes:
    return original.data


def _with_metadata(original: Original) -> bytes:
    """EXIF and a comment are put in, the picture's own data is not touched (JPEG, B.2.4.5-6)."""
    exif = Image.Exif()
    exif.update({271: "Sample Optical", 272: "Model S", 306: "2024:06:21 18:30:00"})
    body = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    segments = _segment(0xE1, body) + _segment(0xFE, b"edited")
    return original.data[:2] + segments + original.data[2:]


def _without_metadata(original: Original) -> bytes:
    """The JFIF header is taken out, which every decoder does without."""
    (length,) = struct.unpack(">H", original.data[4:6])
    if original.data[2:4] != b"\xff\xe0":
        raise ValueError("Pillow no longer begins a JPEG with a JFIF header")
    return original.data[:2] + original.data[4 + length :]


def _repacked(original: Original) -> bytes:
    return original.repacked


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


# ------------------------------------------------------------------------- other pixels


def _saved(form: str, options: _Options, original: Original) -> bytes:
    return encode(original.pixels, form, **options)


def _exported(change: Callable[[Image.Image], Image.Image], original: Original) -> bytes:
    return encode(change(original.pixels), "JPEG", **EXPORT)


def _scaled(share: float, image: Image.Image) -> Image.Image:
    size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def _gamma(exponent: float, image: Image.Image) -> Image.Image:
    return image.point([round(255 * (level / 255) ** exponent) for level in range(256)] * 3)


def _enhanced(kind: type[Any], factor: float, image: Image.Image) -> Image.Image:
    changed: Image.Image = kind(image).enhance(factor)
    return changed


def _recoloured(image: Image.Image) -> Image.Image:
    """Every hue turned by 60 degrees: red becomes yellow, another product in a shop."""
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(level + 256 // 6) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _blurred(share: float, image: Image.Image) -> Image.Image:
    """A Gaussian blur whose radius is a share of the longer side."""
    return image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def _sharpened(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(radius=3, percent=150, threshold=2))


def _with_logo(image: Image.Image) -> Image.Image:
    """A white box of 30 % x 7 % with dark letters, at the lower right."""
    marked = image.copy()
    wide, high = round(image.width * 0.30), round(image.height * 0.07)
    left, top = image.width - wide - wide // 15, image.height - high - high // 3
    draw = ImageDraw.Draw(marked)
    draw.rectangle((left, top, left + wide, top + high), fill="white")
    step = wide / 12
    for letter in range(10):
        start = left + step * (letter + 1)
        box = (start, top + high * 0.25, start + step * 0.6, top + high * 0.75)
        draw.rectangle(box, fill=(25, 35, 60))
    return marked


def _cropped(
    left: float, top: float, right: float, bottom: float, image: Image.Image
) -> Image.Image:
    """Cut off by shares of the sides."""
    wide, high = image.size
    return image.crop(
        (round(left * wide), round(top * high), wide - round(right * wide),
         high - round(bottom * high))
    )  # fmt: skip


def _framed(colour: str, share: float, image: Image.Image) -> Image.Image:
    """A border on every side, its width a share of the shorter side."""
    return ImageOps.expand(image, max(1, round(share * min(image.size))), colour)


def _turned(how: Image.Transpose, image: Image.Image) -> Image.Image:
    return image.transpose(how)


def _tilted(degrees: float, image: Image.Image) -> Image.Image:
    """As a scanner does it: same size, the corners black."""
    return image.rotate(degrees, Image.Resampling.BICUBIC)


_TURNS = {
    "turned 90 deg": Image.Transpose.ROTATE_90,
    "turned 180 deg": Image.Transpose.ROTATE_180,
    "turned 270 deg": Image.Transpose.ROTATE_270,
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "upside down": Image.Transpose.FLIP_TOP_BOTTOM,
}


def _edits() -> Iterable[Edit]:
    yield Edit("copied", "copy", _copy)
    yield Edit("EXIF added", "copy", _with_metadata)
    yield Edit("JFIF header removed", "copy", _without_metadata)
    yield Edit("packed better, progressive", "copy", _repacked)
    for quality in (90, 75, 60, 40, 30, 20, 10):
        yield Edit(f"JPEG q{quality}", "re-encoding", partial(_saved, "JPEG", {"quality": quality}))
    for quality in (80, 40):
        yield Edit(f"WebP q{quality}", "re-encoding", partial(_saved, "WEBP", {"quality": quality}))
    for quality in (60, 30):
        options = {"quality": quality, "speed": 9, "max_threads": 1}
        yield Edit(f"AVIF q{quality}", "re-encoding", partial(_saved, "AVIF", options))
    yield Edit("PNG", "re-encoding", partial(_saved, "PNG", {"compress_level": 1}))
    changes: list[tuple[str, Family, Callable[[Image.Image], Image.Image]]] = [
        ("scale 1/2", "rescale", partial(_scaled, 1 / 2)),
        ("scale 1/4", "rescale", partial(_scaled, 1 / 4)),
        ("scale 1/8", "rescale", partial(_scaled, 1 / 8)),
        ("scale 2", "rescale", partial(_scaled, 2)),
        ("grey", "tone", _grey),
        ("brightness +20 %", "tone", partial(_enhanced, ImageEnhance.Brightness, 1.2)),
        ("brightness -20 %", "tone", partial(_enhanced, ImageEnhance.Brightness, 0.8)),
        ("gamma 1.5", "tone", partial(_gamma, 1.5)),
        ("contrast +30 %", "tone", partial(_enhanced, ImageEnhance.Contrast, 1.3)),
        ("saturation +40 %", "tone", partial(_enhanced, ImageEnhance.Color, 1.4)),
        ("hue turned by 60 deg", "colour", _recoloured),
        ("blur", "filter", partial(_blurred, 0.003)),
        ("sharpened", "filter", _sharpened),
        ("logo 30 % x 7 %", "logo", _with_logo),
    ]  # fmt: skip
    for percent in (2, 5, 10, 20):
        # That much of the width and of the height is gone, half of it on each side.
        cut = percent / 200
        changes.append((f"crop {percent} %", "crop", partial(_cropped, cut, cut, cut, cut)))
    for percent in (5, 10):
        cut = percent / 100
        name = f"crop {percent} % at a corner"
        changes.append((name, "crop", partial(_cropped, 0.0, 0.0, cut, cut)))
    for colour in ("white", "black"):
        for percent in (2, 5, 10):
            name = f"{colour} border {percent} %"
            changes.append((name, "border", partial(_framed, colour, percent / 100)))
    changes += [(name, "turn", partial(_turned, how)) for name, how in _TURNS.items()]
    changes += [(f"tilted {n} deg", "tilt", partial(_tilted, float(n))) for n in (1, 3)]
    for name, family, change in changes:
        yield Edit(name, family, partial(_exported, change))


EDITS = tuple(_edits())
