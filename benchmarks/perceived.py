"""The perceptual score that the benchmarks report, by another implementation where there is one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from image_pipeline.imaging.scoring import score

#: The program of libjxl's tools and of the metric's own repository.
PROGRAM = "ssimulacra2"


def implementation() -> str:
    """What scores here."""
    found = shutil.which(PROGRAM)
    return f"the program {PROGRAM}" if found else "image_pipeline.imaging.scoring"


def perceived(original: Image.Image, other: Image.Image) -> float:
    """SSIMULACRA2 of two RGB pictures of one size."""
    program = shutil.which(PROGRAM)
    return _by_program(program, original, other) if program else score(original, other)


def _by_program(program: str, original: Image.Image, other: Image.Image) -> float:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("original.png", "other.png")]
        for picture, path in zip((original, other), paths, strict=True):
            picture.save(path, compress_level=1)
        answer = subprocess.run([program, *paths], capture_output=True, text=True, check=True)
    return float(answer.stdout.split()[-1])
