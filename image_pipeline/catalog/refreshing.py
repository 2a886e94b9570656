"""What is known of published images and their files, in the order of their ids, page by page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from image_pipeline.catalog.batches import OPEN
from image_pipeline.catalog.engine import Catalog, chunks
from image_pipeline.catalog.schema import (
    batches,
    images,
    members,
    publications,
    uploads,
    variants,
)

#: Verdicts behind which there are published files.
_PUBLISHED = ("accepted", "duplicate")

#: Rows of a page.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class File:
    """A published file whose object should be in the bucket."""

    key: str
    image_id: str
    recipe: str
    role: str


@dataclass(frozen=True, slots=True)
class Standing:
    """An image that stands for others or itself in a source, and the batch that brought it.

    ``recipe`` is the fingerprint its publication names, None without one. ``width`` and
    ``height`` in pixels; ``open`` if its batch is still to be run.
    """

    source: str
    image_id: str
    recipe: str | None
    width: int
    height: int
    frames: int
    batch_id: str
    open: bool


def files(catalog: Catalog) -> Iterator[list[File]]:
    """Every row whose object should be there, by key; no transaction is kept open meanwhile."""
    after = ""
    while True:
        query = (
            sa.select(*(variants.c[name] for name in File.__slots__))
            .where(variants.c.key > after, ~variants.c.dropped)
            .order_by(variants.c.key)
            .limit(PAGE)
        )
        with catalog.read() as connection:
            page = [File(*row) for row in connection.execute(query)]
        if not page:
            return
        yield page
        after = page[-1].key


def standing(catalog: Catalog, source: str) -> Iterator[list[Standing]]:
    """Every image of a source that stands for itself, by id."""
    after = ""
    while True:
        query = (
            sa.select(
                members.c.source,
                members.c.image_id,
                publications.c.recipe,
                images.c.width,
                images.c.height,
                images.c.frames,
                uploads.c.batch_id,
                batches.c.state.in_(OPEN),
            )
            .join(images, images.c.id == members.c.image_id)
            .join(uploads, uploads.c.id == members.c.upload_id)
            .join(batches, batches.c.id == uploads.c.batch_id)
            .outerjoin(
                publications,
                (publications.c.source == members.c.source)
                & (publications.c.image_id == members.c.image_id),
            )
            .where(
                members.c.source == source,
                members.c.image_id == members.c.canonical_id,
                members.c.image_id > after,
                uploads.c.verdict.in_(_PUBLISHED),
            )
            .order_by(members.c.image_id)
            .limit(PAGE)
        )
        with catalog.read() as connection:
            page = [Standing(*row) for row in connection.execute(query)]
        if not page:
            return
        yield page
        after = page[-1].image_id


def counts(connection: sa.Connection, ids: Iterable[str], recipe: str) -> dict[str, int]:
    """How many files of a recipe are recorded of each image, dropped ones too."""
    found: dict[str, int] = {}
    for part in chunks(ids):
        query = (
            sa.select(variants.c.image_id, sa.func.count())
            .where(variants.c.image_id.in_(part), variants.c.recipe == recipe)
            .group_by(variants.c.image_id)
        )
        found.update(connection.execute(query).tuples().all())
    return found


def originals(connection: sa.Connection, ids: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """For each image the (key, ETag) pairs of the uploads that hold its bytes."""
    found: dict[str, list[tuple[str, str]]] = {}
    for part in chunks(ids):
        query = sa.select(uploads.c.image_id, uploads.c.key, uploads.c.etag).where(
            uploads.c.image_id.in_(part)
        )
        for image, key, etag in connection.execute(query):
            found.setdefault(image, []).append((key, etag))
    return found


def drop_files(connection: sa.Connection, keys: Iterable[str]) -> int:
    """Forget files whose objects are gone; how many there were."""
    return sum(
        connection.execute(sa.delete(variants).where(variants.c.key.in_(part))).rowcount
        for part in chunks(keys)
    )


def reopened(connection: sa.Connection, ids: Collection[str]) -> set[str]:
    """Those of these batches that had come to an end before."""
    query = sa.select(batches.c.id).where(batches.c.id.in_(list(ids)), batches.c.spent > 0)
    return set(connection.execute(query).scalars())
