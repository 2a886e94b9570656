"""Groups of duplicates: who is related to whom, who stands for whom, and what people said.

Functions that change a group need the lock of its source, see :func:`hold_groups`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sa

from image_pipeline.catalog.engine import HashDistance, chunks, insert_new, lock
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.schema import batches, images, members, separations, sketches, uploads
from image_pipeline.dedupe import bands
from image_pipeline.dedupe.grouping import MIN_TEXTURE, PHASH64_DISTANCE, Picture

#: Pictures looked up in one statement: 31 probes of three values each; SQLite takes 32,766.
LOOKUP = 200

#: A row by the names of its columns.
Row: TypeAlias = Mapping[str, Any] | sa.RowMapping

_MEMBER = [members.c[name] for name in Member.__slots__]

#: A hash in the catalog is a signed integer of 64 bits.
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


class DamagedRowError(Exception):
    """A row holds what no inspection writes. Nothing is decided upon it."""

    def __init__(self, image: object, what: str) -> None:
        super().__init__(
            f"the catalog's row of image {image} is damaged: {what}. Nothing was decided upon it;"
            " restore the row from a backup of the catalog, then run the batch again"
        )
        self.image = image


def hold_groups(connection: sa.Connection, source: str) -> None:
    """Only one transaction at a time looks up and changes the groups of a source."""
    lock(connection, f"dedupe {source}")


def get_pictures(connection: sa.Connection, source: str, ids: Iterable[str]) -> list[Picture]:
    """What grouping looks at, of these images, whether or not they are members yet.

    Raises :class:`DamagedRowError`.
    """
    found: list[Picture] = []
    for part in chunks(ids):
        query = (
            sa.select(*_picture_columns(source))
            .outerjoin(sketches, sketches.c.image_id == images.c.id)
            .where(images.c.id.in_(part))
        )
        found.extend(as_picture(row) for row in connection.execute(query).mappings())
    return found


def related(
    connection: sa.Connection, source: str, pictures: Iterable[Picture], tiers: Collection[str]
) -> list[Picture]:
    """Members of a source with the pixels of one of ``pictures``, or a pHash within reach of it.

    One statement per :data:`LOOKUP` pictures. A few values of five indexed bands find every
    hash within reach (see :mod:`image_pipeline.dedupe.bands`), the distance is told from the
    same index, and only what is within it travels. Pictures without texture are found by
    their pixels alone: their hashes are noise, and alike by the thousand.

    Raises :class:`DamagedRowError`.
    """
    found: dict[str, Picture] = {}
    for part in chunks(pictures, LOOKUP):
        alike = _alike(part, tiers)
        if alike is None:
            continue
        query = (
            sa.select(*_picture_columns(source))
            .select_from(alike)
            .join(images, images.c.id == alike.c.id)
            .join(members, (members.c.image_id == images.c.id) & (members.c.source == source))
            .outerjoin(sketches, sketches.c.image_id == images.c.id)
        )
        found.update((row["id"], as_picture(row)) for row in connection.execute(query).mappings())
    return list(found.values())


def _alike(pictures: Sequence[Picture], tiers: Collection[str]) -> sa.Subquery | None:
    """Ids of images, of any source, that may be related to these pictures; None for none."""
    ways = []
    hashes = sorted({one.pixels for one in pictures if one.pixels})
    if "pixels" in tiers and hashes:
        ways.append(sa.select(images.c.id).where(images.c.pixels.in_(hashes)))
    textured = {one.phash64 for one in pictures if one.texture >= MIN_TEXTURE}
    if "picture" in tiers and textured:
        probes = _probes(sorted(textured))
        near = HashDistance(images.c.phash64, probes.c.phash64) <= PHASH64_DISTANCE
        ways += [
            sa.select(images.c.id)
            .join(probes, images.c[f"b{band}"] == probes.c.value)
            .where(probes.c.band == band, near)
            for band in range(bands.BANDS)
        ]
    return sa.union(*ways).subquery("alike") if ways else None


def _probes(hashes: Iterable[int]) -> sa.CTE:
    """The values of each band by which hashes within reach of these are found."""
    columns = (
        sa.column("phash64", sa.BigInteger),
        sa.column("band", sa.SmallInteger),
        sa.column("value", sa.SmallInteger),
    )
    rows = [(bands.signed(one), *probe) for one in hashes for probe in bands.probes(one)]
    return sa.values(*columns, name="probes").data(rows).cte("probes")


def _picture_columns(source: str) -> list[sa.ColumnElement[Any]]:
    """Columns for :func:`as_picture`, of images and their sketches, which some do not have.

    ``since`` is the age of the oldest upload in the source.
    """
    since = (
        sa.select(sa.func.min(uploads.c.last_modified))
        .where(uploads.c.image_id == images.c.id, uploads.c.source == source)
        .scalar_subquery()
        .label("since")
    )
    names = (
        "id", "width", "height", "lossless", "phash64", "phash256", "texture", "pixels", "chroma",
        "quality", "content_width", "has_profile", "animated", "has_alpha", "created_at",
        *(f"b{band}" for band in range(bands.BANDS)),
    )  # fmt: skip
    return [*(images.c[name] for name in names), sketches.c.luma, since]


def as_picture(row: Row) -> Picture:
    """A row of images as grouping wants it. Raises :class:`DamagedRowError` if it cannot be."""
    damage = _damage(row)
    if damage:
        raise DamagedRowError(row["id"], damage)
    try:
        return Picture(
            id=row["id"],
            width=row["width"],
            height=row["height"],
            lossless=row["lossless"],
            phash64=bands.unsigned(row["phash64"]),
            phash256=row["phash256"],
            texture=row["texture"],
            pixels=row["pixels"],
            chroma=row["chroma"],
            quality=row["quality"],
            bordered=row["content_width"] is not None,
            has_profile=row["has_profile"],
            animated=row["animated"],
            has_alpha=row["has_alpha"],
            # Uploads of an image that was rendered before the source was renamed are elsewhere.
            since=row["since"] or row["created_at"],
            sketch=None if row["luma"] is None else bytes(row["luma"]),
        )
    except (TypeError, ValueError) as error:
        raise DamagedRowError(row["id"], str(error)) from None


def _damage(row: Row) -> str:
    """What is wrong with a row, in words; empty if nothing is."""
    phash64 = row["phash64"]
    if not isinstance(phash64, int) or not _LEAST <= phash64 <= _MOST:
        return f"phash64 is {phash64!r}"
    found = tuple(row[f"b{band}"] for band in range(bands.BANDS))
    if found != bands.split(bands.unsigned(phash64)):
        return f"its bands {found} are not those of its phash64"
    if not all(isinstance(row[name], int) and row[name] > 0 for name in ("width", "height")):
        return f"its size is {row['width']!r}x{row['height']!r} pixels"
    if not isinstance(row["texture"], int | float) or not math.isfinite(row["texture"]):
        return f"texture is {row['texture']!r}"
    pixels = row["pixels"]
    if pixels is not None and (not isinstance(pixels, str) or len(pixels) != 64):
        return f"pixels is {pixels!r}"
    return ""


def members_under(
    connection: sa.Connection, source: str, canonicals: Iterable[str]
) -> list[Member]:
    """Everybody that these canonicals stand for, themselves included, in the order of arrival."""
    found: list[Member] = []
    for part in chunks(canonicals):
        query = (
            sa.select(*_MEMBER)
            .where(members.c.source == source, members.c.canonical_id.in_(part))
            .order_by(members.c.number)
        )
        found.extend(Member(*row) for row in connection.execute(query))
    return found


def members_changed_by(connection: sa.Connection, batch: str) -> list[Member]:
    """The images whose publication is the task of a batch, in the order of arrival."""
    query = sa.select(*_MEMBER).where(members.c.batch_id == batch).order_by(members.c.number)
    return [Member(*row) for row in connection.execute(query)]


def change_members(connection: sa.Connection, rows: Sequence[Member]) -> None:
    """Let members be stood for by somebody else."""
    if rows:
        statement = (
            sa.update(members)
            .where(
                members.c.source == sa.bindparam("in_source"),
                members.c.image_id == sa.bindparam("image"),
            )
            .values(
                canonical_id=sa.bindparam("by"),
                tier=sa.bindparam("how"),
                distance=sa.bindparam("bits"),
                batch_id=sa.bindparam("task_of"),
            )
        )
        connection.execute(
            statement,
            [
                {
                    "in_source": row.source,
                    "image": row.image_id,
                    "by": row.canonical_id,
                    "how": row.tier,
                    "bits": row.distance,
                    "task_of": row.batch_id,
                }
                for row in rows
            ],
        )


def drop_member(connection: sa.Connection, source: str, image: str) -> None:
    """Forget an image that turned out not to be renderable; others keep their rows."""
    connection.execute(
        sa.delete(members).where(members.c.source == source, members.c.image_id == image)
    )


def uploads_of(connection: sa.Connection, source: str, ids: Iterable[str]) -> list[dict[str, Any]]:
    """The uploads of these images in a source: id, image, batch, verdict, reason, batch state."""
    found: list[dict[str, Any]] = []
    for part in chunks(ids):
        query = (
            sa.select(
                uploads.c.id,
                uploads.c.key,
                uploads.c.image_id,
                uploads.c.batch_id,
                uploads.c.verdict,
                uploads.c.reason,
                batches.c.state,
            )
            .outerjoin(batches, batches.c.id == uploads.c.batch_id)
            .where(uploads.c.source == source, uploads.c.image_id.in_(part))
            .order_by(uploads.c.id)
        )
        found.extend(dict(row) for row in connection.execute(query).mappings())
    return found


def separated(connection: sa.Connection, source: str, ids: Collection[str]) -> set[frozenset[str]]:
    """Pairs that people declared to be different pictures, as far as one of ``ids`` is in them."""
    found: set[frozenset[str]] = set()
    for part in chunks(ids):
        query = sa.select(separations.c.one_id, separations.c.other_id).where(
            separations.c.source == source,
            separations.c.one_id.in_(part) | separations.c.other_id.in_(part),
        )
        found.update(frozenset((one, other)) for one, other in connection.execute(query))
    return found


def separate(
    connection: sa.Connection, source: str, image: str, others: Iterable[str], now: datetime
) -> None:
    """Remember that an image shows another picture than ``others``, for ever."""
    rows = [
        {"source": source, "one_id": one, "other_id": other, "created_at": now}
        for one, other in sorted((min(image, other), max(image, other)) for other in others)
    ]
    insert_new(connection, separations, rows)


def unite(connection: sa.Connection, source: str, image: str) -> list[str]:
    """Forget what people said of an image; those it was kept apart from."""
    pairs = separated(connection, source, [image])
    connection.execute(
        sa.delete(separations).where(
            separations.c.source == source,
            (separations.c.one_id == image) | (separations.c.other_id == image),
        )
    )
    return sorted(other for pair in pairs for other in pair - {image})


def uploads_named(
    connection: sa.Connection, keys: Mapping[str, Collection[str]]
) -> list[dict[str, Any]]:
    """The newest upload of each of these keys, by source: source, key, image, verdict, reason."""
    found: list[dict[str, Any]] = []
    for source, names in keys.items():
        newest = (
            sa.select(sa.func.max(uploads.c.id))
            .where(uploads.c.source == source, uploads.c.key.in_(names))
            .group_by(uploads.c.key)
        )
        names_of = ("source", "key", "image_id", "verdict", "reason")
        query = sa.select(*(uploads.c[name] for name in names_of)).where(uploads.c.id.in_(newest))
        found.extend(dict(row) for row in connection.execute(query).mappings())
    return found


def members_named(
    connection: sa.Connection, sources: Sequence[str], beginning: str
) -> list[tuple[str, str]]:
    """(source, image id) of members whose id begins like this; none for less than 8 digits."""
    if not re.fullmatch(r"[0-9a-f]{8,64}", beginning):
        return []
    query = (
        sa.select(members.c.source, members.c.image_id)
        .where(
            members.c.source.in_(sources),
            # A range, not LIKE: every index answers it, whatever the collation.
            members.c.image_id >= beginning,
            members.c.image_id <= beginning.ljust(64, "f"),
        )
        .order_by(members.c.source, members.c.image_id)
        .limit(10)
    )
    return [(source, image) for source, image in connection.execute(query)]


def fallen_canonicals(
    connection: sa.Connection, source: str, canonicals: Iterable[str]
) -> list[tuple[str, str]]:
    """(image, canonical) where the canonical is a duplicate itself, or unknown. None is right."""
    found: list[tuple[str, str]] = []
    standing = members.alias("standing")
    for part in chunks(canonicals):
        query = (
            sa.select(members.c.image_id, members.c.canonical_id)
            .outerjoin(
                standing,
                (standing.c.source == members.c.source)
                & (standing.c.image_id == members.c.canonical_id),
            )
            .where(
                members.c.source == source,
                members.c.canonical_id.in_(part),
                standing.c.image_id.is_(None)
                | (standing.c.canonical_id != standing.c.image_id)
                | standing.c.tier.is_not(None),
            )
            .order_by(members.c.number)
        )
        found.extend((image, canonical) for image, canonical in connection.execute(query))
    return found
