"""From bytes to upright 8-bit sRGB pixels, within limits.

The order is fixed: sniff, limits, open with only that format allowed, limits again, draft,
load, what Pillow misreads put right, EXIF orientation, ICC to sRGB, 8-bit RGB(A). A file that
cannot be decoded leaves as :class:`~image_pipeline.imaging.verdict.Rejected`, whatever the
decoder raised.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import ModuleType

from PIL import (
    AvifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    PngImagePlugin,
    UnidentifiedImageError,
)

from image_pipeline.imaging.colour import to_8_bit, to_srgb, without_idle_alpha
from image_pipeline.imaging.containers import (
    EOI,
    gif_blocks,
    is_cut,
    jpeg_markers,
    metadata_bytes,
    webp_chunks,
    webp_size,
)
from image_pipeline.imaging.copyright import iptc_notice, notice
from image_pipeline.imaging.jpeg_quality import jpeg_quality
from image_pipeline.imaging.named_colours import named_profile
from image_pipeline.imaging.png_transparency import with_transparent_colour
from image_pipeline.imaging.sniffing import sniff
from image_pipeline.imaging.tiff_samples import is_negative, widen_planes
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits

#: Pillow's names of what is decoded. A camera's multi-picture JPEG (MPO) opens as JPEG.
_PILLOW = {
    "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "heif": "HEIF",
    "tiff": "TIFF", "gif": "GIF", "bmp": "BMP",
}  # fmt: skip

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ORIENTATION, _COPYRIGHT = 0x0112, 0x8298

#: Where IPTC data sets stand: a tag of TIFF 6.0 (Adobe's), a Photoshop resource.
_TIFF_IPTC, _PHOTOSHOP_IPTC = 33_723, 0x0404


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its pixels are decoded.

    ``width`` and ``height`` are as stored; ``orientation`` is the EXIF value 1 to 8, and 1 for
    anything else that stands there. ``frames`` are those of an animation, 1 for a still and for
    pages and views. ``quality`` is what a JPEG was saved at, 1 to 100, by its quantisation
    tables; None for other formats. ``copyright`` is the notice in EXIF or else in IPTC: a
    printable line of at most 1,000 characters.
    """

    format: str
    width: int
    height: int
    orientation: int
    mode: str
    animated: bool
    lossless: bool
    flags: tuple[str, ...]
    frames: int = 1
    quality: int | None = None
    has_profile: bool = False
    copyright: str | None = None

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

    @property
    def full_size(self) -> tuple[int, int]:
        """The upright size of the original; a JPEG may be here at a fraction of it."""
        return self.header.upright if self.header.format == "jpeg" else self.image.size


def decode(
    data: bytes, limits: Limits, draft: Callable[[Header], tuple[int, int]] | None = None
) -> Decoded:
    """Decode the whole picture.

    ``draft`` may name a size in stored (not upright) pixels that is enough for the caller: a
    JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, never below that.
    """
    with open_within(data, limits) as (opened, header):
        if draft is not None and header.format == "jpeg":
            opened.draft(None, draft(header))
        turned = turned_upright(*_loaded(opened, header.format, data))
        image, flags = to_srgb(to_8_bit(turned), profile_of(opened, header.format, data))
    image = without_idle_alpha(image)
    image.info = {}
    return Decoded(image, header, (*header.flags, *flags))


def profile_of(opened: ImageFile.ImageFile, name: str, data: bytes) -> bytes | None:
    """The ICC profile by which pixels are to be read: the file's, or one it names by numbers."""
    if opened.mode == "LAB":
        return None  # though Pillow writes one: its own conversion knows the space
    embedded: bytes | None = opened.info.get("icc_profile")
    return embedded or (named_profile(data) if name in ("avif", "heif") else None)


