from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from image_pipeline.delivery import wording


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (188_400, "188 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (48_200_000, "48 MB"),
        (3_210_000_000, "3.2 GB"),
        (5_000_000_000_000_000, "5000 TB"),
    ],
)
def test_weights(size: int, text: str) -> None:
    assert wording.weight(size) == text.replace(" ", "\u00a0")


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (1000, 40, "−96 %"),
        (1000, 1, "−99 %"),
        (1000, 1000, "±0 %"),
        (1000, 1035, "+3 %"),
        (1000, 0, "−100 %"),
        (0, 5, ""),
    ],
)
def test_changes(before: int, after: int, text: str) -> None:
    assert wording.change(before, after) == text.replace(" ", "\u00a0")


def test_pixels_that_are_not_known_are_a_dash() -> None:
    assert wording.pixels(6000, 4000) == "6000\u00a0×\u00a04000"
    assert wording.pixels(0, 0) == "–"


def test_moments_are_in_utc() -> None:
    east = datetime(2026, 11, 1, 1, 5, tzinfo=timezone(timedelta(hours=2)))
    assert wording.moment(east) == "31 October 2026, 23:05 UTC"
    with pytest.raises(ValueError, match="zone"):
        wording.moment(east.replace(tzinfo=None))
    assert wording.moment(datetime(2026, 3, 9, 8, 6, tzinfo=UTC)) == "9 March 2026, 08:06 UTC"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sea.jpg", "sea.jpg"),
        ("תמונה ים.jpg", "תמונה ים.jpg"),
        ("\U0001f468\u200d\U0001f469.jpg", "\U0001f468\u200d\U0001f469.jpg"),
        ("a\u202egpj.exe", "a‹U+202E›gpj.exe"),
        ("a\nb\r\t\x00", "a‹U+000A›b‹U+000D›‹U+0009›‹U+0000›"),
        ("\u2066\u2028\ufeff", "‹U+2066›‹U+2028›‹U+FEFF›"),
        ("\ud800", "‹U+D800›"),
    ],
)
def test_invisible_characters_are_shown(text: str, shown: str) -> None:
    assert wording.visible(text) == shown
