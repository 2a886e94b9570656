"""Fetching many URLs of one edge: bounded, paced, and nothing but that edge.

libcurl does the work. What is due may be a hundred thousand files of 20 kB, and the Python
HTTP clients spend three to five times more CPU on each than the edge does.
"""

from __future__ import annotations

import heapq
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from image_pipeline.delivery.warming import (
    Answer,
    ForbiddenUrlError,
    Pace,
    cache_state,
    check_url,
    edge_of,
    is_passing,
    is_public,
    wait_before,
)
from image_pipeline.settings import Warming

if TYPE_CHECKING:
    import pycurl

_AGENT = "image-pipeline-warmer"

#: The header lines that :func:`cache_state` looks at, in lower case; each follows a line's end.
#: One search over all of them costs a tenth of taking every line apart, which was a third of the
#: time that a request took.
_TELLING = re.compile(rb"\n(cf-cache-status|x-cache|x-cache-status|age)[ \t]*:(.*)")

#: What libcurl calls the versions of HTTP (CURL_HTTP_VERSION_*).
_VERSIONS = {1: "1.0", 2: "1.1", 3: "2", 30: "3"}


@dataclass(slots=True)
class _Task:
    """One URL on its way, and how often it was asked for."""

    key: str
    url: str
    attempts: int = 0
    refused: str = ""


