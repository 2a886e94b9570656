"""One run of the mirror: what is due goes to the server, or off it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from image_pipeline.catalog import mirror as catalog_mirror
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.mirror import LEAVING, Copy
from image_pipeline.mirror.known import look_for_gone, look_for_new
from image_pipeline.mirror.planning import day_of, is_purge_due, pause, retry_at, target_of
from image_pipeline.mirror.pool import Pool
from image_pipeline.mirror.remote import (
    ConnectionBrokenError,
    MirrorError,
    Remote,
    RemoteFileError,
    ServerAwayError,
    ServerRefusedError,
)
from image_pipeline.mirror.transferring import (
    Content,
    DifferentBytesError,
    Place,
    Sent,
    erase,
    purge,
    put,
    to_trash,
)
from image_pipeline.settings import Mirror, Settings
from image_pipeline.store.bucket import (
    Bucket,
    ObjectArchivedError,
    ObjectChangedError,
    ObjectGoneError,
    StoreError,
)

#: Files that one run takes from the catalog at a time, and results that it writes at a time.
CLAIMED = 100
COMMIT_EVERY = 50

#: Results are written after so many seconds at the latest: what a killed run did not write is
#: read back by the next one.
_COMMIT_SECONDS = 1.0

#: How long other runs leave what this one took; renewed four times as often.
LEASE = timedelta(minutes=4)

#: After so many failures without a success, the server or the bucket is to blame, and the rest
#: waits for the next run.
GIVE_UP_AFTER = 20

#: Failures that are shown.
SHOWN = 50

T = TypeVar("T")
Connect = Callable[[], Awaitable[Remote]]
Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Mirrored:
    """What a run did.

    ``new`` and ``gone`` files were found; ``copied``, ``unchanged`` (they were there already),
    ``trashed`` and ``failed`` ones were dealt with. ``bytes`` went over the wire, ``resumed``
    bytes were there from a run that broke off. ``purged`` files left the trash for good.
    ``waiting`` is what is still due, ``stopped`` why the run ended before its time.
    """

    target: str
    new: int = 0
    gone: int = 0
    copied: int = 0
    unchanged: int = 0
    trashed: int = 0
    failed: int = 0
    bytes: int = 0
    resumed: int = 0
    purged: int = 0
    connections: int = 0
    waiting: int = 0
    seconds: float = 0.0
    stopped: str = ""
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all that was due is done."""
        return not self.failed and not self.stopped


def mirror(
    settings: Settings,
    bucket: Bucket,
    catalog: Catalog,
    clock: Callable[[], datetime],
    progress: Progress | None = None,
    *,
    source: str | None = None,
    connect: Callable[[set[str]], Awaitable[Remote]] | None = None,
) -> Mirrored:
    """Bring the server up to date; of one source or of all. Connects only if anything is due.

    ``connect`` opens another kind of connection than SFTP; it is given a set to keep the folders
    in that are known to be there. Raises :class:`MirrorError` without a ``mirror.host``, and
    ``StoreError`` where the bucket cannot be asked what is gone. Whatever else fails is in the
    answer.
    """
    rules = settings.mirror
    if rules.host is None:
        raise MirrorError("there is no mirror: mirror.host is not set")
    started, began = time.monotonic(), clock()
    found = Mirrored(target_of(rules))
    found.new = look_for_new(settings, catalog, clock)
    found.gone = look_for_gone(settings, bucket, catalog, clock)
    with catalog.read() as connection:
        row = catalog_mirror.target_row(connection, found.target)
        # What was found a moment ago is due since then.
        began = max(began, clock())
        is_due = catalog_mirror.is_anything_due(connection, found.target, began)
    if is_due or is_purge_due(row.purged_at, began):
        folders: set[str] = set()
        opening = connect or partial(open_sftp, rules)
        run = _Run(settings, bucket, catalog, clock, progress or _quiet, found, began, source)
        asyncio.run(run.run(partial(opening, folders), is_purge_due(row.purged_at, began)))
    found.seconds = time.monotonic() - started
    return found


async def open_sftp(settings: Mirror, folders: set[str]) -> Remote:
    """A connection by SFTP."""
    from image_pipeline.mirror.sftp import connect

    return await connect(settings, folders)


def _quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


