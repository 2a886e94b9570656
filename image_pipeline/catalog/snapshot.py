"""The Hamming index of a catalog on local disk, so that a run need not read every hash again.

A snapshot is a copy that may be lost at any time: whoever finds none, or none that is good,
builds the index from the catalog. So nothing is synced to disk: what a crash leaves half
written is refused by its checksum.

One file: a prefix of 16 bytes (magic, length and CRC-32 of the header), the header as JSON,
then the arrays, each at a multiple of 64 bytes.
"""

from __future__ import annotations

import json
import mmap
import secrets
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from image_pipeline.dedupe.index import LAYOUT, HammingIndex

#: Of the file; changes whenever a reader of the former one would misread it.
VERSION = 1

MAGIC = b"HAMINDEX"
PREFIX = struct.Struct("<8sII")

#: Bytes; a cache line, and what numpy's own files use.
ALIGNMENT = 64

#: A header of three arrays has a few hundred bytes. Beyond this the length itself is damaged.
MAX_HEADER_BYTES = 1 << 20

#: Read at a time for the checksum: large enough for the disk, small in memory.
BLOCK_BYTES = 1 << 20

#: A draft this old belongs to a process that was killed: 320 MB are written within seconds.
ABANDONED_SECONDS = 3600.0

NUMBERS = "numbers"
INDEX = "index."


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An index as it was saved, mapped into memory.

    ``numbers``: int64 (n,), the ``members.number`` of every row of ``index``. ``last_number``
    is the greatest of them, 0 if there are none: what came later is not in the index.
    """

    index: HammingIndex
    numbers: NDArray[np.int64]
    last_number: int


def save(
    folder: Path, name: str, index: HammingIndex, numbers: NDArray[np.int64], token: str
) -> Path:
    """Write a snapshot in place of the one of this name; the path of its file.

    ``numbers``: int64 (n,), one for every row of ``index``. ``token`` tells one catalog from
    another. Several processes may save at once: the file is that of one of them, whole.

    Raises ValueError if there is not one number for every row, OSError if the disk is full.
    """
    if numbers.shape != (len(index),):
        raise ValueError(f"{len(index)} rows, but numbers of shape {numbers.shape}")
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, name)
    _remove_abandoned(path)
    arrays: dict[str, NDArray[Any]] = {NUMBERS: numbers}
    arrays |= {f"{INDEX}{key}": array for key, array in index.arrays().items()}
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with draft.open("xb") as file:
            file.write(_header(arrays, _covered(numbers), token))
            for block in _blocks(arrays):
                file.write(block)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return path


def load(folder: Path, name: str, token: str) -> Snapshot | None:
    """The snapshot of this name, or None if there is none that can be used.

    A file that is damaged or cut, or of another version or catalog, is none. The whole file is
    read for its checksum: that takes 0.15 s for 10 million hashes (320 MB) once the system has
    it in memory, and a batch of lookups needs most of it anyway. The arrays are read-only and
    stay good when the file is replaced.
    """
    with suppress(OSError), _path(folder, name).open("rb") as file:
        return _opened(file, token)
    return None


def _path(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.hashes"


def _remove_abandoned(path: Path) -> None:
    now = time.time()
    for draft in path.parent.glob(f"{path.name}.*.part"):
        # Another saver may be quicker.
        with suppress(FileNotFoundError):
            if now - draft.stat().st_mtime > ABANDONED_SECONDS:
                draft.unlink()


def _covered(numbers: NDArray[np.int64]) -> tuple[int, int]:
    """The least and the greatest number."""
    return (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)


def _header(arrays: Mapping[str, NDArray[Any]], covered: tuple[int, int], token: str) -> bytes:
    """Prefix and header, up to where the arrays begin."""
    checksum = 0
    for block in _blocks(arrays):
        checksum = zlib.crc32(block, checksum)
    header = {
        "version": VERSION,
        "layout": LAYOUT,
        "token": token,
        "first_number": covered[0],
        "last_number": covered[1],
        "crc32": checksum,
        "arrays": {name: [array.dtype.str, array.shape] for name, array in arrays.items()},
    }
    text = json.dumps(header).encode()
    text += b" " * (-(PREFIX.size + len(text)) % ALIGNMENT)
    return PREFIX.pack(MAGIC, len(text), zlib.crc32(text)) + text


def _blocks(arrays: Mapping[str, NDArray[Any]]) -> Iterator[memoryview]:
    """The bytes of the arrays, each filled up to a multiple of the alignment."""
    for array in arrays.values():
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        yield memoryview(bytes(-array.nbytes % ALIGNMENT))


def _opened(file: BufferedReader, token: str) -> Snapshot | None:
    header = _read_header(file)
    if header is None or header["token"] != token:
        return None
    begin = file.tell()
    if not _content_is_good(file, header):
        return None
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape) in header["arrays"].items():
        arrays[name] = np.ndarray(shape, np.dtype(dtype), buffer=content, offset=begin)
        begin += arrays[name].nbytes + -arrays[name].nbytes % ALIGNMENT
    numbers = arrays.pop(NUMBERS)
    index = HammingIndex(**{name.removeprefix(INDEX): one for name, one in arrays.items()})
    return Snapshot(index, numbers, header["last_number"])


def _read_header(file: BufferedReader) -> dict[str, Any] | None:
    """The header, if it is whole and of this version; the file then stands behind it."""
    prefix = file.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    magic, length, checksum = PREFIX.unpack(prefix)
    if magic != MAGIC or length > MAX_HEADER_BYTES:
        return None
    text = file.read(length)
    if len(text) < length or zlib.crc32(text) != checksum:
        return None
    header: dict[str, Any] = json.loads(text)
    written = (header["version"], header["layout"])
    return header if written == (VERSION, LAYOUT) else None


def _content_is_good(file: BufferedReader, header: Mapping[str, Any]) -> bool:
    # Read, not mapped: what was only checked is then no memory of this process.
    checksum = 0
    while block := file.read(BLOCK_BYTES):
        checksum = zlib.crc32(block, checksum)
    return bool(checksum == header["crc32"])
