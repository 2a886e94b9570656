"""What a source takes, and the one thing that is wrong with a file it does not take. Pure."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from image_pipeline.ingest.presigning import TYPES
from image_pipeline.settings import Settings, SettingsError

#: Longest name of a file, in bytes of UTF-8: what Linux, macOS and Windows allow at most.
NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask of a source: files, bytes of each, and their media types.

    Files of more than ``multipart_bytes`` are sent in parts. Permissions work for ``minutes``.
    """

    files: int
    bytes: int
    types: tuple[str, ...]
    multipart_bytes: int
    minutes: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file is not taken: ``name``, ``empty``, ``too_large`` or ``type``, and what to do."""

    code: str
    message: str


def limits_of(settings: Settings, source: str) -> Limits:
    """The limits of a source of the intake; of its bytes the lower of intake and pipeline.

    Raises ``SettingsError`` for types that are never decoded, ``KeyError`` for a source that
    the intake does not have.
    """
    intake = settings.intake.sources[source]
    strange = [one for one in intake.types if one not in TYPES]
    if strange:
        raise SettingsError(
            f"intake.sources.{source}.types: {', '.join(strange)}: not among {', '.join(TYPES)}"
        )
    most = min(intake.megabytes, settings.sources[source].limits.megabytes)
    return Limits(
        files=intake.files,
        bytes=int(most * 1e6),
        types=intake.types or TYPES,
        multipart_bytes=int(settings.intake.multipart_megabytes * 1e6),
        minutes=intake.minutes,
    )


def refusal(limits: Limits, name: str, size: int, content_type: str) -> Refusal | None:
    """The first thing that is wrong with a file, None if it is taken. ``size`` in bytes."""
    if not _is_a_name(name):
        return Refusal("name", f"give the file a name of 1 to {NAME_BYTES} printable bytes")
    if size < 1:
        return Refusal("empty", "the file is empty: choose another one")
    if size > limits.bytes:
        return Refusal(
            "too_large",
            f"the file has {size / 1e6:,.1f} MB: make it smaller than {limits.bytes / 1e6:,g} MB",
        )
    if content_type not in limits.types:
        known = ", ".join(one.removeprefix("image/") for one in limits.types)
        return Refusal("type", f"{content_type[:100]!r} is not taken: send one of {known}")
    return None


def _is_a_name(name: str) -> bool:
    # Controls, and halves of surrogate pairs, which are no text in any encoding.
    if not name.strip() or any(unicodedata.category(one) in ("Cc", "Cs") for one in name):
        return False
    return len(name.encode("utf-8")) <= NAME_BYTES
