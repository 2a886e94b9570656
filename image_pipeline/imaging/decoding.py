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
from itertools import product

from PIL import AvifImagePlugin, Image, ImageChops, ImageCms, ImageFile, UnidentifiedImageError

from image_pipeline.imaging.containers import EOI, is_cut, jpeg_markers, webp_chunks, webp_size
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

#: Sizes of the known headers of a bitmap: "BM" alone could begin a text.
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)

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

    @property
    def full_size(self) -> tuple[int, int]:
        """The upright size of the original; a JPEG may be here at a fraction of it."""
        return self.header.upright if self.header.format == "jpeg" else self.image.size


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
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    raise _foreign(data)


def _foreign(data: bytes) -> Rejected:
    """The verdict on first bytes that are those of no format that is decoded."""
    if not data:
        return Rejected(Reason.empty_file, "the file has no bytes")
    for magic, name in _REFUSED:
        if data.startswith(magic):
            return Rejected(Reason.unsupported_format, f"{name} is not decoded")
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<svg", b"<?xml", b"<!doctype svg")) and b"<svg" in head:
        return Rejected(Reason.unsupported_format, "SVG is not rasterised")
    return Rejected(Reason.not_an_image, "the first bytes are those of no known image format")


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
        # CIE Lab needs no profile, though Pillow writes one: its own conversion knows the space.
        profile = opened.info.get("icc_profile") if opened.mode != "LAB" else None
        image, flags = _to_srgb(_to_8_bit(_upright(opened)), profile)
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
            raise _refusal(error, data, name) from None


@contextmanager
def _pillow_limits(limits: Limits) -> Iterator[None]:
    """Pillow's own limits, which are global: one thread of a process may decode at a time."""
    before = Image.MAX_IMAGE_PIXELS, AvifImagePlugin.DEFAULT_MAX_THREADS
    # Pillow checks every frame and tile against this; ours is the stricter of the two.
    Image.MAX_IMAGE_PIXELS = int(limits.megapixels * 1e6)
    # Every core has its own worker already, and each thread of a decoder takes address space.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, AvifImagePlugin.DEFAULT_MAX_THREADS = before


def _check_bytes(data: bytes, name: str, limits: Limits) -> None:
    if len(data) > limits.megabytes * 1e6:
        raise Rejected(Reason.too_many_bytes, f"{len(data) / 1e6:.1f} MB")
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
    if frames > limits.frames:
        raise Rejected(Reason.too_many_frames, f"{frames} frames")
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
    return Header(name, width, height, orientation, opened.mode, frames > 1, lossless, flags)


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
    text = "the header is damaged" if unknown else str(error) or type(error).__name__
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


def _upright(opened: ImageFile.ImageFile) -> Image.Image:
    orientation = _orientation_of(opened)
    if orientation not in _TRANSPOSE:
        return opened
    turned = opened.transpose(_TRANSPOSE[orientation])
    opened.close()  # frees its pixels; the copy has as many
    return turned


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Modes that colour management knows: L, RGB, RGBA, CMYK."""
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


def _to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
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


def _without_idle_alpha(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image