def _loaded(opened: ImageFile.ImageFile, name: str, data: bytes) -> tuple[Image.Image, int]:
    """The pixels as Pillow has them, put right, and the orientation they still need."""
    if name == "tiff":
        widen_planes(opened)
    opened.load()
    orientation = _orientation_of(opened)
    if name == "png":
        return with_transparent_colour(opened, data), orientation
    if name == "tiff" and is_negative(opened):
        return ImageChops.invert(to_8_bit(opened)), orientation
    if name == "jpeg" and opened.mode == "CMYK" and "adobe" not in opened.info:
        # Pillow takes all inks for inverted, which they are where Adobe's marker says who wrote
        # them (libjpeg.txt, "Special color spaces").
        return ImageChops.invert(opened), orientation
    return opened, orientation


@contextmanager
def open_within(data: bytes, limits: Limits) -> Iterator[tuple[ImageFile.ImageFile, Header]]:
    """Open within limits; everything a decoder raises in the block becomes a verdict."""
    name = sniff(data)
    _check_bytes(data, name, limits)
    if name == "heif":
        import pillow_heif

        pillow_heif.register_heif_opener()
    with _pillow_limits(limits):
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
            if "MAX_TEXT_" in str(error):
                raise _too_much_metadata(limits) from None
            raise _refusal(error, data, name) from None


@contextmanager
def _pillow_limits(limits: Limits) -> Iterator[None]:
    """Pillow's own limits, which are global: one thread of a process may decode at a time."""
    metadata = int(limits.metadata_megabytes * 1e6)
    wanted = {
        # Pillow checks every frame and tile against this; ours is the stricter of the two.
        (Image, "MAX_IMAGE_PIXELS"): int(limits.megapixels * 1e6),
        # Every core has its own worker already, and each thread of a decoder takes address space.
        (AvifImagePlugin, "DEFAULT_MAX_THREADS"): 1,
        # What text and profiles may inflate to; real profiles exceed Pillow's 1 MB.
        (PngImagePlugin, "MAX_TEXT_CHUNK"): metadata,
        (PngImagePlugin, "MAX_TEXT_MEMORY"): metadata,
    }
    before = {(module, name): getattr(module, name) for module, name in wanted}
    _set(wanted)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        _set(before)


def _set(values: Mapping[tuple[ModuleType, str], int]) -> None:
    for (module, name), value in values.items():
        setattr(module, name, value)


def _check_bytes(data: bytes, name: str, limits: Limits) -> None:
    if len(data) > limits.megabytes * 1e6:
        raise Rejected(Reason.too_many_bytes, f"{len(data) / 1e6:.1f} MB")
    allowed = limits.metadata_megabytes * 1e6
    if metadata_bytes(data, name, allowed) > allowed:
        raise _too_much_metadata(limits)
    if name == "gif":
        # Pillow walks all frames to count them; this stops where it is enough.
        images = (part for part in gif_blocks(data) if part[0] == b",")
        _check_frames(sum(1 for _ in islice(images, limits.frames + 1)), limits)
    if name == "jpeg":
        scans = _scans(data, limits.scans)
        if scans > limits.scans:
            raise Rejected(Reason.too_many_scans, f"{scans} scans, {limits.scans} are allowed")
    if name == "webp":
        # libwebp allocates two canvases as soon as a file is opened.
        _check_size(webp_size(data), limits)


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if max(size) > limits.side or width * height > limits.megapixels * 1e6:
        allowed = f"{limits.megapixels:g} megapixels and {limits.side} a side are allowed"
        raise Rejected(Reason.too_many_pixels, f"{width} x {height} pixels; {allowed}")


def _check_frames(frames: int, limits: Limits) -> None:
    if frames > limits.frames:
        raise Rejected(Reason.too_many_frames, f"more than {limits.frames} frames")


def _too_much_metadata(limits: Limits) -> Rejected:
    message = f"more than {limits.metadata_megabytes:g} MB of profiles, EXIF and comments"
    return Rejected(Reason.too_much_metadata, message)


