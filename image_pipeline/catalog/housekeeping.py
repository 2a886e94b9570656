"""What housekeeping asks of the catalog, by chunks of up to a thousand keys, and its own rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from image_pipeline.catalog import mockups
from image_pipeline.catalog.batches import OPEN
from image_pipeline.catalog.engine import HEAD, Catalog, chunks, insert_new
from image_pipeline.catalog.schema import (
    batches,
    changes,
    inventories,
    members,
    plans,
    publications,
    sightings,
    uploads,
    variants,
)

_OPEN_BATCHES = sa.select(batches.c.id).where(batches.c.state.in_(OPEN))


@dataclass(frozen=True, slots=True)
class VariantRow:
    """As much of a row of ``variants`` as tells whether its object is needed."""

    key: str
    image_id: str
    recipe: str
    dropped: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A row of ``members``; whether a publication says so too, and whether a batch is at it."""

    image_id: str
    canonical_id: str
    published: bool
    open: bool


@dataclass(frozen=True, slots=True)
class Sighting:
    """An object as nobody referred to it, from its first sighting to its last (UTC)."""

    key: str
    etag: str
    size: int
    reason: str
    last_modified: datetime
    first_at: datetime
    last_at: datetime
    inventory_id: str


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """An inventory as recorded."""

    id: str
    taken_at: datetime
    objects: int
    bytes: int
    origin: str
    complete: bool


def migrations_pending(catalog: Catalog) -> bool:
    """Whether the schema is not the one of this code. Changes nothing, creates no file."""
    url = sa.make_url(catalog.url)
    if url.get_backend_name() == "sqlite" and not _file_exists(url.database):
        return True
    with catalog.engine.connect() as connection, connection.begin():
        if not sa.inspect(connection).has_table("alembic_version"):
            return True
        return (
            connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() != HEAD
        )


def _file_exists(database: str | None) -> bool:
    from pathlib import Path

    return bool(database) and Path(str(database)).exists()


def sources(connection: sa.Connection) -> list[str]:
    """Every source that ever had a batch, also those that the settings do not name any more."""
    return list(connection.execute(sa.select(batches.c.source).distinct()).scalars())


def variants_of_keys(connection: sa.Connection, keys: Iterable[str]) -> dict[str, VariantRow]:
    """The rows of published files by key, dropped ones too."""
    columns = [variants.c[name] for name in VariantRow.__slots__]
    found: dict[str, VariantRow] = {}
    for part in chunks(keys):
        query = sa.select(*columns).where(variants.c.key.in_(part))
        found.update((row.key, VariantRow(*row)) for row in connection.execute(query))
    return found


def published_recipes(connection: sa.Connection, canonicals: Iterable[str]) -> set[tuple[str, str]]:
    """The pairs (canonical id, recipe) that some publication names."""
    found: set[tuple[str, str]] = set()
    for part in chunks(canonicals):
        query = (
            sa.select(publications.c.canonical_id, publications.c.recipe)
            .where(publications.c.canonical_id.in_(part))
            .distinct()
        )
        found.update((canonical, recipe) for canonical, recipe in connection.execute(query))
    return found


def neighbours(
    connection: sa.Connection, names: Collection[str], ids: Iterable[str]
) -> list[Neighbour]:
    """Every membership, in these sources, of these images or of images they stand for."""
    is_published = sa.exists().where(
        publications.c.source == members.c.source, publications.c.image_id == members.c.image_id
    )
    is_open = sa.or_(
        members.c.batch_id.in_(_OPEN_BATCHES),
        sa.exists().where(
            uploads.c.image_id == members.c.image_id, uploads.c.batch_id.in_(_OPEN_BATCHES)
        ),
    )
    found: list[Neighbour] = []
    for part in chunks(ids):
        # Two queries, as each has an index of its own; with the source, which both begin with.
        for column in (members.c.image_id, members.c.canonical_id):
            query = sa.select(
                members.c.image_id, members.c.canonical_id, is_published, is_open
            ).where(members.c.source.in_(names), column.in_(part))
            found.extend(
                Neighbour(image, canonical, bool(published), bool(busy))
                for image, canonical, published, busy in connection.execute(query)
            )
    return found


