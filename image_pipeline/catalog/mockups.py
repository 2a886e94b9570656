"""What is published of each image on each template, and what is still to be made.

A mockup is announced here before its manifest is put, in the transaction that makes sure that
every file of it is there and stays (see :mod:`image_pipeline.catalog.publications`). Its files
are rows of ``variants``, with the fingerprint of the template as their recipe.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from image_pipeline.catalog.engine import chunks, insert_new
from image_pipeline.catalog.schema import (
    batches,
    images,
    members,
    mockups,
    publications,
    uploads,
    variants,
    warmth,
)

#: The role of a mockup's files.
ROLE = "mockup"

#: What manifests say of a file as the catalog does.
_IN_MANIFEST = ("key", "size", "format", "width", "height", "bytes", "sha256")

#: The verdict of a design that its template never takes, as it is.
REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Place:
    """An image on a template."""

    image_id: str
    template: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """That a mockup has the files of ``recipe``, and a manifest of these bytes (SHA-256)."""

    place: Place
    recipe: str
    form: str
    digest: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a manifest in the bucket says of a mockup: its recipe and the entries of its files.

    ``digest`` is the SHA-256 of the manifest.
    """

    place: Place
    recipe: str
    digest: str
    files: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Failure:
    """That a mockup could not be made with ``recipe``; ``verdict`` is rejected or failed."""

    place: Place
    recipe: str
    verdict: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the mockups of a source should be like: recipes by template, and the form.

    What failed is asked for again if it was tried before ``retry_before``.
    """

    recipes: Mapping[str, str]
    form: str
    retry_before: datetime


def lock_name(source: str) -> str:
    """Under which the manifests of a source's mockups are put, or erased, by one at a time."""
    return f"mockups {source}"


def standing(connection: sa.Connection, source: str, images: Iterable[str]) -> set[str]:
    """Those of these images that are published in a source and stand for themselves."""
    found: set[str] = set()
    for part in chunks(images):
        query = _standing(source).where(members.c.image_id.in_(part))
        found.update(connection.execute(query).scalars())
    return found


def _standing(source: str) -> sa.Select[tuple[str]]:
    return (
        sa.select(members.c.image_id)
        .join(
            publications,
            (publications.c.source == members.c.source)
            & (publications.c.image_id == members.c.image_id),
        )
        .where(
            members.c.source == source,
            members.c.canonical_id == members.c.image_id,
            publications.c.canonical_id == members.c.image_id,
        )
    )


def _is_due(template: str, recipe: str, wanted: Wanted) -> sa.ColumnElement[bool]:
    is_made = (mockups.c.recipe == recipe) & (mockups.c.form == wanted.form) & mockups.c.settled
    is_hopeless = (mockups.c.tried == recipe) & _is_waiting(wanted.retry_before)
    return ~sa.exists().where(
        mockups.c.source == members.c.source,
        mockups.c.image_id == members.c.image_id,
        mockups.c.template == template,
        is_made | is_hopeless,
    )


def _is_waiting(retry_before: datetime) -> sa.ColumnElement[bool]:
    """Whether what failed is not to be tried now. Sent anew since then, a design may be better."""
    sent_anew = sa.exists().where(
        uploads.c.image_id == mockups.c.image_id, uploads.c.decided_at > mockups.c.tried_at
    )
    return ((mockups.c.verdict == REJECTED) & ~sent_anew) | (mockups.c.tried_at >= retry_before)


def due(
    connection: sa.Connection, source: str, wanted: Wanted, after: str, limit: int
) -> list[Place]:
    """Mockups to be made or announced of the next ``limit`` images behind ``after``, by id."""
    if not wanted.recipes:
        return []
    lacking = {name: _is_due(name, recipe, wanted) for name, recipe in wanted.recipes.items()}
    query = (
        _standing(source)
        .add_columns(*(one.label(f"lacks_{n}") for n, one in enumerate(lacking.values())))
        .where(members.c.image_id > after, sa.or_(*lacking.values()))
        .order_by(members.c.image_id)
        .limit(limit)
    )
    return [
        Place(image, name)
        for image, *lacks in connection.execute(query)
        for name, is_lacking in zip(lacking, lacks, strict=True)
        if is_lacking
    ]


