"""Plans of housekeeping: what would be done, as data, apart from doing it.

The entries of a plan are a Parquet object whose SHA-256 is kept in the catalog, so what was
looked at is what is applied.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog.engine import Catalog, chunks
from image_pipeline.store.bucket import Bucket, ObjectGoneError
from image_pipeline.store.layout import plan_key

if TYPE_CHECKING:
    import pyarrow as pa

PlanKind = Literal["orphans", "classes"]

#: ``needs_confirmation`` instead of ``planned``: it is applied only if told its own id.
PlanState = Literal[
    "planned", "needs_confirmation", "applying", "applied", "purged", "restored"
]  # fmt: skip

#: Entries of one row group, and of one list that :func:`read_entries` gives: what one request
#: of S3 deletes at most.
CHUNK = 1000

#: A plan that is younger than now by more is of a rehearsal, or of a clock that was ahead.
AHEAD = timedelta(minutes=5)

_PARQUET = "application/vnd.apache.parquet"


class PlanRefused(Exception):  # noqa: N818 - a decision, not a fault of the program
    """Housekeeping does not go on. ``code`` says why in a word, ``message`` what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a plan, as it was when planned.

    ``reason`` is one of :data:`liveness.ORPHAN_REASONS` or, in a plan of classes, the class to
    move to. ``first_at`` and ``last_at`` are the inventories (UTC) in which it was seen so.
    ``row`` is what the catalog has to have again if the object is put back: the row of
    ``variants`` of a ``superseded_variant``, with times in ISO format; else None.
    """

    key: str
    etag: str
    size: int
    last_modified: datetime
    storage_class: str
    reason: str
    first_at: datetime
    last_at: datetime
    row: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan without its entries.

    ``digest`` is the SHA-256 (hex) of the object with the entries, ``entries`` their number,
    ``bytes`` their size, ``share`` the larger of their shares of the bucket's objects and bytes,
    0 to 1. With ``archive`` objects go to an archive class instead of the trash.
    """

    id: str
    kind: PlanKind
    created_at: datetime
    inventory_id: str
    digest: str
    entries: int
    bytes: int
    share: float
    archive: bool
    state: PlanState


@dataclass(frozen=True, slots=True)
class Written:
    """Entries as they lie in the bucket: their SHA-256 (hex), number and size in bytes."""

    digest: str
    entries: int
    bytes: int


def plan_id(kind: PlanKind, now: datetime) -> str:
    """A new id: sorts by time within a kind, never used twice."""
    return f"{kind}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def write_plan(bucket: Bucket, catalog: Catalog, plan: Plan, entries: Iterable[Entry]) -> Plan:
    """Put the entries into the bucket, then record the plan; as recorded.

    ``digest``, ``entries`` and ``bytes`` of ``plan`` are taken from what was written. Entries
    are streamed. Raises ``StoreError``; the plan is then not recorded.
    """
    with EntriesFile() as file:
        for entry in entries:
            file.add(entry)
        return file.record(bucket, catalog, plan)


