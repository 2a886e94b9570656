"""Looking at what was published, as a browser would."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.imaging.recipe import mime_type, recipe_fingerprint
from image_pipeline.settings import FormatName, Role
from image_pipeline.stages.rendering import batch_source, plan_work
from image_pipeline.stages.tools import PUBLISHED, Tools
from image_pipeline.store.bucket import Head
from image_pipeline.store.layout import IMMUTABLE

THREADS = 12


@dataclass(frozen=True, slots=True)
class Verification:
    """What is wrong with the variants of a batch; every list names object keys.

    ``bytes_original`` and ``bytes_best`` compare what the canonical originals weigh with the
    largest variant of the best format of each: what a visitor would load in its place.
    """

    variants: int
    missing: list[str]
    misserved: list[str]
    with_metadata: list[str]
    bytes_original: int
    bytes_best: int

    @property
    def bytes_saved(self) -> int:
        """What visitors do not load any more."""
        return self.bytes_original - self.bytes_best


def verify_variants(tools: Tools, batch: str, role: Role) -> Verification:
    """Compare what the recipe asks for with the catalog and with the bucket itself."""
    with tools.catalog.read() as connection:
        report = catalog_uploads.report(connection, batch)
        canonicals = {
            row["canonical_id"]
            for row in report
            if row["verdict"] in PUBLISHED and row["canonical_id"]
        }
        if not canonicals:
            return Verification(0, [], [], [], 0, 0)
        source = batch_source(connection, batch)
        recipe = tools.recipe(source)
        works = plan_work(connection, canonicals, recipe, [role])
        known = catalog_images.variants_of(connection, canonicals, recipe_fingerprint(recipe))
        originals = catalog_images.get_images(connection, canonicals)
    rows = {row["key"]: row for rows in known.values() for row in rows if row["role"] == role}
    expected = {key: plan for work in works for key, plan in work.keys.items()}
    with ThreadPoolExecutor(THREADS, thread_name_prefix="head") as threads:
        heads = dict(zip(expected, threads.map(tools.bucket.head, expected), strict=True))
    missing = [key for key in expected if key not in rows or heads[key] is None]
    misserved = [
        key
        for key in expected.keys() - set(missing)
        if not _is_served_right(heads[key], expected[key].format, rows[key]["bytes"])
    ]
    return Verification(
        len(expected),
        missing,
        sorted(misserved),
        [key for key, row in rows.items() if row["metadata"]],
        sum(row["bytes"] for row in originals.values()),
        sum(_heaviest_of_best_format(rows) for rows in known.values()),
    )


def _is_served_right(head: Head | None, kind: FormatName, size: int) -> bool:
    return head == Head(size, mime_type(kind), IMMUTABLE)


def _heaviest_of_best_format(rows: list[dict[str, Any]]) -> int:
    """Bytes of the largest responsive variant in the best format there is."""
    for kind in ("avif", "webp", "jpeg"):
        sizes = [r["bytes"] for r in rows if r["format"] == kind and r["role"] == "responsive"]
        if sizes:
            return int(max(sizes))
    return 0
