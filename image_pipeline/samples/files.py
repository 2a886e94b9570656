"""The files of the demo: what each is for, and its bytes."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from image_pipeline.samples import outdoors, studio
from image_pipeline.samples.canvas import Floats, Scene
from image_pipeline.samples.developing import develop, drawing_size

Form = Literal[
    "jpeg", "cmyk", "truncated", "webp", "cutout", "grey16", "text",
    "copy", "stripped", "smaller", "mirrored", "framed",
]  # fmt: skip

#: How much wider a place is than one shot of it: two shots from its ends share two thirds.
PANORAMA = 4 / 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One file of the demo: its name, and what it is for, as shown to people.

    ``width`` and ``height`` are of the upright picture at scale 1, in pixels; ``orientation``
    is the EXIF tag (CIPA DC-008, 274). What repeats another picture is made ``of`` its file.
    Shots of one ``place`` look from its ``left`` or its right.
    """

    name: str
    note: str
    form: Form
    scene: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    of: str = ""
    place: str = ""
    left: bool = False


SAMPLES: tuple[Sample, ...] = (
    Sample(
        "Ferien am See +1.jpg",
        "24 megapixels, a space and a plus in its name, GPS in its EXIF",
        "jpeg",
        "lake",
        6000,
        4000,
    ),
    Sample(
        "Ferien am See (klein).jpg",
        "the same picture saved again at 60 % and lower quality",
        "smaller",
        of="Ferien am See +1.jpg",
    ),
    Sample("夕焼け.webp", "WebP with a Japanese name", "webp", "sunset", 3840, 2560),
    Sample(
        "IMG_4711.JPG",
        "portrait, camera held upright (orientation 6)",
        "jpeg",
        "bust",
        3024,
        4032,
        6,
    ),
    Sample("IMG_4711 Kopie.JPG", "an exact copy under another name", "copy", of="IMG_4711.JPG"),
    Sample(
        "night_city.jpeg", "camera held upside down (orientation 3)", "jpeg", "city", 4608, 3072, 3
    ),
    Sample(
        "tautropfen.jpg",
        "close-up, camera turned the other way (orientation 8)",
        "jpeg",
        "dew",
        3000,
        4000,
        8,
    ),
    Sample(
        "still life.jpg", "a busy table, so that crops have to choose", "jpeg", "fruit", 4000, 3000
    ),
    Sample("mug-white-01.jpg", "a product on white", "jpeg", "mug", 3500, 3500),
    Sample("dunes.jpg", "a wide view with few details", "jpeg", "dunes", 5200, 2600),
    Sample("vase cut-out.png", "PNG with transparency", "cutout", "vase", 2400, 3200),
    Sample("moon.png", "16-bit grey PNG", "grey16", "moon", 2000, 2000),
    Sample("forest_print.jpg", "CMYK JPEG, as print shops send them", "cmyk", "forest", 3600, 2400),
    Sample(
        "IMG_0815.jpg",
        "a transfer that broke off: the end of the file is missing",
        "truncated",
        "lake",
        4000,
        2667,
    ),
    Sample("shopping list.jpg", "a text file that calls itself a JPEG", "text"),
    Sample(
        "still life (no EXIF).jpg",
        "the same pixels, its metadata taken out",
        "stripped",
        of="still life.jpg",
    ),
    Sample("Ferien gespiegelt.jpg", "mirrored and small", "mirrored", of="Ferien am See +1.jpg"),
    Sample("night_city framed.jpg", "in a white frame and small", "framed", of="night_city.jpeg"),
    Sample(
        "DSC_0101.jpg",
        "the first of two shots from one place: similar, but not the same",
        "jpeg",
        "lake",
        1600,
        1200,
        place="bay",
        left=True,
    ),
    Sample(
        "DSC_0102.jpg",
        "the second one, the camera turned a little",
        "jpeg",
        "lake",
        1600,
        1200,
        place="bay",
    ),
)

#: Pixels drawn per scene: solids cost ten times the time, and a million of the rest 250 MB.
_SCENES: dict[str, tuple[Scene, int]] = {
    "lake": (outdoors.lake, 900_000),
    "sunset": (outdoors.sunset, 900_000),
    "city": (outdoors.city, 1_000_000),
    "dew": (outdoors.dew, 1_200_000),
    "dunes": (outdoors.dunes, 800_000),
    "forest": (outdoors.forest, 1_000_000),
    "bust": (studio.bust, 500_000),
    "fruit": (studio.fruit, 500_000),
    "mug": (studio.mug, 600_000),
    "moon": (outdoors.moon, 1_200_000),
}


