"""Pictures on products: what is made when a template, the settings or a source has changed."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from image_pipeline.assets.common import OWNERS, TABLES, pace, shown, shown_table, table
from image_pipeline.assets.delivery import cache_warm_manifests
from image_pipeline.catalog import mockups as catalog_mockups
from image_pipeline.resources import PipelineResource
from image_pipeline.stages.mockups import Tally, make_mockups

COLUMNS = ("source", "template", "published", "failed", "rejected", "newest")
FAILURE_COLUMNS = ("source", "template", "image_id", "verdict", "reason", "message")

TEMPLATES_CAN_BE_USED = dg.AssetCheckSpec(
    "templates_can_be_used",
    asset="mockups",
    description="Every template that a source wants can be read. What is published on a broken one"
    " stays until it is mended; all others go on.",
)
DESIGNS_ARE_COMPOSED = dg.AssetCheckSpec(
    "designs_are_composed",
    asset="mockups",
    description="Every design could be composed onto every template. Those that could not are"
    " listed with their reasons, and tried again unless it is their own fault.",
)


class MockupConfig(dg.Config):
    """What a run started by hand makes."""

    source: str | None = Field(default=None, description="One source; all of them if empty.")


@dg.asset(
    group_name="delivery",
    kinds={"s3", "pillow"},
    owners=OWNERS,
    io_manager_key=TABLES,
    deps=[cache_warm_manifests],
    check_specs=[TEMPLATES_CAN_BE_USED, DESIGNS_ARE_COMPOSED],
)
def mockups(
    context: dg.AssetExecutionContext, config: MockupConfig, pipeline: PipelineResource
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Published designs of every source, composed onto its templates. One row per template.

    It has no partitions, because a template cuts across all batches: what is to be made follows
    from comparing the catalog with the templates. A run that ends early is gone on with by the
    next one, and a changed template costs its own mockups only.
    """
    started = time.monotonic()
    tools = pipeline.light_tools(context)
    if config.source is not None:
        tools.source(config.source)
    try:
        tally = make_mockups(tools, config.source)
    finally:
        tools.workers.close()
        tools.spool.clear()
    with tools.catalog.read() as connection:
        rows = catalog_mockups.totals(connection)
    yield dg.MaterializeResult(
        value=table(rows, COLUMNS),
        metadata={
            **_numbers(tally, started),
            "mockups": shown_table(rows, COLUMNS),
            "not_composed": shown_table(tally.failures, FAILURE_COLUMNS),
            "not_usable": shown_table(
                [
                    {"template": name, "problem": text}
                    for name, text in sorted(tally.problems.items())
                ],
                ("template", "problem"),
            ),
        },
    )
    yield dg.AssetCheckResult(
        passed=not tally.problems,
        check_name=TEMPLATES_CAN_BE_USED.name,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "templates": tally.templates + len(tally.problems),
            "wrong": len(tally.problems),
            "problems": [shown(text) for text in tally.problems.values()],
        },
    )
    yield dg.AssetCheckResult(
        passed=not tally.failed,
        check_name=DESIGNS_ARE_COMPOSED.name,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"due": tally.due, "wrong": tally.failed},
    )


def _numbers(tally: Tally, started: float) -> dict[str, Any]:
    return {
        "templates": tally.templates,
        "broken_templates": len(tally.problems),
        "due": tally.due,
        "rendered": tally.rendered,
        "published": tally.published,
        "withdrawn": tally.withdrawn,
        "failed_designs": tally.failed,
        "left_for_later": tally.later,
        "files": tally.files,
        "bytes_out": tally.bytes_out,
        **pace(tally.rendered, started),
    }
