"""Uploads in parts by somebody else: this side begins them, signs addresses, and ends them.

Which upload in parts belongs to a key is asked of S3, so that nothing has to be written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from image_pipeline.store.bucket import Bucket
from image_pipeline.store.errors import ObjectGoneError, translated, unless

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

#: Bytes of a part but the last: the least that S3 takes. What breaks off is sent again from the
#: start of its part, so small ones lose least; 2 GB, the largest file, have 382 of 10,000.
PART_BYTES = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the bucket has: its number from 1, its bytes, its ETag without quotes."""

    number: int
    size: int
    etag: str


def part_sizes(size: int, part_bytes: int = PART_BYTES) -> list[int]:
    """The bytes of each part of a file: all of ``part_bytes`` but the last."""
    whole, rest = divmod(size, part_bytes)
    return [part_bytes] * whole + ([rest] if rest else [])


def begun(bucket: Bucket, key: str) -> str | None:
    """The id of the upload in parts under exactly this key; None if none was begun.

    Of several, begun in the same moment, the first: everybody who looks finds the same one.
    """
    uploads = _uploads(bucket, key)
    return uploads[0] if uploads else None


def begin(bucket: Bucket, key: str, content_type: str) -> str:
    """Begin an upload in parts, or find the one that somebody began in the same moment."""
    with translated(key):
        answer = bucket.client.create_multipart_upload(
            Bucket=bucket.name, Key=key, ContentType=content_type
        )
    return begun(bucket, key) or answer["UploadId"]


def part_urls(
    bucket: Bucket, key: str, upload: str, sizes: Mapping[int, int], seconds: int
) -> dict[int, str]:
    """Addresses to PUT parts to, by their numbers; each takes exactly so many bytes."""
    urls = {}
    for number, size in sizes.items():
        # The length is among the signed headers: a body of another one is refused.
        parameters: dict[str, Any] = {
            "Bucket": bucket.name,
            "Key": key,
            "UploadId": upload,
            "PartNumber": number,
            "ContentLength": size,
        }
        urls[number] = bucket.client.generate_presigned_url(
            "upload_part", Params=parameters, ExpiresIn=seconds
        )
    return urls


def parts(bucket: Bucket, key: str, upload: str) -> list[Part]:
    """The parts that the bucket has, by their numbers. Raises ``ObjectGoneError`` once it ended."""
    found: list[Part] = []
    with _translated(key):
        pages = bucket.client.get_paginator("list_parts").paginate(
            Bucket=bucket.name, Key=key, UploadId=upload
        )
        for page in pages:
            found.extend(
                Part(one["PartNumber"], one["Size"], one["ETag"].strip('"'))
                for one in page.get("Parts", ())
            )
    return sorted(found, key=lambda part: part.number)


def complete(bucket: Bucket, key: str, upload: str, ready: Iterable[Part]) -> None:
    """Make one object of the parts. Raises ``ObjectGoneError`` where the upload ended already."""
    named: Sequence[CompletedPartTypeDef] = [
        {"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in ready
    ]
    with _translated(key):
        bucket.client.complete_multipart_upload(
            Bucket=bucket.name, Key=key, UploadId=upload, MultipartUpload={"Parts": named}
        )


def abort(bucket: Bucket, key: str) -> int:
    """End every upload in parts under this key, and drop its parts; how many there were."""
    uploads = _uploads(bucket, key)
    for upload in uploads:
        with translated(key), unless("NoSuchUpload"):
            bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload)
    return len(uploads)


def _uploads(bucket: Bucket, key: str) -> list[str]:
    found: list[tuple[Any, str]] = []
    with translated(key):
        pages = bucket.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=bucket.name, Prefix=key
        )
        for page in pages:
            found.extend(
                (one["Initiated"], one["UploadId"])
                for one in page.get("Uploads", ())
                if one["Key"] == key
            )
    return [upload for _, upload in sorted(found)]


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """As everywhere, and an upload in parts that has ended is gone."""
    from botocore.exceptions import ClientError

    with translated(key):
        try:
            yield
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "NoSuchUpload":
                raise ObjectGoneError(key) from None
            raise