def count_due(connection: sa.Connection, source: str, wanted: Wanted) -> int:
    """How many mockups :func:`due` would give in all."""
    return sum(
        connection.execute(
            sa.select(sa.func.count()).select_from(
                _standing(source).where(_is_due(name, recipe, wanted)).subquery()
            )
        ).scalar_one()
        for name, recipe in wanted.recipes.items()
    )


def newest_batch(connection: sa.Connection, names: Collection[str]) -> list[tuple[str, str, int]]:
    """When a batch of each of these sources was last finished, and how many were."""
    query = (
        sa.select(batches.c.source, sa.func.max(batches.c.finished_at), sa.func.count())
        .where(batches.c.source.in_(sorted(names)), batches.c.state == "done")
        .group_by(batches.c.source)
        .order_by(batches.c.source)
    )
    return [(source, str(moment), count) for source, moment, count in connection.execute(query)]


def is_unfinished(
    connection: sa.Connection, source: str, templates: Iterable[str], retry_before: datetime
) -> bool:
    """Whether some mockup is missing, not settled, or may be tried again, whatever its recipe.

    Templates are known by their names alone here: nothing has to be read of them.
    """
    is_done = (mockups.c.recipe.is_not(None) & mockups.c.settled) | (
        mockups.c.tried.is_not(None) & _is_waiting(retry_before)
    )
    return any(
        connection.execute(
            _standing(source)
            .where(
                ~sa.exists().where(
                    mockups.c.source == members.c.source,
                    mockups.c.image_id == members.c.image_id,
                    mockups.c.template == name,
                    is_done,
                )
            )
            .limit(1)
        ).first()
        for name in templates
    )


def announce(
    connection: sa.Connection, source: str, rows: Iterable[Announcement], now: datetime
) -> None:
    """Say what mockups there are from now on; their manifests are not settled yet.

    Hold the lock of removals, and check that every file is there, before.
    """
    _upsert(
        connection,
        [
            {
                "source": source,
                "image_id": row.place.image_id,
                "template": row.place.template,
                "recipe": row.recipe,
                "form": row.form,
                "digest": row.digest,
                "settled": False,
                "published_at": now,
                **dict.fromkeys(("tried", "tried_at", "verdict", "reason", "message")),
            }
            for row in rows
        ],
    )


def settle(connection: sa.Connection, source: str, rows: Iterable[Announcement]) -> None:
    """The manifests are in the bucket as they were announced; one announced anew is not."""
    for row in rows:
        connection.execute(
            sa.update(mockups)
            .where(*_is_at(source, row.place), mockups.c.digest == row.digest)
            .values(settled=True)
        )


def fail(connection: sa.Connection, source: str, rows: Iterable[Failure], now: datetime) -> None:
    """Record what could not be made. What is published of it stays."""
    _upsert(
        connection,
        [
            {
                "source": source,
                "image_id": row.place.image_id,
                "template": row.place.template,
                "tried": row.recipe,
                "tried_at": now,
                "verdict": row.verdict,
                "reason": row.reason,
                "message": row.message,
            }
            for row in rows
        ],
    )


def _upsert(connection: sa.Connection, rows: Iterable[dict[str, Any]]) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    key = ("source", "image_id", "template")
    for part in chunks(rows):
        statement = dialect.insert(mockups).values(part)
        new = {name: statement.excluded[name] for name in part[0] if name not in key}
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=new))


def _is_at(source: str, place: Place) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        mockups.c.source == source,
        mockups.c.image_id == place.image_id,
        mockups.c.template == place.template,
    )


