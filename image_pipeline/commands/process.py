"""``image-pipeline process``: the imaging core alone on local files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from image_pipeline.commands.display import print_json, print_table, progress_bar, size
from image_pipeline.commands.files import LocalFile, failure, find_files, read_file
from image_pipeline.imaging.inspection import Inspection
from image_pipeline.imaging.recipe import extension
from image_pipeline.imaging.rendering import ProcessedImage, RenderedVariant, process_image
from image_pipeline.imaging.verdict import Rejected
from image_pipeline.settings import Limits, Settings
from image_pipeline.workers.opening import open_workers
from image_pipeline.workers.pool import Job, Outcome


def run_process(
    settings: Settings,
    paths: Iterable[Path],
    out: Path,
    recipe: str,
    workers: int | None,
    as_json: bool,
) -> None:
    """Render files into ``out`` and report a verdict for each."""
    started = time.monotonic()
    rules = settings.workers.with_processes(workers)
    files = list(find_files(paths))
    reader = _Reader(Limits())
    results: dict[int, dict[str, Any]] = {}
    with open_workers(rules) as pool, progress_bar() as progress:
        task = progress.add_task("rendering", total=len(files))
        jobs = _jobs(files, reader, (settings.recipes[recipe], reader.limits))
        for outcome in pool.run(process_image, jobs):
            results[outcome.key] = _result(
                files[outcome.key], reader.sha256.pop(outcome.key, None), outcome, out
            )
            progress.advance(task)
    images = [results[position] for position in sorted(results)]
    seconds = round(time.monotonic() - started, 3)
    if as_json:
        print_json({"images": images, "seconds": seconds, "workers": rules.count})
    else:
        _print(images, seconds, rules.count)


class _Reader:
    """Reads files in the parent, and remembers the hash of each until it is asked for."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.sha256: dict[int, str] = {}

    def read(self, position: int, file: LocalFile) -> bytes:
        data = read_file(file.path, self.limits)
        self.sha256[position] = hashlib.sha256(data).hexdigest()
        return data


def _jobs(
    files: list[LocalFile], reader: _Reader, arguments: tuple[Any, ...]
) -> Iterator[Job[int]]:
    for position, file in enumerate(files):
        yield Job(position, partial(reader.read, position, file), arguments)


def _result(
    file: LocalFile, sha256: str | None, outcome: Outcome[int, ProcessedImage], out: Path
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "path": str(file.path),
        "verdict": "accepted",
        "reason": None,
        "message": None,
        "sha256": sha256,
        "width": None,
        "height": None,
        "dominant_color": None,
        "placeholder": None,
        "thumbhash": None,
        "focal_point": None,
        "fingerprint": None,
        "variants": [],
    }
    if outcome.value is not None:
        entry.update(_described(outcome.value.inspection))
        folder = out / file.name
        made = [variant for variant in outcome.value.variants if not variant.dropped]
        entry["variants"] = [_write(folder, variant) for variant in made]
    elif isinstance(outcome.error, Rejected):
        entry.update(
            verdict="rejected", reason=str(outcome.error.reason), message=outcome.error.message
        )
    else:
        reason, message = failure(outcome.error)
        entry.update(verdict="failed", reason=reason, message=message)
    return entry


def _described(found: Inspection) -> dict[str, Any]:
    prints = found.fingerprint
    return {
        "width": found.width,
        "height": found.height,
        "dominant_color": found.dominant_color,
        "placeholder": found.placeholder,
        "thumbhash": found.thumbhash,
        "focal_point": found.focal_point,
        "fingerprint": {
            # Hexadecimal: JSON numbers lose the low bits of 64 in many readers.
            "phash64": f"{prints.phash64:016x}",
            "phash256": prints.phash256,
            "dhash64": f"{prints.dhash64:016x}",
            "texture": prints.texture,
        },
    }


def _write(folder: Path, variant: RenderedVariant) -> dict[str, Any]:
    plan = variant.plan
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{plan.size}-{plan.width}x{plan.height}.{extension(plan.format)}"
    path.write_bytes(variant.data)
    return {
        "role": plan.role,
        "size": plan.size,
        "format": plan.format,
        "width": plan.width,
        "height": plan.height,
        "quality": plan.quality,
        "bytes": variant.length,
        "path": str(path),
    }


def _print(images: list[dict[str, Any]], seconds: float, workers: int) -> None:
    rows = []
    for image in images:
        by_format = {
            kind: sum(one["bytes"] for one in image["variants"] if one["format"] == kind)
            for kind in ("avif", "webp", "jpeg")
        }
        pixels = f"{image['width']}x{image['height']}" if image["width"] else "-"
        reason = image["reason"] or ""
        rows.append(
            (
                image["path"],
                image["verdict"],
                reason,
                pixels,
                len(image["variants"]),
                *(size(value) for value in by_format.values()),
            )
        )
    columns = ("file", "verdict", "reason", "pixels", "variants", "AVIF", "WebP", "JPEG")
    print_table(columns, rows, numbers=columns[3:])
    print(f"\n{len(images)} files in {seconds:.1f} s with {workers} workers")
