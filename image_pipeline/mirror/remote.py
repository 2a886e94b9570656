"""What the mirror asks of a server, whatever speaks to it, and how that may fail."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

#: Bytes sent or read before the next are. What lies before the last whole piece of a file that
#: broke off was acknowledged by the server, so that there is no hole in it.
PIECE = 1024 * 1024


class MirrorError(Exception):
    """Something of the mirror failed; the message says what, and what to do if anything."""


class ServerRefusedError(MirrorError):
    """Nobody gets in like this: the host's key, the login or the settings have to change."""


class ServerAwayError(MirrorError):
    """No connection could be made now."""


class ConnectionBrokenError(MirrorError):
    """One connection is of no use any more; another one may be."""


class RemoteFileError(MirrorError):
    """The server answered, and does not do it: no permission, disk full, quota, a folder there."""


class NotThereError(RemoteFileError):
    """There is no such file or folder."""


class Remote(Protocol):
    """One connection to the server. Used by one transfer at a time.

    Paths are those of the server. Every method raises :class:`ConnectionBrokenError` or
    :class:`RemoteFileError`.
    """

    @property
    def broken(self) -> bool:
        """Whether it is of no use any more."""

    async def size(self, path: str) -> int | None:
        """Bytes of a file; None where there is nothing."""

    async def send(self, local: Path, path: str, offset: int) -> int:
        """Write a local file from ``offset`` on, to disk; how many bytes were sent.

        With ``offset`` 0 whatever is there is replaced. Folders above are made.
        """

    async def digest(self, path: str, length: int) -> str:
        """The SHA-256 (hex) of the first so many bytes, as the server gives them back."""

    async def replace(self, path: str, to: str) -> None:
        """Rename a file; one that is there already is replaced, in one step if it can be."""

    async def keep_as(self, path: str, to: str) -> bool:
        """Give a file a second name; False where the server cannot. Folders above are made."""

    async def move(self, path: str, to: str) -> None:
        """Rename a file to a name that is free. Folders above are made."""

    async def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""

    async def remove_tree(self, path: str) -> int:
        """Remove a folder with all that is in it; how many files there were."""

    async def names(self, path: str) -> list[str]:
        """The names in a folder, in order; none where there is no folder."""

    async def free_bytes(self, path: str) -> int | None:
        """Bytes that may still be written there; None where the server does not say."""

    async def close(self) -> None:
        """End the connection."""
