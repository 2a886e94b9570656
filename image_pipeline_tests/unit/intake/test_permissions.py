"""What a source takes: the rules of intake and pipeline together, one reason for each file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.ingest.presigning import TYPES
from image_pipeline.intake.permissions import Limits, limits_of, refusal
from image_pipeline.settings import Intake, IntakeSource, Settings, SettingsError, Source

LIMITS = Limits(20, 1000, ("image/jpeg", "image/png"), 25_000_000, 15.0)


def make(source=None, **intake):
    return Settings(
        sources={"photos": Source(prefix="uploads/photos/", **(source or {}))},
        intake=Intake(sources={"photos": IntakeSource(anonymous=True, **intake)}),
    )


def test_the_defaults():
    limits = limits_of(make(), "photos")
    assert limits == Limits(20, 50_000_000, TYPES, 25_000_000, 15.0)


@pytest.mark.parametrize(
    ("intake", "source", "expected"), [(30, 64, 30e6), (64, 30, 30e6), (0.5, 30, 500_000)]
)
def test_the_lower_limit_of_bytes_counts(intake, source, expected):
    settings = make({"limits": {"megabytes": source}}, megabytes=intake)
    assert limits_of(settings, "photos").bytes == expected


def test_types_that_nobody_decodes_are_a_mistake_of_the_settings():
    assert limits_of(make(types=("image/png",)), "photos").types == ("image/png",)
    with pytest.raises(SettingsError, match=r"photos\.types: image.svg"):
        limits_of(make(types=("image/png", "image/svg+xml")), "photos")


@pytest.mark.parametrize(
    ("name", "size", "kind", "code"),
    [
        ("a.jpg", 1, "image/jpeg", None),
        ("a.jpg", 1000, "image/png", None),
        ("a.jpg", 1001, "image/png", "too_large"),
        ("a.jpg", 0, "image/png", "empty"),
        ("a.jpg", 1, "image/gif", "type"),
        ("a.jpg", 1, "", "type"),
        ("a.jpg", 1, "image/jpeg; charset=x", "type"),
        ("", 1, "image/png", "name"),
        ("  ", 1, "image/png", "name"),
        ("a\x00.jpg", 1, "image/png", "name"),
        ("a\n.jpg", 1, "image/png", "name"),
        ("\ud800.jpg", 1, "image/png", "name"),
        ("é" * 127 + "a", 1, "image/png", None),
        ("é" * 128, 1, "image/png", "name"),
        ("../../x", 1, "image/png", None),
        # Of several mistakes, one: the name, then the size, then the type.
        ("", 0, "", "name"),
        ("a", 5000, "", "too_large"),
    ],
)
def test_one_reason_for_each_file(name, size, kind, code):
    found = refusal(LIMITS, name, size, kind)
    assert (found.code if found else None) == code
    if found:
        assert found.message


@given(st.text(max_size=300), st.integers(0, 2000), st.text(max_size=50) | st.sampled_from(TYPES))
def test_nothing_is_taken_that_breaks_a_limit(name, size, kind):
    if refusal(LIMITS, name, size, kind) is None:
        assert 1 <= size <= 1000
        assert kind in LIMITS.types
        assert 0 < len(name.encode()) <= 255
