"""Groups of a source are formed anew wherever something about them has changed.

The whole connected component is looked at, so the groups depend on the images a source has and
on what people said of them, never on the order in which they came. Only rows that change are
written, and they name the batch that publishes what follows: a crash loses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.uploads import Decision
from image_pipeline.dedupe.grouping import TIERS, Grouping, Picture, component, group
from image_pipeline.settings import DuplicatePolicy
from image_pipeline.stages.tools import PUBLISHED

#: Images that may be connected with each other. A thousand copies of one picture are a strange
#: source; this many, or a flood of hashes that are no pictures', would be read with every batch.
MAX_COMPONENT = 20_000


class GroupTooLargeError(Exception):
    """More images are connected with each other than can be looked at with every batch."""


def regroup(
    connection: sa.Connection,
    source: str,
    policy: DuplicatePolicy,
    batch: str,
    images: Iterable[str],
    new: Mapping[str, int],
) -> list[Member]:
    """Group the components of ``images`` and write the members that changed; these.

    ``images`` are members, ``new`` images that are none yet, each with the upload that brought
    it. ``batch`` publishes what follows. The caller holds the groups of the source.

    Raises :class:`~image_pipeline.catalog.groups.DamagedRowError` and
    :class:`GroupTooLargeError`; the caller's transaction then ends without having changed
    anything.
    """
    pictures = _component(connection, source, policy, {*images, *new})
    ids = [picture.id for picture in pictures]
    apart = catalog_groups.separated(connection, source, ids)
    known = catalog_images.members_of(connection, source, ids)
    found = {one.image: one for one in group(pictures, policy.share, apart)}
    added = [_member(source, found[image], new[image], batch) for image in new]
    changed = [
        replace(_member(source, found[image], row.upload_id, batch), number=row.number)
        for image, row in known.items()
        if image in found and _differs(row, found[image])
    ]
    # Whoever is left has fewer aliases to name: its manifests change with those that left it.
    left = {known[row.image_id].canonical_id for row in changed} - {r.image_id for r in changed}
    former = catalog_images.members_of(connection, source, sorted(left))
    kept = [replace(row, batch_id=batch) for row in former.values()]
    catalog_images.add_members(connection, sorted(added, key=lambda row: row.upload_id))
    catalog_groups.change_members(
        connection, sorted([*changed, *kept], key=lambda row: row.image_id)
    )
    return added + changed


def _component(
    connection: sa.Connection, source: str, policy: DuplicatePolicy, seeds: Collection[str]
) -> list[Picture]:
    """The pictures of whole components, and of everybody who stands under one of them.

    The latter may be unrelated by now: grouped under other thresholds or another policy.
    """
    tiers = [tier for tier in TIERS if tier in policy.share]
    reached: set[str] = set()

    def candidates(pictures: Sequence[Picture]) -> list[Picture]:
        reached.update(picture.id for picture in pictures)
        if len(reached) > MAX_COMPONENT:
            raise GroupTooLargeError(
                f"more than {MAX_COMPONENT:,} images of source {source!r} are connected as"
                f" duplicates, among them {min(reached)}: if they are the same picture, leave"
                " out of the source what sends them; if not, take 'picture' out of its"
                " duplicates.share"
            )
        return catalog_groups.related(connection, source, pictures, tiers)

    wanted = set(seeds)
    while True:
        start = catalog_groups.get_pictures(connection, source, sorted(wanted))
        pictures = component(start, candidates, tiers)
        ids = {picture.id for picture in pictures}
        below = catalog_groups.members_under(connection, source, sorted(ids))
        missing = {row.image_id for row in below} - ids
        if not missing:
            return pictures
        wanted = ids | missing


def _member(source: str, found: Grouping, upload: int, batch: str) -> Member:
    return Member(source, found.image, found.canonical, found.tier, found.distance, upload, batch)


def _differs(row: Member, found: Grouping) -> bool:
    was = (row.canonical_id, row.tier, row.distance)
    return was != (found.canonical, found.tier, found.distance)


def verdicts(
    uploads: Iterable[Mapping[str, Any]], members: Mapping[str, Member], policy: DuplicatePolicy
) -> list[Decision]:
    """Accepted or duplicate, for each upload of a member that has another verdict so far.

    Of several uploads of the same bytes the one that brought them first is accepted.
    ``uploads`` have ``id``, ``image_id``, ``verdict`` and ``reason``.
    """
    decisions = []
    for upload in uploads:
        member = members[upload["image_id"]]
        if member.tier:
            right: tuple[str, str | None] = ("duplicate", member.tier)
        elif member.upload_id != upload["id"] and "bytes" in policy.share:
            right = ("duplicate", "bytes")
        else:
            right = ("accepted", None)
        if right != (upload["verdict"], upload["reason"]):
            decisions.append(Decision(upload["id"], *right))
    return decisions


def judge_again(
    connection: sa.Connection,
    source: str,
    policy: DuplicatePolicy,
    changed: Collection[Member],
    now: datetime,
) -> None:
    """Give every published upload of changed members, of whatever batch, its new verdict."""
    members = {row.image_id: row for row in changed}
    uploads = catalog_groups.uploads_of(connection, source, sorted(members))
    published = [row for row in uploads if row["verdict"] in PUBLISHED]
    catalog_uploads.decide(connection, verdicts(published, members, policy), now)


def canonicals_of_batch(connection: sa.Connection, source: str, batch: str) -> set[str]:
    """Whose variants and manifests a batch looks after.

    Those that stand for its uploads, and those of every group that it was the last to change.
    """
    found = {
        row["canonical_id"]
        for row in catalog_uploads.report(connection, batch)
        if row["verdict"] in PUBLISHED and row["canonical_id"]
    }
    found |= {row.canonical_id for row in catalog_groups.members_changed_by(connection, batch)}
    return found
