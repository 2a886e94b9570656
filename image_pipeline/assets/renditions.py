"""Responsive variants and thumbnails: one decode makes both, either can be made alone."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from image_pipeline import checks
from image_pipeline.assets.common import OWNERS, TABLES, pace, table
from image_pipeline.assets.ingest import deduped_images
from image_pipeline.partitions import BATCHES
from image_pipeline.resources import PipelineResource
from image_pipeline.settings import Role
from image_pipeline.stages.rendering import render_batch
from image_pipeline.stages.verifying import verify_variants

VARIANT_COLUMNS = (
    "image_id", "role", "size", "format", "width", "height", "quality", "bytes", "sha256", "key",
)  # fmt: skip

ROLE_OF: dict[str, Role] = {"responsive_variants": "responsive", "thumbnails": "thumbnail"}


def _out(description: str) -> dg.AssetOut:
    return dg.AssetOut(
        description=description,
        group_name="renditions",
        kinds={"s3", "pillow"},
        owners=OWNERS,
        io_manager_key=TABLES,
        is_required=False,
    )


@dg.multi_asset(
    name="renditions",
    partitions_def=BATCHES,
    can_subset=True,
    outs={
        "responsive_variants": _out(
            "Variants of the canonical images of a batch in every size and format of the recipe."
            " One row per file."
        ),
        "thumbnails": _out(
            "Thumbnails of the canonical images of a batch, cropped to what catches the eye."
            " One row per file."
        ),
    },
    deps=[deduped_images],
    check_specs=[spec for name in ROLE_OF for spec in checks.variant_checks(name)],
)
def renditions(
    context: dg.AssetExecutionContext, pipeline: PipelineResource
) -> Iterator[dg.Output[Any] | dg.AssetCheckResult]:
    """Render what is missing, then look at every file of the batch as a browser would."""
    started = time.monotonic()
    tools, batch = pipeline.tools(context), context.partition_key
    selected = [name for name in ROLE_OF if dg.AssetKey(name) in context.selected_asset_keys]
    roles = [ROLE_OF[name] for name in selected]
    rows = render_batch(tools, batch, roles)
    for name in selected:
        mine = [row for row in rows if row["role"] == ROLE_OF[name]]
        by_format = {
            f"bytes_{kind}": sum(row["bytes"] for row in mine if row["format"] == kind)
            for kind in ("avif", "webp", "jpeg")
        }
        images = len({row["image_id"] for row in mine})
        rate = pace(images, started)
        found = verify_variants(tools, batch, ROLE_OF[name])
        yield dg.Output(
            table(mine, VARIANT_COLUMNS),
            output_name=name,
            metadata={
                "variants": len(mine),
                "images": images,
                "bytes_out": sum(row["bytes"] for row in mine),
                **by_format,
                **({"bytes_saved": found.bytes_saved} if name == "responsive_variants" else {}),
                **rate,
            },
        )
        yield from checks.of_variants(name, found)
