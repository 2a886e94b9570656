"""Copies within a bucket that lose nothing: type, cache headers, metadata and tags stay."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from image_pipeline.store.bucket import Head

#: The smallest part of a copy in parts, in bytes; larger only where 10,000 would not do.
PART_BYTES = 256 * 1024 * 1024

_MOST_PARTS = 10_000
_THREADS = 10


def copy_whole(
    client: S3Client,
    bucket: str,
    key: str,
    to: str,
    etag: str,
    storage_class: str,
    only_if_missing: bool,
) -> str:
    """Copy the version ``etag`` in one request (up to 5 GB); returns the copy's ETag."""
    answer = client.copy_object(
        **_where(bucket, to),
        **_only_over(key, to, etag, only_if_missing),
        CopySource={"Bucket": bucket, "Key": key},
        CopySourceIfMatch=f'"{etag}"',
        # Unsaid, it would be the store's own choice: Standard on S3, the source's elsewhere.
        StorageClass=_as_class(storage_class),
    )
    return answer["CopyObjectResult"]["ETag"].strip('"')


def copy_in_parts(
    client: S3Client,
    bucket: str,
    key: str,
    to: str,
    head: Head,
    storage_class: str,
    part_bytes: int,
    only_if_missing: bool,
) -> str:
    """Copy an object of any size by parallel ranges; returns the copy's ETag.

    What a copy in one request carries along by itself is read and written again here. Parts of
    a copy that fails are given up, so that they are not paid for.
    """
    tags = client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    upload = client.create_multipart_upload(
        **_where(bucket, to),
        **_described(head),
        StorageClass=_as_class(storage_class),
        Tagging=urlencode([(tag["Key"], tag["Value"]) for tag in tags]),
    )["UploadId"]
    step = max(part_bytes, -(-head.size // _MOST_PARTS))
    ranges = [
        f"bytes={start}-{min(start + step, head.size) - 1}" for start in range(0, head.size, step)
    ]

    def copy_part(number: int) -> Any:
        part = client.upload_part_copy(
            **_where(bucket, to),
            CopySource={"Bucket": bucket, "Key": key},
            CopySourceIfMatch=f'"{head.etag}"',
            CopySourceRange=ranges[number],
            PartNumber=number + 1,
            UploadId=upload,
        )
        return {"PartNumber": number + 1, "ETag": part["CopyPartResult"]["ETag"]}

    try:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="copy") as threads:
            parts: Any = list(threads.map(copy_part, range(len(ranges))))
        made = client.complete_multipart_upload(
            **_where(bucket, to),
            **_only_over(key, to, head.etag, only_if_missing),
            UploadId=upload,
            MultipartUpload={"Parts": parts},
        )
    except BaseException:
        client.abort_multipart_upload(**_where(bucket, to), UploadId=upload)
        raise
    if tags and client.get_object_tagging(**_where(bucket, to))["TagSet"] != tags:
        # Some servers leave the tags out that an upload in parts begins with.
        client.put_object_tagging(**_where(bucket, to), Tagging={"TagSet": tags})
    return made["ETag"].strip('"')


def _where(bucket: str, key: str) -> Any:
    return {"Bucket": bucket, "Key": key}


def _only_over(key: str, to: str, etag: str, only_if_missing: bool) -> Any:
    """What has to be at the target: nothing, or, where a copy replaces its source, that source.

    Otherwise bytes that somebody sends during the copy would be lost under the old ones.
    """
    if key == to:
        return {"IfMatch": f'"{etag}"'}
    return {"IfNoneMatch": "*"} if only_if_missing else {}


def _as_class(storage_class: str) -> Any:
    return storage_class


def _described(head: Head) -> Any:
    """What is known of an object besides its bytes, as arguments; only what is set."""
    described = {
        "ContentType": head.content_type,
        "CacheControl": head.cache_control,
        "ContentEncoding": head.content_encoding,
        "ContentDisposition": head.content_disposition,
        "ContentLanguage": head.content_language,
        "Expires": head.expires,
        "Metadata": head.metadata,
    }
    return {name: value for name, value in described.items() if value}