class Warmer:
    """GETs URLs of the configured edges and says of each what the edge answered.

    Use it as a context manager, from one thread. Redirects are never followed, proxies of
    the environment are not used, and an address that is not public is not connected to,
    whatever the name resolves to at that moment, unless the settings allow it.

    Over HTTPS an edge that offers HTTP/2 is asked for everything at once on one connection.
    ``authorities`` is a file of the certificates (PEM) that edges are trusted by, instead
    of those that libcurl knows.
    """

    def __init__(
        self, rules: Warming, base_urls: Iterable[str], authorities: Path | None = None
    ) -> None:
        urls = list(base_urls)
        self._rules = rules
        self._authorities = authorities
        self._edges = {edge_of(url) for url in urls}
        # A URL that begins like this is of the edge: its host ends at that slash. Looking at the
        # beginning is twenty times faster than taking every URL apart.
        self._known = tuple(root for root in map(_root, urls) if "@" not in root)
        self._curl: Any = None
        self._multi: Any = None
        self._idle: list[pycurl.Curl] = []
        self._lines: dict[pycurl.Curl, list[bytes]] = {}
        self._tasks: dict[pycurl.Curl, _Task] = {}
        self._again: list[tuple[float, int, _Task]] = []
        self._sockets: list[socket.socket] = []
        self._pace = Pace(rules.per_second)

    def __enter__(self) -> Warmer:
        import pycurl

        self._curl = pycurl
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, self._rules.concurrency)
        self._idle = [self._new_handle() for _ in range(self._rules.concurrency)]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in [*self._tasks, *self._idle]:
            if handle in self._tasks:
                self._multi.remove_handle(handle)
            handle.close()
        self._tasks.clear()
        self._idle.clear()
        self._lines.clear()
        self._multi.close()

    def warm(self, targets: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Answer]]:
        """Ask for every (key, URL); answers come as they arrive, with the key.

        Lazy and bounded: targets are taken only as fast as they are asked for. A URL that
        does not belong to the edge gets an answer with an error and is not asked for.
        """
        waiting = (_Task(key, url) for key, url in targets)
        following = next(waiting, None)
        while following or self._tasks or self._again:
            now = time.monotonic()
            while self._idle and (following or self._is_again_due(now)) and self._pace.take(now):
                if self._is_again_due(now):
                    task = heapq.heappop(self._again)[2]
                else:
                    assert following is not None
                    task, following = following, next(waiting, None)
                refusal = self._start(task)
                if refusal is not None:
                    yield task.key, refusal
            yield from self._step()

    def _is_again_due(self, now: float) -> bool:
        return bool(self._again) and self._again[0][0] <= now

    def _start(self, task: _Task) -> Answer | None:
        """Send the request; an answer at once if it must not be sent."""
        if not task.url.startswith(self._known):
            try:
                check_url(task.url, self._edges)
            except ForbiddenUrlError as error:
                return Answer(0, "unknown", 0.0, 0, task.attempts, str(error))
        task.attempts += 1
        task.refused = ""
        handle = self._idle.pop()
        self._lines[handle].clear()
        handle.setopt(self._curl.URL, task.url.encode())
        self._tasks[handle] = task
        self._multi.add_handle(handle)
        return None

    def _step(self) -> Iterator[tuple[str, Answer]]:
        """Move what is under way, wait for something to happen, hand out what ended."""
        while self._multi.perform()[0] == self._curl.E_CALL_MULTI_PERFORM:
            pass
        while self._sockets:
            self._sockets.pop().close()
        ended: list[tuple[pycurl.Curl, str]] = []
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            ended += ((handle, "") for handle in good)
            ended += ((handle, message or "no answer") for handle, _, message in bad)
        for handle, error in ended:
            task = self._tasks.pop(handle)
            answer = self._end(task, handle, error)
            if answer is not None:
                yield task.key, answer
        if not ended:
            self._multi.select(self._patience())

    def _patience(self) -> float:
        """Seconds until there may be something to do that libcurl does not know of."""
        waits = [1.0]
        if self._idle:
            waits.append(self._pace.wait())
        if self._again:
            waits.append(self._again[0][0] - time.monotonic())
        return max(0.001, min(waits))

    def _end(self, task: _Task, handle: pycurl.Curl, error: str) -> Answer | None:
        """What became of a request; None if it is tried again."""
        curl, ask = self._curl, handle.getinfo
        # A body that broke off is no answer, whatever its first line said.
        status = 0 if error else ask(curl.RESPONSE_CODE)
        first_byte = ask(curl.STARTTRANSFER_TIME)
        received = int(ask(curl.SIZE_DOWNLOAD_T))
        protocol = _VERSIONS.get(ask(curl.INFO_HTTP_VERSION), "")
        self._multi.remove_handle(handle)
        self._idle.append(handle)
        if status != 200:
            error = task.refused or error or f"HTTP {status}"
            if self._try_again(task, status):
                return None
        state = cache_state(_headers(self._lines[handle]))
        return Answer(status, state, first_byte, received, task.attempts, error, protocol)

    def _try_again(self, task: _Task, status: int) -> bool:
        """Whether a request without success is put off to another try."""
        again = not task.refused and is_passing(status) and task.attempts < self._rules.attempts
        if again:
            moment = time.monotonic() + wait_before(task.attempts)
            heapq.heappush(self._again, (moment, id(task), task))
        return again

    def _new_handle(self) -> pycurl.Curl:
        import pycurl

        handle = pycurl.Curl()
        rules = self._rules
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.FOLLOWLOCATION, 0)
        handle.setopt(pycurl.PROXY, "")
        handle.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        # Rather wait for the first connection to say whether it speaks HTTP/2 than open another.
        handle.setopt(pycurl.PIPEWAIT, 1)
        if self._authorities is not None:
            handle.setopt(pycurl.CAINFO, str(self._authorities))
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, int(rules.timeout_seconds * 1000))
        handle.setopt(pycurl.TIMEOUT_MS, int(rules.timeout_seconds * 1000))
        # libcurl also gives up a body that is longer than it was announced, and 300 kB of headers.
        handle.setopt(pycurl.MAXFILESIZE_LARGE, int(rules.max_megabytes * 1e6))
        handle.setopt(pycurl.BUFFERSIZE, 128 * 1024)
        handle.setopt(pycurl.USERAGENT, _AGENT)
        # What browsers that read AVIF and WebP say: an edge may keep files by this header.
        handle.setopt(pycurl.HTTPHEADER, ["Accept: image/avif,image/webp,image/*,*/*;q=0.8"])
        # Called in C alone: bodies are counted by libcurl and thrown away.
        handle.setopt(pycurl.WRITEFUNCTION, len)
        self._lines[handle] = []
        handle.setopt(pycurl.HEADERFUNCTION, self._lines[handle].append)
        handle.setopt(pycurl.OPENSOCKETFUNCTION, self._socket_of(handle))
        return handle

    def _socket_of(self, handle: pycurl.Curl) -> Callable[[int, Any], Any]:
        """Looks at the address itself, at the moment of connecting: a name can change."""
        import pycurl

        def connect(purpose: int, address: Any) -> Any:
            family, kind, protocol, target = address
            if not self._rules.allow_private_addresses and not is_public(target[0]):
                self._tasks[handle].refused = f"{target[0]} is not a public address"
                return pycurl.SOCKET_BAD
            # libcurl works on a duplicate; ours is closed after the call that asked for it.
            opened = socket.socket(family, kind, protocol)
            self._sockets.append(opened)
            return opened

        return connect


def _root(base_url: str) -> str:
    """Scheme, host and port of a base URL as it spells them, with the slash that ends them."""
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}/"


def _headers(lines: Iterable[bytes]) -> dict[str, str]:
    """Header lines that matter, in lower case; the last of several of a name counts."""
    found = _TELLING.findall(b"".join(lines).lower())
    return {name.decode("ascii"): value.decode("latin-1").strip() for name, value in found}
