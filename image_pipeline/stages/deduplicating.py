"""Second stage: who is a duplicate of whom, decided in one transaction per batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.uploads import Upload
from image_pipeline.stages.regrouping import judge_again, regroup, verdicts
from image_pipeline.stages.timing import Stage, timed
from image_pipeline.stages.tools import PUBLISHED, Tools


def deduplicate_batch(tools: Tools, batch: str) -> list[dict[str, Any]]:
    """Find the canonical of every accepted image of the batch.

    The lookup and the decision share one writing transaction: two batches that bring the same
    picture at the same moment cannot both find it new. Where the batch brings a better copy of
    a known picture, groups of other batches change with it, and so do the verdicts of their
    uploads.

    Images that are known are looked at as well: an upload may show that they are older than
    was thought, and the policy may have changed.
    Returns one row per upload, see :func:`image_pipeline.catalog.uploads.report`.
    """
    with timed(tools, "dedupe", batch) as stage:
        rows = _deduplicate(tools, batch, stage)
        by_tier = Counter(row["reason"] for row in rows if row["verdict"] == "duplicate")
        stage.amounts.update({f"duplicates.{tier}": n for tier, n in by_tier.items()})
    return rows


def _deduplicate(tools: Tools, batch: str, stage: Stage) -> list[dict[str, Any]]:
    with tools.catalog.write() as connection:
        uploads = [
            upload
            for upload in catalog_uploads.of_batch(connection, batch)
            if upload.verdict in PUBLISHED
        ]
        if uploads:
            source = uploads[0].source
            stage.source, stage.images = source, len(uploads)
            catalog_groups.hold_groups(connection, source)
            policy = tools.source(source).duplicates
            first = _first_uploads(uploads)
            known = catalog_images.members_of(connection, source, first)
            new = {image: upload for image, upload in first.items() if image not in known}
            changed = regroup(connection, source, policy, batch, known, new)
            judge_again(connection, source, policy, changed, tools.clock())
            # Only the batch's own uploads can have a verdict that does not follow from a change.
            uploads = catalog_uploads.of_batch(connection, batch)
            rows = [asdict(one) for one in uploads if one.verdict in PUBLISHED]
            members = catalog_images.members_of(connection, source, first)
            decisions = verdicts(rows, members, policy)
            catalog_uploads.decide(connection, decisions, tools.clock())
        return catalog_uploads.report(connection, batch)


def _first_uploads(uploads: Iterable[Upload]) -> dict[str, int]:
    """For each image of a batch the upload that brought it first."""
    first: dict[str, int] = {}
    for upload in uploads:
        if upload.image_id:
            first.setdefault(upload.image_id, upload.id)
    return first
