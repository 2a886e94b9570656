"""No tool, but a bound: what the codecs alone take, in Pillow and in a process per core.

One decode of each photograph, at the fraction that is enough for the largest size, and the
bare encoder calls on pictures that are ready. Making them ready is not counted, so the
seconds are those of the codecs, divided by the processes.
"""

from __future__ import annotations

import io
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps


def fitted(pixels: tuple[int, int], size: dict[str, Any]) -> tuple[int, int]:
    """The pixels of an output: inside a box, never enlarged, or the box itself."""
    if size["cover"]:
        return size["width"], size["height"]
    scale = min(1.0, size["width"] / pixels[0], size["height"] / pixels[1])
    return max(1, round(pixels[0] * scale)), max(1, round(pixels[1] * scale))


def encode(work: dict[str, Any], picture: Image.Image, kind: str) -> bytes:
    """One call of an encoder, with the options that all tools are given."""
    options: dict[str, Any] = {"method": 4}
    if kind == "jpeg":
        options = {"optimize": True, "progressive": True, "subsampling": "4:2:0"}
    data = io.BytesIO()
    picture.save(data, kind, quality=work["formats"][kind], **options)
    return data.getvalue()


def code(work: dict[str, Any], path: str) -> tuple[float, float]:
    """Wall and CPU seconds of the codecs for one photograph; writes what they made."""
    widest = max(work["sizes"].values(), key=lambda size: size["width"])
    clock = _Clock()
    data = Path(path).read_bytes()
    with clock, Image.open(io.BytesIO(data)) as opened:
        opened.draft("RGB", fitted(opened.size, widest))
        opened.load()
    # Encoders take longer for sharp pictures, so these are as sharp as any tool's.
    pictures = {
        name: ImageOps.fit(opened, fitted(opened.size, size), Image.Resampling.LANCZOS)
        for name, size in work["sizes"].items()
    }
    folder = Path(work["out"], Path(path).name)
    folder.mkdir(parents=True)
    for name, picture in pictures.items():
        for kind in work["formats"]:
            with clock:
                made = encode(work, picture, kind)
            (folder / f"{name}.{'jpg' if kind == 'jpeg' else kind}").write_bytes(made)
    return clock.wall, clock.cpu


class _Clock:
    """Adds up the wall and CPU seconds of what runs inside it."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


def main() -> None:
    work = json.load(sys.stdin)
    with ProcessPoolExecutor(work["cores"], mp_context=get_context("spawn")) as pool:
        taken = list(pool.map(partial(code, work), work["files"]))
    seconds = sum(wall for wall, _ in taken) / work["cores"]
    print(json.dumps({"seconds": seconds, "cpu": sum(cpu for _, cpu in taken)}))


if __name__ == "__main__":
    main()
