"""One small picture of many, to be shown inside an event of the orchestrator."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageOps

#: Pictures on a sheet: six columns of four.
MOST = 24
_COLUMNS = 6

#: Pixels a side at which pictures are kept while a sheet is tried in several sizes.
_SIDE = 72


def contact_sheet(thumbnails: Sequence[bytes], max_bytes: int = 3700) -> bytes:
    """A WebP grid of up to 24 encoded thumbnails in at most ``max_bytes``.

    3,700 bytes become 5 kB as a data URI; events are kept for ever, so a sheet has to be
    small. Size and quality go down until it is. Raises ``ValueError`` without thumbnails.
    """
    if not thumbnails:
        raise ValueError("a contact sheet needs a picture")
    pictures = [_picture(data) for data in thumbnails[:MOST]]
    for side, quality in ((72, 50), (64, 40), (64, 20), (48, 20), (40, 10), (32, 5), (20, 1)):
        data = io.BytesIO()
        _grid(pictures, side).save(data, "WEBP", quality=quality, method=6)
        if data.tell() <= max_bytes:
            break
    return data.getvalue()


def _picture(data: bytes) -> Image.Image:
    """A thumbnail at the largest size that a sheet can show it."""
    with Image.open(io.BytesIO(data), formats=["WEBP", "JPEG", "AVIF"]) as opened:
        return ImageOps.fit(opened.convert("RGBA"), (_SIDE, _SIDE))


def _grid(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    columns = min(_COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * side, rows * side), (255, 255, 255))
    for position, picture in enumerate(pictures):
        cell = picture.resize((side - 2, side - 2), Image.Resampling.BOX)
        row, column = divmod(position, columns)
        sheet.paste(cell, (column * side + 1, row * side + 1), cell)
    return sheet