def _scans(data: bytes, allowed: int) -> int:
    """The scans of a JPEG, or a few more: never fewer than a decoder could find.

    Every scan begins with the marker FF DA. Phones append whole videos to a picture, in which
    these two bytes come up once in 65,536; so, if there are many, only those before the end of
    the first image count. Segments are searched as well: decoders resume after damage in ways
    that a walk along the markers could not follow.
    """
    scans = data.count(b"\xff\xda")
    if scans <= allowed:
        return scans
    end = next((at for code, at in jpeg_markers(data) if code == EOI), len(data))
    return data.count(b"\xff\xda", 0, end)


def _header(opened: ImageFile.ImageFile, name: str, data: bytes, limits: Limits) -> Header:
    width, height = opened.size
    _check_size(opened.size, limits)
    if width < 1 or height < 1:
        raise Rejected(Reason.decode_error, "the picture has no pixels")
    frames = _frames(opened, name)
    _check_frames(frames, limits)
    flags = ("animated",) if frames > 1 else ()
    lossless = _is_lossless(opened, name, data)
    if name == "png":
        # Its EXIF may stand behind the pixels: reading it loads them, and damage found there
        # must not be taken for damaged EXIF.
        opened.load()
    orientation = _orientation_of(opened)
    if name == "tiff" and orientation >= 5:
        # Pillow turns a TIFF while loading it and says so beforehand.
        width, height = height, width
    return Header(
        format=name,
        width=width,
        height=height,
        orientation=orientation,
        mode=opened.mode,
        animated=frames > 1,
        lossless=lossless,
        flags=flags,
        frames=frames,
        quality=_quality(opened) if name == "jpeg" else None,
        has_profile=bool(opened.info.get("icc_profile")),
        copyright=_copyright(opened),
    )


def _quality(opened: ImageFile.ImageFile) -> int | None:
    """By the first table, which every encoder has for luminance."""
    tables = getattr(opened, "quantization", {})
    return jpeg_quality(tables[0]) if len(tables.get(0, ())) == 64 else None


def _copyright(opened: ImageFile.ImageFile) -> str | None:
    try:
        found = notice(opened.getexif().get(_COPYRIGHT))
        return found or iptc_notice(_iptc(opened))
    except Exception:  # noqa: BLE001 - damaged metadata says nothing about the pixels
        return None


def _iptc(opened: ImageFile.ImageFile) -> bytes:
    """The IPTC block of a JPEG (in Photoshop's resources) or a TIFF (a tag), or nothing."""
    if opened.format == "TIFF":
        block = getattr(opened, "tag_v2", {}).get(_TIFF_IPTC, b"")
    else:
        block = opened.info.get("photoshop", {}).get(_PHOTOSHOP_IPTC, b"")
    return block if isinstance(block, bytes) else b""


def _frames(opened: ImageFile.ImageFile, name: str) -> int:
    """Frames of an animation. Pages of a TIFF and views of an MPO are none."""
    if name not in ("gif", "webp", "png", "avif"):
        return 1
    return int(getattr(opened, "n_frames", 1))


def _is_lossless(opened: ImageFile.ImageFile, name: str, data: bytes) -> bool:
    if name == "webp":
        return b"VP8L" in webp_chunks(data)
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
    # Pillow does not say what it did not like in a header, only the address of the stream.
    unknown = isinstance(error, UnidentifiedImageError)
    header = "the header is damaged, or of a kind that is not decoded"
    text = header if unknown else str(error) or type(error).__name__
    if _ends_early(text.lower(), data, name):
        return Rejected(Reason.truncated, f"the {name.upper()} data ends early")
    # Decoders quote the file. The text is stored and shown.
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return Rejected(Reason.decode_error, f"{name.upper()}: {clean}"[:300])


def _ends_early(text: str, data: bytes, name: str) -> bool:
    """Whether a decoder's complaint means that bytes are missing at the end."""
    if any(word in text for word in ("truncated", "not enough", "unexpected end", "eof", "short")):
        return True
    return is_cut(data, name)


def turned_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as EXIF orientation (1-8) says it is seen."""
    if orientation not in _TRANSPOSE:
        return image
    turned = image.transpose(_TRANSPOSE[orientation])
    image.close()  # frees its pixels; the copy has as many
    return turned
