"""``image-pipeline upload``: check files, then send them to the bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image_pipeline.commands.display import print_json, print_table, progress_bar, size
from image_pipeline.commands.files import LocalFile, find_files
from image_pipeline.imaging.sniffing import sniff
from image_pipeline.imaging.verdict import Rejected
from image_pipeline.settings import Limits, Settings
from image_pipeline.store.bucket import MULTIPART_BYTES, Bucket, StoreError

THREADS = 8

#: Bytes of a file that are read to tell its format.
HEAD_BYTES = 4096

#: Sent with the bytes, for people who look into the bucket. The pipeline itself never
#: believes it.
_TYPES = {
    "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "avif": "image/avif",
    "heif": "image/heif", "tiff": "image/tiff", "gif": "image/gif", "bmp": "image/bmp",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a local file: ``sent``, ``unchanged``, ``refused`` or ``failed``."""

    path: str
    key: str
    bytes: int
    outcome: str
    message: str = ""


def run_upload(
    settings: Settings, paths: Iterable[Path], source: str, unchecked: bool, as_json: bool
) -> int:
    """Send files and report on each. Exit code 1 if any was refused or failed."""
    limits = None if unchecked else settings.sources[source].limits
    bucket = Bucket(settings.bucket)
    results = send(bucket, settings.sources[source].prefix, list(find_files(paths)), limits)
    if as_json:
        print_json({"files": [_as_json(one) for one in results]})
    else:
        _print(results, source)
    return 1 if any(one.outcome in ("refused", "failed") for one in results) else 0


def send(
    bucket: Bucket, prefix: str, files: Sequence[LocalFile], limits: Limits | None
) -> list[Sent]:
    """Send files under ``prefix`` in parallel, with progress; results in the order given.

    With ``limits``, files that are sure to be rejected are not sent.
    """
    there = {one.key: one.etag for one in bucket.list(prefix)}
    results: dict[int, Sent] = {}
    with ThreadPoolExecutor(THREADS) as threads, progress_bar() as progress:
        task = progress.add_task("uploading", total=len(files))
        futures = {
            threads.submit(_send_one, bucket, prefix, file, limits, there): position
            for position, file in enumerate(files)
        }
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            progress.advance(task)
    return [results[position] for position in range(len(files))]


def refusal(file: LocalFile, limits: Limits) -> str:
    """Why the source would reject a file without decoding it; empty if it might not."""
    length = file.path.stat().st_size
    if length == 0:
        return "the file is empty"
    if length > limits.megabytes * 1e6:
        return f"{size(length)}, the source allows {limits.megabytes:g} MB"
    try:
        _kind(file)
    except Rejected as rejected:
        return rejected.message
    return ""


def _send_one(
    bucket: Bucket,
    prefix: str,
    file: LocalFile,
    limits: Limits | None,
    there: dict[str, str],
) -> Sent:
    key = prefix + file.name
    length = 0
    try:
        if not file.path.is_file():
            return Sent(str(file.path), key, 0, "refused", "not a regular file")
        length = file.path.stat().st_size
        reason = refusal(file, limits) if limits else ""
        if reason:
            return Sent(str(file.path), key, length, "refused", reason)
        if key in there and there[key] == _etag(file.path, length):
            return Sent(str(file.path), key, length, "unchanged")
        bucket.upload_file(file.path, key, _content_type(file))
    except (StoreError, OSError, UnicodeError) as error:
        return Sent(str(file.path), key, length, "failed", str(error))
    return Sent(str(file.path), key, length, "sent")


def _etag(path: Path, length: int) -> str:
    """The ETag that a single PUT of these bytes gets; empty for what goes up in parts."""
    if length >= MULTIPART_BYTES:
        return ""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _kind(file: LocalFile) -> str:
    with file.path.open("rb") as opened:
        return sniff(opened.read(HEAD_BYTES))


def _content_type(file: LocalFile) -> str:
    try:
        return _TYPES.get(_kind(file), "application/octet-stream")
    except Rejected:
        return "application/octet-stream"


def _as_json(one: Sent) -> dict[str, Any]:
    return {
        "path": one.path,
        "key": one.key,
        "bytes": one.bytes,
        "outcome": one.outcome,
        "message": one.message or None,
    }


def _print(results: Sequence[Sent], source: str) -> None:
    odd = [one for one in results if one.outcome in ("refused", "failed")]
    if odd:
        print_table(
            ("file", "outcome", "why"), [(one.path, one.outcome, one.message) for one in odd]
        )
        print()
    sent = [one for one in results if one.outcome == "sent"]
    unchanged = sum(one.outcome == "unchanged" for one in results)
    print(
        f"{len(sent)} files ({size(sum(one.bytes for one in sent))}) sent to source {source},"
        f" {unchanged} were there already, {len(odd)} not sent"
    )
    if sent:
        print("What becomes of them: image-pipeline status")
