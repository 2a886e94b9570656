"""Whose fault it is: the verdict behind a size and behind an exception."""

import pytest

from image_pipeline.catalog.uploads import Decision, Upload
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits
from image_pipeline.stages.inspecting import decision, verdict_before_download
from image_pipeline.store.bucket import ObjectChangedError, ObjectGoneError, StoreError

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
