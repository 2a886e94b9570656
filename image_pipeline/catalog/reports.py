"""Groups of duplicates as people read them: by the keys of their uploads, with the evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import sqlalchemy as sa

from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.schema import images, members, uploads, variants

#: Uploads that an average is taken of: enough to be steady, few enough to be quick.
SAMPLE = 500


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An upload that shares the variants of another one: by which tier, how many bits apart."""

    key: str
    image_id: str
    tier: str
    distance: int
    bytes: int
    placeholder: str

    @property
    def evidence(self) -> str:
        """Why it is a duplicate, in words."""
        if self.tier == "picture":
            return f"{self.distance} of 64 bits of pHash, size and 256-bit hash agree"
        return "equal pixels" if self.tier == "pixels" else "equal bytes"


@dataclass(frozen=True, slots=True)
class Group:
    """A canonical image with the upload that brought it, and the duplicates it stands for."""

    canonical_id: str
    key: str
    placeholder: str
    duplicates: list[Duplicate] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Effort:
    """What one rendered picture of a source costs on average: seconds of work, bytes stored."""

    seconds: float
    bytes: float


def groups_of(connection: sa.Connection, source: str, canonicals: Iterable[str]) -> list[Group]:
    """Groups of these canonicals that have at least one duplicate, in their order."""
    found: dict[str, Group] = {}
    wanted = list(canonicals)
    for part in chunks(wanted):
        query = (
            sa.select(
                members.c.canonical_id,
                members.c.image_id,
                members.c.distance,
                images.c.placeholder,
                uploads.c.key,
                uploads.c.verdict,
                uploads.c.reason,
                uploads.c.size,
            )
            .join(images, images.c.id == members.c.image_id)
            .join(
                uploads,
                (uploads.c.image_id == members.c.image_id) & (uploads.c.source == members.c.source),
            )
            .where(
                members.c.source == source,
                members.c.canonical_id.in_(part),
                uploads.c.verdict.in_(("accepted", "duplicate")),
            )
            # The accepted upload of a canonical comes before what it stands for.
            .order_by(members.c.canonical_id, uploads.c.verdict, uploads.c.id)
        )
        for row in connection.execute(query):
            if row.verdict == "accepted":
                group = Group(row.canonical_id, row.key, row.placeholder)
                found.setdefault(row.canonical_id, group)
                continue
            # The upload that brought the canonical may have failed since, and be tried again.
            nameless = Group(row.canonical_id, f"image {row.canonical_id[:12]}", "")
            found.setdefault(row.canonical_id, nameless).duplicates.append(
                Duplicate(
                    row.key, row.image_id, row.reason, row.distance, row.size, row.placeholder
                )
            )
    return [found[one] for one in wanted if one in found and found[one].duplicates]


def canonicals_with_duplicates(
    connection: sa.Connection, source: str, tier: str | None, limit: int
) -> list[str]:
    """Canonicals of a source that stand for somebody else, by the order of their duplicates."""
    query = (
        sa.select(members.c.canonical_id)
        .join(
            uploads,
            (uploads.c.image_id == members.c.image_id) & (uploads.c.source == members.c.source),
        )
        .where(members.c.source == source, uploads.c.verdict == "duplicate")
        .group_by(members.c.canonical_id)
        .order_by(sa.func.min(uploads.c.id).desc())
        .limit(limit)
    )
    if tier:
        query = query.where(uploads.c.reason == tier)
    return list(connection.execute(query).scalars())


def count_duplicates(connection: sa.Connection, source: str) -> dict[str, tuple[int, int]]:
    """By tier, how many uploads of a source are duplicates, and their bytes."""
    query = (
        sa.select(uploads.c.reason, sa.func.count(), sa.func.sum(uploads.c.size))
        .where(uploads.c.source == source, uploads.c.verdict == "duplicate")
        .group_by(uploads.c.reason)
    )
    return {tier: (int(count), int(size)) for tier, count, size in connection.execute(query)}


def mean_effort(connection: sa.Connection, source: str) -> Effort | None:
    """What the newest :data:`SAMPLE` rendered pictures of a source cost; None without any."""
    newest = (
        sa.select(uploads.c.image_id, uploads.c.seconds)
        .where(
            uploads.c.source == source,
            uploads.c.verdict == "accepted",
            sa.exists().where(variants.c.image_id == uploads.c.image_id),
        )
        .order_by(uploads.c.id.desc())
        .limit(SAMPLE)
        .subquery()
    )
    count, seconds = connection.execute(
        sa.select(sa.func.count(), sa.func.sum(newest.c.seconds))
    ).one()
    if not count:
        return None
    stored = connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(variants.c.bytes), 0)).where(
            variants.c.image_id.in_(sa.select(newest.c.image_id)), ~variants.c.dropped
        )
    ).scalar_one()
    return Effort(seconds / count, int(stored) / count)
