"""One file to the server, and off it, so that it may break off anywhere.

A file is written under a temporary name beside its place and gets its own name only when the
server has given back the same bytes. The temporary name has a token of the version, so that
whoever tries again finds what was sent of it, and goes on there.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from image_pipeline.mirror.naming import TRASH, part_path, token_of
from image_pipeline.mirror.remote import (
    PIECE,
    MirrorError,
    NotThereError,
    Remote,
    RemoteFileError,
)

Verify = Literal["content", "size"]


class DifferentBytesError(MirrorError):
    """The server gave back other bytes than it was sent; what it has of them is removed."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is to hold: ``size`` in bytes, ``sha256`` in hexadecimal."""

    etag: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sent:
    """How a file got to its place.

    ``sent`` bytes went over the wire, ``resumed`` were there from before. ``replaced`` is where
    in the trash lies what had the name until now.
    """

    sent: int = 0
    resumed: int = 0
    replaced: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The mirror's folder on the server. ``day`` (``2026-11-21``) names today's trash."""

    root: str
    day: str
    verify: Verify = "content"

    def at(self, path: str) -> str:
        """A path of the mirror as a path of the server."""
        return f"{self.root.rstrip('/')}/{path}"

    @property
    def trash(self) -> str:
        """The folder of everything that was removed."""
        return self.at(TRASH)


async def put(
    remote: Remote,
    place: Place,
    local: Path,
    path: str,
    content: Content,
    wire: AbstractAsyncContextManager[object] | None = None,
) -> Sent:
    """Make a file of the mirror hold this content, of which ``local`` is a copy.

    Nothing is sent if it does. Another file that has the name goes to the trash first. ``wire``
    is held while bytes are sent and read back. Raises what :class:`Remote` raises, and
    :class:`DifferentBytesError`.
    """
    final = place.at(path)
    part = place.at(part_path(path, token_of(content.etag, content.sha256)))
    there, begun = await asyncio.gather(remote.size(final), remote.size(part))
    async with wire or nullcontext():
        if there == content.size and await remote.digest(final, there) == content.sha256:
            return Sent()
        offset = await _offset(remote, place, local, part, begun, content)
        sent = await remote.send(local, part, offset)
        await _verify(remote, place, part, content)
    replaced = await _make_room(remote, place, path) if there is not None else None
    await _name(remote, part, final, content)
    return Sent(sent, offset, replaced)


async def to_trash(remote: Remote, place: Place, path: str) -> str | None:
    """Move a file of the mirror to today's trash; where it lies there, None if it was gone."""
    try:
        return await _moved(remote, place, path, second_name=False)
    except NotThereError:
        return None


async def erase(remote: Remote, place: Place, path: str) -> int:
    """Remove a file for good, with its parts and its copies in the trash; how many there were."""
    folder, _, name = path.rpartition("/")
    beside = await remote.names(place.at(folder))
    # Only ours are hidden like this: no key is mapped to a name with a dot in front.
    wanted = [place.at(f"{folder}/{one}") for one in beside if one.startswith(f".{name}.")]
    wanted += [place.at(path), *(f"{day}/{path}" for day in await _days(remote, place))]
    there = [one for one in wanted if await remote.size(one) is not None]
    for one in there:
        await remote.remove(one)
    return len(there)


async def erase_folder(remote: Remote, place: Place, path: str) -> int:
    """Remove a folder of the mirror for good, also from the trash; how many files it had."""
    count = 0
    for root in (place.root, *await _days(remote, place)):
        with suppress(NotThereError):
            count += await remote.remove_tree(f"{root.rstrip('/')}/{path}")
    return count


async def _days(remote: Remote, place: Place) -> list[str]:
    return [f"{place.trash}/{day}" for day in await remote.names(place.trash)]


async def purge(remote: Remote, place: Place, before: str) -> int:
    """Empty the trash of the days before ``before`` (``2026-10-22``); how many files it had.

    What is not named as a day is nobody's here and stays.
    """
    count = 0
    for name in await remote.names(place.trash):
        day = name.partition(".")[0]
        if _is_day(day) and day < before:
            count += await remote.remove_tree(f"{place.trash}/{name}")
    return count


def _is_day(name: str) -> bool:
    return len(name) == 10 and name[4] == name[7] == "-" and name.replace("-", "").isdigit()


async def _offset(
    remote: Remote, place: Place, local: Path, part: str, begun: int | None, content: Content
) -> int:
    """Where to go on with a file that was begun.

    Pieces are sent one after the other, but what a piece is cut into is not: the last piece may
    have holes and is sent again. Whether the rest is right shows when all of it is read back; if
    it is not going to be, it is read now.
    """
    if not begun or begun > content.size:
        return 0
    offset = (begun - 1) // PIECE * PIECE
    if offset and place.verify == "size":
        ours = await asyncio.to_thread(_local_digest, local, offset)
        return offset if await remote.digest(part, offset) == ours else 0
    return offset


def _local_digest(local: Path, length: int) -> str:
    digest = hashlib.sha256()
    with local.open("rb") as file:
        for offset in range(0, length, PIECE):
            digest.update(file.read(min(PIECE, length - offset)))
    return digest.hexdigest()


async def _verify(remote: Remote, place: Place, part: str, content: Content) -> None:
    size = await remote.size(part)
    if size == content.size and place.verify == "size":
        return
    if size == content.size and await remote.digest(part, size) == content.sha256:
        return
    await remote.remove(part)
    what = f"{size} bytes instead of {content.size}" if size != content.size else "other bytes"
    raise DifferentBytesError(f"{part}: the server gave back {what}")


async def _make_room(remote: Remote, place: Place, path: str) -> str | None:
    """Keep in the trash what has the name; it goes on having it where the server can do that."""
    try:
        return await _moved(remote, place, path, second_name=True)
    except NotThereError:
        return None


async def _moved(remote: Remote, place: Place, path: str, *, second_name: bool) -> str:
    """Give a file of the mirror a name in today's trash."""
    number = 1
    while True:
        day = place.day if number == 1 else f"{place.day}.{number}"
        to = f"{place.trash}/{day}/{path}"
        if await remote.size(to) is None:
            if not (second_name and await remote.keep_as(place.at(path), to)):
                await remote.move(place.at(path), to)
            return to
        number += 1


async def _name(remote: Remote, part: str, final: str, content: Content) -> None:
    try:
        await remote.replace(part, final)
    except NotThereError:
        # Another run sent the same version, and was first.
        if await remote.size(final) != content.size:
            raise RemoteFileError(f"{final}: its temporary file was removed meanwhile") from None
