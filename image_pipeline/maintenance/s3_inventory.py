"""Reading the reports of S3 Inventory instead of listing a bucket.

See https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html for
where the files lie and what the manifest says.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.store.bucket import Bucket, Object, ObjectGoneError

#: Rows that are given at a time: as many as the catalog is asked about at once.
CHUNK = 1000

#: What a report has to hold, as the CSV schema and as the Parquet and ORC schemas call it.
_NEEDED = {
    "Key": "key",
    "Size": "size",
    "LastModifiedDate": "last_modified_date",
    "ETag": "e_tag",
}
_OPTIONAL = {
    "StorageClass": "storage_class",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
}
_NAMES = {name: column for column, name in {**_NEEDED, **_OPTIONAL}.items()}

_DATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\dZ/")

#: From the configured prefix to the dated folders: source bucket and configuration at most.
_MAX_DEPTH = 2


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a report: its key in the destination bucket, its size and its MD5 (hex)."""

    key: str
    size: int
    md5: str


@dataclass(frozen=True, slots=True)
class Report:
    """A report of S3 Inventory: of which bucket, from when, and the files with its rows."""

    source_bucket: str
    created_at: datetime
    format: str
    fields: tuple[str, ...]
    files: tuple[DataFile, ...]


def open_destination(bucket: Bucket, url: str) -> tuple[Bucket, str]:
    """The bucket that reports are delivered to, and the prefix there, of ``s3://bucket/prefix/``."""
    name, _, prefix = url.removeprefix("s3://").partition("/")
    if name == bucket.name:
        return bucket, prefix
    return Bucket(bucket.settings.model_copy(update={"name": name})), prefix


def newest_report(destination: Bucket, prefix: str, source_bucket: str) -> Report:
    """The newest report below a prefix that was delivered whole.

    Raises :class:`PlanRefused` if there is none (``no_report``), or it is of another bucket
    (``other_bucket``), lacks fields (``report_fields``) or cannot be read (``report_format``).
    """
    folders = _dated_folders(destination, prefix, _MAX_DEPTH)
    for folder in sorted(folders, key=lambda one: one.rstrip("/").rsplit("/", 1)[-1], reverse=True):
        try:
            text = destination.get(f"{folder}manifest.json")
        except ObjectGoneError:
            continue  # S3 writes the manifest last
        report = read_manifest(text)
        if report.source_bucket != source_bucket:
            raise PlanRefused(
                "other_bucket",
                f"the report {folder} is of the bucket {report.source_bucket!r}, not"
                f" {source_bucket!r}: correct maintenance.inventory",
            )
        return report
    raise PlanRefused(
        "no_report",
        f"no report of S3 Inventory below s3://{destination.name}/{prefix}: the first one comes"
        " within 48 hours; empty maintenance.inventory to list the bucket instead",
    )


def read_manifest(text: bytes) -> Report:
    """A report by its ``manifest.json``. Raises :class:`PlanRefused`."""
    try:
        manifest = json.loads(text)
        # Milliseconds since 1970, as text.
        created_at = datetime.fromtimestamp(int(manifest["creationTimestamp"]) / 1000, UTC)
        files = tuple(
            DataFile(one["key"], int(one["size"]), one["MD5checksum"]) for one in manifest["files"]
        )
        kind, schema, name = (
            manifest[field] for field in ("fileFormat", "fileSchema", "sourceBucket")
        )
    except (ValueError, KeyError, TypeError) as error:
        raise PlanRefused("report_format", f"not a manifest of S3 Inventory: {error!r}") from None
    fields = _fields(kind, schema)
    missing = sorted(set(_NEEDED) - set(fields))
    if missing:
        raise PlanRefused(
            "report_fields",
            f"the report lacks {', '.join(missing)}: add them to the inventory configuration of"
            " the bucket",
        )
    return Report(name, created_at, kind, fields, files)