def write_samples(
    folder: Path,
    *,
    scale: float = 1.0,
    seed: int = 9,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the files of :data:`SAMPLES` and return their paths, in that order.

    ``scale`` multiplies both sides of every picture. Files that exist are kept as they are, so
    a second call returns at once; none is ever seen half written. ``progress`` is told how many
    of how many files are there, from this thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    # Two at a time: each takes up to 250 MB while it draws and develops.
    with ThreadPoolExecutor(2) as threads:
        for derived in (False, True):
            samples = [sample for sample in SAMPLES if bool(sample.of) == derived]
            # The slow scenes first, so that no thread is left alone with one at the end.
            samples.sort(key=lambda sample: sample.scene not in ("bust", "fruit"))
            for _ in threads.map(lambda sample: _write(folder, sample, scale, seed), samples):
                done += 1
                if progress:
                    progress(done, len(SAMPLES))
    return [folder / sample.name for sample in SAMPLES]


def _write(folder: Path, sample: Sample, scale: float, seed: int) -> None:
    path = folder / sample.name
    if path.exists():
        return
    draft = folder / f".{sample.name}.part"
    draft.write_bytes(_encoded(folder, sample, scale, seed))
    draft.replace(path)


def _encoded(folder: Path, sample: Sample, scale: float, seed: int) -> bytes:
    """Return the bytes of a sample; the file it is made of must be there."""
    if sample.form == "text":
        return b"2 lemons\nolive oil\nbread\nfilm for the camera\n"
    if sample.of:
        return _REPEATED[sample.form](folder / sample.of)
    return _drawn(sample, scale, seed)


def _drawn(sample: Sample, scale: float, seed: int) -> bytes:
    # Seeded by its name: a file is the same whatever else is written, and in whatever order.
    rng = np.random.default_rng([seed, zlib.crc32((sample.place or sample.name).encode())])
    width, height = (max(16, round(side * scale)) for side in (sample.width, sample.height))
    if sample.form == "cutout":
        return _cutout(rng, width, height)
    scene, most = _SCENES[sample.scene]
    picture = _seen(sample, scene, rng, drawing_size(width, height, most))
    if sample.form == "grey16":
        return _grey16(rng, picture, width, height)
    image = develop(rng, picture, width, height)
    if sample.form == "webp":
        return _saved(image, "WEBP", quality=86, method=1)
    if sample.form == "cmyk":
        return _saved(image.convert("CMYK"), "JPEG", quality=90)
    data = _camera_jpeg(image, sample.orientation)
    return data[: len(data) * 3 // 5] if sample.form == "truncated" else data


def _seen(sample: Sample, scene: Scene, rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """What the camera sees of a scene, ``size`` (height, width) large."""
    height, width = size
    if not sample.place:
        return scene(rng, height, width)
    panorama = scene(rng, height, round(width * PANORAMA))
    return panorama[:, :width] if sample.left else panorama[:, -width:]


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


#: How a camera that was turned stores an upright picture.
_STORED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def _camera_jpeg(upright: Image.Image, orientation: int) -> bytes:
    """A JPEG as a camera writes it, with everything in its EXIF that should not be published.

    Tags: CIPA DC-008-2019. The place is the Null Island weather buoy's, where nobody lives.
    """
    exif = Image.Exif()
    exif.update(
        {
            271: "Sample Optical",
            272: "Model S",
            274: orientation,
            305: "Firmware 1.4",
            306: "2024:06:21 18:30:00",
            315: "A. Photographer",
        }
    )
    exif.get_ifd(0x8769).update(
        {
            33434: 1 / 250,
            33437: 5.6,
            34855: 400,
            36867: "2024:06:21 18:30:00",
            37386: 35.0,
            42033: "SN-0012345",
            42036: "35mm F2",
        }
    )
    exif.get_ifd(0x8825).update(
        {
            1: "N",
            2: (0.0, 0.0, 36.0),
            3: "E",
            4: (0.0, 0.0, 36.0),
            5: b"\x00",
            6: 2.0,
        }
    )
    turned = _STORED.get(orientation)
    image = upright.transpose(turned) if turned is not None else upright
    return _saved(image, "JPEG", quality=91, exif=exif)


def _shrunk(original: Path, share: float) -> Image.Image:
    """The upright picture at a share of its size."""
    with Image.open(original) as image:
        size = (round(image.width * share), round(image.height * share))
        small = image.resize(size, Image.Resampling.BICUBIC)
        # Pillow keeps the EXIF of what it resizes, and with it the orientation.
        return ImageOps.exif_transpose(small)


def _saved_again(original: Path) -> bytes:
    """What a messenger makes of a picture: 60 % of its size, lower quality, no EXIF."""
    return _saved(_shrunk(original, 0.6), "JPEG", quality=75)


def _stripped(original: Path) -> bytes:
    """Without its EXIF segment (APP1; ITU-T T.81, B.2.4.6), everything else untouched."""
    data = original.read_bytes()
    at = data.index(b"\xff\xe1")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def _mirrored(original: Path) -> bytes:
    return _saved(ImageOps.mirror(_shrunk(original, 0.25)), "JPEG", quality=85)


def _framed(original: Path) -> bytes:
    """A white border on every side, 5 % of the shorter one."""
    small = _shrunk(original, 0.3)
    framed = ImageOps.expand(small, max(1, round(0.05 * min(small.size))), "white")
    return _saved(framed, "JPEG", quality=85)


#: How a file is made of another one.
_REPEATED: dict[str, Callable[[Path], bytes]] = {
    "copy": Path.read_bytes,
    "stripped": _stripped,
    "smaller": _saved_again,
    "mirrored": _mirrored,
    "framed": _framed,
}


def _cutout(rng: np.random.Generator, width: int, height: int) -> bytes:
    """The vase without its background."""
    picture, coverage = studio.vase(rng, *drawing_size(width, height, 500_000))
    image = develop(rng, picture, width, height, grain=1.0)
    mask = Image.fromarray((coverage * 255).astype(np.uint8))
    mask = mask.filter(ImageFilter.GaussianBlur(0.6)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    # Under full transparency the colour is plain, which is what editors write.
    clean = Image.composite(
        image, Image.new("RGB", image.size), mask.point(lambda a: 255 * (a > 0))
    )
    clean.putalpha(mask)
    return _saved(clean, "PNG", compress_level=3)


def _grey16(rng: np.random.Generator, picture: Floats, width: int, height: int) -> bytes:
    """16 bits of grey, with a 14-bit sensor's noise."""
    tall = Image.fromarray(picture[..., 0]).resize((width, height), Image.Resampling.BICUBIC)
    levels = np.clip(np.asarray(tall), 0, 1) * 60_000 + 900
    levels = levels + rng.standard_normal(levels.shape, np.float32) * 120
    return _saved(
        Image.fromarray(np.clip(levels, 0, 65_535).astype(np.uint16)), "PNG", compress_level=1
    )
