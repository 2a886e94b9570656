"""What front ends and cache warmers read."""

import base64
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from image_pipeline import checks
from image_pipeline.assets.common import (
    OWNERS,
    TABLES,
    pace,
    saved_by_duplicates,
    shown_table,
    table,
    verdict_counts,
)
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.reports import mean_effort
from image_pipeline.partitions import BATCHES
from image_pipeline.resources import PipelineResource
from image_pipeline.stages.exporting import export_batch
from image_pipeline.stages.publishing import Publication, finish_batch, publish_batch
from image_pipeline.stages.tools import Tools
from image_pipeline.stages.verifying import verify_groups

MANIFEST_COLUMNS = ("image_id", "manifest", "uploads", "aliases", "variants", "bytes")


@dg.asset(
    partitions_def=BATCHES,
    group_name="delivery",
    kinds={"s3", "json"},
    owners=OWNERS,
    io_manager_key=TABLES,
    deps=["responsive_variants", "thumbnails"],
    check_specs=[checks.DUPLICATES_ARE_SERVED],
)
def cache_warm_manifests(
    context: dg.AssetExecutionContext, pipeline: PipelineResource
) -> Iterator[dg.Output[Any] | dg.AssetCheckResult]:
    """Manifests for front ends, the index, and a batch's delta and gallery. One row per image.

    A batch with unfinished uploads publishes what is good and then fails, so that people see
    it and the next attempt, which does only what is missing, is due.
    """
    started = time.monotonic()
    tools, batch = pipeline.tools(context), context.partition_key
    published = publish_batch(tools, batch)
    with tools.catalog.read() as connection:
        report = catalog_uploads.report(connection, batch)
        effort = mean_effort(connection, published.source)
    bytes_in = sum(row["bytes"] for row in report)
    duplicates = [row for row in report if row["verdict"] == "duplicate"]
    yield dg.Output(
        table(published.rows, MANIFEST_COLUMNS),
        metadata={
            **verdict_counts(report),
            "images": published.images,
            "variants": published.variants,
            "urls_to_warm": published.urls,
            "urls_added": published.added,
            "urls_removed": published.removed,
            "images_with_other_files": published.replaced,
            "manifests_written": published.manifests,
            "index_pages_written": published.index_pages,
            **_in_redis(tools, published),
            "bytes_in": bytes_in,
            "bytes_out": published.bytes_out,
            **(saved_by_duplicates(duplicates, effort) if effort else {}),
            **pace(published.images, started),
            "contact_sheet": _picture(published.contact_sheet),
            "gallery": dg.MetadataValue.url(published.gallery_url),
        },
    )
    yield checks.of_duplicates(verify_groups(tools, batch))
    # Here the table is written too, so a batch that is done has nothing left to do.
    if published.unfinished:
        raise _failure(published)
    if finish_batch(tools, batch, published):
        export_batch(tools.bucket, tools.catalog, batch, published.source, tools.clock())
    else:
        context.log.warning(
            "groups of this batch were changed by people while it ran; the upload sensor asks for"
            " it again"
        )


def _in_redis(tools: Tools, published: Publication) -> dict[str, Any]:
    """What Redis has of it, where there is one."""
    if tools.settings.redis.url is None:
        return {}
    told = {"manifests_in_redis": published.cached.published}
    return {**told, "redis_trouble": published.cached.reason} if published.cached.reason else told


def _picture(data: bytes) -> dg.MetadataValue[Any]:
    if not data:
        return dg.MetadataValue.text("no pictures")
    encoded = base64.b64encode(data).decode()
    return dg.MetadataValue.md(f"![pictures of the batch](data:image/webp;base64,{encoded})")


def _failure(published: Publication) -> dg.Failure:
    count = len(published.unfinished)
    return dg.Failure(
        f"{count} uploads of this batch are unfinished; everything else is published."
        " The upload sensor tries the batch again, or re-execute all steps: only what is missing"
        " is done.",
        metadata={
            "unfinished": shown_table(published.unfinished, ("key", "verdict", "reason", "message"))
        },
        allow_retries=False,
    )
