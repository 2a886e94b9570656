"""Whether visitors find what was published in the cache near them."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from image_pipeline.assets.common import HOURLY, OWNERS, TABLES, shown_table, table
from image_pipeline.assets.delivery import cache_warm_manifests
from image_pipeline.catalog import warmth as catalog_warmth
from image_pipeline.resources import PipelineResource
from image_pipeline.stages.warming import Pass, warm_batch, warm_sources

COLUMNS = ("source", "files", "asked", "warm", "hits", "misses", "oldest")


class WarmingConfig(dg.Config):
    """What a run started by hand warms."""

    source: str | None = Field(default=None, description="One source; all of them if empty.")
    force: bool = Field(default=False, description="Also what was warmed a short while ago.")


@dg.asset(
    group_name="delivery",
    kinds={"http", "sql"},
    owners=OWNERS,
    freshness_policy=HOURLY,
    io_manager_key=TABLES,
    deps=[cache_warm_manifests],
)
def cache_warmth(
    context: dg.AssetExecutionContext, config: WarmingConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """What the edge answered for the published files. One row per source.

    After a batch it asks for what the batch brought, by the hour for whatever is due. It fails
    nothing: what could not be warmed is listed, and due again in the next pass.
    """
    started = time.monotonic()
    tools = pipeline.light_tools(context)
    if context.has_partition_key:
        found = warm_batch(tools, context.partition_key)
    else:
        sources = [config.source] if config.source else sorted(tools.settings.sources)
        for source in sources:
            tools.source(source)
        found = warm_sources(tools, sources, force=config.force)
    with tools.catalog.read() as connection:
        rows = catalog_warmth.totals(connection)
    yield dg.MaterializeResult(
        value=table(rows, COLUMNS),
        metadata={
            **_numbers(found, time.monotonic() - started),
            "warmth": shown_table(rows, COLUMNS),
            "not_warmed": shown_table(found.shown_failures, ("source", "key", "status", "error")),
        },
    )


def _numbers(found: Pass, seconds: float) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "asked": found.asked,
        "hits": found.hits,
        "misses": found.misses,
        "failures": found.failures,
        "bytes": found.bytes,
        "seconds": round(seconds, 3),
    }
    known = found.hits + found.misses
    if known:
        numbers["hit_rate"] = round(found.hits / known, 4)
    if found.first_byte_seconds:
        ordered = sorted(found.first_byte_seconds)
        numbers["first_byte_median_ms"] = round(ordered[len(ordered) // 2] * 1000, 2)
        numbers["first_byte_p95_ms"] = round(ordered[len(ordered) * 95 // 100] * 1000, 2)
    if found.without_edge:
        numbers["without_edge"] = dg.MetadataValue.text(
            f"{', '.join(found.without_edge)}: no base_url is set, so there is no edge to warm"
        )
    if found.unsigned:
        numbers["unsigned"] = dg.MetadataValue.text("; ".join(found.unsigned.values()))
    if found.protocols:
        numbers["protocols"] = dg.MetadataValue.json(dict(found.protocols))
    return numbers
