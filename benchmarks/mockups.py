"""A design of 12 MP on a base of 2000 pixels, beside Pillow's own perspective alone."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import yaml
from PIL import Image

from benchmarks.photos import photographs
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.mockup_template import DESCRIPTION, Template, read_template
from image_pipeline.imaging.mockups import compose, compose_file, prepare, render_mockup
from image_pipeline.imaging.perspective import UNIT, homography
from image_pipeline.samples.templates import template_files
from image_pipeline.settings import Limits

ROUNDS = 5

#: Nearly all of a base of 2000 x 2000: more cannot be warped.
SIDE = 2000
QUAD = ((60.0, 40.0), (1940.0, 180.0), (1930.0, 1850.0), (45.0, 1960.0))

LIMITS = Limits()


def measure(images: int, photos: Path | None, quick: bool) -> Report:
    """Seconds and memory of one mockup, and what becomes of a pattern that is too fine."""
    rounds = 2 if quick else ROUNDS
    design = photographs(1, photos)[0].path.read_bytes()
    poster = template_files("poster")
    poster_template = read_template("poster", poster[DESCRIPTION])
    full_template, full = _full()
    png = _png(decode(design, LIMITS).image)

    def composed(template: Template, files: Mapping[str, bytes]) -> float:
        return _seconds(lambda: compose_file(design, prepare(template, files), LIMITS), rounds)

    beside = _seconds(lambda: _plain(decode(design, LIMITS).image), rounds)
    rendered = _seconds(lambda: render_mockup(design, poster_template, poster, LIMITS), rounds)
    fine = Image.fromarray((np.indices((3000, 4000)).sum(axis=0) % 2 * 255).astype(np.uint8))
    fine = fine.convert("RGB")
    ours, theirs = _off_grey(compose(prepare(full_template, full), fine)), _off_grey(_plain(fine))
    memory = [_memory(data, full_template, full) for data in (design, png)]
    rows = (
        Row("a poster of 2000 x 1500", composed(poster_template, poster), "s"),
        Row("all of a base of 2000 x 2000", composed(full_template, full), "s", beside),
        Row("the poster and its six files", rendered, "s", goal=3),
        Row("memory of all of a base, JPEG", memory[0], "MB", goal=400),
        Row("memory of all of a base, PNG", memory[1], "MB", goal=500),
        Row("a checkerboard, most levels off grey", ours, "levels", theirs, 8),
    )
    notes = (
        "CPU time of one process that decodes a design of 12 MP and composes it",
        "beside it: decoded in full and warped by one call of Image.transform, bicubic",
        "memory: the most that a process took beyond its imports",
    )
    return Report("mockups", "Mockups", rows, notes, describe_machine())


def _full() -> tuple[Template, dict[str, bytes]]:
    about = {"base": "base.png", "place": {"quad": [list(one) for one in QUAD], "fit": "stretch"}}
    files = {"base.png": _png(Image.new("RGB", (SIDE, SIDE), "white"))}
    return read_template("full", yaml.safe_dump(about).encode()), files


def _plain(design: Image.Image) -> Image.Image:
    width, height = design.size
    corners = tuple((x * width, y * height) for x, y in UNIT)
    matrix = np.linalg.inv(homography(corners, QUAD))
    warped = design.transform(
        (SIDE, SIDE), Image.Transform.PERSPECTIVE,
        tuple((matrix / matrix[2, 2]).ravel()[:8]), Image.Resampling.BICUBIC,
    )  # fmt: skip
    base = Image.new("RGB", (SIDE, SIDE), "white")
    base.paste(warped)
    return base


def _off_grey(image: Image.Image) -> float:
    """Within the design: how far a level is from what a checkerboard is from afar."""
    levels = np.asarray(image.crop((200, 300, 1800, 1700)), np.float64)
    return float(np.abs(levels - 127.5).max())


def _seconds(act: Callable[[], object], rounds: int) -> float:
    def once() -> float:
        started = time.process_time()
        act()
        return time.process_time() - started

    return median(once() for _ in range(rounds))


def _memory(design: bytes, template: Template, files: Mapping[str, bytes]) -> float:
    """MB beyond what a fresh process has after its imports and with the design's bytes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(_grown, design, template, dict(files)).result()


def _grown(design: bytes, template: Template, files: Mapping[str, bytes]) -> float:
    compose(prepare(template, files), Image.new("RGB", (8, 8)))  # imports what it needs
    before = psutil.Process().memory_info().rss
    # The peak so far is forgotten; see proc_pid_clear_refs(5).
    Path("/proc/self/clear_refs").write_text("5")
    compose_file(design, prepare(template, files), LIMITS)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return (peak * 1024 - before) / 1e6


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
