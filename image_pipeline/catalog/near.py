"""Pictures that resemble each other: hashes to look through, sketches to verify, pairs found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks, insert_new
from image_pipeline.catalog.groups import DamagedRowError
from image_pipeline.catalog.schema import images, members, near, separations, sketches
from image_pipeline.dedupe import bands
from image_pipeline.dedupe.grouping import MIN_TEXTURE
from image_pipeline.dedupe.near import Sketched

#: Rows of hashes read at a time: a few MB, whatever the size of the catalog.
PAGE = 50_000


class Hashes(NamedTuple):
    """A member by its number in the source, with its signed 64-bit hashes.

    ``phash64`` and ``dhash64`` are None where the whole picture has no texture: then they are
    noise. ``content_phash64`` is None without a border.
    """

    number: int
    phash64: int | None
    dhash64: int | None
    content_phash64: int | None


@dataclass(frozen=True, slots=True)
class Near:
    """That ``image_id`` resembles ``canonical_id``, which is the better picture of the two."""

    image_id: str
    canonical_id: str
    found_by: str
    transform: str
    distance: int
    score: float


def hashes_after(
    connection: sa.Connection, source: str, number: int, page: int = PAGE
) -> Iterator[list[Hashes]]:
    """Hashes of the members of a source that came after a number, in pages.

    Of all members: who is no canonical today may be one tomorrow. Without those of which there
    is nothing but noise; a product on a white page has its content.
    """
    columns = (members.c.number, images.c.phash64, images.c.dhash64, images.c.content_phash64)
    while True:
        query = (
            sa.select(*columns, images.c.texture)
            .join(images, images.c.id == members.c.image_id)
            .where(members.c.source == source, members.c.number > number)
            .order_by(members.c.number)
            .limit(page)
        )
        rows = connection.execute(query).all()
        if not rows:
            return
        hashes = (_hashes(row) for row in rows)
        yield [one for one in hashes if one.phash64 is not None or one.content_phash64 is not None]
        number = rows[-1].number


def _hashes(row: sa.Row[Any]) -> Hashes:
    if row.texture >= MIN_TEXTURE:
        return Hashes(row.number, row.phash64, row.dhash64, row.content_phash64)
    return Hashes(row.number, None, None, row.content_phash64)


def last_number(connection: sa.Connection, source: str) -> int:
    """The number of the newest member of a source; 0 if there is none."""
    query = sa.select(sa.func.max(members.c.number)).where(members.c.source == source)
    return connection.execute(query).scalar() or 0


def canonicals_changed_by(connection: sa.Connection, batch: str) -> list[str]:
    """The canonicals among the members that a batch was the last to change."""
    query = sa.select(members.c.image_id).where(
        members.c.batch_id == batch, members.c.canonical_id == members.c.image_id
    )
    return list(connection.execute(query).scalars())


def sketched_canonicals(
    connection: sa.Connection,
    source: str,
    *,
    ids: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
) -> dict[str, tuple[int, Sketched]]:
    """Number and sketches of these canonicals of a source, by id; one chunk.

    Who is no canonical is left out, and so is who was inspected before sketches were kept.
    Raises :class:`~image_pipeline.catalog.groups.DamagedRowError`.
    """
    names = (
        "id", "width", "height", "phash64", "dhash64", "texture", "content_width",
        "content_height", "content_phash64",
    )  # fmt: skip
    query = (
        sa.select(
            members.c.number,
            *(images.c[name] for name in names),
            sketches.c.luma,
            sketches.c.content_luma,
        )
        .join(images, images.c.id == members.c.image_id)
        .join(sketches, sketches.c.image_id == members.c.image_id)
        .where(members.c.source == source, members.c.canonical_id == members.c.image_id)
    )
    if ids is not None:
        query = query.where(members.c.image_id.in_(ids))
    if numbers is not None:
        query = query.where(members.c.number.in_(numbers))
    found = {}
    for row in connection.execute(query).mappings():
        found[row["id"]] = (row["number"], _sketched(row))
    return found


def _sketched(row: sa.RowMapping) -> Sketched:
    content = row["content_luma"]
    try:
        return Sketched(
            id=row["id"],
            phash64=bands.unsigned(row["phash64"]),
            dhash64=bands.unsigned(row["dhash64"]),
            texture=row["texture"],
            sketch=bytes(row["luma"]),
            content_phash64=None if content is None else bands.unsigned(row["content_phash64"]),
            content_sketch=None if content is None else bytes(content),
            aspect=row["width"] / row["height"],
            content_aspect=None
            if content is None
            else row["content_width"] / row["content_height"],
        )
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise DamagedRowError(row["id"], str(error)) from None


def record_near(connection: sa.Connection, source: str, pairs: Sequence[Near], now: Any) -> None:
    """Record pairs; those that are known stay as they are.

    A pair whose better picture is now the worse one is turned round. Sorted, so that two
    batches that record the same pairs do not wait for each other for ever.
    """
    ordered = sorted(pairs, key=lambda pair: (pair.image_id, pair.canonical_id))
    for part in chunks(ordered, 200):
        turned = [
            (near.c.image_id == pair.canonical_id) & (near.c.canonical_id == pair.image_id)
            for pair in part
        ]
        connection.execute(sa.delete(near).where(near.c.source == source, sa.or_(*turned)))
        insert_new(
            connection,
            near,
            [
                {"source": source, "created_at": now}
                | {name: getattr(pair, name) for name in Near.__slots__}
                for pair in part
            ],
        )


def forget_near(connection: sa.Connection, source: str, ids: Iterable[str]) -> None:
    """Forget pairs of images that are no canonicals any more."""
    for part in chunks(sorted(set(ids))):
        connection.execute(
            sa.delete(near).where(
                near.c.source == source,
                near.c.image_id.in_(part) | near.c.canonical_id.in_(part),
            )
        )


def near_of(connection: sa.Connection, source: str, ids: Iterable[str]) -> list[Near]:
    """Pairs of canonicals in which one of these images is, the best score first."""
    found: dict[tuple[str, str], Near] = {}
    columns = [near.c[name] for name in Near.__slots__]
    for part in chunks(sorted(set(ids))):
        query = _of_canonicals(sa.select(*columns), source).where(
            near.c.image_id.in_(part) | near.c.canonical_id.in_(part)
        )
        for row in connection.execute(query):
            pair = Near(*row)
            found[pair.image_id, pair.canonical_id] = pair
    return sorted(found.values(), key=lambda pair: (-pair.score, pair.image_id, pair.canonical_id))


def _of_canonicals(query: sa.Select[Any], source: str) -> sa.Select[Any]:
    """Pairs both of whose pictures stand for themselves, which people did not separate."""
    one, other = members.alias("one"), members.alias("other")
    for alias, column in ((one, near.c.image_id), (other, near.c.canonical_id)):
        query = query.join(
            alias,
            (alias.c.source == near.c.source)
            & (alias.c.image_id == column)
            & (alias.c.canonical_id == column),
        )
    pair = (near.c.image_id, near.c.canonical_id)
    apart = sa.exists().where(
        separations.c.source == near.c.source,
        sa.or_(
            *(
                (separations.c.one_id == first) & (separations.c.other_id == second)
                for first, second in (pair, pair[::-1])
            )
        ),
    )
    return query.where(near.c.source == source, ~apart)


def newest_near(connection: sa.Connection, source: str, limit: int) -> list[Near]:
    """Pairs of canonicals of a source, the newest first."""
    columns = [near.c[name] for name in Near.__slots__]
    query = (
        _of_canonicals(sa.select(*columns), source)
        .order_by(near.c.created_at.desc(), near.c.image_id, near.c.canonical_id)
        .limit(limit)
    )
    return [Near(*row) for row in connection.execute(query)]


def count_near(connection: sa.Connection, source: str) -> int:
    """How many pairs of canonicals of a source resemble each other."""
    query = _of_canonicals(sa.select(sa.func.count()).select_from(near), source)
    return int(connection.execute(query).scalar_one())
