"""Animations that stay animations: every frame, how long it is seen and how often."""

from __future__ import annotations

import gc
import io
import struct
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from image_pipeline.imaging import rendering
from image_pipeline.imaging.animation import Film, Frame, decode_frames
from image_pipeline.imaging.metadata import find_metadata
from image_pipeline.imaging.rendering import RenderedVariant, encode, render
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits, Recipe, Size, Webp

from .builders import (
    ADOBE_RGB,
    LIMITS,
    SMALL_RECIPE,
    a_photograph,
    corners,
    encoded,
    exif_of,
    matrix_profile,
    noise,
    pixels,
    stored_for,
)

KINDS = ["GIF", "PNG", "WEBP", "AVIF"]
TIMES = [200, 70, 1000, 120]
RECIPE = SMALL_RECIPE.model_copy(update={"animation": "keep"})


def scenes(count: int = 4, size: tuple[int, int] = (160, 120)) -> list[Image.Image]:
    """A red square that goes from left to right over a coloured ground."""
    found = []
    for number in range(count):
        image = Image.new("RGB", size, (40, 90, 140))
        left = (size[0] - 40) * number // max(1, count - 1)
        image.paste((220, 30, 30), (left, 30, left + 40, 70))
        found.append(image)
    return found


def film(kind: str, frames: list[Image.Image], **options: Any) -> bytes:
    options = {"duration": TIMES[: len(frames)], "loop": 0, **options}
    if kind in ("WEBP", "AVIF"):
        options = {"quality": 95, **options}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def shown(data: bytes) -> tuple[list[Image.Image], list[int], int]:
    """Frames, milliseconds and loop count of an animated WebP, by Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        frames, times = [], []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            frames.append(image.convert("RGBA"))
            times.append(image.info["duration"])
        return frames, times, image.info["loop"]


def moving(variants: list[RenderedVariant]) -> dict[str, bytes]:
    return {one.plan.size: one.data for one in variants if one.plan.animated}


def square(frame: Image.Image) -> float:
    """Where the red square is, as a share of the width."""
    levels = pixels(frame.convert("RGB"))
    columns = np.nonzero((levels[..., 0] > 150) & (levels[..., 2] < 100))[1]
    return float(columns.mean() / frame.width)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_durations_and_sizes(kind: str) -> None:
    source = scenes()
    found = moving(render(film(kind, source), RECIPE, LIMITS))
    assert set(found) == {"medium", "small"}
    for name, size in (("medium", (128, 96)), ("small", (64, 48))):
        frames, times, _ = shown(found[name])
        assert times == TIMES
        assert [frame.size for frame in frames] == [size] * 4
        for frame, original in zip(frames, source, strict=True):
            assert abs(square(frame) - square(original)) < 0.02
            expected = pixels(original.resize(size, Image.Resampling.LANCZOS))
            assert np.abs(pixels(frame.convert("RGB")) - expected).mean() < 6


@pytest.mark.parametrize(
    ("kind", "loop", "expected"),
    [
        # GIF: the number of repetitions after the first time; none said is once.
        ("GIF", 0, 0), ("GIF", 3, 4), ("GIF", None, 1), ("GIF", 65535, 65535),
        # PNG and WebP: the number of times in all.
        ("PNG", 0, 0), ("PNG", 3, 3), ("PNG", 100_000, 65535), ("WEBP", 0, 0), ("WEBP", 3, 3),
        ("AVIF", 0, 0),
    ],
)  # fmt: skip
def test_how_often_it_is_played(kind: str, loop: int | None, expected: int) -> None:
    _, _, found = shown(moving(render(film(kind, scenes(), loop=loop), RECIPE, LIMITS))["small"])
    assert found == expected


@pytest.mark.parametrize(
    ("said", "seen"),
    [([0, 10, 20, 30], [100, 100, 20, 30]), ([11, 1, 500, 0], [11, 100, 500, 100])],
)
def test_times_that_browsers_do_not_believe(said: list[int], seen: list[int]) -> None:
    found = render(film("PNG", scenes(), duration=said), RECIPE, LIMITS)
    assert shown(moving(found)["small"])[1] == seen


def test_beside_it_stands_the_first_frame_as_jpeg() -> None:
    """Nothing else: a browser would prefer a still AVIF. The two are not compared in size."""
    variants = render(film("GIF", scenes()), RECIPE, LIMITS)
    found = {(one.plan.size, one.plan.format, one.plan.animated, one.dropped) for one in variants}
    assert {one for one in found if one[0] == "medium"} == {
        ("medium", "webp", True, False), ("medium", "jpeg", False, False)
    }  # fmt: skip
    assert {(kind, moves) for size, kind, moves, _ in found if size == "thumbnail"} == {
        ("avif", False), ("webp", False), ("jpeg", False)
    }  # fmt: skip
    by_kind = {one.plan.format: one for one in variants if one.plan.size == "medium"}
    assert by_kind["webp"].length > by_kind["jpeg"].length
    still = pixels(by_kind["jpeg"].data)
    first = shown(by_kind["webp"].data)[0][0].convert("RGB")
    assert np.abs(still - pixels(first)).mean() < 5


def test_by_default_it_is_a_still() -> None:
    variants = render(film("GIF", scenes()), SMALL_RECIPE, LIMITS)
    assert moving(variants) == {}
    assert variants == render(encoded(scenes()[0].quantize(), "PNG"), SMALL_RECIPE, LIMITS)


def test_a_long_animation_is_a_still() -> None:
    """Four frames of 160 x 120 are 0.0768 megapixels."""
    for most, moves in ((0.0769, True), (0.0767, False)):
        recipe = RECIPE.model_copy(update={"animation_megapixels": most})
        assert bool(moving(render(film("GIF", scenes()), recipe, LIMITS))) == moves


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_every_frame_is_turned_upright(kind: str, orientation: int) -> None:
    upright = [corners().resize((144, 96), Image.Resampling.NEAREST) for _ in range(2)]
    upright[1].paste("white", (60, 36, 84, 60))
    stored = [Image.fromarray(stored_for(np.asarray(one), orientation)) for one in upright]
    file = film(kind, stored, exif=exif_of(orientation))
    frames, _, _ = shown(moving(render(file, RECIPE, LIMITS))["medium"])
    for frame, original in zip(frames, upright, strict=True):
        assert frame.size == (128, 85)
        expected = pixels(original.resize((128, 85)))
        assert np.abs(pixels(frame.convert("RGB")) - expected).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_every_frame_is_converted_to_srgb(kind: str) -> None:
    """As the same frame is on its own; that this is right is tested elsewhere."""
    profile = matrix_profile(ADOBE_RGB, 2.2, "wide")
    source = [Image.new("RGB", (80, 60), colour) for colour in ("#208040", "#40c060")]
    frames = [one.image for one in decode_frames(film(kind, source, icc_profile=profile), LIMITS)]
    for frame, original in zip(frames, source, strict=True):
        alone = rendering.decode(encoded(original, "PNG", icc_profile=profile), LIMITS).image
        assert np.abs(pixels(frame) - pixels(alone)).max() <= 3
        assert np.abs(pixels(frame) - pixels(original)).max() > 10


def test_transparency_moves_without_fringes() -> None:
    """White discs on transparent magenta; nothing is pink where they are seen."""
    source = []
    for left in (20, 60, 100):
        image = Image.new("RGBA", (160, 120), (255, 0, 255, 0))
        ImageDraw.Draw(image).ellipse((left, 30, left + 50, 80), fill=(255, 255, 255, 255))
        source.append(image)
    frames, _, _ = shown(moving(render(film("PNG", source), RECIPE, LIMITS))["medium"])
    assert len(frames) == 3
    for frame in frames:
        levels = pixels(frame)
        assert levels[0, 0, 3] <= 3
        assert levels[levels[..., 3] > 100][:, 1].min() > 235


def test_gif_frames_are_seen_over_what_was_before() -> None:
    """A second frame that only draws a corner; the first stays around it."""
    first = Image.new("P", (40, 30))
    first.putpalette([200, 30, 30, 30, 30, 200])
    second = first.copy()
    second.paste(1, (0, 0, 10, 10))
    frames = list(decode_frames(film("GIF", [first, second]), LIMITS))
    assert frames[1].image.convert("RGB").getpixel((5, 5)) == (30, 30, 200)
    assert frames[1].image.convert("RGB").getpixel((30, 20)) == (200, 30, 30)


def test_the_substitute_of_an_apng_is_no_frame() -> None:
    """Viewers without animations show it; it is the still here too."""
    grey, *rest = [Image.new("RGB", (80, 60), "#909090"), *scenes(3, (80, 60))]
    file = encoded(
        grey, "PNG", save_all=True, append_images=rest, default_image=True, duration=100
    )  # fmt: skip
    variants = render(file, RECIPE, LIMITS)
    frames, _, _ = shown(moving(variants)["small"])
    assert len(frames) == 3
    assert square(frames[0]) < square(frames[1]) < square(frames[2])
    (still,) = [one for one in variants if (one.plan.size, one.plan.format) == ("small", "jpeg")]
    assert np.abs(pixels(still.data) - 0x90).max() <= 3


def test_crops_stay_where_they_are() -> None:
    """Cut where the first frame's subject is; a window that followed it would tremble."""
    size = Size(width=40, height=40, fit="cover")
    recipe = RECIPE.model_copy(update={"sizes": {"banner": size}})
    source = scenes(4, (400, 100))
    frames, _, _ = shown(moving(render(film("PNG", source), recipe, LIMITS))["banner"])
    first = pixels(frames[0].convert("RGB"))
    assert ((first[..., 0] > 150) & (first[..., 2] < 100)).any()
    last = pixels(frames[-1].convert("RGB"))
    assert not ((last[..., 0] > 150) & (last[..., 2] < 100)).any()


