"""Names on the server: for every key of the bucket one path, and back. Pure.

A key may be any text of 1,024 bytes: ``../../etc/passwd``, ``CON``, ``a`` beside ``A`` and beside
``a/b``. The server may keep case or not, may be reached from Windows, and may change how accents
are composed. A path is therefore made step by step of the key, and every step so that

- it is the same for a server that does not tell ``a`` from ``A``: letters keep their case, for
  people, and ``~`` with a number says which of them are large (``IMG_1.JPG`` becomes
  ``IMG_1~1c7.JPG``, lower-case names stay as they are);
- a file is never named as a folder is: files have a dot and folders do not, and those for which
  it is the other way round say so by ``~x``;
- it is not hidden, has no control characters, none that Windows refuses and none that are
  written in two ways; those are given as ``%`` and the two digits of each of their bytes;
- it is no longer than :data:`NAME_BYTES`; longer ones become folders that end with ``~~``.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

#: Bytes of one name. Encrypted folders (eCryptfs, as common NAS have them) take 143; the
#: temporary name needs 23 beside it.
NAME_BYTES = 120

#: Where removed files lie until their time is over. No key is ever mapped to it: it is hidden.
TRASH = ".trash"

#: What Windows, and so a share that it reaches, refuses in names; and the signs of this mapping.
_REFUSED = frozenset('\\:*?"<>|%~')

#: Names of devices: Windows takes them for files nowhere.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{one}{n}" for one in ("com", "lpt") for n in range(10))}
)

_MARK = re.compile(r"~x?([0-9a-f]+)")
_ESCAPED = re.compile(rb"%([0-9a-f]{2})")


def path_of(key: str) -> str:
    """The path of an object below the mirror's folder. Always relative, never upwards."""
    *folders, file = key.split("/")
    steps = [_step(one, is_file=False) for one in folders] + [_step(file, is_file=True)]
    return "/".join(part for step in steps for part in _split(step))


def key_of(path: str) -> str:
    """The key of a path that :func:`path_of` made, whatever became of its case."""
    joined = path.replace("~~/", "")
    return "/".join(_unstep(step) for step in joined.split("/"))


def part_path(path: str, token: str) -> str:
    """Where a file is while it is sent: hidden, beside its place."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}.{name}.{token}.part"


def token_of(etag: str, sha256: str) -> str:
    """What tells parts of one version of a file from those of another (16 characters)."""
    return hashlib.sha256(f"{etag} {sha256}".encode()).hexdigest()[:16]


def _step(name: str, *, is_file: bool) -> str:
    """One step of a key as one name, of any length."""
    safe = _escape(name)
    natural = ("." in safe) == is_file
    # The digits of escapes and marks are small, so that every large letter is one of the name.
    large = sum(1 << place for place, char in enumerate(safe) if char != char.lower())
    if natural and not large:
        return safe
    mark = f"~{'' if natural else 'x'}{large:x}"
    if not (is_file and natural):
        return safe + mark
    stem, _, ending = safe.rpartition(".")
    return f"{stem}{mark}.{ending}"


def _escape(name: str) -> str:
    if not name:
        return "%"
    # Two texts in this form never become the same by composing their accents.
    keeps_accents = unicodedata.is_normalized("NFC", name)
    last = len(name) - 1
    device = name.partition(".")[0].rstrip(" ").lower() in _DEVICES
    return "".join(
        char
        if not (place == 0 and (device or char in ". "))
        and not (place == last and char in ". ")
        and _is_plain(char, keeps_accents)
        else _digits(char)
        for place, char in enumerate(name)
    )


def _is_plain(char: str, keeps_accents: bool) -> bool:
    """Whether a character may stand for itself."""
    if char.isascii():
        return char.isprintable() and char not in _REFUSED
    # Letters that are large, or that any notion of case joins with others, are not.
    has_no_twin = char == char.casefold() == char.upper().lower()
    return keeps_accents and char.isprintable() and has_no_twin


def _digits(char: str) -> str:
    return "".join(f"%{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))


def _unstep(step: str) -> str:
    mark = _MARK.search(step)
    if mark:
        step = step[: mark.start()] + step[mark.end() :]
    large = int(mark[1], 16) if mark else 0
    # Letters of no other alphabet have a case here.
    cased = "".join(
        char.upper() if large >> place & 1 else char.lower() if char.isascii() else char
        for place, char in enumerate(step)
    )
    if cased == "%":
        return ""
    data = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), cased.encode())
    return data.decode("utf-8", "surrogatepass")


def _split(step: str) -> list[str]:
    """A long name as folders that end with ``~~``, and the rest."""
    parts: list[str] = []
    while len(step.encode()) > NAME_BYTES:
        end = _fitting(step, NAME_BYTES - 2)
        parts.append(f"{step[:end]}~~")
        step = step[end:]
    return [*parts, step]


def _fitting(step: str, most: int) -> int:
    """How many characters make at most so many bytes and leave a rest that is not hidden."""
    longest = len(step.encode()[:most].decode("utf-8", "ignore"))
    for end in range(longest, longest // 2, -1):
        if not (step[end] in ". ~" or step[end - 1] == "~" or "%" in step[end - 2 : end]):
            return end
    return longest
