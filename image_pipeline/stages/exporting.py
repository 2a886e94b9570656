"""The catalog in the bucket: written with every batch, and read when the catalog is lost."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import export, originals
from image_pipeline.catalog import mockups as catalog_mockups
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.engine import Catalog, chunks, insert_new
from image_pipeline.catalog.originals import Moved
from image_pipeline.catalog.schema import batches, uploads
from image_pipeline.delivery.manifest import to_json
from image_pipeline.maintenance.liveness import place_of
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import (
    BATCHES,
    LEDGER,
    ledger_key,
    mockup_manifests,
    mockup_size,
    separations_key,
)

#: HEAD requests at a time.
THREADS = 32


class RebuildError(Exception):
    """The catalog cannot be rebuilt as it is; says what to do."""


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild brought: rows by table, and batches that have to run again."""

    exports: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)


def export_batch(bucket: Bucket, catalog: Catalog, batch: str, source: str, now: datetime) -> None:
    """Write every row that a batch brought or changed, and what people said of its source.

    Those are few, and only the newest word on them counts: they have one object, written anew.
    """
    with catalog.read() as connection:
        rows = export.batch_rows(connection, batch)
        said = export.separation_rows(connection, source)
    _put(bucket, ledger_key(batch), rows, now)
    if said["separations"] or bucket.head(separations_key(source)) is not None:
        _put(bucket, separations_key(source), said, now)


def _put(bucket: Bucket, key: str, rows: export.Rows, now: datetime) -> None:
    document = {"version": export.VERSION, "written_at": now.isoformat(), "rows": rows}
    # No time in the gzip header: the same rows are the same bytes.
    bucket.put(key, gzip.compress(to_json(document), mtime=0), "application/gzip")


def rebuild(
    bucket: Bucket,
    catalog: Catalog,
    prefixes: Iterable[str],
    now: datetime,
    progress: Callable[[str, int, int], None],
) -> Rebuilt:
    """Fill an empty catalog with what the bucket knows; ``prefixes`` are those of the sources.

    Batches without an export were not finished; they are opened again with the uploads on their
    list. Uploads that were in no batch are found by the sensors. Everything happens in one
    transaction: a rebuild that ends early leaves the catalog empty. Raises
    :class:`RebuildError`, and ``StoreError``.
    """
    done = Rebuilt()
    with tempfile.TemporaryDirectory(prefix="rebuild-") as folder, catalog.write() as connection:
        if not export.is_empty(connection):
            raise RebuildError(
                "the catalog is not empty: name an empty one as catalog.url, rebuild that, and"
                " compare; nothing was changed"
            )
        files = _download(bucket, Path(folder), progress)
        for number, file in enumerate(files, 1):
            try:
                export.restore(connection, _read(file)["rows"])
            except KeyError as error:
                raise RebuildError(f"an export does not fit this version: {error}") from None
            progress("exports restored", number, len(files))
        done.exports = len(files)
        for prefix in prefixes:
            _follow_moves(connection, bucket, prefix, now)
        _find_mockups(connection, bucket, now, progress)
        _drop_removed(connection, bucket)
        done.unfinished = _reopen(connection, bucket, now)
        export.follow_ids(connection)
        for table in export.TABLES:
            query = sa.select(sa.func.count()).select_from(table)
            done.rows[table.name] = connection.execute(query).scalar_one()
    return done


def _follow_moves(connection: sa.Connection, bucket: Bucket, prefix: str, now: datetime) -> None:
    """Know originals that were moved to a colder class since their batch was exported.

    A move may change the ETag; without this such an original would pass for a new upload.
    """
    for part in chunks(bucket.list(prefix)):
        cold = {one.key: one for one in part if one.storage_class != "STANDARD"}
        moved = []
        for key, versions in originals.versions_of(connection, cold).items():
            one = cold[key]
            was = originals.left_by_a_move(versions, one.etag, one.size, one.storage_class)
            if was is not None:
                moved.append(Moved(key, was.etag, one.etag, one.storage_class))
        originals.follow(connection, moved, now)


