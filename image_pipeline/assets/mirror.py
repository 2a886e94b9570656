"""Copies of originals and chosen variants on an SFTP server."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from image_pipeline.assets.common import HOURLY, OWNERS, TABLES, shown_table, table
from image_pipeline.assets.delivery import cache_warm_manifests
from image_pipeline.mirror.remote import MirrorError
from image_pipeline.mirror.running import Mirrored, mirror
from image_pipeline.resources import PipelineResource

COLUMNS = ("outcome", "files")
FAILURE_COLUMNS = ("source", "key", "failures", "error")

_OUTCOMES = ("copied", "unchanged", "trashed", "purged", "failed", "waiting")


class MirrorConfig(dg.Config):
    """What a run started by hand copies."""

    source: str | None = Field(default=None, description="One source; all of them if empty.")


@dg.asset(
    group_name="delivery",
    kinds={"sftp", "sql"},
    owners=OWNERS,
    freshness_policy=HOURLY,
    io_manager_key=TABLES,
    deps=[cache_warm_manifests],
)
def nas_mirror(
    context: dg.AssetExecutionContext, config: MirrorConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """What was copied to the SFTP server, and moved to the trash there. One row per outcome.

    What fails does not keep the rest from being copied. It makes the run red, and is tried again
    by the next one.
    """
    tools = pipeline.light_tools(context)
    if config.source is not None:
        tools.source(config.source)
    try:
        found = mirror(
            tools.settings, tools.bucket, tools.catalog, tools.clock, tools.progress,
            source=config.source,
        )  # fmt: skip
    except MirrorError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    rows = [{"outcome": name, "files": getattr(found, name)} for name in _OUTCOMES]
    yield dg.MaterializeResult(
        value=table(rows, COLUMNS),
        metadata={
            **_numbers(found),
            "target": found.target,
            "not_copied": shown_table(found.failures, FAILURE_COLUMNS),
        },
    )
    if not found.good:
        why = found.stopped or f"{found.failed} files could not be copied"
        # The next run by the clock tries again; one at once would meet the same server.
        raise dg.Failure(f"{found.target}: {why}", allow_retries=False)


def _numbers(found: Mirrored) -> dict[str, Any]:
    seconds = max(found.seconds, 1e-9)
    return {
        "files": found.copied,
        "bytes": found.bytes,
        "seconds": round(found.seconds, 3),
        "megabytes_per_second": round(found.bytes / 1e6 / seconds, 3),
        "files_per_second": round(found.copied / seconds, 3),
        "unchanged": found.unchanged,
        "trashed": found.trashed,
        "purged": found.purged,
        "failed": found.failed,
        "waiting": found.waiting,
        "bytes_resumed": found.resumed,
        "connections": found.connections,
    }
