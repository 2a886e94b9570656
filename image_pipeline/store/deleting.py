"""Deletions: many with a request, each with its own result; and those that are final."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from image_pipeline.store.errors import ObjectChangedError, StoreError, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Keys that one request takes.
AT_ONCE = 1000

#: What XML 1.0 cannot express, and therefore no request that lists keys.
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

#: Errors of single keys, within a request that succeeded, that are worth another try.
_PASSING = ("InternalError", "SlowDown", "ServiceUnavailable")
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, or (``marker``) the mark of its deletion."""

    key: str
    id: str
    marker: bool


def delete(
    client: S3Client, bucket: str, keys: Sequence[str], etags: Mapping[str, str]
) -> dict[str, str]:
    """Delete objects; the errors of those that remain. See :meth:`Bucket.delete`."""
    errors: dict[str, str] = {}
    alone = [key for key in keys if _NOT_IN_XML.search(key)]
    together = [key for key in keys if not _NOT_IN_XML.search(key)] if alone else keys
    for start in range(0, len(together), AT_ONCE):
        errors |= _delete_together(client, bucket, together[start : start + AT_ONCE], etags)
    for key in alone:
        error = _delete_alone(client, bucket, key, etags)
        if error:
            errors[key] = error
    return errors


def versions(client: S3Client, bucket: str, prefix: str) -> Iterator[Version]:
    """Every version of the objects under a prefix, and the marks of their deletions."""
    with translated(prefix):
        pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        for answer in pages:
            for one in answer.get("Versions", ()):
                yield Version(one["Key"], one["VersionId"], False)
            for mark in answer.get("DeleteMarkers", ()):
                yield Version(mark["Key"], mark["VersionId"], True)


def erase(client: S3Client, bucket: str, key: str, only: Sequence[Version] | None = None) -> int:
    """Delete every version of an object, or only these, for good; returns how many there were."""
    found = only
    if found is None:
        found = [one for one in versions(client, bucket, key) if one.key == key]
    for version in found:
        with translated(key):
            client.delete_object(Bucket=bucket, Key=key, VersionId=version.id)
    return len(found)


def _delete_together(
    client: S3Client, bucket: str, keys: Sequence[str], etags: Mapping[str, str]
) -> dict[str, str]:
    errors: dict[str, str] = {}
    waiting = keys
    for attempt in range(_ATTEMPTS):
        found = _delete_once(client, bucket, waiting, etags)
        waiting = [key for key, error in found.items() if error.startswith(_PASSING)]
        errors |= {key: error for key, error in found.items() if key not in waiting}
        if not waiting:
            return errors
        if attempt < _ATTEMPTS - 1:
            time.sleep(0.2 * 2**attempt)
    return errors | {key: found[key] for key in waiting}


def _delete_once(
    client: S3Client, bucket: str, keys: Sequence[str], etags: Mapping[str, str]
) -> dict[str, str]:
    objects: Any = [
        {"Key": key, "ETag": f'"{etags[key]}"'} if key in etags else {"Key": key} for key in keys
    ]
    with translated(keys[0]):
        answer = client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    return {
        one["Key"]: f"{one.get('Code', '')}: {one.get('Message', '')}"
        for one in answer.get("Errors", ())
    }


def _delete_alone(client: S3Client, bucket: str, key: str, etags: Mapping[str, str]) -> str | None:
    match: Any = {"IfMatch": f'"{etags[key]}"'} if key in etags else {}
    try:
        with translated(key):
            client.delete_object(Bucket=bucket, Key=key, **match)
    except ObjectChangedError:
        return "PreconditionFailed: it has changed"
    except StoreError as error:
        return str(error)
    return None
