"""Files that are not taken: what is said about them, and what they may cost."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import AvifImagePlugin, Image

from image_pipeline.imaging import decoding
from image_pipeline.imaging.decoding import decode
from image_pipeline.imaging.inspection import inspect_image
from image_pipeline.imaging.rendering import process_image, render
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits, Size

from . import hostile
from .builders import LIMITS, a_photograph, encoded, noise, pixels, recipe_of

TINY_RECIPE = recipe_of(only=Size(width=8, height=8))


def refusal(data: bytes, limits: Limits = LIMITS) -> Rejected:
    with pytest.raises(Rejected) as refused:
        inspect_image(data, limits)
    return refused.value


def verdict_on(data: bytes, limits: Limits = LIMITS) -> Rejected | None:
    try:
        inspect_image(data, limits)
    except Rejected as rejected:
        return rejected
    return None


@pytest.mark.parametrize("name", hostile.foreign())
def test_what_is_no_picture(name: str) -> None:
    data, reason = hostile.foreign()[name]
    assert refusal(data).reason is reason


@pytest.mark.parametrize("name", hostile.bombs())
def test_bombs(name: str) -> None:
    data, reason = hostile.bombs()[name]
    assert len(data) < 2_000_000
    assert refusal(data).reason is reason
    with pytest.raises(Rejected):
        render(data, TINY_RECIPE, LIMITS)


def test_bombs_go_off_in_little_memory(tmp_path: Path) -> None:
    """All of them in one process that may map 150 MB more than Python and its libraries."""
    bombs = hostile.bombs()
    for name, (data, _) in bombs.items():
        (tmp_path / name).write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-m", hostile.__name__, str(tmp_path)],
        capture_output=True, check=True, timeout=120,
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert json.loads(run.stdout) == {name: str(reason) for name, (_, reason) in bombs.items()}


class TestLimits:
    def test_bytes(self) -> None:
        data = encoded(noise(40, 40), "PNG")
        assert refusal(data, Limits(megabytes=0.001)).reason is Reason.too_many_bytes
        assert inspect_image(data, Limits(megabytes=len(data) / 1e6)).width == 40

    def test_megapixels(self) -> None:
        data = encoded(Image.new("L", (100, 100)), "PNG")
        assert inspect_image(data, Limits(megapixels=0.01)).width == 100
        assert refusal(data, Limits(megapixels=0.009_999)).reason is Reason.too_many_pixels
        # Above twice the limit, Pillow itself would speak first.
        assert refusal(data, Limits(megapixels=0.001)).reason is Reason.too_many_pixels

    def test_side(self) -> None:
        data = encoded(Image.new("L", (101, 3)), "PNG")
        assert inspect_image(data, Limits(side=101)).width == 101
        assert refusal(data, Limits(side=100)).reason is Reason.too_many_pixels

    def test_frames(self) -> None:
        frames = [Image.new("L", (8, 8), level) for level in (0, 90, 180)]
        for kind in ("GIF", "WEBP", "PNG", "AVIF"):
            data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
            assert inspect_image(data, Limits(frames=3)).animated, kind
            assert refusal(data, Limits(frames=2)).reason is Reason.too_many_frames, kind

    def test_pages_and_views_are_no_frames(self) -> None:
        pages = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 90, 180)]
        for kind in ("TIFF", "MPO", "HEIF"):
            data = encoded(pages[0], kind, save_all=True, append_images=pages[1:])
            found = inspect_image(data, Limits(frames=1))
            assert not found.animated, kind
            assert np.abs(pixels(decode(data, LIMITS).image)[4, 4] - (10, 0, 0)).max() <= 6, kind

    def test_scans_of_a_progressive_jpeg(self) -> None:
        data = encoded(noise(64, 64), "JPEG", progressive=True)
        scans = data.count(b"\xff\xda")
        assert scans > 3
        assert inspect_image(data, Limits(scans=scans)).format == "jpeg"
        assert refusal(data, Limits(scans=scans - 1)).reason is Reason.too_many_scans

    def test_a_video_behind_a_photograph_has_no_scans(self) -> None:
        """Phones append seconds of video; FF DA stands in it once in 65,536 places."""
        photograph = encoded(a_photograph(64, 48), "JPEG")
        data = photograph + b"\0\0\0\x18ftypmp42" + b"\xff\xda\x12\x34" * 500
        assert inspect_image(data, LIMITS).width == 64

    def test_scans_cannot_hide_behind_a_thumbnail_or_a_comment(self) -> None:
        """The end of an image inside a segment is not the end of the file's image."""
        bomb = hostile.scan_bomb(200)
        comment = b"\xff\xfe\0\x08" + b"\xff\xd9\xff\xd9\xff\xd9"
        assert refusal(bomb[:2] + comment + bomb[2:]).reason is Reason.too_many_scans
        second = bomb.index(b"\xff\xda", bomb.index(b"\xff\xda") + 2)
        assert refusal(bomb[:second] + comment + bomb[second:]).reason is Reason.too_many_scans

    def test_a_reserved_marker_cannot_hide_scans(self) -> None:
        """Decoders step over FF 02 alone when they look for a restart, not over a segment."""
        bomb = hostile.scan_bomb(200)
        second = bomb.index(b"\xff\xda", bomb.index(b"\xff\xda") + 2)
        # Eight bytes on there seems to be an end; it is the inside of a comment.
        lure = b"\xff\x02\0\x08\xff\xfe\0\x06ab\xff\xd9"
        hidden = bomb[:second] + lure + bomb[second:]
        assert refusal(hidden).reason is Reason.too_many_scans

    def test_pillow_is_limited_while_it_decodes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[int | None, int]] = []
        original = decoding._header

        def spy(*arguments: Any) -> decoding.Header:
            seen.append((Image.MAX_IMAGE_PIXELS, AvifImagePlugin.DEFAULT_MAX_THREADS))
            return original(*arguments)

        monkeypatch.setattr(decoding, "_header", spy)
        inspect_image(encoded(noise(32, 32), "AVIF"), Limits(megapixels=1.5))
        assert seen == [(1_500_000, 1)]

    def test_pillow_is_left_as_it_was(self) -> None:
        before = Image.MAX_IMAGE_PIXELS, AvifImagePlugin.DEFAULT_MAX_THREADS
        inspect_image(encoded(noise(8, 8), "PNG"), Limits(megapixels=1))
        refusal(hostile.bombs()["png 30,000 x 30,000"][0])
        assert before == (Image.MAX_IMAGE_PIXELS, AvifImagePlugin.DEFAULT_MAX_THREADS)