def read_report(destination: Bucket, report: Report) -> Iterator[list[Object]]:
    """Every current object of a report, up to :data:`CHUNK` at a time.

    Raises :class:`PlanRefused` (``report_broken``) if a file is not the one that the manifest
    names, ``StoreError`` if it cannot be fetched.
    """
    for file in report.files:
        with tempfile.TemporaryDirectory(prefix="inventory-") as folder:
            path = Path(folder) / "data"
            _fetch(destination, file, path)
            for rows in _READERS[report.format](path, report.fields):
                yield [_object(row) for row in rows if _is_current(row)]


def _dated_folders(destination: Bucket, prefix: str, depth: int) -> list[str]:
    folders = destination.folders(prefix)
    dated = [one for one in folders if _DATED.fullmatch(one[len(prefix) :])]
    if dated or not depth:
        return dated
    return [found for one in folders for found in _dated_folders(destination, one, depth - 1)]


def _fields(kind: str, schema: str) -> tuple[str, ...]:
    """The fields of a report, by the names that CSV has for them, in their order."""
    if kind == "CSV":
        return tuple(name.strip() for name in schema.split(","))
    if kind not in _READERS:
        raise PlanRefused("report_format", f"reports as {kind} are not read: choose CSV or Parquet")
    words = set(re.findall(r"\w+", schema))
    return tuple(column for name, column in _NAMES.items() if name in words)


def _fetch(destination: Bucket, file: DataFile, path: Path) -> None:
    broken = PlanRefused(
        "report_broken",
        f"{file.key} is not the file that its manifest names: wait for the next report",
    )
    head = destination.head(file.key)
    if head is None or head.size != file.size:
        raise broken
    destination.download(file.key, path, head.etag)
    with path.open("rb") as data:
        if hashlib.file_digest(data, _md5).hexdigest() != file.md5:
            raise broken


def _md5() -> Any:
    """Of the manifest: against damage, not against people."""
    return hashlib.md5(usedforsecurity=False)


def _csv_rows(path: Path, fields: Sequence[str]) -> Iterator[list[Mapping[str, Any]]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows: list[Mapping[str, Any]] = []
        for values in csv.reader(lines):
            row: dict[str, Any] = dict(zip(fields, values, strict=True))
            # Only in CSV are keys encoded, and so that they hold no comma or line break.
            row["Key"] = unquote_plus(row["Key"])
            rows.append(row)
            if len(rows) == CHUNK:
                yield rows
                rows = []
        yield rows


def _parquet_rows(path: Path, fields: Sequence[str]) -> Iterator[list[Mapping[str, Any]]]:
    import pyarrow.parquet as pq

    columns = [{**_NEEDED, **_OPTIONAL}[name] for name in fields]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=CHUNK, columns=columns):
            yield [_renamed(row) for row in batch.to_pylist()]


def _orc_rows(path: Path, fields: Sequence[str]) -> Iterator[list[Mapping[str, Any]]]:
    from pyarrow import orc

    columns = [{**_NEEDED, **_OPTIONAL}[name] for name in fields]
    file = orc.ORCFile(path)
    for stripe in range(file.nstripes):
        whole = file.read_stripe(stripe, columns=columns)
        for start in range(0, len(whole), CHUNK):
            yield [_renamed(row) for row in whole.slice(start, CHUNK).to_pylist()]


_READERS = {"CSV": _csv_rows, "Parquet": _parquet_rows, "ORC": _orc_rows}


def _renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {_NAMES[name]: value for name, value in row.items()}


def _is_current(row: Mapping[str, Any]) -> bool:
    """Whether a row is the object that a listing would show: not an old version, not a marker."""
    latest = str(row.get("IsLatest", "true")).lower()
    marker = str(row.get("IsDeleteMarker", "false")).lower()
    return latest != "false" and marker != "true"


def _object(row: Mapping[str, Any]) -> Object:
    written = row["LastModifiedDate"]
    if isinstance(written, str):
        written = datetime.fromisoformat(written)
    if written.tzinfo is None:
        written = written.replace(tzinfo=UTC)
    return Object(
        row["Key"],
        row["ETag"].strip('"'),
        int(row["Size"]),
        written,
        row.get("StorageClass") or "STANDARD",
    )
