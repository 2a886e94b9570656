"""What an S3 event notification says, whoever wrapped it.

Events are hints: at least once, in no order, sometimes not at all. So an event only ever adds an
upload to the catalog, under the same identity (key, ETag) that the sweep gives it, and whichever
comes second changes nothing. That an object was removed is no reason to do anything: an upload
that is gone when its batch runs gets its verdict there.

Forms understood: S3's own (https://docs.aws.amazon.com/AmazonS3/latest/userguide/
notification-content-structure.html), the same inside an SNS notification, and EventBridge's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

#: Names of what brings an object's bytes, without the prefix ``s3:`` that tests of it carry.
_CREATED = "ObjectCreated:"


class BadMessageError(Exception):
    """A message that is no S3 event. It is left in the queue, which puts it aside in the end."""


@dataclass(frozen=True, slots=True)
class Created:
    """An object that was written. ``etag`` is empty where the event does not tell it."""

    bucket: str
    key: str
    etag: str
    size: int
    at: datetime


def created_objects(body: str) -> list[Created]:
    """The objects that a message says were written; none for tests and removals.

    Raises :class:`BadMessageError` for anything that is not understood as a whole: half of a
    message must not be lost with the other half.
    """
    try:
        document = json.loads(body)
        if isinstance(document, dict) and document.get("Type") == "Notification":
            document = json.loads(document["Message"])
        if not isinstance(document, dict):
            raise BadMessageError("not a JSON object")
        if document.get("Event") == "s3:TestEvent":
            return []
        if "detail-type" in document:
            return _of_event_bridge(document)
        return _of_records(document["Records"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadMessageError(f"{type(error).__name__}: {error}"[:300]) from None


def _of_records(records: Iterable[Mapping[str, Any]]) -> list[Created]:
    found = []
    for record in records:
        name = str(record["eventName"]).removeprefix("s3:")
        if name.startswith(_CREATED):
            part = record["s3"]
            # Keys come form-encoded: a space is "+", everything beyond ASCII a percent sequence.
            key = unquote_plus(part["object"]["key"], errors="strict")
            found.append(_created(part["bucket"], part["object"], key, record["eventTime"]))
    return found


def _of_event_bridge(document: Mapping[str, Any]) -> list[Created]:
    """EventBridge does not encode keys, and spells ``etag`` in small letters."""
    if document["detail-type"] != "Object Created":
        return []
    detail = document["detail"]
    key = detail["object"]["key"]
    return [_created(detail["bucket"], detail["object"], key, document["time"])]


def _created(bucket: Mapping[str, Any], entry: Mapping[str, Any], key: str, at: str) -> Created:
    if not isinstance(key, str) or not key:
        raise BadMessageError("an object without a key")
    moment = datetime.fromisoformat(at)
    etag = entry.get("eTag") or entry.get("etag") or ""
    return Created(
        bucket=str(bucket["name"]),
        key=key,
        etag=str(etag).strip('"'),
        size=int(entry.get("size", 0)),
        at=moment if moment.tzinfo else moment.replace(tzinfo=UTC),
    )


def source_of(key: str, prefixes: Mapping[str, str]) -> str | None:
    """The source under whose prefix a key lies; prefixes of sources never overlap."""
    return next((name for name, prefix in prefixes.items() if key.startswith(prefix)), None)
