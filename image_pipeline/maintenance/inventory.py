"""Every object of the bucket, written down: what it is, and who refers to it.

An inventory is a Parquet object of one row per object. It is read and written a row group at a
time, so that memory does not grow with the bucket.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.housekeeping import InventoryRow
from image_pipeline.maintenance.listing import list_all
from image_pipeline.maintenance.liveness import Liveness, Reference
from image_pipeline.maintenance.plans import PlanRefused
from image_pipeline.maintenance.s3_inventory import newest_report, open_destination, read_report
from image_pipeline.settings import OWN_PREFIXES, Settings
from image_pipeline.store.bucket import Bucket, Object, ObjectGoneError
from image_pipeline.store.layout import inventory_key

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

#: Inventories that are kept: two months of weekly ones. Older ones become orphans.
KEPT = 8

#: An inventory that is not complete after so long never will be.
ABANDONED = timedelta(days=1)

#: Objects of one row group: what is in memory at a time, some 10 MB as Python has them.
ROW_GROUP = 8192

#: Where objects are counted that lie neither in a source nor in a folder of ours.
ELSEWHERE = "elsewhere"

#: Orphans that an inventory remembers, for people.
SHOWN = 50

_PARQUET = "application/vnd.apache.parquet"

#: Name of the entry of the Parquet file that says which bucket it is of.
_BUCKET_ENTRY = b"image_pipeline.bucket"

Progress = Callable[[str, int, int], None]


class Group(NamedTuple):
    """What objects are counted by."""

    prefix: str
    storage_class: str
    kind: str
    by: str
    orphan: bool


@dataclass(slots=True)
class Total:
    """Objects, and their size in bytes."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more."""
        self.objects += 1
        self.bytes += size


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of an inventory. ``kind``, ``by`` and ``orphan`` as in :class:`Reference`."""

    key: str
    etag: str
    size: int
    last_modified: datetime
    storage_class: str
    kind: str
    by: str
    orphan: bool


@dataclass(frozen=True, slots=True)
class Inventory:
    """A complete inventory.

    ``taken_at`` is when the listing began (UTC), ``key`` its Parquet object, ``groups`` what it
    counts. ``orphans`` are the first objects that nobody refers to.
    """

    id: str
    taken_at: datetime
    origin: Literal["listing", "s3-inventory"]
    objects: int
    bytes: int
    key: str
    groups: dict[Group, Total] = field(default_factory=dict)
    orphans: list[Listed] = field(default_factory=list)


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def take_inventory(
    bucket: Bucket,
    catalog: Catalog,
    settings: Settings,
    clock: Callable[[], datetime],
    progress: Progress = quiet,
) -> Inventory:
    """Write down every object of the bucket, and record that this was done.

    Objects come from the reports of S3 Inventory if ``maintenance.inventory`` says where they
    are, else from a listing. Who refers to them is asked after they were seen, so that what is
    committed meanwhile counts as referred to.

    Raises ``StoreError`` if any page of the listing fails, and :class:`PlanRefused` if there is
    no good report: the inventory is then not complete, and nobody will work with it.
    """
    origin, taken_at, pages = _pages(bucket, settings, clock)
    inventory = f"{taken_at:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    with catalog.write() as connection:
        before = housekeeping.newest_inventories(connection, 1)
        row = InventoryRow(inventory, taken_at, 0, 0, origin, complete=False)
        housekeeping.record_inventory(connection, row)
    expected = before[0].objects if before else 0
    with tempfile.TemporaryDirectory(prefix="inventory-") as folder:
        path = Path(folder) / "objects.parquet"
        with _Writer(path, bucket, settings, taken_at) as writer:
            liveness = Liveness(bucket, settings, clock)
            for objects in pages:
                with catalog.read() as connection:
                    writer.add(objects, liveness.classify(connection, objects))
                progress("storage_inventory", writer.objects, max(expected, writer.objects))
        bucket.upload_file(path, inventory_key(inventory), _PARQUET)
    row = replace(row, objects=writer.objects, bytes=writer.bytes, complete=True)
    _complete(catalog, row, clock())
    return Inventory(
        inventory,
        taken_at,
        origin,
        writer.objects,
        writer.bytes,
        inventory_key(inventory),
        writer.groups,
        writer.orphans,
    )


class InventoryFile:
    """An inventory that is being read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        """How many objects it has."""
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self._path).num_rows)

    def is_of(self, bucket: Bucket) -> bool:
        """Whether it was taken of this bucket."""
        import pyarrow.parquet as pq

        entries = pq.read_schema(self._path).metadata or {}
        return bool(entries.get(_BUCKET_ENTRY) == _identity(bucket))

    def rows(
        self, kinds: Collection[str] | None = None, orphan: bool | None = None, chunk: int = 1000
    ) -> Iterator[list[Listed]]:
        """Objects of these kinds (of all if None) that are orphans (or are not), in chunks."""
        import pyarrow.parquet as pq

        waiting: list[Listed] = []
        with pq.ParquetFile(self._path, pre_buffer=False) as file:
            for batch in _batches(file, list(Listed.__slots__)):
                chosen = _chosen(batch, kinds, orphan)
                waiting.extend(Listed(**row) for row in chosen.to_pylist())
                while len(waiting) >= chunk:
                    yield waiting[:chunk]
                    del waiting[:chunk]
        if waiting:
            yield waiting

    def total(self, *, without: Collection[str] = ()) -> Total:
        """Objects and bytes of all kinds but these."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        found = Total()
        with pq.ParquetFile(self._path, pre_buffer=False) as file:
            for batch in _batches(file, ["kind", "size"]):
                chosen = batch.filter(pc.invert(_is_in(batch, "kind", without)))
                found.objects += chosen.num_rows
                found.bytes += pc.sum(chosen["size"]).as_py() or 0
        return found


@contextmanager
def open_inventory(bucket: Bucket, inventory: str) -> Iterator[InventoryFile]:
    """The rows of an inventory, from a local copy.

    Raises :class:`PlanRefused` (``inventory_gone``) if its object is not in the bucket.
    """
    key = inventory_key(inventory)
    head = bucket.head(key)
    if head is None:
        raise PlanRefused(
            "inventory_gone", f"{key} is not in the bucket any more: take a new inventory"
        )
    with tempfile.TemporaryDirectory(prefix="inventory-") as folder:
        path = Path(folder) / "objects.parquet"
        try:
            bucket.download(key, path, head.etag)
        except ObjectGoneError:
            raise PlanRefused(
                "inventory_gone", f"{key} was removed a moment ago: take a new inventory"
            ) from None
        yield InventoryFile(path)


def _pages(
    bucket: Bucket, settings: Settings, clock: Callable[[], datetime]
) -> tuple[Literal["listing", "s3-inventory"], datetime, Iterator[list[Object]]]:
    """Where objects come from, when they were seen there, and the objects."""
    url = settings.maintenance.inventory
    if url is None:
        prefixes = {name: source.prefix for name, source in settings.sources.items()}
        return "listing", clock(), list_all(bucket, prefixes)
    destination, prefix = open_destination(bucket, url)
    report = newest_report(destination, prefix, bucket.name)
    return "s3-inventory", report.created_at, read_report(destination, report)


def _complete(catalog: Catalog, row: InventoryRow, now: datetime) -> None:
    with catalog.write() as connection:
        housekeeping.record_inventory(connection, row)
        kept = [one.id for one in housekeeping.newest_inventories(connection, KEPT)]
        housekeeping.forget_inventories(connection, [*kept, row.id], now - ABANDONED)


class _Writer:
    """Writes objects to a Parquet file and counts them."""

    def __init__(self, path: Path, bucket: Bucket, settings: Settings, now: datetime) -> None:
        self._path = path
        self._identity = _identity(bucket)
        self._prefixes = (*(one.prefix for one in settings.sources.values()), *OWN_PREFIXES)
        self._now = now
        self._waiting: list[tuple[Object, Reference]] = []
        self.objects = 0
        self.bytes = 0
        self.groups: dict[Group, Total] = {}
        self.orphans: list[Listed] = []

    def __enter__(self) -> _Writer:
        import pyarrow.parquet as pq

        self._file = pq.ParquetWriter(self._path, _schema(self._identity), compression="zstd")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._file.close()

    def add(self, objects: Sequence[Object], references: Sequence[Reference]) -> None:
        for one, reference in zip(objects, references, strict=True):
            self._count(one, reference)
            self._waiting.append((one, reference))
        if len(self._waiting) >= ROW_GROUP:
            self._flush()

    def _count(self, one: Object, reference: Reference) -> None:
        self.objects += 1
        self.bytes += one.size
        prefix = next(
            (prefix for prefix in self._prefixes if one.key.startswith(prefix)), ELSEWHERE
        )
        group = Group(prefix, one.storage_class, reference.kind, reference.by, reference.orphan)
        self.groups.setdefault(group, Total()).add(one.size)
        if reference.orphan and len(self.orphans) < SHOWN:
            self.orphans.append(_listed(one, reference))

    def _flush(self) -> None:
        import pyarrow as pa

        rows = [_listed(one, reference) for one, reference in self._waiting]
        columns: dict[str, list[Any]] = {
            name: [getattr(row, name) for row in rows] for name in Listed.__slots__
        }
        columns["age_days"] = [(self._now - row.last_modified) / timedelta(days=1) for row in rows]
        self._file.write_table(pa.table(columns, schema=_schema(self._identity)))
        self._waiting = []


def _listed(one: Object, reference: Reference) -> Listed:
    return Listed(
        one.key,
        one.etag,
        one.size,
        one.last_modified,
        one.storage_class,
        reference.kind,
        reference.by,
        reference.orphan,
    )


def _identity(bucket: Bucket) -> bytes:
    """Which bucket this is. The embedded server is one, whatever its port is today."""
    return f"{bucket.settings.endpoint_url or 'aws'} {bucket.name}".encode()


def _schema(identity: bytes) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("key", pa.string()),
            ("etag", pa.string()),
            ("size", pa.int64()),
            ("last_modified", pa.timestamp("us", tz="UTC")),
            ("storage_class", pa.string()),
            ("kind", pa.string()),
            ("by", pa.string()),
            ("orphan", pa.bool_()),
            ("age_days", pa.float64()),
        ],
        metadata={_BUCKET_ENTRY: identity},
    )


def _batches(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    # One thread: each would have memory of its own, and the work is little.
    yield from file.iter_batches(batch_size=ROW_GROUP, columns=columns, use_threads=False)


def _chosen(
    batch: pa.RecordBatch, kinds: Collection[str] | None, orphan: bool | None
) -> pa.RecordBatch:
    import pyarrow.compute as pc

    if kinds is not None:
        batch = batch.filter(_is_in(batch, "kind", kinds))
    if orphan is not None:
        batch = batch.filter(pc.equal(batch["orphan"], orphan))
    return batch


def _is_in(batch: pa.RecordBatch, column: str, values: Collection[str]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(batch[column], value_set=pa.array(sorted(values), pa.string()))
