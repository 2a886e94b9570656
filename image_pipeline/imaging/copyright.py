"""The copyright notice of a file as text that can be stored and shown."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

#: More is no notice. Of a longer one the beginning is kept.
MAX_CHARACTERS = 1000

#: Bytes that are looked at: room for as many characters in any encoding, and for blanks.
_MAX_BYTES = 8 * MAX_CHARACTERS

#: First bytes of an IPTC data set, and record and number of the copyright notice (IIM 4.2).
_IPTC_TAG, _IPTC_COPYRIGHT = 0x1C, (2, 116)


def notice(value: object) -> str | None:
    """A clean line of at most :data:`MAX_CHARACTERS`, or None if nothing printable is there.

    ``value`` is what stands in the file: bytes, or text whose characters are bytes. EXIF knows
    ASCII only (CIPA DC-008, tag 33432) and separates the photographer's notice from the
    editor's by a zero; files have UTF-8, UTF-16 and Latin-1 as well.
    """
    if isinstance(value, str):
        value = value[:_MAX_BYTES].encode("latin-1", "replace")
    if not isinstance(value, bytes):
        return None
    parts = (_clean(part) for part in _text(value[:_MAX_BYTES]).split("\0"))
    return "; ".join(part for part in parts if part)[:MAX_CHARACTERS].rstrip() or None


def iptc_notice(block: bytes) -> str | None:
    """The copyright notice in a block of IPTC data sets (IIM 4.2, chapter 3)."""
    for number, value in _data_sets(block):
        if number == _IPTC_COPYRIGHT:
            return notice(value)
    return None


def _data_sets(block: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Numbers and values, until something else stands there.

    Extended sizes end the walk: they are for values of more than 32 kB.
    """
    at = 0
    while at + 5 <= len(block) and block[at] == _IPTC_TAG:
        size = int.from_bytes(block[at + 3 : at + 5], "big")
        yield (block[at + 1], block[at + 2]), block[at + 5 : at + 5 + size]
        at += 5 + size


def _text(data: bytes) -> str:
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            return data[2:].decode(encoding, "ignore")
    # Latin letters in UTF-16 have a zero as every other byte.
    if len(data) > 3 and data[1::2].count(0) * 4 > len(data):
        return data.decode("utf-16-le", "ignore")
    if len(data) > 3 and data[::2].count(0) * 4 > len(data):
        return data.decode("utf-16-be", "ignore")
    try:
        # Not final: the last character may have been cut.
        return codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _clean(text: str) -> str:
    """One line without control, formatting or unpaired surrogate characters."""
    printable = (character for character in " ".join(text.split()) if character.isprintable())
    return "".join(printable).strip()
