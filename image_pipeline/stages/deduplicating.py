"""Second stage: who is a duplicate of whom, decided in one transaction per batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.engine import lock
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.uploads import Decision, Upload
from image_pipeline.dedupe import bands
from image_pipeline.dedupe.grouping import Grouping, Picture, group
from image_pipeline.settings import DuplicatePolicy
from image_pipeline.stages.tools import PUBLISHED, Tools


def deduplicate_batch(tools: Tools, batch: str) -> list[dict[str, Any]]:
    """Find the canonical of every accepted image of the batch.

    The lookup and the decision share one writing transaction: two batches that bring the same
    picture at the same moment cannot both find it new.
    Returns one row per upload, see :func:`image_pipeline.catalog.uploads.report`.
    """
    with tools.catalog.write() as connection:
        uploads = [
            upload
            for upload in catalog_uploads.of_batch(connection, batch)
            if upload.verdict in PUBLISHED
        ]
        if uploads:
            source = uploads[0].source
            lock(connection, f"dedupe {source}")
            policy = tools.source(source).duplicates
            members = _members(connection, source, uploads, policy)
            decisions = verdicts(uploads, members, policy)
            catalog_uploads.decide(connection, decisions, tools.clock())
        return catalog_uploads.report(connection, batch)


def verdicts(
    uploads: Sequence[Upload], members: dict[str, Member], policy: DuplicatePolicy
) -> list[Decision]:
    """Accepted or duplicate, for each upload of an image with a known canonical.

    Of several uploads of the same bytes the one that brought them first is accepted.
    """
    decisions = []
    for upload in uploads:
        member = members[upload.image_id or ""]
        if member.tier:
            decisions.append(Decision(upload.id, "duplicate", member.tier))
        elif member.upload_id != upload.id and "bytes" in policy.share:
            decisions.append(Decision(upload.id, "duplicate", "bytes"))
        else:
            decisions.append(Decision(upload.id, "accepted"))
    return decisions


def _members(
    connection: sa.Connection, source: str, uploads: Sequence[Upload], policy: DuplicatePolicy
) -> dict[str, Member]:
    """Who stands for the images of these uploads; new ones are grouped and recorded."""
    first = _first_uploads(uploads)
    known = catalog_images.members_of(connection, source, first)
    new = catalog_images.get_images(connection, (one for one in first if one not in known))
    groupings = _group(connection, source, list(new.values()), policy)
    rows = [
        Member(
            source,
            one.image,
            one.canonical,
            None if one.canonical == one.image else "picture",
            one.distance,
            first[one.image],
        )
        for one in groupings
    ]
    catalog_images.add_members(connection, rows)
    return {**known, **{row.image_id: row for row in rows}}


def _group(
    connection: sa.Connection,
    source: str,
    new: Sequence[dict[str, Any]],
    policy: DuplicatePolicy,
) -> list[Grouping]:
    pictures = [_picture(row) for row in new]
    if "picture" not in policy.share:
        return [Grouping(picture.id, picture.id, 0) for picture in pictures]
    splits = [bands.split(picture.phash64) for picture in pictures]
    near = catalog_images.canonicals_near(connection, source, splits)
    return group(pictures, [_picture(row) for row in near])


def _first_uploads(uploads: Iterable[Upload]) -> dict[str, int]:
    """For each image of a batch the upload that brought it first."""
    first: dict[str, int] = {}
    for upload in uploads:
        if upload.image_id:
            first.setdefault(upload.image_id, upload.id)
    return first


def _picture(row: dict[str, Any]) -> Picture:
    return Picture(
        id=row["id"],
        width=row["width"],
        height=row["height"],
        lossless=row["lossless"],
        phash64=bands.unsigned(row["phash64"]),
        phash256=row["phash256"],
        texture=row["texture"],
    )
