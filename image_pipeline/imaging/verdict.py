"""Why a file is refused."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Stable codes; they are stored, shown and counted, so none is ever renamed."""

    empty_file = "empty_file"
    not_an_image = "not_an_image"
    unsupported_format = "unsupported_format"
    truncated = "truncated"
    decode_error = "decode_error"
    too_many_bytes = "too_many_bytes"
    too_many_pixels = "too_many_pixels"
    too_many_frames = "too_many_frames"
    too_many_scans = "too_many_scans"
    too_much_metadata = "too_much_metadata"
    timeout = "timeout"
    out_of_memory = "out_of_memory"
    crashed_decoder = "crashed_decoder"
    gone = "gone"
    superseded = "superseded"

    @property
    def meaning(self) -> str:
        """One line for people."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.empty_file: "The file has no bytes.",
    Reason.not_an_image: "The bytes are not those of any picture format, whatever the name says.",
    Reason.unsupported_format: "A known format that is not decoded: vector, document, RAW, video.",
    Reason.truncated: "The file ends before the picture does: an upload or a copy broke off.",
    Reason.decode_error: "The decoder found the data damaged.",
    Reason.too_many_bytes: "The file is larger than the source allows.",
    Reason.too_many_pixels: "The picture is larger than the source allows, in all or on a side.",
    Reason.too_many_frames: "The animation has more frames than the source allows.",
    Reason.too_many_scans: "A progressive JPEG made to keep decoders busy.",
    Reason.too_much_metadata: "Profiles, EXIF and comments are larger than the source allows.",
    Reason.timeout: "Working on the picture took longer than a picture may take, twice.",
    Reason.out_of_memory: "Working on the picture took more memory than a worker has, twice.",
    Reason.crashed_decoder: "The worker died on the picture, twice.",
    Reason.gone: "The object was deleted from the bucket before it was processed.",
    Reason.superseded: "The object was overwritten before it was processed; the new one counts.",
}


class Rejected(Exception):  # noqa: N818 - a verdict, not an error of ours
    """The file's own fault. ``message`` says in a sentence what is wrong with this file."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)  # both, so that it survives a pipe between processes
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"
