"""The queue of S3 events: messages in, uploads in the catalog, then the messages deleted.

A message is deleted only after what it says is committed. Whoever dies in between leaves it to
be delivered again; what it says is then known, and nothing happens twice. What is no event stays in
the queue until its redrive policy puts it into the dead-letter queue, where people can look at it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from image_pipeline.catalog import originals, removals, uploads
from image_pipeline.catalog.engine import Catalog
from image_pipeline.ingest.discovery import is_upload
from image_pipeline.ingest.events import BadMessageError, Created, created_objects, source_of
from image_pipeline.settings import EMBEDDED, Settings
from image_pipeline.store.bucket import Bucket, StoreError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_log = logging.getLogger(__name__)

#: SQS gives and takes back at most ten messages in one request.
_BATCH = 10

#: The longest that SQS lets a request wait for a message. Waiting costs nothing; asking does.
_LONGEST_WAIT = 20


@dataclass(slots=True)
class Drained:
    """What one look at the queue brought; ``found`` counts uploads nobody knew of before."""

    messages: int = 0
    events: int = 0
    found: int = 0
    foreign: int = 0
    bad: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Message:
    """A message with the handle by which it is deleted."""

    body: str
    handle: str


class Queue:
    """An SQS queue. Failures are :class:`StoreError`: the next look may succeed."""

    def __init__(self, url: str, bucket: Bucket) -> None:
        self.url = url
        self.bucket = bucket

    @cached_property
    def client(self) -> SQSClient:
        """The boto3 client, made on first use."""
        import boto3
        from botocore.config import Config

        settings = self.bucket.settings
        embedded = settings.endpoint_url == EMBEDDED
        client: SQSClient = boto3.client(
            "sqs",
            region_name=settings.region,
            # The embedded server speaks both; elsewhere the queue's URL says where it is.
            endpoint_url=self.bucket.endpoint_url if embedded else _server_of(self.url),
            config=Config(retries={"mode": "standard"}, connect_timeout=5, read_timeout=40),
            aws_access_key_id=EMBEDDED if embedded else None,
            aws_secret_access_key=EMBEDDED if embedded else None,
        )
        return client

    def receive(self, wait_seconds: float) -> list[Message]:
        """Up to ten messages, as soon as there are any, or none after ``wait_seconds``."""
        with _translated(self.url):
            answer = self.client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=_BATCH,
                WaitTimeSeconds=max(0, min(_LONGEST_WAIT, int(wait_seconds))),
            )
        return [Message(one["Body"], one["ReceiptHandle"]) for one in answer.get("Messages", ())]

    def delete(self, messages: Sequence[Message]) -> None:
        """Take messages out. One that stays is delivered again, which does no harm."""
        entries: Any = [
            {"Id": str(number), "ReceiptHandle": message.handle}
            for number, message in enumerate(messages)
        ]
        if entries:
            with _translated(self.url):
                answer = self.client.delete_message_batch(QueueUrl=self.url, Entries=entries)
            for failure in answer.get("Failed", ()):
                _log.warning("a message was not deleted and comes again: %s", failure["Code"])


def drain(
    queue: Queue,
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    seconds_left: Callable[[], float],
) -> Drained:
    """Read messages until the queue is empty or time is up, and record what they tell.

    The first request waits for messages as long as time allows, later ones do not: whatever came
    is worth a batch now.
    """
    done = Drained()
    wait = seconds_left()
    while messages := queue.receive(wait):
        queue.delete(_record(messages, bucket, catalog, settings, clock(), done))
        done.messages += len(messages)
        wait = 0
        if seconds_left() <= 0:
            break
    return done


def _record(
    messages: Sequence[Message],
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    now: datetime,
    done: Drained,
) -> list[Message]:
    """Commit what messages tell; those that may be deleted."""
    understood, events = [], []
    for message in messages:
        try:
            events += created_objects(message.body)
        except BadMessageError as error:
            done.bad.append(str(error))
            _log.warning("a message is no S3 event and is left to its redrive policy: %s", error)
        else:
            understood.append(message)
    done.events += len(events)
    rows = _rows(events, bucket, settings, now, done)
    if rows:
        with catalog.write() as connection:
            new = _unknown(connection, rows, now)
            uploads.add(connection, new)
        done.found += len({(row["source"], row["key"], row["etag"]) for row in new})
    return understood


def _unknown(
    connection: sa.Connection, rows: Sequence[dict[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    """The uploads that nobody knows of.

    An object that housekeeping is moving or removing is left to the sweep, which sees what became
    of it: the event of a move looks like that of an upload.
    """
    removals.hold(connection)
    keys = [row["key"] for row in rows]
    busy = (
        removals.being_removed(connection, keys, now) | originals.announced(connection, keys).keys()
    )
    known = {
        (source, *pair)
        for source in {row["source"] for row in rows}
        for pair in uploads.known(connection, source, keys)
    }
    return [
        row
        for row in rows
        if row["key"] not in busy and (row["source"], row["key"], row["etag"]) not in known
    ]


def _rows(
    events: Sequence[Created], bucket: Bucket, settings: Settings, now: datetime, done: Drained
) -> list[dict[str, Any]]:
    prefixes = {name: source.prefix for name, source in settings.sources.items()}
    rows = []
    for event in events:
        source = source_of(event.key, prefixes)
        if event.bucket != bucket.name or source is None or not is_upload(event.key, event.size):
            done.foreign += 1
            continue
        # Without an ETag it cannot be told from what the sweep finds: the sweep will find it.
        if event.etag:
            rows.append(
                {
                    "source": source,
                    "key": event.key,
                    "etag": event.etag,
                    "size": event.size,
                    "last_modified": event.at,
                    "discovered_at": now,
                }
            )
    return rows


def _server_of(url: str) -> str | None:
    """The endpoint of a queue that is not at AWS; None there, where boto3 knows it."""
    parts = urlsplit(url)
    if (parts.hostname or "").endswith(("amazonaws.com", "amazonaws.com.cn")):
        return None
    return f"{parts.scheme}://{parts.netloc}"


@contextmanager
def _translated(url: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StoreError(f"the queue {url}: {error}") from error
