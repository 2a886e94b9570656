"""Calls that wait for the bucket or the catalog, in a bounded number of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

#: Calls at a time. The catalog's pool has 15 connections (SQLAlchemy's 5 and 10 in overflow), and
#: a call that waits for one holds nobody up but itself.
THREADS = 15

#: Calls that wait for a thread. At 5 ms each, the last of them begins within a tenth of a second;
#: where they take longer, something is wrong, and more of them would not help.
MOST_WAITING = 300

T = TypeVar("T")


class BusyError(Exception):
    """Too many calls wait already."""


class Threads:
    """Runs blocking functions for the event loop. Raises rather than letting a queue grow."""

    def __init__(self, threads: int = THREADS, most_waiting: int = MOST_WAITING) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="intake")
        self._most = threads + most_waiting
        self._calls = 0

    async def run(self, function: Callable[[], T]) -> T:
        """What ``function`` returns or raises. Raises :class:`BusyError` if too many wait."""
        if self._calls >= self._most:
            raise BusyError
        self._calls += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, function)
        # Counted until it ends, not until nobody waits for it any more.
        future.add_done_callback(self._ended)
        return await future

    def close(self) -> None:
        """Wait for what runs; what has not begun never will."""
        self._executor.shutdown(cancel_futures=True)

    def _ended(self, future: asyncio.Future[T]) -> None:
        self._calls -= 1
