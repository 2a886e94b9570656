"""Qualities that are found instead of set."""

from __future__ import annotations

import io
from collections import Counter
from functools import cache, partial

import numpy as np
import pytest
from PIL import Image

from image_pipeline.imaging import autoquality
from image_pipeline.imaging.autoquality import MOST_ENCODES, choose_qualities, sheet_of
from image_pipeline.imaging.recipe import PlannedVariant, plan_variants
from image_pipeline.imaging.rendering import encode
from image_pipeline.imaging.scoring import score
from image_pipeline.settings import FormatName, Size

from .builders import a_photograph, noise, recipe_of

#: Sizes as large as the scene, between it and the small probe, and below that.
RECIPE = recipe_of(
    large=Size(width=1152, height=768),
    between=Size(width=800, height=600),
    small=Size(width=480, height=360),
)
KINDS: tuple[FormatName, ...] = ("avif", "webp", "jpeg")


class Encoder:
    """Encodes as the renderer does and remembers what it was asked."""

    def __init__(self) -> None:
        self.tries: list[tuple[tuple[int, int], FormatName, int]] = []

    def __call__(self, picture: Image.Image, kind: FormatName, quality: int) -> bytes:
        self.tries.append((picture.size, kind, quality))
        return encode(picture, RECIPE, kind, quality)


@cache
def a_scene() -> Image.Image:
    """Large enough for a sheet of tiles, with something fine and something smooth in it."""
    return a_photograph(1152, 768, seed=4)


def plans_for(picture: Image.Image) -> list[PlannedVariant]:
    return plan_variants(RECIPE, *picture.size)


@cache
def chosen(target: float) -> tuple[PlannedVariant, ...]:
    plans = plans_for(a_scene())
    return tuple(choose_qualities(a_scene(), plans, target, partial(_encode)))


def _encode(picture: Image.Image, kind: FormatName, quality: int) -> bytes:
    return encode(picture, RECIPE, kind, quality)


def as_encoded(picture: Image.Image, plan: PlannedVariant) -> tuple[Image.Image, Image.Image]:
    """The picture of a plan before and after it was encoded."""
    resized = picture.resize((plan.width, plan.height), Image.Resampling.LANCZOS)
    data = encode(resized, RECIPE, plan.format, plan.quality)
    with Image.open(io.BytesIO(data)) as opened:
        return resized, opened.convert("RGB")


@pytest.mark.parametrize("target", [65.0, 80.0])
def test_every_size_and_format_reaches_the_target(target: float) -> None:
    for plan in chosen(target):
        assert score(*as_encoded(a_scene(), plan)) == pytest.approx(target, abs=2.5), plan


def test_only_the_qualities_change() -> None:
    plans = plans_for(a_scene())
    for before, after in zip(plans, chosen(80.0), strict=True):
        assert before.quality != after.quality
        assert (before.role, before.size, before.format, before.width, before.height) == (
            after.role, after.size, after.format, after.width, after.height,
        )  # fmt: skip


def test_better_costs_quality_at_every_size() -> None:
    for worse, better in zip(chosen(65.0), chosen(80.0), strict=True):
        assert worse.quality < better.quality


@pytest.mark.parametrize("target", [40.0, 75.0, 95.0])
@pytest.mark.parametrize("size", [(300, 200), (1152, 768)])
def test_no_format_is_tried_too_often_nor_on_large_pictures(
    size: tuple[int, int], target: float
) -> None:
    picture, encoder = a_photograph(*size, seed=4), Encoder()
    choose_qualities(picture, plans_for(picture), target, encoder)
    for kind in KINDS:
        tries = [(pixels, quality) for pixels, each, quality in encoder.tries if each == kind]
        assert 1 <= len(tries) <= MOST_ENCODES
        assert len(set(tries)) == len(tries)
        assert all(width * height <= 640 * 480 for (width, height), _ in tries)


