"""Local files named on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits
from image_pipeline.stages.tools import INTERNAL_ERROR, STORAGE_ERROR


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file and the name it goes by: its path below the folder that was named."""

    path: Path
    name: str


def distinct_files(paths: Iterable[Path]) -> Iterator[LocalFile]:
    """Files as given, folders with everything below them, each file once, in a fixed order.

    Hidden files and folders below a folder are passed over; a link to a folder is not followed.
    """
    seen: set[Path] = set()
    for path in paths:
        for file in _below(path) if path.is_dir() else [LocalFile(path, path.name)]:
            where = Path(os.path.realpath(file.path))  # Path.resolve() raises on circular links
            if where not in seen:
                seen.add(where)
                yield file


def find_files(paths: Iterable[Path]) -> Iterator[LocalFile]:
    """:func:`distinct_files`, with names of their own.

    Two files that would go by one name are a usage error: one would replace the other.
    """
    named: dict[str, Path] = {}
    for file in distinct_files(paths):
        if file.name in named:
            raise click.UsageError(
                f"{named[file.name]} and {file.path} would both be {file.name!r}:"
                " name a folder that holds both, or send them one after the other"
            )
        named[file.name] = file.path
        yield file


def check_regular(path: Path) -> None:
    """Raise :class:`Rejected` for what is no file: reading a pipe would wait for ever."""
    if not path.is_file():
        raise Rejected(Reason.not_an_image, "not a regular file")


def read_file(path: Path, limits: Limits) -> bytes:
    """The bytes of a picture file. Raises :class:`Rejected` for one that is not even read."""
    check_regular(path)
    if path.stat().st_size > limits.megabytes * 1e6:
        raise Rejected(Reason.too_many_bytes, f"more than {limits.megabytes:g} MB, not read")
    return path.read_bytes()


def failure(error: Exception | None) -> tuple[str, str]:
    """Code and message of a file that could not be used, through no fault of its own."""
    return STORAGE_ERROR if isinstance(error, OSError) else INTERNAL_ERROR, str(error)


def _below(folder: Path) -> Iterator[LocalFile]:
    for current, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(current, name)
                yield LocalFile(path, path.relative_to(folder).as_posix())
