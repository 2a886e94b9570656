"""Sizes, shares and foreign text in a form to be read by people."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

#: Joiners that scripts and emoji are written with; every other invisible character is shown.
_JOINERS = "\u200c\u200d"


def weight(size: int) -> str:
    """``size`` bytes in units of 1000, with two digits or more: ``9.4 kB``, ``188 kB``."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    digits = 1 if unit != "B" and value < 9.95 else 0
    return f"{value:.{digits}f}\u00a0{unit}"


def change(before: int, after: int) -> str:
    """What ``after`` is more or less than ``before``, in percent: ``-96 %``, ``+3 %``.

    Rounded towards no change, so that nothing reads as wholly gone; empty if ``before`` is 0.
    """
    if before <= 0:
        return ""
    percent = int(100 * (after - before) / before)
    sign = "\u2212" if percent < 0 else "+" if percent > 0 else "\u00b1"
    return f"{sign}{abs(percent)}\u00a0%"


def pixels(width: int, height: int) -> str:
    """``6000 x 4000`` with a real multiplication sign; a dash if the size is not known."""
    return f"{width}\u00a0\u00d7\u00a0{height}" if width > 0 and height > 0 else "\u2013"


def moment(at: datetime) -> str:
    """``21 November 2026, 08:16 UTC``; ``ValueError`` for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone cannot be shown")
    utc = at.astimezone(UTC)
    return f"{utc.day} {utc:%B %Y, %H:%M} UTC"


def visible(text: str) -> str:
    """``text`` with control and formatting characters written out as ``<U+202E>`` in guillemets.

    A file name may hold line breaks, or direction overrides that make ``gpj.exe`` read as
    ``exe.jpg`` (Unicode TR 36, bidirectional text spoofing). Lone surrogates, which have no
    UTF-8 form, are written out too.
    """
    return "".join(
        f"\u2039U+{ord(character):04X}\u203a" if _is_invisible(character) else character
        for character in text
    )


def _is_invisible(character: str) -> bool:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return hidden and character not in _JOINERS
