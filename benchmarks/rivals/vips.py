"""libvips, tuned by hand: one decode, every size from the next larger one, a process per core.

Shrink-on-load (``thumbnail``) makes the largest size, ``copy_memory`` keeps it for both
encoders and for the next size. Each process has one thread, so that there are as many as cores.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Read when the library is loaded: every core has its own process.
os.environ["VIPS_CONCURRENCY"] = "1"

import pyvips


def make_variants(work: dict[str, Any], path: str) -> None:
    """Every size of one photograph, as WebP and as JPEG."""
    folder = Path(work["out"], Path(path).name)
    folder.mkdir(parents=True)
    picture = None
    largest_first = sorted(work["sizes"].items(), key=lambda item: -item[1]["width"])
    for name, size in largest_first:
        box: dict[str, Any] = {"height": size["height"], "size": "down"}
        if size["cover"]:
            box["crop"] = "centre"
        if picture is None:
            # Turns upright and converts to sRGB by the embedded profile, as a rule of libvips.
            made = pyvips.Image.thumbnail(path, size["width"], output_profile="srgb", **box)
        else:
            made = picture.thumbnail_image(size["width"], **box)
        picture = made.copy_memory()
        _save(picture, folder / name, work["formats"])


def _save(picture: Any, path: Path, formats: dict[str, int]) -> None:
    if "webp" in formats:
        picture.webpsave(f"{path}.webp", Q=formats["webp"], effort=4, keep="none")
    if "jpeg" in formats:
        picture.jpegsave(
            f"{path}.jpg", Q=formats["jpeg"], interlace=True, optimize_coding=True,
            subsample_mode="on", keep="none",
        )  # fmt: skip


def main() -> None:
    work = json.load(sys.stdin)
    started = time.perf_counter()
    with ProcessPoolExecutor(work["cores"], mp_context=get_context("spawn")) as pool:
        for _ in pool.map(partial(make_variants, work), work["files"]):
            pass
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
