"""Server-sent events: what becomes of uploads, told as it happens.

However many streams there are, the catalog is asked once a second for all of them together.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa
from starlette.responses import Response, StreamingResponse

from image_pipeline.intake.capability import Capability
from image_pipeline.intake.errors import ApiError, too_many, unavailable
from image_pipeline.intake.service import Service
from image_pipeline.intake.status import FINAL
from image_pipeline.intake.threads import BusyError
from image_pipeline.store.errors import StoreError

#: Between two looks at the catalog. Batches take seconds; nobody sees a second less.
POLL_SECONDS = 1.0

#: Proxies close connections on which nothing happened for a minute (nginx, AWS load balancers).
HEARTBEAT_SECONDS = 15.0

#: A browser connects again by itself, so a stream that somebody forgot does not live for ever.
LONGEST_SECONDS = 15 * 60.0

#: Milliseconds that a browser waits before it connects again.
_RETRY = 3000

#: Uploads of one stream: five requests of 20 files. Their ids are an address of 10 kB.
MOST_IDS = 100

#: Streams of one key or address, and of all; together they bound memory and what is asked.
MOST_OF_ONE = 20
MOST_STREAMS = 500
MOST_WATCHED = 5000

_log = logging.getLogger(__name__)

_OUTAGES = (StoreError, BusyError, sa.exc.DBAPIError, sa.exc.TimeoutError)


class _Stream:
    """What one listener still waits for, and what is new for them."""

    def __init__(self, wanted: Mapping[str, Capability]) -> None:
        self.wanted = dict(wanted)
        self.last: dict[str, dict[str, Any]] = {}
        self.news: list[dict[str, Any]] = []
        self.changed = asyncio.Event()

    def take(self, answers: Mapping[str, dict[str, Any]]) -> None:
        """Note what is other than before; what is final is not waited for any more."""
        for upload in [one for one in self.wanted if one in answers]:
            answer = answers[upload]
            before = self.last.get(upload)
            if before is not None and before["received"]:
                # The bucket was asked at the beginning only.
                answer = {**answer, "received": True}
            if answer == before:
                continue
            self.last[upload] = answer
            self.news.append(answer)
            if answer["state"] in FINAL:
                del self.wanted[upload]
        if self.news:
            self.changed.set()


class Streams:
    """Every open stream of this process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._streams: set[_Stream] = set()
        self._of: Counter[str] = Counter()
        self._poller: asyncio.Task[None] | None = None
        self._closing = False

    def __len__(self) -> int:
        return len(self._streams)

    async def close(self) -> None:
        """End every stream."""
        self._closing = True
        for stream in self._streams:
            stream.changed.set()
        if self._poller is not None:
            self._poller.cancel()

    def answer(self, wanted: Mapping[str, Capability], who: str) -> Response:
        """A stream of the states of these uploads, which ends when all of them are final.

        Raises :class:`ApiError`: 422 without uploads or with too many, 429 for whoever has too
        many streams already, 503 when all of them together are too many.
        """
        if not 0 < len(wanted) <= MOST_IDS:
            raise ApiError(
                422, "invalid", f"ids: name 1 to {MOST_IDS} ids of uploads, with commas",
                more={"field": "ids"},
            )  # fmt: skip
        if self._of[who] >= MOST_OF_ONE:
            raise too_many(HEARTBEAT_SECONDS, f"close one of your {MOST_OF_ONE} streams first")
        watched = sum(len(stream.wanted) for stream in self._streams)
        if len(self) >= MOST_STREAMS or watched + len(wanted) > MOST_WATCHED:
            raise unavailable()
        # Proxies such as nginx would keep events back until a buffer is full.
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(
            self._events(_Stream(wanted), who), media_type="text/event-stream", headers=headers
        )

    async def _events(self, stream: _Stream, who: str) -> AsyncIterator[str]:
        self._streams.add(stream)
        self._of[who] += 1
        try:
            yield f"retry: {_RETRY}\n\n"
            stream.take(await self._read(stream.wanted, look=True))
            self._watch()
            async for text in self._told(stream):
                yield text
        finally:
            self._streams.discard(stream)
            self._of[who] -= 1
            self._of += Counter()

    async def _told(self, stream: _Stream) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST_SECONDS
        while not self._closing and loop.time() < end:
            news, stream.news = stream.news, []
            stream.changed.clear()
            for answer in news:
                yield f"event: state\ndata: {json.dumps(answer)}\n\n"
            if not stream.wanted:
                return
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await stream.changed.wait()
            except TimeoutError:
                yield ": still here\n\n"

    def _watch(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        """Look for news as long as somebody wants any."""
        while self._streams:
            await asyncio.sleep(POLL_SECONDS)
            wanted: dict[str, Capability] = {}
            for stream in self._streams:
                wanted.update(stream.wanted)
            if wanted:
                answers = await self._read(wanted, look=False)
                for stream in list(self._streams):
                    stream.take(answers)

    async def _read(
        self, wanted: Mapping[str, Capability], *, look: bool
    ) -> dict[str, dict[str, Any]]:
        """The states; none of them while catalog or bucket do not answer."""
        wanted = dict(wanted)
        read = partial(self._service.reader.uploads, wanted, look=wanted if look else ())
        try:
            return await self._service.threads.run(read)
        except _OUTAGES as error:
            _log.warning("the states of %d uploads cannot be read: %s", len(wanted), error)
            return {}
