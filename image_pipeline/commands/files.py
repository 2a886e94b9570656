"""Local files named on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file and the name it goes by: its path below the folder that was named."""

    path: Path
    name: str


def find_files(paths: Iterable[Path]) -> Iterator[LocalFile]:
    """Files as given, folders with everything below them, each file once, in a fixed order.

    Hidden files and folders below a folder are passed over; a link to a folder is not followed.
    Two files that would go by one name are a usage error: one would replace the other.
    """
    seen: set[Path] = set()
    named: dict[str, Path] = {}
    for path in paths:
        for file in _below(path) if path.is_dir() else [LocalFile(path, path.name)]:
            where = Path(os.path.realpath(file.path))  # Path.resolve() raises on circular links
            if where in seen:
                continue
            if file.name in named:
                raise click.UsageError(
                    f"{named[file.name]} and {file.path} would both be {file.name!r}:"
                    " name a folder that holds both, or send them one after the other"
                )
            seen.add(where)
            named[file.name] = file.path
            yield file


def _below(folder: Path) -> Iterator[LocalFile]:
    for current, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(current, name)
                yield LocalFile(path, path.relative_to(folder).as_posix())
