"""What the catalog holds of an upload that somebody wants forgotten, and its removal."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog.batches import OPEN
from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.schema import (
    batches,
    changes,
    images,
    members,
    metadata,
    mockups,
    near,
    plans,
    publications,
    separations,
    sightings,
    sketches,
    uploads,
    variants,
    warmth,
)

#: The reason of uploads whose forgetting has begun. Their rows are the last to go: they say what
#: is left to do.
FORGOTTEN = "forgotten"


def uploads_of_key(
    connection: sa.Connection, key: str, source: str | None = None
) -> list[dict[str, Any]]:
    """Every version of a key: id, source, image, batch and its state, verdict and reason."""
    names = ("id", "source", "etag", "image_id", "batch_id", "verdict", "reason")
    query = (
        sa.select(*(uploads.c[name] for name in names), batches.c.state)
        .outerjoin(batches, batches.c.id == uploads.c.batch_id)
        .where(uploads.c.key == key)
        .order_by(uploads.c.id)
    )
    if source is not None:
        query = query.where(uploads.c.source == source)
    return [dict(row) for row in connection.execute(query).mappings()]


def other_uploads(
    connection: sa.Connection, image: str, without: Collection[int]
) -> list[dict[str, Any]]:
    """Uploads of these bytes by other names, in any source, the oldest first."""
    names = ("id", "source", "key", "batch_id", "verdict")
    query = (
        sa.select(*(uploads.c[name] for name in names))
        .where(
            uploads.c.image_id == image,
            uploads.c.id.not_in(list(without)),
            sa.func.coalesce(uploads.c.reason, "") != FORGOTTEN,
        )
        .order_by(uploads.c.id)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def mark_forgotten(connection: sa.Connection, ids: Iterable[int], now: datetime) -> None:
    """Nothing stands behind these uploads any more."""
    for part in chunks(ids):
        connection.execute(
            sa.update(uploads)
            .where(uploads.c.id.in_(part))
            .values(verdict="rejected", reason=FORGOTTEN, message=None, decided_at=now)
        )


def bring_by(connection: sa.Connection, source: str, image: str, upload: int, batch: str) -> None:
    """Let an image of a source be the one that another upload brought; ``batch`` publishes it."""
    connection.execute(
        sa.update(members)
        .where(members.c.source == source, members.c.image_id == image)
        .values(upload_id=upload, batch_id=batch)
    )


def named_by_others(connection: sa.Connection, image: str) -> list[dict[str, str]]:
    """Publications of other images that show the files of this one: source and image."""
    query = sa.select(publications.c.source, publications.c.image_id).where(
        publications.c.canonical_id == image, publications.c.image_id != image
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def unfinished(connection: sa.Connection, ids: Iterable[str]) -> list[str]:
    """Those of these batches that have not come to their end."""
    query = sa.select(batches.c.id).where(batches.c.id.in_(list(ids)), batches.c.state.in_(OPEN))
    return list(connection.execute(query).scalars())


def note_batches(connection: sa.Connection, ids: Iterable[int], names: Iterable[str]) -> None:
    """Keep with uploads which batches publish what follows from their going."""
    connection.execute(
        sa.update(uploads)
        .where(uploads.c.id.in_(list(ids)))
        .values(message=" ".join(sorted(names)))
    )


def noted_batches(connection: sa.Connection, ids: Iterable[int]) -> set[str]:
    """What :func:`note_batches` kept."""
    query = sa.select(uploads.c.message).where(
        uploads.c.id.in_(list(ids)), uploads.c.reason == FORGOTTEN
    )
    return {one for text in connection.execute(query).scalars() for one in (text or "").split()}


def unpublish(connection: sa.Connection, source: str, image: str) -> None:
    """An image has no manifest in a source any more, and none on a template."""
    for table in (publications, mockups, warmth):
        connection.execute(
            sa.delete(table).where(table.c.source == source, table.c.image_id == image)
        )


def drop_variants(connection: sa.Connection, image: str) -> None:
    """Forget the files of an image; they are about to be deleted."""
    connection.execute(sa.delete(variants).where(variants.c.image_id == image))


def drop_image(connection: sa.Connection, image: str) -> None:
    """Forget everything of an image: its hashes, its groups, who was near to it."""
    for table, columns in (
        (warmth, ("image_id",)),
        (publications, ("image_id",)),
        (mockups, ("image_id",)),
        (changes, ("image_id",)),
        (near, ("image_id", "canonical_id")),
        (separations, ("one_id", "other_id")),
        (members, ("image_id",)),
        (sketches, ("image_id",)),
        (variants, ("image_id",)),
        (images, ("id",)),
    ):
        for column in columns:
            connection.execute(sa.delete(table).where(table.c[column] == image))
    connection.execute(
        sa.update(changes)
        .where(changes.c.old_canonical_id == image)
        .values(old_canonical_id=None, old_recipe=None)
    )


def drop_uploads(connection: sa.Connection, ids: Iterable[int]) -> None:
    """Forget the uploads themselves; their batches have fewer of them then."""
    for part in chunks(ids):
        query = sa.select(uploads.c.batch_id, uploads.c.size).where(uploads.c.id.in_(part))
        for batch, size in connection.execute(query).all():
            connection.execute(
                sa.update(batches)
                .where(batches.c.id == batch)
                .values(uploads=batches.c.uploads - 1, bytes=batches.c.bytes - size)
            )
        connection.execute(sa.delete(uploads).where(uploads.c.id.in_(part)))


def drop_mentions(
    connection: sa.Connection, names: Collection[str], is_named_in: Callable[[str], bool]
) -> None:
    """Forget the names where they only stand in passing: sightings, messages, errors of plans."""
    keys = connection.execute(sa.select(sightings.c.key).where(_holds(sightings.c.key, names)))
    gone = [key for key in keys.scalars() if is_named_in(key)]
    for part in chunks(gone):
        connection.execute(sa.delete(sightings).where(sightings.c.key.in_(part)))
    said = sa.select(uploads.c.id, uploads.c.message).where(_holds(uploads.c.message, names))
    told = [upload for upload, text in connection.execute(said) if is_named_in(text)]
    for ids in chunks(told):
        connection.execute(sa.update(uploads).where(uploads.c.id.in_(ids)).values(message=None))
    for plan, results in connection.execute(
        sa.select(plans.c.id, plans.c.results).where(_holds(plans.c.results, names))
    ).all():
        errors = [error for error in results.get("errors", ()) if not is_named_in(error)]
        connection.execute(
            sa.update(plans).where(plans.c.id == plan).values(results={**results, "errors": errors})
        )


def plans_with_trash(connection: sa.Connection) -> list[str]:
    """Every plan that ever moved something."""
    query = sa.select(plans.c.id).where(plans.c.state.not_in(("planned", "needs_confirmation")))
    return list(connection.execute(query).scalars())


def set_digest(connection: sa.Connection, plan: str, digest: str, entries: int) -> None:
    """The entries of a plan were written anew."""
    connection.execute(
        sa.update(plans).where(plans.c.id == plan).values(digest=digest, entries=entries)
    )


def rows_naming(
    connection: sa.Connection, names: Collection[str], is_named_in: Callable[[str], bool]
) -> dict[str, int]:
    """How many rows of each table hold one of these names in a column of text or JSON.

    ``is_named_in`` judges what the database finds: a key may be the beginning of another one.
    Reads every row: proof that nothing is left, and not a query for every day.
    """
    found: dict[str, int] = {}
    for table in metadata.sorted_tables:
        texts = [one for one in table.c if isinstance(one.type, sa.Text | sa.String | sa.JSON)]
        if not texts:
            continue
        query = sa.select(*texts).where(sa.or_(*(_holds(one, names) for one in texts)))
        count = sum(
            any(is_named_in(str(value)) for value in row) for row in connection.execute(query)
        )
        if count:
            found[table.name] = count
    return found


def _holds(column: sa.Column[Any], names: Collection[str]) -> sa.ColumnElement[bool]:
    """Whether a column may hold one of the names. JSON is kept with its own escapes."""
    is_json = isinstance(column.type, sa.JSON)
    spelled = [json.dumps(name)[1:-1] if is_json else name for name in names]
    text = sa.cast(column, sa.Text) if is_json else column
    return sa.or_(*(text.contains(name, autoescape=True) for name in spelled))
