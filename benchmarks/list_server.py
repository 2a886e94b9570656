"""A server that does one thing: list a bucket of many keys, as S3's ListObjectsV2 does.

``python -m benchmarks.list_server KNOWN NEW PREFIX`` serves that many keys, prints its
port and ends when its standard input closes. It answers from a sorted list by bisection, so
that what is measured is the client. See
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html for the protocol.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

#: What every object weighs, in bytes: nobody reads them.
SIZE = 3_000_000

#: When the known keys were written, and when the new ones.
PAST = datetime(2026, 1, 1, tzinfo=UTC)
RECENTLY = PAST + timedelta(days=30)

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Listed:
    """An object of the benchmark's bucket."""

    key: str
    etag: str
    modified: datetime


def objects(known: int, new: int, prefix: str) -> Iterator[Listed]:
    """Keys as a year of uploads leaves them, in folders by day; the new ones lie anywhere.

    In no order; the same at every call.
    """
    for kind, count, written in (("IMG", known, PAST), ("NEW", new, RECENTLY)):
        for number in range(count):
            etag = hashlib.md5(f"{kind}{number}".encode(), usedforsecurity=False).hexdigest()
            day = number * 7919 % 365  # a prime, so that neighbours land in distant folders
            key = f"{prefix}2026/{day:03}/{kind}_{number:06}.jpg"
            yield Listed(key, etag, written + timedelta(seconds=number))


class ListServer(ThreadingHTTPServer):
    """Serves the listing; every PUT succeeds and is forgotten."""

    daemon_threads = True

    def __init__(self, listed: Iterator[Listed]) -> None:
        entries = sorted((one.key, _entry(one)) for one in listed)
        self.keys = [key for key, _ in entries]
        self.entries = [entry for _, entry in entries]
        super().__init__(("127.0.0.1", 0), _Handler)

    def page(self, prefix: str, after: str, most: int) -> bytes:
        """One page of keys behind ``after`` as XML."""
        first = max(bisect_left(self.keys, prefix), bisect_right(self.keys, after))
        end = bisect_left(self.keys, prefix + "\U0010ffff")
        last = min(first + most, end)
        more = last < end
        token = f"<NextContinuationToken>{self.keys[last - 1]}</NextContinuationToken>"
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Prefix>{quote(prefix)}</Prefix><EncodingType>url</EncodingType>"
            f"<KeyCount>{last - first}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token if more else ''}"
            f"{''.join(self.entries[first:last])}</ListBucketResult>"
        ).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ListServer

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        after = asked.get("continuation-token") or asked.get("start-after", "")
        most = min(int(asked.get("max-keys", PAGE)), PAGE)
        self._answer(self.server.page(asked.get("prefix", ""), after, most))

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
        pass


def _entry(one: Listed) -> str:
    return (
        f"<Contents><Key>{quote(one.key)}</Key>"
        f"<LastModified>{one.modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
        f"<ETag>&quot;{one.etag}&quot;</ETag><Size>{SIZE}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def main() -> None:
    known, new, prefix = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    server = ListServer(objects(known, new, prefix))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()  # until whoever started us closes it, or is gone
    server.shutdown()


if __name__ == "__main__":
    main()
