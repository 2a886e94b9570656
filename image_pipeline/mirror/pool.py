"""Connections to one server, kept open and used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from image_pipeline.mirror.remote import Remote, ServerAwayError

#: Logins at a time. OpenSSH drops some of those that come while ten others are not yet in
#: (MaxStartups 10:30:100), and a NAS is slow at them.
LOGINS = 4


class Pool:
    """Up to ``most`` connections, made by ``connect`` when they are first wanted.

    A broken one is replaced by a new one when the next is wanted. A server that takes fewer
    connections gets fewer: only where none is open, failing to connect is an error.
    """

    def __init__(self, connect: Callable[[], Awaitable[Remote]], most: int) -> None:
        self.opened = 0
        self._connect = connect
        self._wanted = self._most = most
        self._idle: list[Remote] = []
        # Of the ``_open`` ones some may still be on their way; these are there.
        self._there = 0
        self._open = 0
        self._changed = asyncio.Condition()
        self._logins = asyncio.Semaphore(LOGINS)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Remote]:
        """A connection for one transfer.

        Waits while all are in use. Raises :class:`ServerAwayError` where none can be had, and
        :class:`~image_pipeline.mirror.remote.ServerRefusedError`.
        """
        remote = await self._take()
        try:
            yield remote
        finally:
            await self._give_back(remote)

    async def close(self) -> None:
        """End all connections that are not in use."""
        idle, self._idle = self._idle, []
        self._open -= len(idle)
        self._there -= len(idle)
        await asyncio.gather(*(remote.close() for remote in idle))

    async def _take(self) -> Remote:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._idle or self._open < self._most)
                while self._idle:
                    # The last one used: its windows are open, and the others may go to sleep.
                    remote = self._idle.pop()
                    if not remote.broken:
                        return remote
                    self._lost_one()
                self._open += 1
            made = await self._make()
            if made is not None:
                return made

    async def _make(self) -> Remote | None:
        """One more; None where there is none to be had, and others are open to wait for."""
        try:
            async with self._logins:
                remote = await self._connect()
        except BaseException as error:
            async with self._changed:
                self._open -= 1
                enough = isinstance(error, ServerAwayError) and self._there > 0
                if enough:
                    self._most = self._there
                self._changed.notify_all()
            if enough:
                return None
            raise
        self.opened += 1
        self._there += 1
        return remote

    async def _give_back(self, remote: Remote) -> None:
        async with self._changed:
            if remote.broken:
                self._lost_one()
            else:
                self._idle.append(remote)
            self._changed.notify_all()
        if remote.broken:
            await remote.close()

    def _lost_one(self) -> None:
        self._open -= 1
        self._there -= 1
        # What the server refused while it went away, it may take when it is back.
        self._most = self._wanted
