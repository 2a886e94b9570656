"""What front ends and cache warmers read."""

import base64
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from image_pipeline.assets.common import OWNERS, TABLES, pace, shown_table, table, verdict_counts
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.partitions import BATCHES
from image_pipeline.resources import PipelineResource
from image_pipeline.stages.publishing import Publication, finish_batch, publish_batch

MANIFEST_COLUMNS = ("image_id", "manifest", "uploads", "aliases", "variants", "bytes")


@dg.asset(
    partitions_def=BATCHES,
    group_name="delivery",
    kinds={"s3", "json"},
    owners=OWNERS,
    io_manager_key=TABLES,
    deps=["responsive_variants", "thumbnails"],
)
def cache_warm_manifests(
    context: dg.AssetExecutionContext, pipeline: PipelineResource
) -> Iterator[dg.Output[Any]]:
    """Manifests of a batch for front ends, its warm list and its gallery. One row per image.

    A batch with unfinished uploads publishes what is good and then fails, so that people see
    it and the next attempt, which does only what is missing, is due.
    """
    started = time.monotonic()
    tools, batch = pipeline.tools(context), context.partition_key
    published = publish_batch(tools, batch)
    with tools.catalog.read() as connection:
        report = catalog_uploads.report(connection, batch)
    bytes_in = sum(row["bytes"] for row in report)
    yield dg.Output(
        table(published.rows, MANIFEST_COLUMNS),
        metadata={
            **verdict_counts(report),
            "images": published.images,
            "variants": published.variants,
            "urls_to_warm": published.urls,
            "bytes_in": bytes_in,
            "bytes_out": published.bytes_out,
            **pace(published.images, started),
            "contact_sheet": _picture(published.contact_sheet),
            "gallery": dg.MetadataValue.url(published.gallery_url),
        },
    )
    # Here the table is written too, so a batch that is done has nothing left to do.
    if published.unfinished:
        raise _failure(published)
    finish_batch(tools, batch)


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
