"""The one way to objects: a small class over a boto3 S3 client.

Every failure leaves as one of four exceptions, so that callers can tell "it is not there" from
"it is not what you asked for" from "it has to be restored first" from "the store did not
answer": only the last is worth another try, and none of them ever means that an image is bad.
"""

from __future__ import annotations

import builtins
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from image_pipeline.settings import EMBEDDED, BucketSettings
from image_pipeline.store import configuration, copying, deleting
from image_pipeline.store.client import make_client
from image_pipeline.store.deleting import Version
from image_pipeline.store.errors import (
    ObjectArchivedError,
    ObjectChangedError,
    ObjectGoneError,
    StoreError,
    translated,
    unless,
)
from image_pipeline.store.objects import Head, Object, Page, parse_restore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = [
    "MULTIPART_BYTES",
    "Bucket",
    "Head",
    "Object",
    "ObjectArchivedError",
    "ObjectChangedError",
    "ObjectGoneError",
    "Page",
    "StoreError",
    "Version",
]

#: From here on uploads go in parts, in parallel; below, one request is faster.
MULTIPART_BYTES = 25 * 1024 * 1024

#: CopyObject takes no more than this many bytes.
COPY_BYTES = 5 * 1024**3

_CHUNK = 1024 * 1024

T = TypeVar("T")


