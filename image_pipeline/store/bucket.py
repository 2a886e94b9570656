"""The one way to objects: a small class over a boto3 S3 client.

Every failure leaves as one of three exceptions, so that callers can tell "it is not there"
from "it is not what you asked for" from "the store did not answer": only the last is worth
another try, and none of them ever means that an image is bad.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from image_pipeline.settings import EMBEDDED, BucketSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: From here on uploads go in parts, in parallel; below, one request is faster.
MULTIPART_BYTES = 25 * 1024 * 1024

_CHUNK = 1024 * 1024

T = TypeVar("T")


class StoreError(Exception):
    """The store failed or refused; the request may succeed when tried again."""


class ObjectGoneError(Exception):
    """There is no object under this key."""


class ObjectChangedError(Exception):
    """The object under this key is no longer the version that was asked for."""


@dataclass(frozen=True, slots=True)
class Object:
    """One entry of a listing. ``etag`` without quotes, ``size`` in bytes."""

    key: str
    etag: str
    size: int
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Up to 1,000 objects in key order, and whether more follow."""

    objects: list[Object]
    more: bool


@dataclass(frozen=True, slots=True)
class Head:
    """What a browser would be told about an object."""

    size: int
    content_type: str
    cache_control: str


class Bucket:
    """A bucket. Safe to share between threads; one HTTP connection pool per instance."""

    def __init__(self, settings: BucketSettings) -> None:
        self.settings = settings
        self.name = settings.name

    @cached_property
    def client(self) -> S3Client:
        """The boto3 client, made on first use (about 0.2 s)."""
        import boto3
        import botocore.session
        from botocore.config import Config

        addressing = self.settings.addressing
        config = Config(
            # For presigned URLs boto3 still falls back to version 2, which new regions refuse.
            signature_version="s3v4",
            max_pool_connections=50,
            retries={"mode": "adaptive", "max_attempts": 6},
            connect_timeout=5,
            read_timeout=30,
            s3={"addressing_style": addressing},
        )
        # The embedded server takes any credentials, but boto3 refuses to go without.
        dummy = EMBEDDED if self.settings.endpoint_url == EMBEDDED else None
        core = botocore.session.get_session()
        core.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=_parse_timestamp
        )
        client: S3Client = boto3.session.Session(botocore_session=core).client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.settings.region,
            config=config,
            aws_access_key_id=dummy,
            aws_secret_access_key=dummy,
        )
        return client

    @cached_property
    def endpoint_url(self) -> str | None:
        """The server's URL; None for AWS itself."""
        if self.settings.endpoint_url != EMBEDDED:
            return self.settings.endpoint_url
        try:
            return f"http://127.0.0.1:{int((self.settings.data / 'port').read_text())}"
        except (OSError, ValueError):
            raise StoreError(
                "the embedded S3 server has never been started here: run 'make dev' or 'make demo'"
            ) from None

    @property
    def url(self) -> str:
        """The URL before every key, without a trailing slash."""
        endpoint = self.endpoint_url
        if endpoint:
            return f"{endpoint.rstrip('/')}/{self.name}"
        return f"https://{self.name}.s3.{self.settings.region}.amazonaws.com"

    def create_if_missing(self) -> None:
        """Make the bucket; nothing happens where it is already ours."""
        region: Any = self.settings.region
        where: Any = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with _translated(self.name):
            # us-east-1 is the one region that S3 refuses to hear named here.
            self.client.create_bucket(Bucket=self.name, **({} if region == "us-east-1" else where))

    def page(self, prefix: str, after: str = "") -> Page:
        """The next page of keys under ``prefix`` that sort behind ``after`` (UTF-8 order)."""
        with _translated(prefix):
            answer = self.client.list_objects_v2(
                Bucket=self.name, Prefix=prefix, StartAfter=after, MaxKeys=1000
            )
        objects = [
            Object(entry["Key"], entry["ETag"].strip('"'), entry["Size"], entry["LastModified"])
            for entry in answer.get("Contents", ())
        ]
        return Page(objects, answer.get("IsTruncated", False))

    def list(self, prefix: str) -> Iterator[Object]:
        """Every object under ``prefix``, page by page."""
        after, more = "", True
        while more:
            page = self.page(prefix, after)
            yield from page.objects
            more = page.more and bool(page.objects)
            after = page.objects[-1].key if page.objects else after

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises :class:`ObjectGoneError`."""
        return _again(lambda: self._read(key))

    def download(self, key: str, path: Path, etag: str) -> str:
        """Write the version ``etag`` of an object to ``path``; returns its SHA-256 (hex).

        Raises :class:`ObjectGoneError` or :class:`ObjectChangedError` where that version is no
        more. The file appears under its name only when it is whole.
        """
        return _again(lambda: self._stream(key, path, etag))

    def put(
        self,
        key: str,
        data: bytes,
        content_type: str,
        cache_control: str | None = None,
        *,
        only_if_missing: bool = False,
    ) -> bool:
        """Write an object whole. False if ``only_if_missing`` and it was already there."""
        extra: dict[str, Any] = {}
        if cache_control:
            extra["CacheControl"] = cache_control
        if only_if_missing:
            extra["IfNoneMatch"] = "*"
        try:
            with _translated(key):
                self.client.put_object(
                    Bucket=self.name, Key=key, Body=data, ContentType=content_type, **extra
                )
        except ObjectChangedError:
            return False
        return True

    def upload_file(self, path: Path, key: str, content_type: str) -> None:
        """Send a local file; in parallel parts from 25 MB on."""
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(multipart_threshold=MULTIPART_BYTES, max_concurrency=10)
        with _translated(key):
            if path.stat().st_size < MULTIPART_BYTES:
                self.put(key, path.read_bytes(), content_type)
            else:
                extra = {"ContentType": content_type}
                self.client.upload_file(str(path), self.name, key, ExtraArgs=extra, Config=config)

    def head(self, key: str) -> Head | None:
        """What the bucket says of an object; None where there is none."""
        try:
            with _translated(key):
                answer = self.client.head_object(Bucket=self.name, Key=key)
        except ObjectGoneError:
            return None
        return Head(
            answer["ContentLength"], answer.get("ContentType", ""), answer.get("CacheControl", "")
        )

    def _read(self, key: str) -> bytes:
        with _translated(key):
            body = self.client.get_object(Bucket=self.name, Key=key)["Body"]
        with _translated(key, _BrokenBodyError):
            return body.read()

    def _stream(self, key: str, path: Path, etag: str) -> str:
        digest = hashlib.sha256()
        part = path.with_name(f"{path.name}.part")
        with _translated(key):
            body = self.client.get_object(Bucket=self.name, Key=key, IfMatch=f'"{etag}"')["Body"]
        with _translated(key, _BrokenBodyError), part.open("wb") as file:
            for chunk in body.iter_chunks(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
        part.replace(path)
        return digest.hexdigest()


class _BrokenBodyError(StoreError):
    """The answer began well and broke off."""


def _again(read: Callable[[], T], attempts: int = 4) -> T:
    """Try again what botocore's own retries leave out: bodies that break off."""
    for attempt in range(attempts):
        try:
            return read()
        except _BrokenBodyError:
            if attempt == attempts - 1:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


def _parse_timestamp(value: Any) -> datetime:
    """Read the form that S3 lists times in: most of the cost of a listing is this, done slowly."""
    from botocore.utils import parse_timestamp

    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        parsed: datetime = parse_timestamp(value)
        return parsed


@contextmanager
def _translated(what: str, kind: type[StoreError] = StoreError) -> Iterator[None]:
    """Boto3's, botocore's and urllib3's exceptions as ours."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("NoSuchKey", "404", "NotFound"):
            raise ObjectGoneError(what) from None
        if code in ("PreconditionFailed", "412"):
            raise ObjectChangedError(what) from None
        if code == "BucketAlreadyOwnedByYou":
            return
        raise kind(f"{what}: {error}") from error
    except (Boto3Error, BotoCoreError, HTTPError, ConnectionError, TimeoutError) as error:
        raise kind(f"{what}: {error}") from error
