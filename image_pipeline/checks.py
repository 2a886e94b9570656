"""Asset checks: what must hold of every batch, evaluated inside the assets.

Dagster's own checks see a whole asset and not a partition of it, so the assets report these
for their batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from image_pipeline.stages.verifying import GroupFaults, Verification

NO_FAILED_UPLOADS = dg.AssetCheckSpec(
    "no_failed_uploads",
    asset="raw_uploads",
    description="Every upload has a final verdict. What failed is tried again by the next run.",
)
NO_REJECTED_UPLOADS = dg.AssetCheckSpec(
    "no_rejected_uploads",
    asset="raw_uploads",
    description="Every upload is a picture the pipeline accepts. A reject never stops a batch.",
)

CANONICALS_STAND = dg.AssetCheckSpec(
    "canonicals_stand",
    asset="deduped_images",
    description="No image that stands for others is itself a duplicate.",
)
DUPLICATES_ARE_SERVED = dg.AssetCheckSpec(
    "duplicates_are_served",
    asset="cache_warm_manifests",
    description="The canonical of every duplicate exists and has all its variants.",
)

#: Keys named in a check's metadata.
_NAMED = 20


def variant_checks(asset: str) -> list[dg.AssetCheckSpec]:
    """The checks of one of the two renditions assets."""
    texts = {
        "complete": "Every canonical image has every variant that its recipe asks for.",
        "served_right": "Each is in the bucket with its content type and cache header.",
        "no_metadata": "No variant carries EXIF, GPS, XMP, comments or a colour profile; at most"
        " the copyright notice, where the recipe keeps it.",
    }
    if asset == "responsive_variants":
        texts["bytes_saved"] = "The variants that replace the originals weigh less than they do."
    return [dg.AssetCheckSpec(name, asset=asset, description=text) for name, text in texts.items()]


def of_uploads(rows: Sequence[Mapping[str, Any]]) -> list[dg.AssetCheckResult]:
    """Check results for the uploads of a batch."""
    failed = Counter(row["reason"] for row in rows if row["verdict"] in (None, "failed"))
    rejected = Counter(row["reason"] for row in rows if row["verdict"] == "rejected")
    return [
        _result(NO_FAILED_UPLOADS, failed, dg.AssetCheckSeverity.ERROR),
        _result(NO_REJECTED_UPLOADS, rejected, dg.AssetCheckSeverity.WARN),
    ]


def of_variants(asset: str, found: Verification) -> Iterator[dg.AssetCheckResult]:
    """Check results for the variants of one asset."""
    wrong = {
        "complete": found.missing,
        "served_right": found.misserved,
        "no_metadata": found.with_metadata,
    }
    for name, keys in wrong.items():
        yield dg.AssetCheckResult(
            passed=not keys,
            check_name=name,
            asset_key=asset,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"checked": found.variants, "wrong": len(keys), "keys": keys[:_NAMED]},
        )
    if asset == "responsive_variants":
        share = found.bytes_saved / found.bytes_original if found.bytes_original else 0.0
        yield dg.AssetCheckResult(
            passed=found.bytes_saved >= 0,
            check_name="bytes_saved",
            asset_key=asset,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"bytes_saved": found.bytes_saved, "share_saved": round(share, 4)},
        )


def of_canonicals(found: GroupFaults) -> dg.AssetCheckResult:
    """Check result for who stands for whom."""
    named = [f"{image} is stood for by {canonical}" for image, canonical in found.fallen[:_NAMED]]
    return dg.AssetCheckResult(
        passed=not found.fallen,
        check_name=CANONICALS_STAND.name,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"groups": found.groups, "wrong": len(found.fallen), "images": named},
    )


def of_duplicates(found: GroupFaults) -> dg.AssetCheckResult:
    """Check result for what duplicates are shown by."""
    return dg.AssetCheckResult(
        passed=not found.unserved,
        check_name=DUPLICATES_ARE_SERVED.name,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "duplicates": found.duplicates,
            "wrong": len(found.unserved),
            "images": found.unserved[:_NAMED],
        },
    )


def _result(
    spec: dg.AssetCheckSpec, reasons: Counter[Any], severity: dg.AssetCheckSeverity
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not reasons,
        check_name=spec.name,
        severity=severity,
        metadata={"uploads": reasons.total(), "reasons": dict(reasons)},
    )