def _find_mockups(
    connection: sa.Connection,
    bucket: Bucket,
    now: datetime,
    progress: Callable[[str, int, int], None],
) -> None:
    """Know the mockups again by their manifests, which have all that the catalog had of them.

    They are made after their batches were exported. Those of templates that are no more come
    back too, and are withdrawn by the next run as they were before.
    """
    count = 0
    for source in catalog_mockups.restored_sources(connection):
        listed = (one.key for one in bucket.list(mockup_manifests(source)))
        keys = (key for key in listed if place_of(key, []).template)
        for part in chunks(keys, 100):
            with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as threads:
                texts = list(threads.map(bucket.get, part))
            catalog_mockups.restore(connection, source, [recorded(text) for text in texts], now)
            count += len(texts)
            progress("mockups restored", count, count)


def recorded(manifest: bytes) -> catalog_mockups.Recorded:
    """What a mockup's manifest says of it."""
    document = json.loads(manifest)
    template = document["template"]
    return catalog_mockups.Recorded(
        catalog_mockups.Place(document["id"], template),
        document["recipe"],
        hashlib.sha256(manifest).hexdigest(),
        [{**file, "size": mockup_size(template, file["size"])} for file in document["variants"]],
    )


def _drop_removed(connection: sa.Connection, bucket: Bucket) -> None:
    """Know no files that were removed since their batch was exported.

    Should their recipe come back, they would pass for made, and be published.
    """
    keys = export.superseded_files(connection)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="head") as threads:
        heads = threads.map(bucket.head, keys)
        gone = [key for key, head in zip(keys, heads, strict=True) if head is None]
    export.drop_files(connection, gone)


def _download(
    bucket: Bucket, folder: Path, progress: Callable[[str, int, int], None]
) -> list[Path]:
    """Every export as a local file, in the order in which they were written.

    A listing tells times to the second only, and two batches may have ended in the same one.
    """
    keys = [one.key for one in bucket.list(LEDGER)]
    written: list[tuple[str, Path]] = []
    for number, key in enumerate(keys, 1):
        file = folder / str(number)
        file.write_bytes(bucket.get(key))
        document = _read(file)
        if document.get("version") != export.VERSION:
            raise RebuildError(f"{key} is of version {document.get('version')}, not 1")
        written.append((document["written_at"], file))
        progress("exports read", number, len(keys))
    return [file for _, file in sorted(written)]


def _read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress(file.read_bytes()))
    return document


def _reopen(connection: sa.Connection, bucket: Bucket, now: datetime) -> list[str]:
    """Make batches anew that have a list but no export; also those whose run was under way."""
    unfinished = []
    for entry in bucket.list(BATCHES):
        name = entry.key.removeprefix(BATCHES).removesuffix(".json")
        known = catalog_batches.get(connection, name)
        if known is None:
            _insert(connection, json.loads(bucket.get(entry.key)), now)
            unfinished.append(name)
        elif known.state in catalog_batches.OPEN:
            unfinished.append(name)
    return unfinished


def _insert(connection: sa.Connection, listed: dict[str, Any], now: datetime) -> None:
    batch, source = listed["batch"], listed["source"]
    created_at = datetime.fromisoformat(listed["created_at"])
    row = {
        "id": batch,
        "source": source,
        "created_at": created_at,
        "uploads": len(listed["uploads"]),
        "bytes": sum(one["size"] for one in listed["uploads"]),
        "state": "retry",
        "attempt": 0,
        "due_at": now,
    }
    insert_new(connection, batches, [row])
    found = [
        {
            "source": source,
            "key": one["key"],
            "etag": one["etag"],
            "size": one["size"],
            # The list does not say when each was written; no later than the batch was formed.
            "last_modified": created_at,
            "discovered_at": created_at,
            "batch_id": batch,
        }
        for one in listed["uploads"]
    ]
    catalog_uploads.add(connection, found)
    # An upload that moved to another batch since is in that one's export, and stays there.
    claimed = sa.select(sa.func.count()).where(uploads.c.batch_id == batch)
    count = connection.execute(claimed).scalar_one()
    connection.execute(sa.update(batches).where(batches.c.id == batch).values(uploads=count))