@pytest.mark.parametrize("size", [(300, 200), (1152, 768)])
def test_an_encoder_that_misleads_is_not_tried_more_often(size: tuple[int, int]) -> None:
    picture, tries = a_photograph(*size, seed=4), Counter[FormatName]()

    def never_right(probe: Image.Image, kind: FormatName, quality: int) -> bytes:
        tries[kind] += 1
        return encode(probe, RECIPE, kind, (5, 90, 40, 60)[tries[kind] % 4])

    choose_qualities(picture, plans_for(picture), 75.0, never_right)
    assert tries == dict.fromkeys(KINDS, MOST_ENCODES)


def test_only_formats_that_are_planned_are_tried() -> None:
    encoder = Encoder()
    plans = [plan for plan in plans_for(a_scene()) if plan.format == "webp"]
    found = choose_qualities(a_scene(), plans, 75.0, encoder)
    assert {kind for _, kind, _ in encoder.tries} == {"webp"}
    assert [plan.format for plan in found] == ["webp"] * len(plans)
    assert found == [plan for plan in chosen(75.0) if plan.format == "webp"]


def test_the_same_picture_gets_the_same_qualities() -> None:
    again = choose_qualities(a_scene().copy(), plans_for(a_scene()), 80.0, _encode)
    assert tuple(again) == chosen(80.0)


def test_noise_never_looks_the_same_and_gets_the_highest_qualities() -> None:
    found = choose_qualities(noise(480, 360), plans_for(noise(480, 360)), 95.0, _encode)
    highest = {"jpeg": 95, "webp": 97, "avif": 88}
    assert all(plan.quality == highest[plan.format] for plan in found)


def test_an_even_plane_always_looks_the_same_and_gets_low_qualities() -> None:
    plane = Image.new("RGB", (900, 700), (90, 120, 60))
    for plan in choose_qualities(plane, plans_for(plane), 75.0, _encode):
        assert 25 <= plan.quality <= 35


def test_a_picture_too_small_to_score_keeps_its_qualities() -> None:
    picture, encoder = noise(7, 300), Encoder()
    plans = plans_for(picture)
    assert choose_qualities(picture, plans, 75.0, encoder) == plans
    assert encoder.tries == []


@pytest.mark.parametrize("size", [(8, 8), (9, 4000), (2000, 160), (5000, 8)])
def test_slivers_are_served_too(size: tuple[int, int]) -> None:
    picture = noise(*size)
    found = choose_qualities(picture, plans_for(picture), 60.0, _encode)
    assert all(1 <= plan.quality <= 97 for plan in found)


def test_the_sheet_of_an_even_plane_is_even() -> None:
    sheet = sheet_of(Image.new("RGB", (1300, 900), (10, 130, 250)))
    assert sheet.size == (528, 528)
    assert sheet.getcolors() == [(528 * 528, (10, 130, 250))]


def test_the_sheet_shows_every_part_of_the_picture_as_it_is() -> None:
    across, down = np.meshgrid(np.arange(2048) // 8, np.arange(1024) // 4)
    levels = np.stack([across, down, across], 2).astype(np.uint8)
    sheet = np.asarray(sheet_of(Image.fromarray(levels)))
    for row in range(4):
        for column in range(4):
            # Within the fades, 112 px of a tile are left alone; it comes from the middle of its
            # sixteenth of the picture, moved by less than a block.
            inner = sheet[row * 128 + 16 : row * 128 + 128, column * 128 + 16 : column * 128 + 128]
            left = (column * 512 + 256 - 72) // 16 * 16 + 16
            top = (row * 256 + 128 - 72) // 16 * 16 + 16
            assert (inner == levels[top : top + 112, left : left + 112]).all()


def test_thin_pictures_give_thin_tiles() -> None:
    assert sheet_of(noise(2000, 100)).size == (528, 4 * 84 + 16)


def test_scores_of_the_median_picture_rise_with_quality() -> None:
    for kind in KINDS:
        qualities, scores = zip(*autoquality._TYPICAL[kind], strict=True)
        assert list(qualities) == sorted(set(qualities))
        assert list(scores) == sorted(set(scores))
