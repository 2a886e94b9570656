"""From bytes to upright 8-bit sRGB pixels, within limits.

The order is fixed: sniff, limits, open with only that format allowed, limits again, draft,
load, EXIF orientation, ICC to sRGB, 8-bit RGB(A). A file that cannot be decoded leaves as
:class:`~image_pipeline.imaging.verdict.Rejected`, whatever the decoder raised.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, ImageCms, ImageFile

from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits

#: Pillow's names of what is decoded. A camera's multi-picture JPEG (MPO) opens as JPEG.
_PILLOW = {
    "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "heif": "HEIF",
    "tiff": "TIFF", "gif": "GIF", "bmp": "BMP",
}  # fmt: skip

#: First bytes of formats that are decoded.
_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)

#: First bytes of formats that are recognised and refused, with a name for people.
_REFUSED = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\x01\0", "an icon"),
    (b"DDS ", "a DirectDraw surface"),
    (b"v/1\x01", "OpenEXR"),
    (b"qoif", "QOI"),
    (b"FUJIFILMCCD-RAW", "camera RAW"),
    (b"IIU\0", "camera RAW"),
    (b"IIRO", "camera RAW"),
    (b"\x1aE\xdf\xa3", "a video"),
)

#: Brands of ISO base media files (ISO/IEC 23008-12, AV1 Image File Format).
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its pixels are decoded.

    ``width`` and ``height`` are as stored; ``orientation`` is the EXIF value 1 to 8, and 1 for
    anything else that stands there.
    """

    format: str
    width: int
    height: int
    orientation: int
    mode: str
    animated: bool
    lossless: bool
    flags: tuple[str, ...]

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after orientation."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


@dataclass(slots=True)
class Decoded:
    """Upright pixels, mode RGB or RGBA (RGBA only if a pixel is really transparent)."""

    image: Image.Image
    header: Header
    flags: tuple[str, ...]


def sniff(data: bytes) -> str:
    """The format of a file by its first bytes (4 kB are enough), in lower case.

    Raises :class:`Rejected` for formats that are not decoded and for what is no image.
    """
    for magic, name in _MAGIC:
        if data.startswith(magic):
            if name == "tiff" and data[8:10] == b"CR":
                raise Rejected(Reason.unsupported_format, "camera RAW is not decoded")
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _sniff_media(data)
    for magic, name in _REFUSED:
        if data.startswith(magic):
            raise Rejected(Reason.unsupported_format, f"{name} is not decoded")
    if not data:
        raise Rejected(Reason.empty_file, "the file has no bytes")
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<svg", b"<?xml", b"<!doctype svg")) and b"<svg" in head:
        raise Rejected(Reason.unsupported_format, "SVG is not rasterised")
    raise Rejected(Reason.not_an_image, "the first bytes are those of no known image format")


def read_header(data: bytes, limits: Limits) -> Header:
    """What the file says about itself. Raises :class:`Rejected` if it breaks a limit."""
    with _opened(data, limits) as (_, header):
        return header


def decode(
    data: bytes, limits: Limits, draft: Callable[[Header], tuple[int, int]] | None = None
) -> Decoded:
    """Decode the whole picture.

    ``draft`` may name a size in stored (not upright) pixels that is enough for the caller: a
    JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, never below that.
    """
    with _opened(data, limits) as (opened, header):
        if draft is not None and header.format == "jpeg":
            opened.draft(None, draft(header))
        opened.load()
        image: Image.Image = opened
        profile = image.info.get("icc_profile")
        orientation = _orientation_of(image)
        if orientation in _TRANSPOSE:
            image = image.transpose(_TRANSPOSE[orientation])
        image, flags = _to_srgb(_to_8_bit(image), profile)
    image = _without_idle_alpha(image)
    image.info = {}
    return Decoded(image, header, (*header.flags, *flags))


