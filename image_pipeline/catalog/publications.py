"""What is published of each image, and what a batch changed of it.

A publication is announced here before its manifest is put, in the transaction that makes sure
that every file of it is there and stays: housekeeping looks at the same rows, under the same
lock, before it removes anything (see :mod:`image_pipeline.catalog.removals`).
"""

from __future__ import annotations

import fcntl
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.engine import Catalog, chunks, insert_new, lock
from image_pipeline.catalog.schema import changes, images, members, publications, variants


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one picture: those of a canonical image made with a recipe (fingerprint)."""

    canonical_id: str
    recipe: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """That the manifest of an image names ``files`` and has these bytes (SHA-256 in hex)."""

    image_id: str
    files: Files
    digest: str


@dataclass(frozen=True, slots=True)
class Announced:
    """The version that an announced manifest has, and whether this announcement made it."""

    version: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Change:
    """The files of an image before a batch (None: it was not published) and now."""

    image_id: str
    old: Files | None
    new: Files


def announce(
    connection: sa.Connection,
    source: str,
    batch: str,
    rows: Sequence[Announcement],
    now: datetime,
) -> dict[str, Announced]:
    """Say what is published from now on, by image id; versions grow with every other manifest.

    What an image had before the batch's first attempt is kept until :func:`settle`. Hold the
    lock of removals, and check that every file is there, before.
    """
    known = _known(connection, source, [row.image_id for row in rows])
    announced: dict[str, Announced] = {}
    written: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for row in rows:
        old = known.get(row.image_id)
        before = None if old is None else Files(old.canonical_id, old.recipe)
        if old is not None and (before, old.digest) == (row.files, row.digest):
            announced[row.image_id] = Announced(old.version, False)
            continue
        version = 1 if old is None else old.version + 1
        announced[row.image_id] = Announced(version, True)
        written.append(_row(source, batch, row, version, now))
        if before != row.files:
            changed.append(_change(batch, row.image_id, before))
    _upsert(connection, written)
    insert_new(connection, changes, changed)
    return announced


def _known(
    connection: sa.Connection, source: str, ids: Iterable[str]
) -> dict[str, sa.Row[tuple[str, str, str, str, int]]]:
    found: dict[str, sa.Row[tuple[str, str, str, str, int]]] = {}
    for part in chunks(ids):
        query = sa.select(
            publications.c.image_id,
            publications.c.canonical_id,
            publications.c.recipe,
            publications.c.digest,
            publications.c.version,
        ).where(publications.c.source == source, publications.c.image_id.in_(part))
        found.update((row.image_id, row) for row in connection.execute(query))
    return found


def _row(source: str, batch: str, row: Announcement, version: int, now: datetime) -> dict[str, Any]:
    return {
        "source": source,
        "image_id": row.image_id,
        "canonical_id": row.files.canonical_id,
        "recipe": row.files.recipe,
        "digest": row.digest,
        "version": version,
        "batch_id": batch,
        "published_at": now,
    }


def _change(batch: str, image: str, before: Files | None) -> dict[str, Any]:
    return {
        "batch_id": batch,
        "image_id": image,
        "old_canonical_id": before.canonical_id if before else None,
        "old_recipe": before.recipe if before else None,
    }


def _upsert(connection: sa.Connection, rows: Iterable[dict[str, Any]]) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    key = ("source", "image_id")
    for part in chunks(rows):
        statement = dialect.insert(publications).values(part)
        new = {name: statement.excluded[name] for name in part[0] if name not in key}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=new))


def changes_of(connection: sa.Connection, source: str, batch: str) -> list[Change]:
    """Images whose files are others than before the batch, in the order of their ids."""
    query = (
        sa.select(
            changes.c.image_id,
            changes.c.old_canonical_id,
            changes.c.old_recipe,
            publications.c.canonical_id,
            publications.c.recipe,
        )
        .join(publications, publications.c.image_id == changes.c.image_id)
        .where(changes.c.batch_id == batch, publications.c.source == source)
        .order_by(changes.c.image_id)
    )
    found = [
        Change(image, None if old is None else Files(old, old_recipe), Files(canonical, recipe))
        for image, old, old_recipe, canonical, recipe in connection.execute(query)
    ]
    return [change for change in found if change.old != change.new]


def settle(connection: sa.Connection, batch: str) -> None:
    """Forget what was before a batch: it is done, and what it changes from now on is new."""
    connection.execute(sa.delete(changes).where(changes.c.batch_id == batch))


def named(connection: sa.Connection, source: str, files: Collection[Files]) -> set[Files]:
    """Those of these files that a manifest of the source names now."""
    found: set[Files] = set()
    for part in chunks(sorted({one.canonical_id for one in files})):
        query = (
            sa.select(publications.c.canonical_id, publications.c.recipe)
            .where(publications.c.canonical_id.in_(part), publications.c.source == source)
            .distinct()
        )
        found.update(Files(*row) for row in connection.execute(query))
    return found & set(files)


def keys_of(connection: sa.Connection, files: Collection[Files]) -> dict[Files, list[str]]:
    """The object keys of these files, sorted; none of those whose rows were removed since."""
    found: dict[Files, list[str]] = {one: [] for one in files}
    for part in chunks(sorted({one.canonical_id for one in files})):
        query = (
            sa.select(variants.c.image_id, variants.c.recipe, variants.c.key)
            .where(variants.c.image_id.in_(part), ~variants.c.dropped)
            .order_by(variants.c.key)
        )
        for image, recipe, key in connection.execute(query):
            if (one := Files(image, recipe)) in found:
                found[one].append(key)
    return found


def existing(connection: sa.Connection, keys: Iterable[str]) -> set[str]:
    """Those of these object keys that are published files by the catalog."""
    found: set[str] = set()
    for part in chunks(keys):
        query = sa.select(variants.c.key).where(variants.c.key.in_(part), ~variants.c.dropped)
        found.update(connection.execute(query).scalars())
    return found


def listed(connection: sa.Connection, source: str, numbers: range) -> list[Mapping[str, Any]]:
    """Published images of a source by their numbers, with what an index says of each.

    Rows have ``number``, ``image_id``, ``canonical_id``, ``recipe``, and of the canonical
    ``width``, ``height`` and ``dominant_color``.
    """
    query = (
        sa.select(
            members.c.number,
            members.c.image_id,
            publications.c.canonical_id,
            publications.c.recipe,
            images.c.width,
            images.c.height,
            images.c.dominant_color,
        )
        .join(
            publications,
            (publications.c.source == members.c.source)
            & (publications.c.image_id == members.c.image_id),
        )
        .join(images, images.c.id == publications.c.canonical_id)
        .where(
            members.c.source == source,
            members.c.number >= numbers.start,
            members.c.number < numbers.stop,
        )
        .order_by(members.c.number)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def thumbnails_of(
    connection: sa.Connection, canonicals: Iterable[str]
) -> dict[Files, list[dict[str, Any]]]:
    """The thumbnails of these images by every recipe: rows of key, format and width."""
    found: dict[Files, list[dict[str, Any]]] = {}
    columns = (variants.c.key, variants.c.format, variants.c.width)
    for part in chunks(canonicals):
        query = sa.select(variants.c.image_id, variants.c.recipe, *columns).where(
            variants.c.image_id.in_(part), variants.c.role == "thumbnail", ~variants.c.dropped
        )
        for row in connection.execute(query).mappings():
            found.setdefault(Files(row["image_id"], row["recipe"]), []).append(dict(row))
    return found


def upload_counts(
    connection: sa.Connection, source: str, canonicals: Iterable[str]
) -> dict[str, int]:
    """How many keys each of these images stands for: its own uploads' and its duplicates'."""
    keys = catalog_uploads.keys_of_canonicals(connection, source, canonicals)
    return {canonical: len({key for _, key in pairs}) for canonical, pairs in keys.items()}


def last_number(connection: sa.Connection, source: str) -> int:
    """The number of the newest image of a source; 0 where there is none."""
    query = sa.select(sa.func.max(members.c.number)).where(members.c.source == source)
    return connection.execute(query).scalar() or 0


@contextmanager
def alone(catalog: Catalog, name: str) -> Iterator[None]:
    """Be the only one under this name, and let others write to the catalog meanwhile.

    For work on the bucket that nobody else may do at once. SQLite is used by one machine, which
    locks a file beside the database: its own lock would stop every writer. Either lock ends
    with the process that holds it.
    """
    url = sa.make_url(catalog.url)
    if url.get_backend_name() != "sqlite":
        with catalog.read() as connection:
            lock(connection, name)
            yield
        return
    with Path(f"{url.database}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