class _Run:
    """The files that are due, a few at a time."""

    def __init__(
        self,
        settings: Settings,
        bucket: Bucket,
        catalog: Catalog,
        clock: Callable[[], datetime],
        progress: Progress,
        found: Mirrored,
        began: datetime,
        source: str | None,
    ) -> None:
        self.settings = settings
        self.rules = settings.mirror
        self.bucket = bucket
        self.catalog = catalog
        self.clock = clock
        self.progress = progress
        self.found = found
        self.began = began
        self.source = source
        self.place = Place(self.rules.path, day_of(began), self.rules.verify)
        # What a killed process left there is removed by the next that has a spool.
        own = settings.workers.spool / str(os.getpid())
        self.spool = own / f"mirror-{secrets.token_hex(4)}"
        self.page: list[Copy] = []
        self.in_hand: set[str] = set()
        self.results = _Results()
        self.in_a_row = 0
        self.taking = asyncio.Lock()
        self.writing = asyncio.Lock()

    async def run(self, connect: Connect, is_purge_due: bool) -> None:
        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(self.rules.connections + 2, thread_name_prefix="mirror")
        )
        self.total = await self._in_catalog(
            lambda c: catalog_mirror.count_due(c, self.found.target, self.began, self.source)
        )
        self.pool = Pool(connect, self.rules.connections)
        self.wire = asyncio.Semaphore(min(self.rules.transfers, self.rules.connections))
        self.spool.mkdir(parents=True)
        keeper = asyncio.create_task(self._keep())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.rules.connections, max(self.total, 1))):
                    group.create_task(self._work())
            if is_purge_due and not self.found.stopped:
                await self._purge()
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await self._end()

    async def _end(self) -> None:
        """Whatever happened: write what is done, give back what is not."""
        with suppress(OSError):
            shutil.rmtree(self.spool)
            self.spool.parent.rmdir()
        with suppress(MirrorError):
            await self._write()
        await self.pool.close()
        self.found.connections = self.pool.opened
        left = set(self.in_hand)
        now = self._now()
        await self._in_catalog(lambda c: catalog_mirror.set_due(c, self.found.target, left, now))
        self.found.waiting = await self._in_catalog(
            lambda c: catalog_mirror.count_due(c, self.found.target, now, self.source)
        )

    async def _work(self) -> None:
        while not self.found.stopped and (copy := await self._next()) is not None:
            try:
                await self._one(copy)
            except (ServerAwayError, ServerRefusedError) as error:
                self._stop(str(error))
            except _UnfitError as error:
                self._failed(copy, str(error), blame_server=False)
            except (MirrorError, StoreError, OSError) as error:
                self._failed(copy, str(error))
            if self.results.are_many():
                await self._write()

    async def _next(self) -> Copy | None:
        async with self.taking:
            if not self.page:
                until = self.clock() + LEASE
                self.page = await self._in_catalog(
                    lambda c: catalog_mirror.claim(
                        c, self.found.target, self.began, until, CLAIMED, self.source
                    )
                )
                self.page.reverse()
                self.in_hand.update(copy.key for copy in self.page)
            return self.page.pop() if self.page else None

    async def _one(self, copy: Copy) -> None:
        if copy.state == LEAVING:
            await self._again(partial(to_trash, place=self.place, path=copy.path))
            self.found.trashed += 1
            self.results.left.append(copy.key)
        else:
            await self._copy(copy)
        self.in_a_row = 0
        self._progress()

    async def _copy(self, copy: Copy) -> None:
        local = self.spool / secrets.token_hex(8)
        try:
            content = await asyncio.to_thread(_fetch, self.bucket, copy, local)
            sent = await self._again(
                partial(
                    put, place=self.place, local=local, path=copy.path, content=content,
                    wire=self.wire,
                )
            )  # fmt: skip
        except ObjectGoneError:
            # Removed since the pipeline saw it; of what is on the server of it, the trash.
            self.results.gone.append(copy.key)
            return
        finally:
            local.unlink(missing_ok=True)
        self._count(sent)
        self.results.copied.append(copy)

    def _count(self, sent: Sent) -> None:
        self.found.bytes += sent.sent
        self.found.resumed += sent.resumed
        if sent.sent or sent.resumed:
            self.found.copied += 1
        else:
            self.found.unchanged += 1

    async def _again(self, act: Callable[[Remote], Coroutine[Any, Any, T]]) -> T:
        """Do it with a connection; again, with another one, where that one breaks."""
        for attempt in range(self.rules.attempts):
            try:
                async with self.pool.connection() as remote:
                    try:
                        return await act(remote)
                    except RemoteFileError as error:
                        raise await self._explained(remote, error) from None
            except (ConnectionBrokenError, DifferentBytesError, ServerAwayError):
                if attempt == self.rules.attempts - 1 or self.found.stopped:
                    raise
            await asyncio.sleep(pause(attempt))
        raise AssertionError("the last try returns or raises")

    async def _explained(self, remote: Remote, error: RemoteFileError) -> MirrorError:
        """Servers have one word for many failures; whether the disk is full can be asked."""
        try:
            free = await remote.free_bytes(self.place.root)
        except MirrorError:
            return error
        if free is not None and free < _FULL:
            return ServerRefusedError(f"the server's disk is full: {error}")
        return error

    def _failed(self, copy: Copy, error: str, *, blame_server: bool = True) -> None:
        self.found.failed += 1
        self.in_a_row += blame_server
        if len(self.found.failures) < SHOWN:
            row = {"source": copy.source, "key": copy.key, "error": error}
            self.found.failures.append({**row, "failures": copy.failures + 1})
        due = max(retry_at(self.began, copy.failures), self._now())
        self.results.errors[copy.key] = error, due
        self._progress()
        if self.in_a_row >= GIVE_UP_AFTER:
            self._stop(f"{self.in_a_row} files failed one after the other, the last by: {error}")

    def _stop(self, why: str) -> None:
        self.found.stopped = self.found.stopped or why

    def _progress(self) -> None:
        done = self.found.copied + self.found.unchanged + self.found.trashed + self.found.failed
        self.progress("mirrored", done, max(self.total, done))

    async def _write(self) -> None:
        async with self.writing:
            results, self.results = self.results, _Results()
            now = self._now()
            write = partial(results.write, target=self.found.target, now=now)
            forgotten = await self._in_catalog(write)
            self.in_hand.difference_update(results.keys())

        for copy in forgotten:
            try:
                await self._again(partial(erase, place=self.place, path=copy.path))
            except MirrorError as error:
                self._stop(f"forgotten meanwhile, and still there: {error}")

    def _now(self) -> datetime:
        """The clock; what is due from then on is left to the next run, however coarse it is."""
        return max(self.clock(), self.began + timedelta(microseconds=1))

    async def _keep(self) -> None:
        """Hold what is in hand against other runs."""
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 4)
            keys, until = set(self.in_hand), self.clock() + LEASE
            await self._in_catalog(
                partial(catalog_mirror.set_due, target=self.found.target, keys=keys, moment=until)
            )

    async def _purge(self) -> None:
        days = timedelta(days=self.settings.maintenance.cleanup.trash_days)
        try:
            self.found.purged = await self._again(
                partial(purge, place=self.place, before=day_of(self.began - days))
            )
        except MirrorError as error:
            self._stop(f"the trash could not be emptied: {error}")
            return
        await self._in_catalog(
            partial(catalog_mirror.set_target, target=self.found.target, purged_at=self.began)
        )

    async def _in_catalog(self, work: Callable[..., T]) -> T:
        """Do it in a transaction of its own, while connections are kept alive."""
        return await asyncio.to_thread(self.catalog.transact, work)


