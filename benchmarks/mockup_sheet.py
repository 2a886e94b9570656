"""The picture of mockups in the documentation: ``python -m benchmarks.mockup_sheet OUT.webp``.

The sample templates as they are, and below each two generated designs on it, one of them cut out.
The same come out every time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from image_pipeline.imaging.mockup_template import DESCRIPTION, read_template
from image_pipeline.imaging.mockups import compose, prepare
from image_pipeline.samples import outdoors, studio
from image_pipeline.samples.canvas import Scene
from image_pipeline.samples.developing import develop, drawing_size
from image_pipeline.samples.templates import TEMPLATES, template_files

#: Pixels: height of a row, gap between pictures, sides of a design.
HIGH, GAP, WIDTH, HEIGHT = 400, 8, 2400, 1600

_MOST_DRAWN = 600_000


def scene(draw: Scene, seed: int) -> Image.Image:
    """A photograph."""
    rng = np.random.default_rng(seed)
    return develop(rng, draw(rng, *drawing_size(WIDTH, HEIGHT, _MOST_DRAWN)), WIDTH, HEIGHT)


def cutout() -> Image.Image:
    """A vase on nothing."""
    rng = np.random.default_rng(7)
    picture, coverage = studio.vase(rng, *drawing_size(1500, 2000, _MOST_DRAWN))
    image = develop(rng, picture, 1500, 2000, grain=1.0)
    mask = Image.fromarray((coverage * 255).astype(np.uint8))
    image.putalpha(mask.resize(image.size, Image.Resampling.BICUBIC))
    return image


#: Two designs for each template.
DESIGNS: dict[str, tuple[Callable[[], Image.Image], ...]] = {
    "poster": (lambda: scene(outdoors.sunset, 4), lambda: scene(studio.fruit, 5)),
    "bag": (cutout, lambda: scene(outdoors.dunes, 3)),
    "shirt": (lambda: scene(outdoors.forest, 2), lambda: scene(outdoors.city, 6)),
}


def main(out: Path) -> None:
    """Draw the sheet: a column for each template."""
    columns = [column(name) for name in TEMPLATES]
    widths = [pictures[0].width for pictures in columns]
    size = (sum(widths) + GAP * (len(widths) + 1), 3 * (HIGH + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    left = GAP
    for pictures in columns:
        for row, picture in enumerate(pictures):
            sheet.paste(picture, (left, GAP + row * (HIGH + GAP)))
        left += pictures[0].width + GAP
    sheet.save(out, "WEBP", quality=82, method=6)


def column(name: str) -> list[Image.Image]:
    """A template without a design and with each of its own, in the height of a row."""
    files = template_files(name)
    prepared = prepare(read_template(name, files[DESCRIPTION]), files)
    pictures = [prepared.base, *(compose(prepared, design()) for design in DESIGNS[name])]
    width = round(prepared.base.width * HIGH / prepared.base.height)
    return [one.resize((width, HIGH), Image.Resampling.LANCZOS) for one in pictures]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