def unwanted(
    connection: sa.Connection, source: str, templates: Collection[str], limit: int
) -> list[Place]:
    """Rows of templates that are not among these, or of images that stand for nobody any more."""
    stands = _standing(source).where(members.c.image_id == mockups.c.image_id).correlate(mockups)
    query = (
        sa.select(mockups.c.image_id, mockups.c.template)
        .where(
            mockups.c.source == source,
            sa.or_(mockups.c.template.not_in(sorted(templates)), ~stands.exists()),
        )
        .limit(limit)
    )
    return [Place(*row) for row in connection.execute(query)]


def withdraw(connection: sa.Connection, source: str, places: Sequence[Place]) -> None:
    """Nothing is published of these any more; nobody refers to their files from now on."""
    for place in places:
        recipe = sa.select(mockups.c.recipe).where(*_is_at(source, place)).scalar_subquery()
        files = sa.select(variants.c.key).where(
            variants.c.image_id == place.image_id, variants.c.recipe == recipe
        )
        connection.execute(
            sa.delete(warmth).where(warmth.c.source == source, warmth.c.key.in_(files))
        )
        connection.execute(sa.delete(mockups).where(*_is_at(source, place)))


def withdraw_image(connection: sa.Connection, image: str, source: str | None = None) -> None:
    """Forget every mockup of an image, in one source or in all."""
    of_source = sa.true() if source is None else mockups.c.source == source
    connection.execute(sa.delete(mockups).where(mockups.c.image_id == image, of_source))


def sources(connection: sa.Connection) -> list[str]:
    """Every source that has rows here, also those that want no mockups any more."""
    return list(connection.execute(sa.select(mockups.c.source).distinct()).scalars())


def recipes_of(connection: sa.Connection, source: str, places: Iterable[Place]) -> dict[Place, str]:
    """The recipes of what is published of these."""
    wanted = set(places)
    found: dict[Place, str] = {}
    for part in chunks(sorted({one.image_id for one in wanted})):
        query = sa.select(mockups.c.image_id, mockups.c.template, mockups.c.recipe).where(
            mockups.c.source == source,
            mockups.c.image_id.in_(part),
            mockups.c.recipe.is_not(None),
        )
        found.update(
            (Place(image, template), recipe)
            for image, template, recipe in connection.execute(query)
        )
    return {place: recipe for place, recipe in found.items() if place in wanted}


def published_recipes(connection: sa.Connection, images: Iterable[str]) -> set[tuple[str, str]]:
    """The pairs (image, recipe) that some mockup names."""
    found: set[tuple[str, str]] = set()
    for part in chunks(images):
        query = (
            sa.select(mockups.c.image_id, mockups.c.recipe)
            .where(mockups.c.image_id.in_(part), mockups.c.recipe.is_not(None))
            .distinct()
        )
        found.update((image, recipe) for image, recipe in connection.execute(query))
    return found


def published_since(connection: sa.Connection, images: Iterable[str], moment: datetime) -> set[str]:
    """Those of these images of which a mockup was announced since."""
    found: set[str] = set()
    for part in chunks(images):
        query = sa.select(mockups.c.image_id).where(
            mockups.c.image_id.in_(part), mockups.c.published_at > moment
        )
        found.update(connection.execute(query).scalars())
    return found


def published(
    connection: sa.Connection, source: str, template: str, images: Iterable[str]
) -> set[str]:
    """Those of these images that have a mockup on a template."""
    found: set[str] = set()
    for part in chunks(images):
        query = sa.select(mockups.c.image_id).where(
            mockups.c.source == source,
            mockups.c.template == template,
            mockups.c.image_id.in_(part),
            mockups.c.recipe.is_not(None),
        )
        found.update(connection.execute(query).scalars())
    return found


def unsettled(connection: sa.Connection, images: Iterable[str]) -> set[tuple[str, str, str]]:
    """Mockups whose manifest may be the one before: (source, image, template)."""
    found: set[tuple[str, str, str]] = set()
    for part in chunks(images):
        query = sa.select(mockups.c.source, mockups.c.image_id, mockups.c.template).where(
            mockups.c.image_id.in_(part), ~mockups.c.settled
        )
        found.update(connection.execute(query).tuples())
    return found


