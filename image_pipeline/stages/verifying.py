"""Looking at what was published, as a browser would."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import images as catalog_images
from image_pipeline.delivery.manifest import FORMATS
from image_pipeline.imaging.recipe import mime_type, recipe_fingerprint
from image_pipeline.settings import FormatName, Role
from image_pipeline.stages.regrouping import canonicals_of_batch
from image_pipeline.stages.rendering import batch_source, plan_work
from image_pipeline.stages.tools import Tools
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


@dataclass(frozen=True, slots=True)
class GroupFaults:
    """What is wrong with the groups a batch looks after; nothing should ever be.

    ``fallen`` are (image, canonical) pairs whose canonical is itself a duplicate, or no member;
    ``unserved`` duplicates whose canonical is unknown or lacks variants.
    """

    groups: int
    duplicates: int
    fallen: list[tuple[str, str]]
    unserved: list[str]


def verify_groups(tools: Tools, batch: str) -> GroupFaults:
    """Look at the groups of a batch in the catalog, whoever else has changed them."""
    with tools.catalog.read() as connection:
        source = batch_source(connection, batch)
        recipe = tools.recipe(source)
        canonicals = sorted(canonicals_of_batch(connection, source, batch))
        fallen = catalog_groups.fallen_canonicals(connection, source, canonicals)
        under = catalog_groups.members_under(connection, source, canonicals)
        works = plan_work(connection, canonicals, recipe)
        made = catalog_images.variants_of(connection, canonicals, recipe_fingerprint(recipe))
    have = {row["key"] for rows in made.values() for row in rows}
    served = {work.image for work in works if have.issuperset(work.keys)}
    duplicates = [row for row in under if row.image_id != row.canonical_id]
    return GroupFaults(
        len(canonicals),
        len(duplicates),
        fallen,
        [row.image_id for row in duplicates if row.canonical_id not in served],
    )


def verify_variants(tools: Tools, batch: str, role: Role) -> Verification:
    """Compare what the recipe asks for with the catalog and with the bucket itself."""
    with tools.catalog.read() as connection:
        source = batch_source(connection, batch)
        canonicals = canonicals_of_batch(connection, source, batch)
        recipe = tools.recipe(source)
        works = plan_work(connection, canonicals, recipe, [role])
        known = catalog_images.variants_of(connection, canonicals, recipe_fingerprint(recipe))
        originals = catalog_images.get_images(connection, canonicals)
    rows = {row["key"]: row for rows in known.values() for row in rows if row["role"] == role}
    dropped = {key for key, row in rows.items() if row["dropped"]}
    expected = {
        key: plan for work in works for key, plan in work.keys.items() if key not in dropped
    }
    allowed = [["copyright"], []] if recipe.keep_copyright else [[]]
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
        [key for key, row in rows.items() if row["metadata"] not in allowed],
        sum(row["bytes"] for row in originals.values()),
        sum(_heaviest_of_best_format(rows) for rows in known.values()),
    )


def _is_served_right(head: Head | None, kind: FormatName, size: int) -> bool:
    return head == Head(size, mime_type(kind), IMMUTABLE)


def _heaviest_of_best_format(rows: list[dict[str, Any]]) -> int:
    """Bytes of the widest responsive variant, in the best format that has it."""
    found = [row for row in rows if row["role"] == "responsive" and not row["dropped"]]
    widest = max((row["width"] for row in found), default=0)
    by_format = {row["format"]: int(row["bytes"]) for row in found if row["width"] == widest}
    return next((by_format[kind] for kind in FORMATS if kind in by_format), 0)
