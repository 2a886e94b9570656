"""Whose fault it is, by size and by exception; and what is kept of a good picture."""

from dataclasses import replace

import pytest

from image_pipeline.catalog import schema
from image_pipeline.catalog.uploads import Decision, Upload
from image_pipeline.imaging.fingerprint import Content, Fingerprint
from image_pipeline.imaging.inspection import Inspection
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits
from image_pipeline.stages.inspecting import (
    decision,
    image_row,
    sketch_row,
    verdict_before_download,
)
from image_pipeline.store.bucket import ObjectChangedError, ObjectGoneError, StoreError

from .helpers import NOW

LIMITS = Limits(megabytes=1.5)


def upload(size):
    return Upload(7, "photos", "key", "etag", size)


@pytest.mark.parametrize("size", [1, 1_499_999, 1_500_000])
def test_a_size_within_the_limits_decides_nothing(size):
    assert verdict_before_download(upload(size), LIMITS) is None


def test_no_bytes_are_no_picture():
    found = verdict_before_download(upload(0), LIMITS)
    assert (found.upload, found.verdict, found.reason) == (7, "rejected", "empty_file")


def test_too_many_bytes_are_not_even_downloaded():
    assert verdict_before_download(upload(1_500_001), LIMITS) == Decision(
        7, "rejected", "too_many_bytes", "1.5 MB, allowed are 1.5 MB"
    )


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        (Rejected(Reason.truncated, "ends early"), "rejected", "truncated"),
        (Rejected(Reason.crashed_decoder, "twice"), "rejected", "crashed_decoder"),
        (ObjectGoneError("key"), "rejected", "gone"),
        (ObjectChangedError("key"), "rejected", "superseded"),
        (StoreError("503"), "failed", "storage_error"),
        (ConnectionResetError("reset"), "failed", "storage_error"),
        (OSError(28, "No space left on device"), "failed", "storage_error"),
        (ValueError("a bug"), "failed", "internal_error"),
        (KeyError("a bug"), "failed", "internal_error"),
        (MemoryError(), "failed", "internal_error"),
    ],
)
def test_the_files_fault_is_final_and_ours_is_not(error, verdict, reason):
    found = decision(3, error, 1.25)
    assert (found.upload, found.verdict, found.reason) == (3, verdict, reason)
    assert found.image_id is None
    if not isinstance(error, ObjectGoneError | ObjectChangedError):
        assert found.seconds == 1.25


def test_messages_are_for_people_and_not_without_end():
    assert decision(1, Rejected(Reason.truncated, "ends early")).message == "ends early"
    assert decision(1, StoreError("503 Slow Down")).message == "StoreError: 503 Slow Down"
    assert len(decision(1, ValueError("x" * 9999)).message) == 500
    assert len(decision(1, Rejected(Reason.truncated, "x" * 9999)).message) == 500


def test_the_catalog_keeps_all_that_inspection_tells():
    content = Content(width=800, height=500, phash64=1 << 63, sketch=b"c" * 1024)
    prints = Fingerprint(
        phash64=(1 << 64) - 1, phash256="ab" * 32, dhash64=5, texture=33.5, pixels="cd" * 32,
        sketch=b"s" * 1024, chroma="80" * 32, content=content,
    )  # fmt: skip
    found = Inspection(
        format="jpeg", width=900, height=600, orientation=6, has_alpha=False, animated=True,
        lossless=False, mode="CMYK", flags=("animated",), fingerprint=prints,
        dominant_color="#102030", placeholder="data:,", frames=7, quality=83, has_profile=True,
        focal_point=(0.25, 0.75), thumbhash="3OcR",
    )  # fmt: skip
    row = image_row("ef" * 32, 1234, found, NOW)
    assert row == {
        "id": "ef" * 32, "bytes": 1234, "format": "jpeg", "width": 900, "height": 600,
        "orientation": 6, "mode": "CMYK", "has_alpha": False, "animated": True, "lossless": False,
        "flags": ["animated"], "phash64": -1, "phash256": "ab" * 32, "dhash64": 5,
        "texture": 33.5, "dominant_color": "#102030", "placeholder": "data:,", "created_at": NOW,
        "frames": 7, "quality": 83, "has_profile": True, "pixels": "cd" * 32,
        "chroma": "80" * 32,
        "content_width": 800, "content_height": 500, "content_phash64": -(1 << 63),
        "focal_x": 0.25, "focal_y": 0.75, "thumbhash": "3OcR",
        # 13, 13, 13, 13 and 12 bits, all of them set.
        "b0": 8191, "b1": 8191, "b2": 8191, "b3": 8191, "b4": 4095,
    }  # fmt: skip
    assert set(row) == {column.name for column in schema.images.c}, "no column is forgotten"
    assert sketch_row("ef" * 32, found) == {
        "image_id": "ef" * 32, "luma": b"s" * 1024, "content_luma": b"c" * 1024,
    }  # fmt: skip
    plain = replace(found, fingerprint=replace(prints, content=None))
    row = image_row("ef" * 32, 1234, plain, NOW)
    assert [row[f"content_{name}"] for name in ("width", "height", "phash64")] == [None] * 3
    assert sketch_row("ef" * 32, plain)["content_luma"] is None
