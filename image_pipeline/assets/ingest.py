"""Uploads with their verdicts, and the distinct images among them."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

import dagster as dg
import pandas as pd

from image_pipeline import checks
from image_pipeline.assets.common import (
    HOURLY,
    OWNERS,
    TABLES,
    group_previews,
    pace,
    saved_by_duplicates,
    shown_table,
    table,
    verdict_counts,
)
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.reports import Group
from image_pipeline.partitions import BATCHES
from image_pipeline.resources import PipelineResource
from image_pipeline.stages.deduplicating import deduplicate_batch
from image_pipeline.stages.inspecting import inspect_batch
from image_pipeline.stages.nearby import find_near
from image_pipeline.stages.reporting import describe_groups, near_pairs
from image_pipeline.stages.verifying import verify_groups

UPLOAD_COLUMNS = (
    "key", "verdict", "reason", "message", "image_id", "format", "width", "height", "bytes",
    "flags", "seconds",
)  # fmt: skip
GROUP_COLUMNS = ("canonical", "duplicates", "tiers", "farthest", "bytes")
NEAR_COLUMNS = ("image", "near_to", "found_by", "transform", "distance", "score")
IMAGE_COLUMNS = ("image_id", "canonical_id", "tier", "distance", "width", "height", "uploads")


@dg.asset(
    partitions_def=BATCHES,
    group_name="ingest",
    kinds={"s3", "python"},
    owners=OWNERS,
    io_manager_key=TABLES,
    check_specs=[checks.NO_FAILED_UPLOADS, checks.NO_REJECTED_UPLOADS],
)
def raw_uploads(
    context: dg.AssetExecutionContext, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[pd.DataFrame]]:
    """Files of a batch: each downloaded once, checked, decoded and fingerprinted. One row each."""
    started = time.monotonic()
    rows = inspect_batch(pipeline.tools(context), context.partition_key)
    refused = [row for row in rows if row["verdict"] in ("rejected", "failed")]
    yield dg.MaterializeResult(
        value=table(rows, UPLOAD_COLUMNS),
        metadata={
            "uploads": len(rows),
            **verdict_counts(rows),
            "bytes_in": sum(row["bytes"] for row in rows),
            **pace(len(rows), started),
            "rejects": shown_table(refused, ("key", "verdict", "reason", "message")),
        },
        check_results=checks.of_uploads(rows),
    )


@dg.asset(
    partitions_def=BATCHES,
    group_name="ingest",
    kinds={"python", "sql"},
    owners=OWNERS,
    io_manager_key=TABLES,
    deps=[raw_uploads],
    check_specs=[checks.CANONICALS_STAND],
)
def deduped_images(
    context: dg.AssetExecutionContext, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[pd.DataFrame]]:
    """Distinct images of a batch and the canonical that stands for each. One row per image."""
    started = time.monotonic()
    tools, batch = pipeline.tools(context), context.partition_key
    uploads = deduplicate_batch(tools, batch)
    found = describe_groups(tools, batch)
    searched = find_near(tools, batch, found.source)
    near = near_pairs(tools, batch, found.source)
    images: dict[str, dict[str, object]] = {}
    for row in uploads:
        if row["canonical_id"]:
            entry = images.setdefault(row["image_id"], {**row, "uploads": 0})
            entry["uploads"] = int(str(entry["uploads"])) + 1
    duplicates = [row for row in uploads if row["verdict"] == "duplicate"]
    by_tier = Counter(row["reason"] for row in duplicates)
    yield dg.MaterializeResult(
        value=table(list(images.values()), IMAGE_COLUMNS),
        metadata={
            "images": len(images),
            "canonical": sum(row["canonical_id"] == row["image_id"] for row in images.values()),
            "duplicates_bytes": by_tier["bytes"],
            "duplicates_pixels": by_tier["pixels"],
            "duplicates_picture": by_tier["picture"],
            "near": len(near),
            "near_candidates": searched.candidates,
            "near_candidates_left_out": searched.left_out,
            "bytes_of_duplicates": sum(row["bytes"] for row in duplicates),
            # Of a source that nothing was rendered of yet, nobody knows what rendering costs.
            **(saved_by_duplicates(duplicates, found.effort) if found.effort else {}),
            **pace(len(uploads), started),
            "duplicates": shown_table(duplicates, ("key", "reason", "canonical_id", "distance")),
            "groups": shown_table(_group_rows(found.groups), GROUP_COLUMNS),
            "group_pictures": group_previews(found.groups),
            "near_pairs": shown_table(near, NEAR_COLUMNS),
        },
        check_results=[checks.of_canonicals(verify_groups(tools, batch))],
    )


def _group_rows(groups: Sequence[Group]) -> list[dict[str, object]]:
    return [
        {
            "canonical": group.key,
            "duplicates": len(group.duplicates),
            "tiers": ", ".join(sorted({one.tier for one in group.duplicates})),
            "farthest": max(one.distance for one in group.duplicates),
            "bytes": sum(one.bytes for one in group.duplicates),
        }
        for group in groups
    ]


@dg.asset(
    group_name="ingest",
    kinds={"sql"},
    owners=OWNERS,
    freshness_policy=HOURLY,
    io_manager_key=TABLES,
)
def upload_ledger(pipeline: PipelineResource) -> Iterator[dg.MaterializeResult[pd.DataFrame]]:
    """State of all uploads: how many wait, are processed, rejected or failed, by source."""
    with pipeline.catalog.read() as connection:
        rows = catalog_uploads.counts(connection)
    totals = {"waiting": 0, "processing": 0, "accepted": 0, "duplicate": 0, "rejected": 0,
              "failed": 0}  # fmt: skip
    for row in rows:
        totals[row["state"]] += row["uploads"]
    yield dg.MaterializeResult(
        value=table(rows, ("source", "state", "uploads", "bytes")),
        metadata={
            **totals,
            "ledger": shown_table(rows, ("source", "state", "uploads", "bytes")),
        },
    )
