"""The photographs that are processed: generated once and kept, or a folder of your own."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click

from benchmarks.report import FOLDER
from image_pipeline.commands.display import progress_bar
from image_pipeline.commands.files import LocalFile, find_files
from image_pipeline.samples import photograph

#: Pixels of a common phone and camera picture: 12 MP.
WIDTH, HEIGHT = 4000, 3000

#: What cameras call "fine".
QUALITY = 90


def photographs(count: int, folder: Path | None) -> list[LocalFile]:
    """``count`` photographs of 12 MP, or as many as ``folder`` has.

    Generated ones differ in scene, light and view, so none is a duplicate of another; they
    are kept in ``.data/bench/photos`` for the next time.
    """
    if folder is not None:
        files = list(find_files([folder]))[:count]
        if not files:
            raise click.ClickException(f"there are no files in {folder}")
        return files
    paths = [FOLDER / "photos" / f"{seed:04}.jpg" for seed in range(count)]
    missing = [(seed, path) for seed, path in enumerate(paths) if not path.is_file()]
    if missing:
        _generate(missing)
    return [LocalFile(path, path.name) for path in paths]


def write_photograph(path: Path, seed: int, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Write one generated photograph as JPEG; the file appears when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    photograph(width, height, seed).save(part, "JPEG", quality=QUALITY)
    part.replace(path)


def _generate(missing: list[tuple[int, Path]]) -> None:
    print(f"generating {len(missing)} photographs, once", file=sys.stderr)
    seeds, paths = zip(*missing, strict=True)
    with (
        ProcessPoolExecutor(mp_context=get_context("spawn")) as pool,
        progress_bar() as progress,
    ):
        task = progress.add_task("generating", total=len(missing))
        for _ in pool.map(write_photograph, paths, seeds):
            progress.advance(task)