# ----------------------------------------------------------------------------------- truncation


@cache
def whole_files() -> dict[str, bytes]:
    picture = a_photograph(160, 120)
    return {
        "jpeg": encoded(picture, "JPEG", quality=90),
        "jpeg progressive": encoded(picture, "JPEG", quality=90, progressive=True),
        "png": encoded(picture, "PNG"),
        "webp": encoded(picture, "WEBP"),
        "webp lossless": encoded(picture, "WEBP", lossless=True),
        "gif": encoded(picture, "GIF"),
        "tiff": encoded(picture, "TIFF"),
        "tiff lzw": encoded(picture, "TIFF", compression="tiff_lzw"),
        "avif": encoded(picture, "AVIF"),
        "heif": encoded(picture, "HEIF"),
        "bmp": encoded(picture, "BMP"),
    }


@pytest.mark.parametrize("name", whole_files())
def test_a_cut_file_is_refused(name: str) -> None:
    data = whole_files()[name]
    assert inspect_image(data, LIMITS).width == 160
    reasons = []
    for tenth in range(1, 10):
        cut = data[: len(data) * tenth // 10]
        reasons.append(refusal(cut).reason)
        with pytest.raises(Rejected):
            render(cut, TINY_RECIPE, LIMITS)
    # Whoever reads "truncated" uploads the file again; nothing else helps here.
    assert reasons == [Reason.truncated] * 9


@pytest.mark.parametrize("name", whole_files())
def test_a_file_without_its_last_bytes(name: str) -> None:
    """Refused, or every pixel was there."""
    data = whole_files()[name]
    for missing in (1, 2, 3, 8, 12):
        refused = verdict_on(data[:-missing])
        if refused is None:
            found = decode(data[:-missing], LIMITS).image
            assert np.array_equal(pixels(found), pixels(decode(data, LIMITS).image))
        else:
            assert refused.reason is Reason.truncated


@pytest.mark.parametrize("name", whole_files())
def test_headers_cut_anywhere(name: str) -> None:
    data = whole_files()[name]
    for length in range(1, 48):
        assert refusal(data[:length]).reason in (
            Reason.truncated,
            Reason.decode_error,
            Reason.not_an_image,
            Reason.unsupported_format,
        )


# -------------------------------------------------------------------------------------- mutation


def small_files() -> list[bytes]:
    grey, colour = noise(24, 18, seed=1).convert("L"), noise(24, 18, seed=2)
    frames = [noise(9, 7, seed=seed) for seed in (3, 4)]
    return [
        encoded(colour, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
        encoded(grey, "JPEG", progressive=True),
        encoded(colour.convert("CMYK"), "JPEG"),
        encoded(colour.convert("P"), "PNG", transparency=3),
        encoded(colour, "WEBP"),
        encoded(noise(24, 18, 4), "WEBP", lossless=True),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        encoded(colour, "TIFF", compression="tiff_lzw"),
        encoded(grey, "TIFF"),
        encoded(colour, "AVIF"),
        encoded(colour, "HEIF"),
        encoded(colour, "BMP"),
    ]


FILES = small_files()


@given(
    which=st.integers(0, len(FILES) - 1),
    changes=st.lists(
        st.tuples(st.integers(0, 10**6), st.binary(max_size=6)), min_size=1, max_size=8
    ),
    kept=st.floats(0.05, 1),
    twice=st.booleans(),
)
@settings(max_examples=400)
@example(which=0, changes=[(2, b"")], kept=1.0, twice=False)
def test_a_damaged_file_gets_an_answer(
    which: int, changes: list[tuple[int, bytes]], kept: float, twice: bool
) -> None:
    data = bytearray(FILES[which])
    for place, replaced in changes:
        at = place % len(data)
        data[at : at + len(replaced)] = replaced
    mutant = bytes(data[: max(1, int(len(data) * kept))]) * (2 if twice else 1)
    limits = Limits(megapixels=0.1)  # a damaged header may ask for the whole allowance
    refused = verdict_on(mutant, limits)
    if refused is None:
        assert render(mutant, TINY_RECIPE, limits)
        return
    assert refused.reason.meaning
    assert refused.message.isprintable()
    assert len(refused.message) <= 300
    with pytest.raises(Rejected):
        render(mutant, TINY_RECIPE, limits)


@pytest.mark.parametrize("which", range(len(FILES)))
def test_flipped_bits(which: int) -> None:
    """100 bits of every file, one at a time, half of them among its first 300 bytes."""
    whole = FILES[which]
    places = np.random.default_rng(which)
    limits = Limits(megapixels=0.1)
    for turn in range(100):
        mutant = bytearray(whole)
        reach = len(whole) if turn % 2 else min(300, len(whole))
        mutant[int(places.integers(reach))] ^= 1 << int(places.integers(8))
        try:
            decoded = decode(bytes(mutant), limits)
        except Rejected as rejected:
            said = rejected.message
        else:
            said = decoded.image.mode
        assert said.isprintable()


# ---------------------------------------------------------------------------------------- verdicts


class TestVerdict:
    def test_every_reason_has_a_meaning_of_its_own(self) -> None:
        meanings = [reason.meaning for reason in Reason]
        assert len(set(meanings)) == len(Reason)
        assert all(meaning.endswith(".") for meaning in meanings)

    def test_survives_pickling(self) -> None:
        for reason in Reason:
            found = pickle.loads(pickle.dumps(Rejected(reason, "300 x 200 pixels")))
            assert (found.reason, found.message) == (reason, "300 x 200 pixels")
            assert str(found) == f"{reason.value}: 300 x 200 pixels"

    def test_a_processed_image_survives_pickling(self) -> None:
        found = process_image(encoded(noise(20, 20), "PNG"), TINY_RECIPE, LIMITS)
        assert pickle.loads(pickle.dumps(found)) == found

    def test_messages_do_not_quote_addresses_or_control_characters(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "0x" not in refusal(b"GIF89a" + bytes(3)).message

        def fail(*_: Any, **__: Any) -> None:
            raise ValueError("bad chunk \x1b[31m\n\ud800" + "x" * 1000)

        monkeypatch.setattr(decoding, "_header", fail)
        message = refusal(encoded(noise(8, 8), "PNG")).message
        assert message.isprintable()
        assert message.startswith("PNG: bad chunk ?[31m??xx")
        assert len(message) == 300

    def test_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(decoding, "_header", fail)
        assert refusal(encoded(noise(8, 8), "PNG")).reason is Reason.out_of_memory

    def test_the_same_file_gets_the_same_words(self) -> None:
        for name, data in whole_files().items():
            said = [str(refusal(data[: len(data) // 2])) for _ in range(2)]
            assert all(one == other for one, other in pairwise(said)), name