def images_in_open_batches(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Those of these images that an upload of an open batch has the bytes of."""
    found: set[str] = set()
    for part in chunks(ids):
        query = sa.select(uploads.c.image_id).where(
            uploads.c.image_id.in_(part), uploads.c.batch_id.in_(_OPEN_BATCHES)
        )
        found.update(connection.execute(query).scalars())
    return found


def recipes_being_replaced(
    connection: sa.Connection, canonicals: Iterable[str]
) -> set[tuple[str, str]]:
    """The pairs (canonical id, recipe) that a batch replaced without having come to its end.

    A publication is recorded before its manifest is written. Of a batch that is open, or was
    given up, the manifests in the bucket may still be the former ones.
    """
    unfinished = sa.select(batches.c.id).where(batches.c.state != "done")
    found: set[tuple[str, str]] = set()
    for part in chunks(canonicals):
        query = sa.select(changes.c.old_canonical_id, changes.c.old_recipe).where(
            changes.c.batch_id.in_(unfinished), changes.c.old_canonical_id.in_(part)
        )
        found.update((canonical, recipe) for canonical, recipe in connection.execute(query))
    return found


def published_images(connection: sa.Connection, source: str, ids: Iterable[str]) -> set[str]:
    """Those of these images of a source that have a publication."""
    found: set[str] = set()
    for part in chunks(ids):
        query = sa.select(publications.c.image_id).where(
            publications.c.source == source, publications.c.image_id.in_(part)
        )
        found.update(connection.execute(query).scalars())
    return found


def publishing_sources(
    connection: sa.Connection, names: Collection[str], ids: Iterable[str]
) -> dict[str, list[str]]:
    """Which of these sources have a publication of each of these images."""
    found: dict[str, list[str]] = {}
    for part in chunks(ids):
        query = (
            sa.select(publications.c.image_id, publications.c.source)
            .where(publications.c.source.in_(names), publications.c.image_id.in_(part))
            .order_by(publications.c.source)
        )
        for image, source in connection.execute(query):
            found.setdefault(image, []).append(source)
    return found


def published_since(
    connection: sa.Connection, names: Collection[str], ids: Iterable[str], moment: datetime
) -> set[str]:
    """Those of these images of which, or with whose files, something was published since."""
    ids = list(ids)
    found = mockups.published_since(connection, ids, moment)
    for part in chunks(ids):
        mine = publications.c.source.in_(names) & publications.c.image_id.in_(part)
        # Two queries, as each has an index of its own.
        for column, where in (
            (publications.c.image_id, mine),
            (publications.c.canonical_id, publications.c.canonical_id.in_(part)),
        ):
            query = sa.select(column).where(where, publications.c.published_at > moment)
            found.update(connection.execute(query).scalars())
    return found


def member_images(connection: sa.Connection, source: str, ids: Iterable[str]) -> set[str]:
    """Those of these images that belong to a source."""
    found: set[str] = set()
    for part in chunks(ids):
        query = sa.select(members.c.image_id).where(
            members.c.source == source, members.c.image_id.in_(part)
        )
        found.update(connection.execute(query).scalars())
    return found


def _existing(connection: sa.Connection, table: sa.Table, ids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for part in chunks(ids):
        query = sa.select(table.c.id).where(table.c.id.in_(part))
        found.update(connection.execute(query).scalars())
    return found


def known_batches(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Those of these batches that the catalog knows."""
    return _existing(connection, batches, ids)


def known_plans(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Those of these plans that the catalog knows."""
    return _existing(connection, plans, ids)


def known_inventories(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Those of these inventories that the catalog keeps."""
    return _existing(connection, inventories, ids)


def variant_documents(connection: sa.Connection, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Whole rows of published files by key, ready for JSON: times in ISO format."""
    found: dict[str, dict[str, Any]] = {}
    for part in chunks(keys):
        query = sa.select(variants).where(variants.c.key.in_(part))
        for row in connection.execute(query).mappings():
            document = dict(row)
            document["created_at"] = row["created_at"].isoformat()
            found[row["key"]] = document
    return found


def restore_variants(connection: sa.Connection, documents: Iterable[Mapping[str, Any]]) -> None:
    """Put rows of :func:`variant_documents` back; those that are there stay as they are."""
    rows = [
        {**document, "created_at": datetime.fromisoformat(document["created_at"])}
        for document in documents
    ]
    insert_new(connection, variants, sorted(rows, key=lambda row: str(row["key"])))


def is_empty(connection: sa.Connection) -> bool:
    """Whether the catalog knows nothing: no upload or no batch."""
    rows = (
        connection.execute(sa.select(table.c.id).limit(1)).first() for table in (uploads, batches)
    )
    return any(row is None for row in rows)


def discovered_until(connection: sa.Connection) -> dict[str, datetime]:
    """When discovery last recorded an upload, by source. Reads every upload once."""
    query = sa.select(uploads.c.source, sa.func.max(uploads.c.discovered_at)).group_by(
        uploads.c.source
    )
    return dict(connection.execute(query).tuples().all())


def record_inventory(connection: sa.Connection, row: InventoryRow) -> None:
    """Record an inventory, in place of what was recorded when it was begun."""
    values = {name: getattr(row, name) for name in InventoryRow.__slots__}
    connection.execute(sa.delete(inventories).where(inventories.c.id == row.id))
    connection.execute(sa.insert(inventories).values(values))


def newest_inventories(
    connection: sa.Connection,
    limit: int,
    *,
    until: datetime | None = None,
    complete_only: bool = True,
) -> list[InventoryRow]:
    """The newest inventories (of those taken until a moment), the newest first."""
    columns = [inventories.c[name] for name in InventoryRow.__slots__]
    query = sa.select(*columns).order_by(inventories.c.taken_at.desc(), inventories.c.id.desc())
    if complete_only:
        query = query.where(inventories.c.complete)
    if until is not None:
        query = query.where(inventories.c.taken_at <= until)
    return [InventoryRow(*row) for row in connection.execute(query.limit(limit))]


def forget_inventories(
    connection: sa.Connection, keep: Collection[str], abandoned_before: datetime
) -> None:
    """Forget complete inventories but these, and what was begun and left before a moment.

    Their objects are then nobody's.
    """
    connection.execute(
        sa.delete(inventories).where(
            inventories.c.id.not_in(keep),
            sa.or_(inventories.c.complete, inventories.c.taken_at < abandoned_before),
        )
    )


def sightings_of(connection: sa.Connection, keys: Iterable[str]) -> dict[str, Sighting]:
    """What was seen of these objects before, by key."""
    columns = [sightings.c[name] for name in Sighting.__slots__]
    found: dict[str, Sighting] = {}
    for part in chunks(keys):
        query = sa.select(*columns).where(sightings.c.key.in_(part))
        found.update((row.key, Sighting(*row)) for row in connection.execute(query))
    return found


def record_sightings(connection: sa.Connection, rows: Sequence[Sighting]) -> None:
    """Write sightings, in place of what was recorded under their keys."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    for part in chunks(sorted(rows, key=lambda row: row.key)):
        values = [{name: getattr(row, name) for name in Sighting.__slots__} for row in part]
        statement = dialect.insert(sightings).values(values)
        updates = {name: statement.excluded[name] for name in Sighting.__slots__ if name != "key"}
        connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=updates))


def forget_sightings_before(connection: sa.Connection, moment: datetime) -> int:
    """Forget what was not seen again since; how many there were."""
    statement = sa.delete(sightings).where(sightings.c.last_at < moment)
    return connection.execute(statement).rowcount


def forget_sightings(connection: sa.Connection, keys: Iterable[str]) -> None:
    """Forget these objects: they are gone, or somebody refers to them again."""
    for part in chunks(keys):
        connection.execute(sa.delete(sightings).where(sightings.c.key.in_(part)))


def add_plan(connection: sa.Connection, row: Mapping[str, Any]) -> None:
    """Record a plan."""
    connection.execute(sa.insert(plans).values(dict(row)))


def get_plan(connection: sa.Connection, plan: str) -> dict[str, Any] | None:
    """The row of a plan."""
    row = connection.execute(sa.select(plans).where(plans.c.id == plan)).mappings().one_or_none()
    return None if row is None else dict(row)


def recent_plans(
    connection: sa.Connection,
    kind: str | None = None,
    limit: int = 20,
    *,
    until: datetime | None = None,
) -> list[dict[str, Any]]:
    """Rows of plans (of those made until a moment), the newest first; of one kind or of all."""
    query = sa.select(plans).order_by(plans.c.created_at.desc(), plans.c.id.desc()).limit(limit)
    if kind is not None:
        query = query.where(plans.c.kind == kind)
    if until is not None:
        query = query.where(plans.c.created_at <= until)
    return [dict(row) for row in connection.execute(query).mappings()]


def newest_plan(
    connection: sa.Connection, kind: str, *, until: datetime | None = None
) -> dict[str, Any] | None:
    """The row of the newest plan of a kind (of those made until a moment)."""
    return next(iter(recent_plans(connection, kind, 1, until=until)), None)


def set_plan_state(connection: sa.Connection, plan: str, state: str, **values: Any) -> None:
    """Move a plan on; ``values`` are other columns of its row, as ``applied_at``."""
    connection.execute(sa.update(plans).where(plans.c.id == plan).values(state=state, **values))
