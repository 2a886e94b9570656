"""Blocking calls run in so many threads, wait in so many places, and are refused beyond."""

import asyncio
import threading

import pytest

from image_pipeline.intake.threads import BusyError, Threads


def test_calls_beyond_the_places_are_refused():
    async def crowd():
        go = threading.Event()
        threads = Threads(threads=2, most_waiting=3)
        calls = [asyncio.ensure_future(threads.run(lambda: go.wait(10))) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await threads.run(lambda: None)
        # Who does not wait any more is still served: the thread cannot be taken back.
        calls.pop().cancel()
        go.set()
        assert await asyncio.gather(*calls) == [True] * 4
        assert await threads.run(lambda: 7) == 7
        threads.close()

    asyncio.run(crowd())


def test_what_a_call_raises_is_raised():
    async def fail():
        threads = Threads(threads=1, most_waiting=0)
        for _ in range(3):
            with pytest.raises(LookupError, match="no such thing"):
                await threads.run(refuse)
        threads.close()

    def refuse():
        raise LookupError("no such thing")

    asyncio.run(fail())
