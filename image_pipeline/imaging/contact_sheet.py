"""One small picture of many, to be shown inside an event of the orchestrator."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageOps

#: Pictures on a sheet: six columns of four.
MOST = 24
_COLUMNS = 6


def contact_sheet(thumbnails: Sequence[bytes], max_bytes: int = 3700) -> bytes:
    """A WebP grid of up to 24 encoded thumbnails in at most ``max_bytes``.

    3,700 bytes become 5 kB as a data URI; events are kept for ever, so a sheet has to be
    small. Size and quality go down until it is. Raises ``ValueError`` without thumbnails.
    """
    if not thumbnails:
        raise ValueError("a contact sheet needs a picture")
    for side, quality in ((72, 50), (64, 40), (64, 20), (48, 20), (40, 10), (32, 5), (20, 1)):
        data = io.BytesIO()
        sheet = _grid(thumbnails[:MOST], side)
        sheet.save(data, "WEBP", quality=quality, method=6)
        if data.tell() <= max_bytes:
            break
    return data.getvalue()


def _grid(thumbnails: Sequence[bytes], side: int) -> Image.Image:
    columns = min(_COLUMNS, len(thumbnails))
    rows = math.ceil(len(thumbnails) / columns)
    sheet = Image.new("RGB", (columns * side, rows * side), (255, 255, 255))
    for position, data in enumerate(thumbnails):
        with Image.open(io.BytesIO(data), formats=["WEBP", "JPEG", "AVIF"]) as opened:
            cell = ImageOps.fit(opened.convert("RGB"), (side - 2, side - 2))
        row, column = divmod(position, columns)
        sheet.paste(cell, (column * side + 1, row * side + 1))
    return sheet
