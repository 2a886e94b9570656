"""The picture of the crops in the documentation: ``python -m benchmarks.crops OUT.webp``.

Generated scenes with the subject at one side, each with its focal point and the window of a square
thumbnail, and beside it the thumbnails of every rule. The same scenes come out every time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from image_pipeline.imaging.crop import crop_window, focal_point
from image_pipeline.samples import outdoors, studio
from image_pipeline.samples.canvas import Scene
from image_pipeline.samples.developing import develop, drawing_size
from image_pipeline.settings import Crop

#: Scene, seed, and where a picture of half its width is cut out of it, as a share of what is
#: left: the subject is then at one side.
SCENES: tuple[tuple[Scene, int, float], ...] = (
    (studio.bust, 3, 0.15),
    (studio.fruit, 5, 0.75),
    (studio.mug, 2, 0.8),
    (outdoors.sunset, 4, 0.85),
    (outdoors.city, 6, 0.1),
    (outdoors.moon, 1, 0.8),
    (outdoors.lake, 2, 0.2),
    (outdoors.dunes, 3, 0.5),
)

#: Pixels of a drawn scene.
WIDTH, HEIGHT = 2400, 600

RULES: tuple[Crop, ...] = ("attention", "entropy", "center")

#: Pixels: side of a thumbnail, of the gap between, width of a scene, height of the captions.
SIDE, GAP, WIDE, CAPTION = 150, 8, 300, 22

_MOST_DRAWN = 300_000


def main(out: Path) -> None:
    """Draw the sheet, two scenes a row."""
    cells = [cell(*scene) for scene in SCENES]
    wide, high = cells[0].size
    columns, rows = 2, -(-len(cells) // 2)
    size = (columns * wide + 3 * GAP, CAPTION + rows * (high + GAP))
    sheet = Image.new("RGB", size, "white")
    font = ImageFont.load_default(13)
    captions = ("focal point and window", *(str(rule) for rule in RULES))
    places = (0, *(WIDE + GAP + number * (SIDE + GAP) for number in range(len(RULES))))
    for column in range(columns):
        left = GAP + column * (wide + GAP)
        for caption, place in zip(captions, places, strict=True):
            ImageDraw.Draw(sheet).text((left + place, 3), caption, "#404040", font)
    for number, picture in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(picture, (GAP + column * (wide + GAP), CAPTION + row * (high + GAP)))
    sheet.save(out, "WEBP", quality=80, method=6)


def cell(scene: Scene, seed: int, place: float) -> Image.Image:
    """A scene with its focal point and window, and its thumbnails by every rule."""
    rng = np.random.default_rng(seed)
    drawn = scene(rng, *drawing_size(WIDTH, HEIGHT, _MOST_DRAWN))
    start = round(place * WIDTH / 2)
    picture = develop(rng, drawn, WIDTH, HEIGHT).crop((start, 0, start + WIDTH // 2, HEIGHT))
    sheet = Image.new("RGB", (WIDE + len(RULES) * (SIDE + GAP), SIDE), "white")
    whole = marked(picture)
    whole.thumbnail((WIDE, SIDE))
    sheet.paste(whole, ((WIDE - whole.width) // 2, (SIDE - whole.height) // 2))
    for number, rule in enumerate(RULES):
        window = crop_window(picture, 1, 1, rule)
        thumbnail = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=window)
        sheet.paste(thumbnail, (WIDE + GAP + number * (SIDE + GAP), 0))
    return sheet


def marked(picture: Image.Image) -> Image.Image:
    """A copy with a frame around the window of a square, and a ring at the focal point."""
    copy = picture.copy()
    draw = ImageDraw.Draw(copy)
    left, top, right, bottom = crop_window(picture, 1, 1, "attention")
    draw.rectangle((left, top, right - 1, bottom - 1), outline="white", width=6)
    share_x, share_y = focal_point(picture)
    x, y, radius = share_x * picture.width, share_y * picture.height, 26
    for grow, colour, width in ((3, "white", 14), (0, "#d01020", 8)):
        ring = (x - radius - grow, y - radius - grow, x + radius + grow, y + radius + grow)
        draw.ellipse(ring, outline=colour, width=width)
    return copy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
