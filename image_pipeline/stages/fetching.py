"""Originals from the bucket to the spool, a few ahead of the work.

Housekeeping moves originals to other classes of storage, which may change their ETags, and some
of those classes are archives. Neither is a fault of the original: a version that moved is
followed, one that is archived is asked back and its batch tried again when it can be read.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import originals as catalog_originals
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.uploads import Upload
from image_pipeline.stages.tools import Tools
from image_pipeline.store.bucket import (
    ObjectArchivedError,
    ObjectChangedError,
    ObjectGoneError,
    StoreError,
)

#: Downloads at a time, and how many may lie finished ahead of the work.
THREADS = 8
AHEAD = 16

#: The reason of the verdict ``failed`` for an original that was asked back from an archive.
ARCHIVED = "archived"

#: How long a restore takes at most, by class and tier (S3 User Guide, "Archive retrieval
#: options"). Deep Archive has no Expedited tier.
RESTORE_TIMES = {
    "GLACIER": {
        "Expedited": timedelta(minutes=5),
        "Standard": timedelta(hours=5),
        "Bulk": timedelta(hours=12),
    },
    "DEEP_ARCHIVE": {"Standard": timedelta(hours=12), "Bulk": timedelta(hours=48)},
}


class ArchivedError(StoreError):
    """An original lies in an archive and was asked back; the message says until when."""


class MovingError(StoreError):
    """An original is on its way to another class of storage; in a moment it can be read."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An original in the spool and the SHA-256 of its bytes (hex), or why it is not there.

    ``seconds`` is how long the download took.
    """

    upload: Upload
    sha256: str = ""
    path: Path | None = None
    error: Exception | None = None
    seconds: float = 0.0


def fetch(tools: Tools, uploads: Iterable[Upload]) -> Iterator[Fetched]:
    """Download originals in order, at most :data:`AHEAD` ahead of the consumer."""
    waiting: deque[Future[Fetched]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as threads:
        try:
            for upload in uploads:
                waiting.append(threads.submit(_fetch_one, tools, upload))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def load_original(tools: Tools, candidates: list[Upload]) -> bytes:
    """The bytes of an image: from the spool, else from the first upload that still has them.

    Raises :class:`ObjectGoneError` where none of the uploads is in the bucket any more,
    :class:`ArchivedError` where all that are left are archived (the first is then asked back),
    and :class:`MovingError`.
    """
    for upload in candidates:
        path = tools.spool.path(upload.id)
        if path.is_file():
            return path.read_bytes()
    archived: list[Upload] = []
    moving: MovingError | None = None
    for upload in candidates:
        try:
            digest = _download(tools, upload)
        except (ObjectGoneError, ObjectChangedError):
            continue
        except ObjectArchivedError:
            archived.append(upload)
            continue
        except MovingError as error:
            moving = error
            continue
        if digest == upload.image_id:
            return tools.spool.path(upload.id).read_bytes()
    if moving:
        raise moving
    if archived:
        raise ask_back(tools, archived[0].key)
    raise ObjectGoneError(", ".join(upload.key for upload in candidates[:3]) or "no upload")


def ask_back(tools: Tools, key: str) -> ArchivedError:
    """Ask for an archived original to be readable again, unless that is under way.

    Returns what to raise. Raises :class:`ObjectGoneError` or :class:`StoreError`.
    """
    head = tools.bucket.head(key)
    if head is None:
        raise ObjectGoneError(key)
    rules = tools.settings.maintenance.classes
    times = RESTORE_TIMES.get(head.storage_class, RESTORE_TIMES["DEEP_ARCHIVE"])
    tier = rules.restore_tier if rules.restore_tier in times else "Standard"
    tools.bucket.restore(key, rules.restore_days, tier)
    note = catalog_batches.expected_note(tools.clock() + times[tier])
    return ArchivedError(f"{note} ({tier} restore from {head.storage_class}): {key}")


def _fetch_one(tools: Tools, upload: Upload) -> Fetched:
    began = time.monotonic()
    try:
        try:
            sha256 = _download(tools, upload)
            took = time.monotonic() - began
            return Fetched(upload, sha256, tools.spool.path(upload.id), seconds=took)
        except ObjectArchivedError:
            return Fetched(upload, error=ask_back(tools, upload.key))
    except (ObjectGoneError, ObjectChangedError, StoreError, OSError) as error:
        return Fetched(upload, error=error)


def _download(tools: Tools, upload: Upload) -> str:
    """Bring an upload to the spool, under the ETag that it has by now; returns its SHA-256.

    Raises what :meth:`Bucket.download` does, and :class:`MovingError`.
    """
    path = tools.spool.path(upload.id)
    try:
        return tools.bucket.download(upload.key, path, upload.etag)
    except (ObjectGoneError, ObjectChangedError):
        with tools.catalog.read() as connection:
            etags = catalog_uploads.etags(connection, [upload.id])
            moving = catalog_originals.announced(connection, [upload.key])
        if moving:
            raise MovingError(f"{upload.key} is being moved to another class") from None
        etag = etags.get(upload.id, upload.etag)
        if etag == upload.etag:
            raise
    return tools.bucket.download(upload.key, path, etag)
