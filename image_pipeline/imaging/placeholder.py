"""What a page shows before the picture: its dominant colour and a tiny blurred copy."""

from __future__ import annotations

import base64
import io

from PIL import Image

#: Longest side of the copy in pixels. A browser scales it up; more shows no more.
SIDE = 20

#: A data URI in every manifest and every page should not weigh more than its markup.
MAX_CHARACTERS = 200


def dominant_color(image: Image.Image) -> str:
    """The most frequent colour (``#rrggbb``) of a small RGB picture, of eight it is made of."""
    reduced = image.resize((48, 48), Image.Resampling.BOX)
    palette = reduced.quantize(8, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    counts = palette.getcolors() or [(1, 0)]
    _, index = max(counts, key=lambda entry: (entry[0], -int(str(entry[1]))))
    at = int(str(index)) * 3
    red, green, blue = (palette.getpalette() or [0, 0, 0])[at : at + 3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def placeholder(image: Image.Image) -> str:
    """A WebP data URI of at most :data:`MAX_CHARACTERS` characters, from a small RGB picture."""
    side = SIDE
    while True:
        tiny = image.copy()
        tiny.thumbnail((side, side), Image.Resampling.BOX)
        for quality in (30, 10, 1):
            data = io.BytesIO()
            tiny.save(data, "WEBP", quality=quality, method=6, exif=b"", xmp=b"", icc_profile=None)
            uri = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
            if len(uri) <= MAX_CHARACTERS or side == 1:
                return uri
        side = max(1, side - 4)
