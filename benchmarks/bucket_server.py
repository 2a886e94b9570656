"""The list server with what else housekeeping asks of a bucket: folders, and a few objects.

``python -m benchmarks.bucket_server IMAGES`` serves the bucket that so many images leave,
prints its port and ends when its standard input closes. Objects that are put are kept in
memory and listed nowhere: they are the inventory and the plan.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, quote, unquote, urlsplit

from benchmarks.list_server import PAGE, PAST, Listed, ListServer
from image_pipeline.store import layout

SOURCE = "photos"
PREFIX = f"uploads/{SOURCE}/"
BATCH_IMAGES = 200

#: Files of an image: five sizes in three formats.
SIZES = ("thumbnail", "small", "medium", "large", "xlarge")
FORMATS = ("avif", "webp", "jpg")

#: Objects of an image that are in use: the upload, the files and the manifest.
OBJECTS = 2 + len(SIZES) * len(FORMATS)

#: Of so many files one is an orphan: under half of what a plan may have.
ORPHAN_OF = 100


def image_of(number: int) -> str:
    """The id of an image."""
    return hashlib.sha256(b"%d" % number).hexdigest()


def batch_of(number: int) -> str:
    """The batch of an image."""
    batch = number // BATCH_IMAGES
    return (
        f"{SOURCE}-20260101-{batch // 3600 % 24:02}{batch // 60 % 60:02}{batch % 60:02}-{batch:06x}"
    )


def upload_of(number: int) -> Listed:
    """The upload of an image: in folders by day, as a year of them leaves it."""
    etag = hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()
    return Listed(f"{PREFIX}2026/{number * 7919 % 365:03}/IMG_{number:06}.jpg", etag, PAST)


def files_of(number: int) -> list[str]:
    """The keys of the files of an image."""
    image = image_of(number)
    return [
        layout.variant_key(image, size, 640, 480, image[:12], ending)
        for size in SIZES
        for ending in FORMATS
    ]


def orphans_of(number: int) -> list[str]:
    """Files of an image that no row has."""
    image = image_of(number)
    if number * OBJECTS % ORPHAN_OF >= OBJECTS:
        return []
    return [layout.variant_key(image, "small", 640, 480, "0" * 12, "avif")]


def bucket_of(images: int) -> Iterator[Listed]:
    """Everything that so many images leave in a bucket."""
    for number in range(images):
        yield upload_of(number)
        keys = [*files_of(number), *orphans_of(number)]
        keys.append(layout.image_manifest_key(SOURCE, image_of(number)))
        if number % BATCH_IMAGES == 0:
            keys += [
                layout.batch_key(batch_of(number)), layout.batch_manifest_key(batch_of(number)),
            ]  # fmt: skip
        for key in keys:
            yield Listed(key, "0" * 32, PAST)


class BucketServer(ListServer):
    """Serves pages and folders of a listing, and objects that were put."""

    def __init__(self, listed: Iterator[Listed]) -> None:
        super().__init__(listed)
        self.RequestHandlerClass = _Handler
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}

    def folders(self, prefix: str) -> bytes:
        """The common prefixes below a prefix, on one page."""
        found = []
        at = bisect_left(self.keys, prefix)
        while at < len(self.keys) and self.keys[at].startswith(prefix):
            folder, slash, _ = self.keys[at][len(prefix) :].partition("/")
            if slash:
                found.append(f"{prefix}{folder}/")
            # Behind everything in that folder.
            at = bisect_left(self.keys, f"{prefix}{folder}{chr(ord('/') + 1) if slash else chr(0)}")
        entries = "".join(
            f"<CommonPrefixes><Prefix>{quote(one)}</Prefix></CommonPrefixes>" for one in found
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
            f"{entries}</ListBucketResult>"
        ).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BucketServer

    def do_GET(self) -> None:
        asked = self._asked()
        if "list-type" not in asked:
            self._give(with_body=True)
        elif "delimiter" in asked:
            self._answer(200, self.server.folders(asked.get("prefix", "")))
        else:
            after = asked.get("continuation-token") or asked.get("start-after", "")
            most = min(int(asked.get("max-keys", PAGE)), PAGE)
            self._answer(200, self.server.page(asked.get("prefix", ""), after, most))

    def do_HEAD(self) -> None:
        self._give(with_body=False)

    def do_PUT(self) -> None:
        data = self._body()
        asked = self._asked()
        if "uploadId" in asked:
            self.server.parts.setdefault(asked["uploadId"], {})[int(asked["partNumber"])] = data
        else:
            self.server.objects[self._key()] = data
        self._answer(200, b"", ETag=f'"{_etag(data)}"')

    def do_POST(self) -> None:
        """Begin or complete an upload in parts. Keys are ids: nothing of them needs escaping."""
        self._body()
        key, asked = self._key(), self._asked()
        if "uploadId" in asked:
            parts = self.server.parts.pop(asked["uploadId"])
            self.server.objects[key] = b"".join(data for _, data in sorted(parts.items()))
            body = (
                f"<CompleteMultipartUploadResult><Key>{key}</Key></CompleteMultipartUploadResult>"
            )
        else:
            body = (
                f"<InitiateMultipartUploadResult><Key>{key}</Key><UploadId>{_etag(key.encode())}"
                "</UploadId></InitiateMultipartUploadResult>"
            )
        self._answer(200, body.encode())

    def _asked(self) -> dict[str, str]:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return {name: values[0] for name, values in query.items()}

    def _body(self) -> bytes:
        """What was sent; boto3 sends bodies in chunks with a checksum behind them."""
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _key(self) -> str:
        """The object of the request, without the bucket."""
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

    def _give(self, *, with_body: bool) -> None:
        key = self._key()
        data = b"" if not key else self.server.objects.get(key)
        if data is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", with_body=with_body)
        else:
            self._answer(200, data, with_body=with_body, ETag=f'"{_etag(data)}"')

    def _answer(self, status: int, body: bytes, *, with_body: bool = True, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", self.date_time_string())
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
        pass


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def main() -> None:
    server = BucketServer(bucket_of(int(sys.argv[1])))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()  # until whoever started us closes it, or is gone
    server.shutdown()


if __name__ == "__main__":
    main()
