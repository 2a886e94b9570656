"""Originals from the bucket to the spool, a few ahead of the work."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from image_pipeline.catalog.uploads import Upload
from image_pipeline.stages.tools import Tools
from image_pipeline.store.bucket import ObjectChangedError, ObjectGoneError, StoreError

#: Downloads at a time, and how many may lie finished ahead of the work.
THREADS = 8
AHEAD = 16


@dataclass(frozen=True, slots=True)
class Fetched:
    """An original in the spool and the SHA-256 of its bytes (hex), or why it is not there."""

    upload: Upload
    sha256: str = ""
    path: Path | None = None
    error: Exception | None = None


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

    Raises :class:`ObjectGoneError` where none of the uploads is in the bucket any more.
    """
    for upload in candidates:
        path = tools.spool.path(upload.id)
        if path.is_file():
            return path.read_bytes()
    for upload in candidates:
        path = tools.spool.path(upload.id)
        try:
            digest = tools.bucket.download(upload.key, path, upload.etag)
        except (ObjectGoneError, ObjectChangedError):
            continue
        if digest == upload.image_id:
            return path.read_bytes()
    raise ObjectGoneError(", ".join(upload.key for upload in candidates[:3]) or "no upload")


def _fetch_one(tools: Tools, upload: Upload) -> Fetched:
    path = tools.spool.path(upload.id)
    try:
        return Fetched(upload, tools.bucket.download(upload.key, path, upload.etag), path)
    except (ObjectGoneError, ObjectChangedError, StoreError, OSError) as error:
        return Fetched(upload, error=error)