# ------------------------------------------------------------------------ nothing but pixels


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_frames_is_published(kind: str) -> None:
    options: dict[str, Any] = {"comment": b"PLANTED"} if kind == "GIF" else {
        "exif": exif_of(1), "xmp": b"<x:xmpmeta>PLANTED</x:xmpmeta>",
        "icc_profile": matrix_profile(ADOBE_RGB, 2.2, "PLANTED"),
    }  # fmt: skip
    for data in moving(render(film(kind, scenes(), **options), RECIPE, LIMITS)).values():
        assert find_metadata(data) == []
        assert b"PLANTED" not in data


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_file_gives_the_same_bytes(kind: str) -> None:
    file = film(kind, scenes())
    whole = render(file, RECIPE, LIMITS)
    assert whole == render(file, RECIPE, LIMITS)
    for role in ("responsive", "thumbnail"):
        own = [one for one in whole if one.plan.role == role]
        assert render(file, RECIPE, LIMITS, roles=[role]) == own


def test_options_of_the_recipe_reach_the_encoder() -> None:
    file = film("PNG", [a_photograph(160, 120, seed) for seed in range(2)])
    formats = RECIPE.formats.model_copy(update={"webp": Webp(quality=20)})
    poor = RECIPE.model_copy(update={"formats": formats})
    good = moving(render(file, RECIPE, LIMITS))["medium"]
    assert len(moving(render(file, poor, LIMITS))["medium"]) < len(good) / 2
    formats = RECIPE.formats.model_copy(update={"webp": Webp(method=0)})
    hasty = RECIPE.model_copy(update={"formats": formats})
    assert moving(render(file, hasty, LIMITS))["medium"] != good


