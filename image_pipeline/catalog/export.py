"""Rows of the catalog as JSON, and back: what a lost catalog is made again from.

A batch's export has every row that the batch wrote or was the last to change. Rows that a later
batch changes are in that batch's export; so exports are read in the order in which they were
written, and the last word on a row is the one that counts.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.schema import (
    UtcDateTime,
    batches,
    changes,
    images,
    members,
    mockups,
    near,
    publications,
    separations,
    sketches,
    uploads,
    variants,
)

#: In an order in which rows can be inserted: what is referred to comes first.
TABLES = (
    batches, images, sketches, uploads, members, near, variants, publications, changes,
    separations, mockups,
)  # fmt: skip

#: Version of the form of an export.
VERSION = 1

Rows = dict[str, list[dict[str, Any]]]


def batch_rows(connection: sa.Connection, batch: str) -> Rows:
    """Everything that a batch wrote or was the last to change, by table, ready for JSON."""
    changed = _column(connection, members.c.image_id, members.c.batch_id == batch)
    stood_for = _column(connection, members.c.canonical_id, members.c.batch_id == batch)
    own = _column(connection, uploads.c.image_id, uploads.c.batch_id == batch)
    everyone = sorted((changed | stood_for | own) - {None})
    source = sa.select(batches.c.source).where(batches.c.id == batch).scalar_subquery()
    return {
        "batches": _rows(connection, batches, batches.c.id == batch),
        "images": _rows_in(connection, images, images.c.id, everyone),
        "sketches": _rows_in(connection, sketches, sketches.c.image_id, everyone),
        # Also those of other batches that got another verdict with the groups.
        "uploads": _distinct(
            [
                *_rows(connection, uploads, uploads.c.batch_id == batch),
                *_rows_in(connection, uploads, uploads.c.image_id, sorted(changed), source=source),
            ]
        ),
        "members": _rows(connection, members, members.c.batch_id == batch),
        "near": _rows_in(connection, near, near.c.image_id, everyone, source=source),
        "variants": _rows_in(connection, variants, variants.c.image_id, everyone),
        "publications": _rows(connection, publications, publications.c.batch_id == batch),
        "changes": _rows(connection, changes, changes.c.batch_id == batch),
    }


def separation_rows(connection: sa.Connection, source: str) -> Rows:
    """What people said of a source's pictures."""
    return {"separations": _rows(connection, separations, separations.c.source == source)}


def restore(connection: sa.Connection, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write rows of an export; a row that is there is replaced.

    Raises ``KeyError`` for a table or column that this version does not have.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    unknown = rows.keys() - {table.name for table in TABLES}
    if unknown:
        raise KeyError(f"no table {', '.join(sorted(unknown))} in this version")
    for table in TABLES:
        records = [_from_json(table, row) for row in rows.get(table.name, ())]
        keys = [column.name for column in table.primary_key]
        for part in chunks(records, max(1, 20_000 // len(table.c))):
            statement = dialect.insert(table).values(part)
            others = [name for name in part[0] if name not in keys]
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=keys, set_={name: statement.excluded[name] for name in others}
                )
                if others
                else statement.on_conflict_do_nothing()
            )


def is_empty(connection: sa.Connection) -> bool:
    """Whether nothing of what an export brings is there yet."""
    return all(connection.execute(sa.select(table).limit(1)).first() is None for table in TABLES)


def superseded_files(connection: sa.Connection) -> list[str]:
    """Keys of files that nothing published names: housekeeping may have removed them since."""
    is_published = sa.exists().where(
        publications.c.canonical_id == variants.c.image_id,
        publications.c.recipe == variants.c.recipe,
    )
    is_mockup = sa.exists().where(
        mockups.c.image_id == variants.c.image_id, mockups.c.recipe == variants.c.recipe
    )
    query = sa.select(variants.c.key).where(~variants.c.dropped, ~is_published, ~is_mockup)
    return list(connection.execute(query.order_by(variants.c.key)).scalars())


def drop_files(connection: sa.Connection, keys: Iterable[str]) -> None:
    """Forget files that are not in the bucket any more."""
    for part in chunks(keys):
        connection.execute(sa.delete(variants).where(variants.c.key.in_(part)))


def follow_ids(connection: sa.Connection) -> None:
    """Let Postgres number new uploads behind the restored ones; SQLite does by itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            sa.text(
                "SELECT setval(pg_get_serial_sequence('uploads', 'id'),"
                " GREATEST((SELECT max(id) FROM uploads), 1))"
            )
        )


def _column(
    connection: sa.Connection, column: sa.Column[Any], where: sa.ColumnElement[bool]
) -> set[Any]:
    return set(connection.execute(sa.select(column).where(where)).scalars())


def _rows(
    connection: sa.Connection, table: sa.Table, where: sa.ColumnElement[bool]
) -> list[dict[str, Any]]:
    query = sa.select(table).where(where).order_by(*table.primary_key)
    return [_to_json(row) for row in connection.execute(query).mappings()]


def _rows_in(
    connection: sa.Connection,
    table: sa.Table,
    column: sa.Column[Any],
    ids: Iterable[str],
    source: sa.ScalarSelect[Any] | None = None,
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for part in chunks(ids):
        where = column.in_(part)
        found += _rows(
            connection, table, where if source is None else where & (table.c.source == source)
        )
    return found


def _distinct(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({row["id"]: row for row in rows}.values())


def _to_json(row: sa.RowMapping) -> dict[str, Any]:
    return {str(name): _WRITE.get(type(value), _same)(value) for name, value in row.items()}


def _from_json(table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _read(table.c[name].type, value) for name, value in row.items()}


def _read(kind: sa.types.TypeEngine[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(kind, UtcDateTime):
        return datetime.fromisoformat(value)
    if isinstance(kind, sa.LargeBinary):
        return base64.b64decode(value)
    return value


def _same(value: Any) -> Any:
    return value


_WRITE: dict[type, Callable[[Any], Any]] = {
    datetime: datetime.isoformat,
    bytes: lambda value: base64.b64encode(value).decode(),
}