def restored_sources(connection: sa.Connection) -> list[str]:
    """Every source that published something."""
    query = sa.select(publications.c.source).distinct().order_by(publications.c.source)
    return list(connection.execute(query).scalars())


def restore(
    connection: sa.Connection, source: str, rows: Sequence[Recorded], now: datetime
) -> None:
    """Know mockups again by their manifests; of images that the catalog does not have, none.

    Without a form, so that the next run looks at each. It composes only those again of which
    some file was not worth publishing: manifests do not tell of such.
    """
    ids = sorted({row.place.image_id for row in rows})
    known: set[str] = set()
    for part in chunks(ids):
        known.update(
            connection.execute(sa.select(images.c.id).where(images.c.id.in_(part))).scalars()
        )
    mine = [row for row in rows if row.place.image_id in known]
    insert_new(
        connection,
        variants,
        [
            {
                **{name: file[name] for name in _IN_MANIFEST},
                "image_id": row.place.image_id,
                "recipe": row.recipe,
                "role": ROLE,
                "quality": 0,
                "dropped": False,
                "metadata": [],
                "created_at": now,
            }
            for row in mine
            for file in row.files
        ],
    )
    announce(
        connection,
        source,
        [Announcement(row.place, row.recipe, "", row.digest) for row in mine],
        now,
    )


def lose_files(connection: sa.Connection, pairs: Collection[tuple[str, str]]) -> int:
    """Forget all files of mockups of which one is gone; they are made anew. How many rows."""
    dropped = 0
    for image, recipe in sorted(pairs):
        dropped += connection.execute(
            sa.delete(variants).where(
                variants.c.image_id == image,
                variants.c.recipe == recipe,
                variants.c.role == ROLE,
            )
        ).rowcount
        connection.execute(
            sa.update(mockups)
            .where(mockups.c.image_id == image, mockups.c.recipe == recipe)
            .values(settled=False)
        )
    return dropped


def unwarmed(
    connection: sa.Connection, source: str, after: str, limit: int
) -> list[tuple[str, str]]:
    """Images behind ``after``, by id, with a recipe of which the edge was never told a file."""
    files = (
        (variants.c.image_id == mockups.c.image_id)
        & (variants.c.recipe == mockups.c.recipe)
        & ~variants.c.dropped
    )
    known = (
        sa.select(warmth.c.key)
        .join(variants, variants.c.key == warmth.c.key)
        .where(warmth.c.source == mockups.c.source, files)
    )
    some = (
        sa.select(mockups.c.image_id)
        .where(
            mockups.c.source == source,
            mockups.c.image_id > after,
            ~known.exists(),
            sa.select(variants.c.key).where(files).exists(),
        )
        .distinct()
        .order_by(mockups.c.image_id)
        .limit(limit)
    )
    query = sa.select(mockups.c.image_id, mockups.c.recipe).where(
        mockups.c.source == source, mockups.c.image_id.in_(some), mockups.c.recipe.is_not(None)
    )
    return list(connection.execute(query.order_by(mockups.c.image_id)).tuples())


def totals(connection: sa.Connection) -> list[dict[str, Any]]:
    """By source and template: mockups published, failed, rejected, and when the newest was."""
    count = sa.func.count
    query = (
        sa.select(
            mockups.c.source,
            mockups.c.template,
            count(mockups.c.recipe).label("published"),
            count().filter(mockups.c.verdict == "failed").label("failed"),
            count().filter(mockups.c.verdict == REJECTED).label("rejected"),
            sa.func.max(mockups.c.published_at).label("newest"),
        )
        .group_by(mockups.c.source, mockups.c.template)
        .order_by(mockups.c.source, mockups.c.template)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def failures(connection: sa.Connection, source: str, limit: int) -> list[dict[str, Any]]:
    """What could not be made, the newest first."""
    names = ("source", "template", "image_id", "verdict", "reason", "message")
    query = (
        sa.select(*(mockups.c[name] for name in names))
        .where(mockups.c.source == source, mockups.c.tried.is_not(None))
        .order_by(mockups.c.tried_at.desc(), mockups.c.image_id, mockups.c.template)
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