class EntriesFile:
    """Entries on their way to a Parquet object: a local file, a row group at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="plan-")
        self._path = Path(self._folder.name) / "entries.parquet"
        self._waiting: list[Entry] = []
        self.entries = 0
        self.bytes = 0

    def __enter__(self) -> EntriesFile:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(self._path, _schema(), compression="zstd")
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()
        self._folder.cleanup()

    def add(self, entry: Entry) -> None:
        """Write one entry."""
        self._waiting.append(entry)
        self.entries += 1
        self.bytes += entry.size
        if len(self._waiting) == CHUNK:
            self._flush()

    def record(self, bucket: Bucket, catalog: Catalog, plan: Plan) -> Plan:
        """Send the file and record the plan. Nothing can be added afterwards."""
        self._flush()
        self._writer.close()
        written = replace(plan, digest=_sha256(self._path), entries=self.entries, bytes=self.bytes)
        bucket.upload_file(self._path, plan_key(plan.id), _PARQUET)
        with catalog.write() as connection:
            housekeeping.add_plan(connection, _record(written))
        return written

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(_to_table(self._waiting))
            self._waiting = []


def read_plan(catalog: Catalog, plan: str) -> Plan:
    """A plan as recorded. Raises :class:`PlanRefused` (``no_such_plan``)."""
    with catalog.read() as connection:
        row = housekeeping.get_plan(connection, plan)
    if row is None:
        raise PlanRefused(
            "no_such_plan", f"the catalog has no plan {plan!r}: list them, or make a new one"
        )
    return _plan(row)


def newest_plan(catalog: Catalog, kind: PlanKind, now: datetime | None = None) -> Plan | None:
    """The plan of a kind that was made last; with ``now`` none of rehearsals of times to come."""
    until = None if now is None else now + AHEAD
    with catalog.read() as connection:
        row = housekeeping.newest_plan(connection, kind, until=until)
    return None if row is None else _plan(row)


def read_entries(bucket: Bucket, plan: Plan) -> Iterator[list[Entry]]:
    """The entries of a plan, up to :data:`CHUNK` at a time.

    Raises :class:`PlanRefused` before the first one if the object is gone (``plan_gone``) or is
    not what was planned (``plan_changed``).
    """
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        path = Path(folder) / "entries.parquet"
        _fetch(bucket, plan, path)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=CHUNK, use_threads=False):
                for part in chunks(batch.to_pylist(), CHUNK):
                    yield [_entry(row) for row in part]


def check_applicable(
    plan: Plan, now: datetime, plan_hours: float, confirm: str | None = None
) -> None:
    """Raises :class:`PlanRefused` unless the plan may be applied (or applied further) now.

    ``plan_hours`` is how old a plan may be when its applying begins; one that was begun may
    always be finished.
    """
    if plan.created_at > now + AHEAD:
        raise PlanRefused(
            "plan_ahead",
            f"plan {plan.id} is of {plan.created_at:%Y-%m-%d %H:%M} UTC, which is yet to come: a"
            " rehearsal made it, or a clock that was ahead; make a new one",
        )
    if plan.state == "applying":
        return
    if plan.state not in ("planned", "needs_confirmation"):
        raise PlanRefused("plan_spent", f"plan {plan.id} is {plan.state}: make a new one")
    if confirm is not None and confirm != plan.id:
        raise PlanRefused(
            "wrong_confirmation", f"{confirm!r} was confirmed, but the plan is {plan.id}"
        )
    if now - plan.created_at > timedelta(hours=plan_hours):
        raise PlanRefused(
            "plan_expired",
            f"plan {plan.id} is of {plan.created_at:%Y-%m-%d %H:%M} UTC and good for"
            f" {plan_hours:g} hours: make a new one",
        )
    if plan.state == "needs_confirmation" and confirm != plan.id:
        raise PlanRefused(
            "needs_confirmation",
            f"plan {plan.id} wants {plan.entries:,} objects ({plan.share:.1%} of the bucket), or"
            " rests on an inventory that shrank: look at it, then confirm it by its id",
        )


def _fetch(bucket: Bucket, plan: Plan, path: Path) -> None:
    key = plan_key(plan.id)
    head = bucket.head(key)
    try:
        found = None if head is None else bucket.download(key, path, head.etag)
    except ObjectGoneError:
        found = None
    if found is None:
        raise PlanRefused("plan_gone", f"{key} is not in the bucket any more: make a new plan")
    if found != plan.digest:
        raise PlanRefused(
            "plan_changed", f"{key} is not what was planned (SHA-256 differs): make a new plan"
        )


def _schema() -> pa.Schema:
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("key", pa.string()),
            ("etag", pa.string()),
            ("size", pa.int64()),
            ("last_modified", moment),
            ("storage_class", pa.string()),
            ("reason", pa.string()),
            ("first_at", moment),
            ("last_at", moment),
            ("row", pa.string()),
        ]
    )


def _to_table(entries: list[Entry]) -> pa.Table:
    import pyarrow as pa

    columns = {name: [getattr(one, name) for one in entries] for name in Entry.__slots__}
    columns["row"] = [None if one.row is None else json.dumps(one.row) for one in entries]
    return pa.table(columns, schema=_schema())


def _entry(row: dict[str, Any]) -> Entry:
    text = row.pop("row")
    return Entry(**row, row=None if text is None else json.loads(text))


def _record(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__slots__}


def _plan(row: dict[str, Any]) -> Plan:
    return Plan(**{name: row[name] for name in Plan.__slots__})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