def _sniff_media(data: bytes) -> str:
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[at : at + 4] for at in (8, *range(16, size, 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "avif"
    if any(brand in _HEIF_BRANDS for brand in brands):
        return "heif"
    raise Rejected(Reason.unsupported_format, "a video or camera RAW file is not decoded")


@contextmanager
def _opened(data: bytes, limits: Limits) -> Iterator[tuple[ImageFile.ImageFile, Header]]:
    """Open within limits; everything a decoder raises in the block becomes a verdict."""
    name = sniff(data)
    _check_bytes(data, name, limits)
    if name == "heif":
        import pillow_heif

        pillow_heif.register_heif_opener()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Pillow checks every frame and tile against this; ours is the stricter of the two.
        Image.MAX_IMAGE_PIXELS = int(limits.megapixels * 1e6)
        try:
            with Image.open(io.BytesIO(data), formats=[_PILLOW[name]]) as opened:
                yield opened, _header(opened, name, data, limits)
        except Rejected:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            message = f"more than {limits.megapixels:g} megapixels"
            raise Rejected(Reason.too_many_pixels, message) from None
        except MemoryError:
            raise Rejected(Reason.out_of_memory, "decoding took too much memory") from None
        except Exception as error:  # noqa: BLE001 - decoders raise a dozen kinds of exceptions
            raise _refusal(error, data, name) from None


def _check_bytes(data: bytes, name: str, limits: Limits) -> None:
    if len(data) > limits.megabytes * 1e6:
        raise Rejected(Reason.too_many_bytes, f"{len(data) / 1e6:.1f} MB")
    if name == "jpeg":
        # Every scan begins with this marker; entropy-coded data cannot contain it (T.81, B.1.1).
        scans = data.count(b"\xff\xda")
        if scans > limits.scans:
            raise Rejected(Reason.too_many_scans, f"{scans} scans, {limits.scans} are allowed")


def _header(opened: ImageFile.ImageFile, name: str, data: bytes, limits: Limits) -> Header:
    width, height = opened.size
    if max(width, height) > limits.side or width * height > limits.megapixels * 1e6:
        allowed = f"{limits.megapixels:g} megapixels and {limits.side} a side are allowed"
        raise Rejected(Reason.too_many_pixels, f"{width} x {height} pixels; {allowed}")
    if width < 1 or height < 1:
        raise Rejected(Reason.decode_error, "the picture has no pixels")
    frames = _frames(opened, name)
    if frames > limits.frames:
        raise Rejected(Reason.too_many_frames, f"{frames} frames")
    flags = ("animated",) if frames > 1 else ()
    lossless = _is_lossless(opened, name, data)
    orientation = _orientation_of(opened)
    return Header(name, width, height, orientation, opened.mode, frames > 1, lossless, flags)


def _frames(opened: ImageFile.ImageFile, name: str) -> int:
    """Frames of an animation. Pages of a TIFF and views of an MPO are none."""
    if name not in ("gif", "webp", "png", "avif"):
        return 1
    return int(getattr(opened, "n_frames", 1))


def _is_lossless(opened: ImageFile.ImageFile, name: str, data: bytes) -> bool:
    if name == "webp":
        return b"VP8L" in data[:64]
    if name == "tiff":
        return opened.info.get("compression") not in ("jpeg", "tiff_jpeg", "webp")
    return name in ("png", "gif", "bmp")


def _orientation_of(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _refusal(error: Exception, data: bytes, name: str) -> Rejected:
    text = str(error) or type(error).__name__
    if _ends_early(text.lower(), data, name):
        return Rejected(Reason.truncated, f"the {name.upper()} data ends early")
    return Rejected(Reason.decode_error, f"{name.upper()}: {text}"[:300])


def _ends_early(text: str, data: bytes, name: str) -> bool:
    """Whether a decoder's complaint means that bytes are missing at the end."""
    if any(word in text for word in ("truncated", "not enough", "unexpected end", "eof", "short")):
        return True
    if name == "jpeg":
        return b"\xff\xd9" not in data[-64:]
    if name == "png":
        return b"IEND" not in data[-64:]
    if name == "webp":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return False


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Modes that colour management knows: L, RGB, RGBA, CMYK, LAB."""
    mode = image.mode
    if mode in ("L", "RGB", "RGBA", "CMYK"):
        if mode in ("L", "RGB") and "transparency" in image.info:
            return image.convert("RGBA")
        return image
    if mode in ("I;16", "I;16B", "I;16L", "I"):
        # The high byte: dividing by 257 instead differs by less than one step of 255.
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if mode == "F":
        return image.convert("L")
    if mode in ("P", "PA", "LA", "La", "RGBa"):
        alpha = mode != "P" or "transparency" in image.info
        return image.convert("RGBA" if alpha else "RGB")
    return image.convert("L" if mode == "1" else "RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Pixels as sRGB, RGB or RGBA, and what was done about colour."""
    plain = "RGBA" if image.mode == "RGBA" else "RGB"
    if not profile:
        flags = ("cmyk_without_profile",) if image.mode == "CMYK" else ()
        return (image if image.mode == plain else image.convert(plain)), flags
    try:
        return _through_profile(image, profile, plain)
    except Exception:  # noqa: BLE001 - LittleCMS on bytes from outside; the picture is still good
        return (image if image.mode == plain else image.convert(plain)), ("broken_profile",)


def _through_profile(
    image: Image.Image, profile: bytes, plain: str
) -> tuple[Image.Image, tuple[str, ...]]:
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    if space == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if space != {"L": "GRAY", "CMYK": "CMYK"}.get(image.mode, "RGB"):
        raise ValueError(f"a {space} profile on {image.mode} pixels")
    if space == "RGB" and "srgb" in (ImageCms.getProfileDescription(opened) or "").lower():
        return image, ()
    srgb = ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.PERCEPTUAL
    if image.mode == plain:
        ImageCms.profileToProfile(image, opened, srgb, renderingIntent=intent, inPlace=True)
        return image, ("converted_profile",)
    converted = ImageCms.profileToProfile(
        image, opened, srgb, renderingIntent=intent, outputMode=plain
    )
    assert converted is not None
    return converted, ("converted_profile",)


def _without_idle_alpha(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image