class Bucket:
    """A bucket. Safe to share between threads; one HTTP connection pool per instance.

    ``copy_bytes`` is the size up to which a copy is one request, ``part_bytes`` the size of the
    parts of a larger one.
    """

    copy_bytes = COPY_BYTES
    part_bytes = copying.PART_BYTES

    def __init__(self, settings: BucketSettings) -> None:
        self.settings = settings
        self.name = settings.name

    @cached_property
    def client(self) -> S3Client:
        """The boto3 client, made on first use (about 0.2 s)."""
        return make_client(self.settings, self.endpoint_url)

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
        with translated(self.name), unless("BucketAlreadyOwnedByYou"):
            # us-east-1 is the one region that S3 refuses to hear named here.
            self.client.create_bucket(Bucket=self.name, **({} if region == "us-east-1" else where))

    def page(self, prefix: str, after: str = "") -> Page:
        """The next page of keys under ``prefix`` that sort behind ``after`` (UTF-8 order)."""
        with translated(prefix):
            answer = self.client.list_objects_v2(
                Bucket=self.name, Prefix=prefix, StartAfter=after, MaxKeys=1000
            )
        objects = [
            Object(
                entry["Key"],
                entry["ETag"].strip('"'),
                entry["Size"],
                entry["LastModified"],
                entry.get("StorageClass", "STANDARD"),
            )
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

    def folders(self, prefix: str) -> builtins.list[str]:
        """The prefixes one step below ``prefix`` that end with a slash, in order."""
        found: builtins.list[str] = []
        with translated(prefix):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=prefix, Delimiter="/"
            )
            for answer in pages:
                found.extend(entry["Prefix"] for entry in answer.get("CommonPrefixes", ()))
        return found

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises :class:`ObjectGoneError`, :class:`ObjectArchivedError`."""
        return _again(lambda: self._read(key))

    def download(self, key: str, path: Path, etag: str) -> str:
        """Write the version ``etag`` of an object to ``path``; returns its SHA-256 (hex).

        Raises :class:`ObjectGoneError` or :class:`ObjectChangedError` where that version is no
        more, :class:`ObjectArchivedError` where it has to be restored first. The file
        appears under its name only when it is whole.
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
            with translated(key):
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
        with translated(key):
            if path.stat().st_size < MULTIPART_BYTES:
                self.put(key, path.read_bytes(), content_type)
            else:
                extra = {"ContentType": content_type}
                self.client.upload_file(str(path), self.name, key, ExtraArgs=extra, Config=config)

    def head(self, key: str) -> Head | None:
        """What the bucket says of an object; None where there is none."""
        try:
            with translated(key):
                answer = self.client.head_object(Bucket=self.name, Key=key)
        except ObjectGoneError:
            return None
        return Head(
            size=answer["ContentLength"],
            content_type=answer.get("ContentType", ""),
            cache_control=answer.get("CacheControl", ""),
            etag=answer["ETag"].strip('"'),
            last_modified=answer["LastModified"].astimezone(UTC),
            storage_class=answer.get("StorageClass", "STANDARD"),
            restore=parse_restore(answer.get("Restore", "")),
            metadata=answer.get("Metadata", {}),
            content_encoding=answer.get("ContentEncoding", ""),
            content_disposition=answer.get("ContentDisposition", ""),
            content_language=answer.get("ContentLanguage", ""),
            expires=str(answer.get("ExpiresString", "")),
        )

    def copy(
        self,
        key: str,
        to: str,
        *,
        etag: str | None = None,
        storage_class: str | None = None,
        known: Head | None = None,
        only_if_missing: bool = False,
    ) -> str:
        """Copy an object within the bucket; returns the ETag of the copy.

        Type, cache headers, metadata and tags stay; the class is ``storage_class`` or Standard.
        ``etag`` is the version that must still be there, ``known`` what :meth:`head` just told
        and need not be asked again. From ``copy_bytes`` on it is done in parallel parts. With
        ``only_if_missing`` nothing that is there already is overwritten.

        Raises :class:`ObjectGoneError`, :class:`ObjectArchivedError`, or
        :class:`ObjectChangedError`: another version is there, or, with ``only_if_missing``, any.
        """
        head = known or self.head(key)
        if head is None:
            raise ObjectGoneError(key)
        if etag not in (None, head.etag):
            raise ObjectChangedError(key)
        if head.archived:
            # S3 would refuse as well; servers for tests do not.
            raise ObjectArchivedError(key)
        wanted = storage_class or "STANDARD"
        with translated(key):
            if head.size <= self.copy_bytes:
                return copying.copy_whole(
                    self.client, self.name, key, to, head.etag, wanted, only_if_missing
                )
            return copying.copy_in_parts(
                self.client, self.name, key, to, head, wanted, self.part_bytes, only_if_missing
            )

    def delete(
        self, keys: Sequence[str], *, etags: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Delete objects, 1,000 with a request; returns the errors of those that remain, by key.

        Keys that are not there count as deleted. With ``etags`` only those versions are: an
        object that has become another stays, and its error begins with ``PreconditionFailed``.
        On a versioned bucket a delete adds a marker, and what was there can be had back.
        Raises :class:`StoreError` where a whole request fails; some may then be deleted.
        """
        return deleting.delete(self.client, self.name, keys, etags or {})

    def restore(self, key: str, days: int, tier: str) -> bool:
        """Ask for an archived object to be readable for ``days``; False if that is under way.

        ``tier`` is ``Expedited``, ``Standard`` or ``Bulk``. Raises :class:`ObjectGoneError`.
        """
        request: Any = {"Days": days, "GlacierJobParameters": {"Tier": tier}}
        with translated(key), unless("RestoreAlreadyInProgress"):
            self.client.restore_object(Bucket=self.name, Key=key, RestoreRequest=request)
            return True
        return False

    @property
    def versioned(self) -> bool:
        """Whether the bucket keeps old versions, or did: then a delete does not end them."""
        return configuration.is_versioned(self.client, self.name)

    def versions(self, prefix: str) -> Iterator[Version]:
        """Every version of the objects under ``prefix``, and the marks of their deletions."""
        return deleting.versions(self.client, self.name, prefix)

    def erase(self, key: str, only: Sequence[Version] | None = None) -> int:
        """Delete every version of an object, or ``only`` these, for good; how many there were.

        Needs the right ``s3:DeleteObjectVersion``, which nothing else in the pipeline uses.
        """
        return deleting.erase(self.client, self.name, key, only)

    def lifecycle(self) -> builtins.list[dict[str, Any]]:
        """The rules of the bucket's lifecycle configuration; none where there is none."""
        return configuration.lifecycle(self.client, self.name)

    def put_lifecycle(self, rules: Sequence[dict[str, Any]]) -> None:
        """Replace the whole lifecycle configuration: rules that are left out are gone."""
        configuration.put_lifecycle(self.client, self.name, rules)

    def presigned_url(self, key: str, seconds: int) -> str:
        """A URL by which anybody may read the object for so many seconds (at most 604,800)."""
        with translated(key):
            return self.client.generate_presigned_url(
                "get_object", Params={"Bucket": self.name, "Key": key}, ExpiresIn=seconds
            )

    def _read(self, key: str) -> bytes:
        with translated(key):
            body = self.client.get_object(Bucket=self.name, Key=key)["Body"]
        with translated(key, _BrokenBodyError):
            return body.read()

    def _stream(self, key: str, path: Path, etag: str) -> str:
        digest = hashlib.sha256()
        part = path.with_name(f"{path.name}.part")
        with translated(key):
            body = self.client.get_object(Bucket=self.name, Key=key, IfMatch=f'"{etag}"')["Body"]
        with translated(key, _BrokenBodyError), part.open("wb") as file:
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