def test_a_frame_is_as_good_as_a_still() -> None:
    picture = a_photograph(128, 96)
    made = Film((128, 96), 83, Webp(), 0)
    made.add(picture, 100)
    made.add(picture.rotate(180), 100)
    frame = shown(made.finish(b""))[0][0].convert("RGB")
    still = pixels(encode(picture, Recipe(), "webp", 83))
    error, expected = (np.mean((one - pixels(picture)) ** 2.0) for one in (pixels(frame), still))
    assert error == pytest.approx(expected, rel=0.05)


# ------------------------------------------------------------------------- limits and damage


def test_one_frame_is_in_memory_at_a_time() -> None:
    file = film("PNG", [noise(64, 48, seed=seed) for seed in range(8)], duration=100)
    seen: list[weakref.ref[Image.Image]] = []
    most = 0
    for frame in decode_frames(file, LIMITS):
        seen.append(weakref.ref(frame.image))
        del frame
        gc.collect()
        most = max(most, sum(one() is not None for one in seen))
    assert len(seen) == 8
    assert most <= 1


def test_frames_are_asked_for_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next is decoded when all sizes of the last have been encoded."""
    told: list[str] = []
    add = Film.add

    def frames(data: bytes, limits: Limits) -> Iterator[Frame]:
        for frame in decode_frames(data, limits):
            told.append("frame")
            yield frame

    def adding(film: Film, image: Image.Image, milliseconds: int) -> None:
        told.append("size")
        add(film, image, milliseconds)

    monkeypatch.setattr(rendering, "decode_frames", frames)
    monkeypatch.setattr(Film, "add", adding)
    render(film("GIF", scenes(3)), RECIPE, LIMITS)
    assert told == ["frame", "size", "size"] * 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_damage_in_a_later_frame_is_a_verdict(kind: str) -> None:
    frames = [noise(64, 48, seed=seed) for seed in range(4)]
    file = film(kind, frames)
    if kind == "WEBP":
        # The start code of the last frame's bitstream (RFC 6386, 9.1).
        at = file.rindex(b"\x9d\x01\x2a")
        file = file[:at] + b"\0\0\0" + file[at + 3 :]
    else:
        file = file[: len(file) * 9 // 10]
    with pytest.raises(Rejected) as refused:
        render(file, RECIPE, LIMITS)
    assert refused.value.reason in (Reason.truncated, Reason.decode_error)


def test_limits_hold_for_animations() -> None:
    with pytest.raises(Rejected) as refused:
        list(decode_frames(film("GIF", scenes()), Limits(frames=3)))
    assert refused.value.reason == Reason.too_many_frames


def test_a_gif_by_hand() -> None:
    """Two frames of 1 x 1, 70 and 20 hundredths of a second, repeated twice (GIF89a)."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes((255, 0, 0, 0, 0, 255))
    loop = b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", 2) + b"\0"

    def frame(hundredths: int, codes: bytes) -> bytes:
        control = b"!\xf9\x04" + struct.pack("<BHB", 0, hundredths, 0) + b"\0"
        return control + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02" + codes + b"\0"

    file = head + loop + frame(70, b"\x44\x01") + frame(20, b"\x4c\x01") + b";"
    found = list(decode_frames(file, LIMITS))
    assert [(one.milliseconds, one.loops) for one in found] == [(700, 3), (200, 3)]
    assert [one.image.convert("RGB").getpixel((0, 0)) for one in found] == [
        (255, 0, 0), (0, 0, 255)
    ]  # fmt: skip
