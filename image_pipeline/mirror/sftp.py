"""SFTP by asyncssh, which is imported nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from image_pipeline.mirror.remote import (
    PIECE,
    ConnectionBrokenError,
    NotThereError,
    RemoteFileError,
    ServerAwayError,
    ServerRefusedError,
)
from image_pipeline.settings import Mirror

try:
    import asyncssh
except ImportError:  # pragma: no cover - the extra is part of every test environment
    raise ServerRefusedError(
        "the mirror needs asyncssh: install the extra 'image-pipeline[mirror]'"
    ) from None

#: Seconds of silence until the server is asked whether it is still there, and how often in vain.
_KEEPALIVE = 15
_KEEPALIVES = 3

#: The fastest first where a processor has AES instructions (any of the last ten years); asyncssh
#: itself would begin with ChaCha20, at half the speed.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr",
            "chacha20-poly1305@openssh.com")  # fmt: skip

_MISSING = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
_LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)


class Sftp:
    """A connection to an SFTP server; see :class:`~image_pipeline.mirror.remote.Remote`.

    ``folders`` are those that are known to be there, shared by all connections of a run.
    """

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        client: asyncssh.SFTPClient,
        timeout: float,
        folders: set[str],
    ) -> None:
        self._connection = connection
        self._client = client
        self._timeout = timeout
        self._folders = folders
        self._failed = False
        self._silent = False

    @property
    def broken(self) -> bool:
        """Whether it is of no use any more."""
        return self._failed or self._connection.is_closed()

    async def size(self, path: str) -> int | None:
        """Bytes of a file; None where there is nothing."""
        try:
            async with self._asking(path):
                found = await self._client.lstat(path)
        except NotThereError:
            return None
        if found.type not in (asyncssh.FILEXFER_TYPE_REGULAR, asyncssh.FILEXFER_TYPE_UNKNOWN):
            raise RemoteFileError(f"{path}: is there, and is no file")
        return found.size

    async def send(self, local: Path, path: str, offset: int) -> int:
        """Write a local file from ``offset`` on, to disk; how many bytes were sent."""
        await self._make_folder(_folder(path))
        mode = "r+b" if offset else "wb"
        sent = 0
        async with self._asking(path):
            file = await self._client.open(path, mode, encoding=None)
        try:
            with local.open("rb") as source:
                source.seek(offset)
                while piece := source.read(PIECE):
                    async with self._asking(path):
                        await file.write(piece, offset + sent)
                    sent += len(piece)
            await self._to_disk(file, path)
        finally:
            await self._close(file, path)
        return sent

    async def digest(self, path: str, length: int) -> str:
        """The SHA-256 (hex) of the first so many bytes, as the server gives them back."""
        digest = hashlib.sha256()
        async with self._asking(path):
            file = await self._client.open(path, "rb", encoding=None)
        try:
            for offset in range(0, length, PIECE):
                async with self._asking(path):
                    piece: Any = await file.read(min(PIECE, length - offset), offset)
                digest.update(piece)
        finally:
            await self._close(file, path)
        return digest.hexdigest()

    async def replace(self, path: str, to: str) -> None:
        """Rename a file; one that is there already is replaced, in one step if it can be."""
        try:
            async with self._asking(to):
                await self._client.posix_rename(path, to)
        except _NotOfferedError:
            await self._replace_in_steps(path, to)

    async def keep_as(self, path: str, to: str) -> bool:
        """Give a file a second name; False where the server cannot. Folders above are made."""
        await self._make_folder(_folder(to))
        try:
            async with self._asking(to):
                await self._client.link(path, to)
        except NotThereError:
            raise
        except RemoteFileError:
            # Also where the file system has no second names, as exFAT: servers only say "Failure".
            return False
        return True

    async def move(self, path: str, to: str) -> None:
        """Rename a file to a name that is free. Folders above are made."""
        await self._make_folder(_folder(to))
        async with self._asking(to):
            await self._client.rename(path, to)

    async def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with contextlib.suppress(NotThereError):
            async with self._asking(path):
                await self._client.remove(path)

    async def remove_tree(self, path: str) -> int:
        """Remove a folder with all that is in it; how many files there were."""
        count = 0
        async with self._asking(path):
            found = await self._client.readdir(path)
        for one in found:
            below = f"{path}/{one.filename!s}"
            if one.filename in (".", ".."):
                continue
            if one.attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY:
                count += await self.remove_tree(below)
            else:
                await self.remove(below)
                count += 1
        with contextlib.suppress(NotThereError):
            async with self._asking(path):
                await self._client.rmdir(path)
        self._folders.discard(path)
        return count

    async def names(self, path: str) -> list[str]:
        """The names in a folder, in order; none where there is no folder."""
        try:
            async with self._asking(path):
                found = await self._client.listdir(path)
        except NotThereError:
            return []
        return sorted(name for name in found if name not in (".", ".."))

    async def free_bytes(self, path: str) -> int | None:
        """Bytes that may still be written there; None where the server does not say."""
        try:
            async with self._asking(path):
                found = await self._client.statvfs(path)
        except RemoteFileError:
            return None
        return found.bavail * found.frsize

    async def close(self) -> None:
        """End the connection."""
        self._client.exit()
        self._connection.close()
        with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._connection.wait_closed()

    async def _make_folder(self, path: str) -> None:
        if path in self._folders or path in ("", "/"):
            return
        try:
            await self._mkdir(path)
        except NotThereError:
            await self._make_folder(_folder(path))
            await self._mkdir(path)
        self._folders.add(path)

    async def _mkdir(self, path: str) -> None:
        try:
            async with self._asking(path):
                await self._client.mkdir(path)
        except NotThereError:
            raise
        except RemoteFileError:
            # It is there, for which every server has another word; or another run made it now.
            async with self._asking(path):
                if not await self._client.isdir(path):
                    raise

    async def _replace_in_steps(self, path: str, to: str) -> None:
        """For servers whose rename refuses a name that is taken: both files are always there."""
        old = f"{path}.old"
        try:
            async with self._asking(to):
                await self._client.rename(to, old)
        except NotThereError:
            async with self._asking(to):
                await self._client.rename(path, to)
            return
        try:
            async with self._asking(to):
                await self._client.rename(path, to)
        except RemoteFileError:
            async with self._asking(to):
                await self._client.rename(old, to)
            raise
        await self.remove(old)

    async def _to_disk(self, file: Any, path: str) -> None:
        with contextlib.suppress(_NotOfferedError):
            async with self._asking(path):
                await file.fsync()

    async def _close(self, file: Any, path: str) -> None:
        # After an error of its own the connection may be gone; that one is to be told.
        with contextlib.suppress(ConnectionBrokenError):
            async with self._asking(path):
                await file.close()

    @asynccontextmanager
    async def _asking(self, path: str) -> AsyncIterator[None]:
        """One question to the server, about a path; its errors become those of the mirror."""
        if self.broken:
            raise ConnectionBrokenError(f"{path}: the connection was lost")
        # Not by cancelling what is asked: asyncssh would leave tasks behind that nobody awaits.
        watch = asyncio.get_running_loop().call_later(self._timeout, self._give_up)
        try:
            yield
        except _MISSING:
            raise NotThereError(f"{path}: is not there") from None
        except asyncssh.SFTPOpUnsupported as error:
            raise _NotOfferedError(f"{path}: {error.reason}") from None
        except asyncssh.SFTPError as error:
            if isinstance(error, _LOST):
                raise self._lost(path, error.reason) from None
            raise RemoteFileError(f"{path}: {_reason(error)}") from None
        except (asyncssh.Error, OSError) as error:
            raise self._lost(path, str(error)) from None
        finally:
            watch.cancel()

    def _give_up(self) -> None:
        self._silent = True
        self._connection.abort()

    def _lost(self, path: str, reason: str) -> ConnectionBrokenError:
        self._failed = True
        if self._silent:
            reason = f"no answer for {self._timeout:g} seconds"
        return ConnectionBrokenError(f"{path}: {reason}")


class _NotOfferedError(RemoteFileError):
    """The server does not have this extension."""


def _reason(error: asyncssh.SFTPError) -> str:
    """What the server says; the third version of SFTP has one word for most that goes wrong."""
    if isinstance(error, asyncssh.SFTPFailure):
        return f"the server says only {error.reason!r}: a full disk, a quota, or a name it refuses"
    return error.reason.rstrip(".") or type(error).__name__


def _folder(path: str) -> str:
    folder = str(PurePosixPath(path).parent)
    return "" if folder == "." else folder


async def connect(settings: Mirror, folders: set[str]) -> Sftp:
    """Connect and log in. Raises :class:`ServerAwayError`, :class:`ServerRefusedError`."""
    seen: list[asyncssh.SSHKey] = []

    class Client(asyncssh.SSHClient):
        def validate_host_public_key(
            self, host: str, addr: str, port: int, key: asyncssh.SSHKey
        ) -> bool:
            """Nobody vouches for this key, but it can be shown."""
            seen.append(key)
            return False

    options = asyncssh.SSHClientConnectionOptions(
        # Nothing of this machine's user: what is not in the settings has no part in it.
        config=None,
        agent_path=None,
        client_keys=_client_keys(settings),
        gss_host=None,
        username=settings.username or "",
        password=settings.password.get_secret_value() if settings.password else None,
        known_hosts=_known_hosts(settings),
        client_factory=Client,
        encryption_algs=_CIPHERS,
        connect_timeout=settings.timeout_seconds,
        login_timeout=settings.timeout_seconds,
        keepalive_interval=_KEEPALIVE,
        keepalive_count_max=_KEEPALIVES,
    )
    where = f"{settings.host}:{settings.port}"
    try:
        connection = await asyncssh.connect(str(settings.host), settings.port, options=options)
    except asyncssh.HostKeyNotVerifiable as error:
        raise ServerRefusedError(_about_key(settings, seen, str(error))) from None
    except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost) as error:
        # Also where the key that is known is of a kind that the server does not have.
        seen += await _shown_key(settings)
        if settings.check_host_key and seen:
            raise ServerRefusedError(_about_key(settings, seen, str(error))) from None
        raise ServerAwayError(f"{where} does not answer: {error}") from None
    except asyncssh.PermissionDenied as error:
        raise ServerRefusedError(
            f"{where} does not let {settings.username!r} in ({error.reason}): check"
            " mirror.username, and IMAGE_PIPELINE_MIRROR__PASSWORD or"
            " IMAGE_PIPELINE_MIRROR__PRIVATE_KEY"
        ) from None
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise ServerAwayError(f"{where} does not answer: {error or 'no answer in time'}") from None
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            client = await connection.start_sftp_client()
    except (asyncssh.ChannelOpenError, asyncssh.SFTPError) as error:
        connection.abort()
        raise ServerRefusedError(f"{where} offers no SFTP: {error.reason}") from None
    except (asyncssh.Error, OSError, TimeoutError) as error:
        connection.abort()
        raise ServerAwayError(f"{where} went away: {error or 'no answer in time'}") from None
    return Sftp(connection, client, settings.timeout_seconds, folders)


def _client_keys(settings: Mirror) -> list[asyncssh.SSHKey] | None:
    if settings.private_key is None:
        return None
    # A variable of the environment may have lost its line breaks' form, or the last of them.
    text = settings.private_key.get_secret_value().replace("\\n", "\n").strip() + "\n"
    try:
        return [asyncssh.import_private_key(text)]
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        raise ServerRefusedError(
            "IMAGE_PIPELINE_MIRROR__PRIVATE_KEY is no private key that can be read: it has to be"
            " the contents of a file as ssh-keygen makes it, without a passphrase"
        ) from None


def _known_hosts(settings: Mirror) -> Any:
    """Whom to trust, in the ways that asyncssh takes; None trusts everybody."""
    if not settings.check_host_key:
        return None
    keys: list[asyncssh.SSHKey] = []
    if settings.host_key:
        try:
            keys.append(asyncssh.import_public_key(settings.host_key))
        except asyncssh.KeyImportError:
            raise ServerRefusedError(
                "mirror.host_key is no public key: it looks like 'ssh-ed25519 AAAA...'"
            ) from None
    if settings.known_hosts is None:
        return keys, [], []
    try:
        known = asyncssh.read_known_hosts(str(settings.known_hosts))
        found = known.match(str(settings.host), "", settings.port)
    except (OSError, ValueError) as error:
        raise ServerRefusedError(f"mirror.known_hosts: {error}") from None
    return [*keys, *found[0]], list(found[1]), list(found[2])


async def _shown_key(settings: Mirror) -> list[asyncssh.SSHKey]:
    """The key that the server shows to whom it knows nothing of, if it is not a known one."""
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            key = await asyncssh.get_server_host_key(str(settings.host), settings.port, config=None)
    except (asyncssh.Error, OSError, TimeoutError):
        return []
    trusted = _known_hosts(settings)
    known = [] if trusted is None else trusted[0]
    return [] if key is None or key in known else [key]


def _about_key(settings: Mirror, seen: list[asyncssh.SSHKey], reason: str) -> str:
    where = f"{settings.host}:{settings.port}"
    if not seen:
        return f"{where}: {reason}; see mirror.host_key"
    key = seen[-1]
    line = key.export_public_key("openssh").decode().split(" ")
    is_known = settings.host_key is not None or settings.known_hosts is not None
    what = (
        "shows another key than mirror.host_key or mirror.known_hosts say: it was set up anew, or"
        " somebody stands in between"
        if is_known
        else "shows a key that nothing vouches for"
    )
    return (
        f"{where} {what}. Its fingerprint is {key.get_fingerprint()}. If 'ssh-keygen -lf"
        " /etc/ssh/ssh_host_ed25519_key.pub' on the server (or the page of the NAS) says the"
        f" same, set mirror.host_key: '{' '.join(line[:2]).strip()}'"
    )
