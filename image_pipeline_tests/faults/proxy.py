"""An HTTP proxy in front of the S3 server, on which requests fail as told."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

#: Headers that are about one connection and not about the request.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


#: How long a ``stall`` lasts.
STALL_SECONDS = 5.0


@dataclass(slots=True)
class Trouble:
    """The next ``times`` requests of ``method`` for keys that contain ``key`` fail.

    ``how`` is an HTTP status, ``cut`` (the answer breaks off in the middle of its body),
    ``reset`` (the connection is reset before any answer) or ``stall`` (it takes
    :data:`STALL_SECONDS`, and then succeeds).
    """

    method: str
    key: str
    how: int | str
    times: int = 1_000_000

    def strikes(self, method: str, key: str) -> bool:
        if method != self.method or self.key not in key or not self.times:
            return False
        self.times -= 1
        return True


class FaultProxy:
    """The proxy; a context manager. ``served`` counts what the S3 server answered well."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        self.troubles: list[Trouble] = []
        self.served: Counter[tuple[str, str]] = Counter()
        self.failed: Counter[tuple[str, str]] = Counter()
        self.hows: Counter[int | str] = Counter()
        self._shares: Mapping[int | str, float] = {}
        self._seed = 0
        self._asked: Counter[tuple[str, str]] = Counter()
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def trouble(self, method: str, key: str, how: int | str, times: int = 1_000_000) -> None:
        with self.lock:
            self.troubles.append(Trouble(method, key, how, times))

    def storm(self, seed: int, shares: Mapping[int | str, float]) -> None:
        """Every request may fail: ``shares`` are the probabilities of each way to.

        Decided by the seed and by how often this was asked for, not by the order of threads.
        """
        with self.lock:
            self._seed, self._shares = seed, shares

    def calm(self) -> None:
        """No more trouble; counting starts anew."""
        with self.lock:
            self.troubles.clear()
            self._shares = {}
            self._asked.clear()
            self.hows.clear()
            self.served.clear()
            self.failed.clear()

    def keys(self, method: str, prefix: str) -> Counter[str]:
        """How often each key under ``prefix`` was asked for with success."""
        with self.lock:
            return Counter(
                {
                    key: count
                    for (verb, key), count in self.served.items()
                    if verb == method and key.startswith(prefix)
                }
            )

    def how_to_fail(self, method: str, key: str) -> int | str | None:
        with self.lock:
            for trouble in self.troubles:
                if trouble.strikes(method, key):
                    self.failed[method, key] += 1
                    return trouble.how
            how = self._drawn(method, key)
            if how is not None:
                self.failed[method, key] += 1
                self.hows[how] += 1
            return how

    def _drawn(self, method: str, key: str) -> int | str | None:
        self._asked[method, key] += 1
        draw = random.Random(f"{self._seed} {method} {key} {self._asked[method, key]}").random()
        for how, share in self._shares.items():
            draw -= share
            if draw < 0:
                return how
        return None

    def count(self, method: str, key: str, status: int) -> None:
        if status < 300:
            with self.lock:
                self.served[method, key] += 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are two writes: the second would wait for the first one's receipt.
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def forward(self) -> None:
                _forward(proxy, self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

        return Handler


def _forward(proxy: FaultProxy, request: BaseHTTPRequestHandler) -> None:
    body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
    method = request.command
    # Path style: the bucket comes first.
    key = unquote(urlsplit(request.path).path).lstrip("/").partition("/")[2]
    how = proxy.how_to_fail(method, key)
    if how == "reset":
        _reset(request)
        return
    if isinstance(how, int):
        _answer(request, how, [("Content-Type", "application/xml")], _error(how))
        return
    if how == "stall":
        time.sleep(STALL_SECONDS)
    headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
    connection = http.client.HTTPConnection(proxy.target, timeout=30)
    try:
        connection.request(method, request.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP]
    if how == "cut":
        _answer(request, answer.status, kept, data, len(data) // 2)
        _reset(request)
        return
    length = answer.getheader("Content-Length") if method == "HEAD" else None
    proxy.count(method, key, answer.status)
    _answer(request, answer.status, kept, data, length=length)


def _answer(
    request: BaseHTTPRequestHandler,
    status: int,
    headers: list[tuple[str, str]],
    data: bytes,
    sent: int | None = None,
    length: str | None = None,
) -> None:
    request.send_response_only(status)
    for name, value in headers:
        request.send_header(name, value)
    request.send_header("Content-Length", length or str(len(data)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data[:sent])


def _reset(request: BaseHTTPRequestHandler) -> None:
    """Close without a goodbye: the client sees a reset connection."""
    request.wfile.flush()
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.close_connection = True


def _error(status: int) -> bytes:
    code = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}[status]
    return f"<Error><Code>{code}</Code><Message>told to fail</Message></Error>".encode()