#: Bytes below which a disk counts as full: servers keep some for themselves.
_FULL = 1024 * 1024


class _Results:
    """What became of files and is not yet written down."""

    def __init__(self) -> None:
        self.copied: list[Copy] = []
        self.left: list[str] = []
        self.gone: list[str] = []
        self.errors: dict[str, tuple[str, datetime]] = {}
        self._began = time.monotonic()

    def keys(self) -> Iterable[str]:
        return [*(copy.key for copy in self.copied), *self.left, *self.gone, *self.errors]

    def are_many(self) -> bool:
        late = time.monotonic() - self._began > _COMMIT_SECONDS
        count = len(self.copied) + len(self.left) + len(self.gone) + len(self.errors)
        return count >= COMMIT_EVERY or (late and count > 0)

    def write(self, connection: sa.Connection, target: str, now: datetime) -> list[Copy]:
        """Those that were copied and forgotten meanwhile."""
        forgotten = catalog_mirror.record_copied(connection, target, self.copied, now)
        catalog_mirror.record_left(connection, target, self.left)
        catalog_mirror.let_leave(connection, target, self.gone, now)
        catalog_mirror.record_failed(connection, target, self.errors)
        return forgotten


class _UnfitError(MirrorError):
    """An object cannot be copied as it is now, whatever the server does."""


def _fetch(bucket: Bucket, copy: Copy, local: Path) -> Content:
    """The object's bytes in a local file; those that the catalog knows it by, or an error.

    Raises ``ObjectGoneError``, :class:`_UnfitError` and ``StoreError``.
    """
    try:
        digest = _download(bucket, copy, local)
    except ObjectChangedError:
        raise _UnfitError(
            "the bucket has another version, which the pipeline has not yet decided on"
        ) from None
    except ObjectArchivedError:
        raise _UnfitError(
            "it is in an archive class, where nobody can read it: restore it, or leave it out"
        ) from None
    if digest != copy.sha256:
        raise _UnfitError("the bucket has other bytes than the catalog knows")
    return Content(copy.etag, copy.size, copy.sha256)


def _download(bucket: Bucket, copy: Copy, local: Path) -> str:
    if copy.etag:
        with suppress(ObjectChangedError):
            return bucket.download(copy.key, local, copy.etag)
    # Variants are known by their hash alone; and a move to another class may change an ETag.
    head = bucket.head(copy.key)
    if head is None:
        raise ObjectGoneError(copy.key)
    return bucket.download(copy.key, local, head.etag)
