"""What people see of the files: the fixed qualities beside those that are found."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, quantiles

from PIL import Image

from benchmarks.perceived import implementation, perceived
from benchmarks.photos import photographs
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.imaging.autoquality import choose_qualities
from image_pipeline.imaging.crop import crop_window
from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.recipe import PlannedVariant, plan_variants
from image_pipeline.imaging.rendering import encode
from image_pipeline.settings import FormatName, Limits, Recipe

RECIPE = Recipe()

#: More photographs change the means by tenths of a point; each costs some ten seconds.
MOST = 60

#: Points around the target within which two pictures pass for equally good, and the share of
#: files that may lie outside.
TOLERANCE, OUTSIDE = 2.5, 5.0

#: AVIF is worth its CPU time if it has at least this much fewer bytes than WebP.
AVIF_TO_WEBP = 0.7


@dataclass(frozen=True, slots=True)
class Outcome:
    """A file that was encoded, and what it looks like (points of SSIMULACRA2)."""

    plan: PlannedVariant
    bytes: int
    score: float

    @property
    def kind(self) -> tuple[str, str]:
        """Its size and its format."""
        return self.plan.size, self.plan.format


@dataclass(frozen=True, slots=True)
class Measured:
    """A photograph with some qualities; CPU seconds to find and to encode them."""

    outcomes: tuple[Outcome, ...]
    choosing: float
    encoding: float


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Encode and score every variant, with the fixed table and then at its mean score."""
    machine = describe_machine()
    files = [file.path for file in photographs(min(images, 4 if quick else MOST), folder)]
    fixed = _each(files, None)
    scores = [outcome.score for one in fixed for outcome in one.outcomes]
    target, floor = fmean(scores), quantiles(scores, n=10)[0]
    auto, lean = _each(files, target), _each(files, floor)
    return Report(
        "quality",
        f"what {len(files)} photographs look like: fixed qualities beside `quality: auto`",
        (
            *_precision(fixed, auto, target),
            *_bytes(fixed, auto, lean),
            *_fixed_table(fixed),
            *_avif_and_webp(auto),
        ),
        (
            f"points are of SSIMULACRA2 (70 good, 80 high, 90 not to be told from the original),"
            f" by {implementation()}",
            f"auto has the mean score of the fixed table for its target, {target:.1f}; beside its"
            " figures stand those of the fixed table. Where equal quality for all needs more bytes"
            " than the table, they go to pictures that compress badly, which are the large files",
            f"the table's worst tenth of files score below {floor:.1f}; who wants hardly any file"
            " worse than that needs the bytes of the table or those of auto with that target",
            "beside the bytes of AVIF stand those of WebP, both by auto, so of equal score",
            "CPU seconds are of one core; the whole image means decoding, resizing and encoding",
        ),
        machine,
    )


def _each(files: Sequence[Path], target: float | None) -> list[Measured]:
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    print(f"quality: {len(files)} photographs, target {target}", file=sys.stderr)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(partial(_measured, target=target), files))


def _measured(path: Path, target: float | None) -> Measured:
    began = time.process_time()
    picture = decode(path.read_bytes(), Limits()).image.convert("RGB")
    plans = plan_variants(RECIPE, *picture.size)
    pictures = dict(_pictures(picture, plans))
    resized = time.process_time()
    if target is not None:
        largest = max(
            (pictures[plan.size] for plan in plans if plan.role == "responsive"),
            key=lambda each: each.width * each.height,
        )
        plans = choose_qualities(largest, plans, target, _tried)
    chosen = time.process_time()
    files = [encode(pictures[plan.size], RECIPE, plan.format, plan.quality) for plan in plans]
    encoded = time.process_time()
    outcomes = [
        Outcome(plan, len(data), perceived(pictures[plan.size], _opened(data)))
        for plan, data in zip(plans, files, strict=True)
    ]
    return Measured(tuple(outcomes), chosen - resized, encoded - chosen + resized - began)


def _pictures(
    picture: Image.Image, plans: Sequence[PlannedVariant]
) -> Iterator[tuple[str, Image.Image]]:
    """What is encoded for each size: each from the next larger, crops from the largest."""
    above = picture
    for size, plan in {plan.size: plan for plan in plans}.items():
        box, pixels = RECIPE.sizes[size], (plan.width, plan.height)
        if box.fit == "cover":
            window = crop_window(picture, *pixels, box.crop)
            yield size, picture.resize(pixels, Image.Resampling.LANCZOS, box=window)
        else:
            if above.size != pixels:
                above = above.resize(pixels, Image.Resampling.LANCZOS)
            yield size, above


def _tried(picture: Image.Image, kind: FormatName, quality: int) -> bytes:
    return encode(picture, RECIPE, kind, quality)


def _opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("RGB")


def _precision(fixed: list[Measured], auto: list[Measured], target: float) -> Iterator[Row]:
    def outside(found: list[Measured]) -> float:
        scores = [outcome.score for one in found for outcome in one.outcomes]
        return 100 * fmean(abs(score - target) > TOLERANCE for score in scores)

    yield Row(
        f"auto: files more than {TOLERANCE} points from the target",
        outside(auto), "%", outside(fixed), OUTSIDE,
    )  # fmt: skip
    yield Row("auto: mean score", _mean_score(auto), "points", _mean_score(fixed))
    yield Row(
        "auto: CPU to find the qualities of an image, beside the whole image",
        fmean(one.choosing for one in auto), "s", fmean(one.encoding for one in auto),
    )  # fmt: skip


def _bytes(fixed: list[Measured], auto: list[Measured], lean: list[Measured]) -> Iterator[Row]:
    def kilobytes(found: list[Measured]) -> float:
        return fmean(sum(outcome.bytes for outcome in one.outcomes) for one in found) / 1000

    table = kilobytes(fixed)
    yield Row("auto, at the table's mean score: files of an image", kilobytes(auto), "kB", table)
    yield Row("auto, at the table's worst tenth: files of an image", kilobytes(lean), "kB", table)


def _mean_score(found: list[Measured]) -> float:
    return fmean(outcome.score for one in found for outcome in one.outcomes)


def _by_kind(found: list[Measured]) -> dict[tuple[str, str], list[Outcome]]:
    kinds: dict[tuple[str, str], list[Outcome]] = {}
    for one in found:
        for outcome in one.outcomes:
            kinds.setdefault(outcome.kind, []).append(outcome)
    return kinds


def _fixed_table(fixed: list[Measured]) -> Iterator[Row]:
    for (size, kind), outcomes in _by_kind(fixed).items():
        score = fmean(outcome.score for outcome in outcomes)
        yield Row(f"fixed, {size} {kind}: mean score", score, "points")
        size_of = fmean(outcome.bytes for outcome in outcomes) / 1000
        yield Row(f"fixed, {size} {kind}: mean size", size_of, "kB")


def _avif_and_webp(auto: list[Measured]) -> Iterator[Row]:
    kinds = _by_kind(auto)
    for size in dict.fromkeys(size for size, _ in kinds):
        avif, webp = (
            fmean(outcome.bytes for outcome in kinds[size, kind]) / 1000
            for kind in ("avif", "webp")
        )
        yield Row(f"{size}: AVIF", avif, "kB", webp, AVIF_TO_WEBP, "ratio")
