"""What tutorials show: open, decode and resize per size, in a pool of threads as it comes."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps


def make_variants(work: dict[str, Any], path: Path) -> None:
    """Every size of one photograph, as WebP and as JPEG."""
    folder = Path(work["out"], path.name)
    folder.mkdir(parents=True)
    for name, size in work["sizes"].items():
        box = (size["width"], size["height"])
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
        shape = ImageOps.fit if size["cover"] else ImageOps.contain
        picture = shape(upright, box, Image.Resampling.LANCZOS)
        if "webp" in work["formats"]:
            picture.save(folder / f"{name}.webp", quality=work["formats"]["webp"], method=4)
        if "jpeg" in work["formats"]:
            picture.save(
                folder / f"{name}.jpg",
                quality=work["formats"]["jpeg"],
                optimize=True,
                progressive=True,
            )


def main() -> None:
    work = json.load(sys.stdin)
    started = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(partial(make_variants, work), map(Path, work["files"])):
            pass
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
