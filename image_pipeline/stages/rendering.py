"""Third stage: every canonical image becomes variants in the bucket, then rows in the catalog.

The object is written first and the row second. A kill in between leaves an object that the
next attempt writes again under the same name with the same bytes; never a row without one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.uploads import Decision, Upload
from image_pipeline.imaging.metadata import find_metadata
from image_pipeline.imaging.recipe import (
    PlannedVariant,
    extension,
    mime_type,
    plan_variants,
    recipe_fingerprint,
    variant_fingerprint,
)
from image_pipeline.imaging.rendering import RenderedVariant, render
from image_pipeline.settings import Recipe, Role
from image_pipeline.stages.fetching import load_original
from image_pipeline.stages.inspecting import decision
from image_pipeline.stages.tools import PUBLISHED, Tools
from image_pipeline.store.layout import IMMUTABLE, variant_key
from image_pipeline.workers.pool import Job

#: PUTs at a time, images whose PUTs may be under way, and rows per commit.
THREADS = 12
IMAGES_UNDER_WAY = 3
COMMIT_ROWS = 60

#: Every role, in the order people think of them.
ROLES: tuple[Role, ...] = ("responsive", "thumbnail")


@dataclass(frozen=True, slots=True)
class Work:
    """A canonical image: its size in pixels, its originals, and the files it should have."""

    image: str
    width: int
    height: int
    originals: list[Upload]
    keys: dict[str, PlannedVariant]


def render_batch(tools: Tools, batch: str, roles: Collection[Role] = ROLES) -> list[dict[str, Any]]:
    """Render what the canonical images of a batch lack; returns one row per variant.

    Canonicals that belong to other batches are looked after as well: a duplicate is not
    published before the picture that stands for it.
    """
    with tools.catalog.read() as connection:
        report = catalog_uploads.report(connection, batch)
        published = [row for row in report if row["verdict"] in PUBLISHED and row["canonical_id"]]
        if not published:
            return []
        source = batch_source(connection, batch)
        recipe = tools.recipe(source)
        canonicals = dict.fromkeys(row["canonical_id"] for row in published)
        works = plan_work(connection, canonicals, recipe, roles)
        existing = catalog_images.variants_of(connection, canonicals, recipe_fingerprint(recipe))
    have = {row["key"] for rows in existing.values() for row in rows}
    missing = [work for work in works if not have.issuperset(work.keys)]
    if missing:
        _Press(tools, batch, source, recipe, roles, len(works)).run(missing, len(works))
    with tools.catalog.read() as connection:
        made = catalog_images.variants_of(connection, canonicals, recipe_fingerprint(recipe))
    return [row for rows in made.values() for row in rows if row["role"] in roles]


def batch_source(connection: sa.Connection, batch: str) -> str:
    """The source of a batch that has uploads."""
    return catalog_uploads.of_batch(connection, batch)[0].source


def plan_work(
    connection: sa.Connection,
    canonicals: Collection[str],
    recipe: Recipe,
    roles: Collection[Role] = ROLES,
) -> list[Work]:
    """Which files each canonical image should have, by object key."""
    rows = catalog_images.get_images(connection, canonicals)
    originals = catalog_uploads.originals(connection, canonicals)
    return [
        Work(
            image,
            row["width"],
            row["height"],
            originals.get(image, []),
            expected_keys(image, row["width"], row["height"], recipe, roles),
        )
        for image, row in rows.items()
    ]


def expected_keys(
    image: str, width: int, height: int, recipe: Recipe, roles: Collection[Role] = ROLES
) -> dict[str, PlannedVariant]:
    """The object keys that a recipe gives an image of this size (pixels, upright)."""
    fingerprint = variant_fingerprint(image, recipe_fingerprint(recipe))
    return {
        key_of(image, plan, fingerprint): plan
        for plan in plan_variants(recipe, width, height, roles)
    }


def key_of(image: str, plan: PlannedVariant, fingerprint: str) -> str:
    """The object key of one variant."""
    return variant_key(
        image, plan.size, plan.width, plan.height, fingerprint, extension(plan.format)
    )


class _Press:
    """Renders images in workers, stores what comes out, commits what is stored."""

    def __init__(
        self,
        tools: Tools,
        batch: str,
        source: str,
        recipe: Recipe,
        roles: Collection[Role],
        total: int,
    ) -> None:
        self.tools = tools
        self.batch = batch
        self.source = source
        self.recipe = recipe
        self.roles = roles
        self.total = total
        self.done = 0
        self.fingerprint = recipe_fingerprint(recipe)
        self.keys: dict[str, set[str]] = {}
        self.rows: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}

    def run(self, missing: Sequence[Work], total: int) -> None:
        """Render and store; an image that cannot be rendered gets its verdict."""
        self.done = total - len(missing)
        self.keys = {work.image: set(work.keys) for work in missing}
        under_way: deque[tuple[str, list[Future[dict[str, Any]]]]] = deque()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="put") as threads:
            for outcome in self.tools.workers.run(render, self._jobs(missing)):
                if outcome.value is None:
                    error = outcome.error or RuntimeError("no result")
                    self._refuse(outcome.key, error, outcome.seconds)
                    continue
                self.seconds[outcome.key] = outcome.seconds
                puts = [
                    threads.submit(self._store, outcome.key, variant) for variant in outcome.value
                ]
                under_way.append((outcome.key, puts))
                if len(under_way) > IMAGES_UNDER_WAY:
                    self._collect(*under_way.popleft())
            while under_way:
                self._collect(*under_way.popleft())
        self._commit()

    def _jobs(self, missing: Sequence[Work]) -> Iterator[Job[str]]:
        limits = self.tools.source(self.source).limits
        for work in missing:
            yield Job(
                work.image,
                partial(load_original, self.tools, work.originals),
                (self.recipe, limits, tuple(self.roles)),
                work.width * work.height / 1e6,
            )

    def _store(self, image: str, variant: RenderedVariant) -> dict[str, Any]:
        plan = variant.plan
        key = key_of(image, plan, variant_fingerprint(image, self.fingerprint))
        self.tools.bucket.put(key, variant.data, mime_type(plan.format), IMMUTABLE)
        return {
            "key": key,
            "image_id": image,
            "recipe": self.fingerprint,
            "role": plan.role,
            "size": plan.size,
            "format": plan.format,
            "width": plan.width,
            "height": plan.height,
            "quality": plan.quality,
            "bytes": len(variant.data),
            "sha256": variant.sha256,
            "metadata": find_metadata(variant.data),
            "created_at": self.tools.clock(),
        }

    def _collect(self, image: str, puts: list[Future[dict[str, Any]]]) -> None:
        """Wait for the PUTs of an image; all of them succeeded or none is recorded."""
        try:
            self.rows.extend([put.result() for put in puts])
        except Exception as error:  # noqa: BLE001 - whatever a thread met decides this image only
            self._refuse(image, error, 0.0)
            return
        self._step()
        if len(self.rows) >= COMMIT_ROWS:
            self._commit()

    def _commit(self) -> None:
        with self.tools.catalog.write() as connection:
            catalog_images.add_variants(connection, self.rows)
            uploads = catalog_uploads.of_batch(connection, self.batch)
            first = {one.image_id: one.id for one in reversed(uploads) if one.image_id}
            worked = {first[key]: took for key, took in self.seconds.items() if key in first}
            catalog_uploads.add_seconds(connection, worked)
        self.rows.clear()
        self.seconds.clear()

    def _refuse(self, image: str, error: Exception, seconds: float) -> None:
        """The uploads of this batch that wait for ``image`` get their verdict.

        An image that cannot be rendered, or is gone, stands for nobody: what it stood for is
        judged anew in the next attempt. Where another batch brought it, that batch decides about
        it. What another run has rendered meanwhile is not ours to refuse.
        """
        with self.tools.catalog.write() as connection:
            have = catalog_images.variants_of(connection, [image], self.fingerprint)
            if self.keys[image] <= {row["key"] for row in have.get(image, ())}:
                self._step()
                return
            report = catalog_uploads.report(connection, self.batch)
            waiting = [row for row in report if row["canonical_id"] == image]
            own = [row["id"] for row in waiting if row["image_id"] == image]
            decisions = [decision(upload, error, seconds) for upload in own]
            anew = f"the picture that stands for it could not be rendered ({error})"[:500]
            decisions += [
                Decision(row["id"], "failed", "canonical_failed", anew)
                for row in waiting
                if row["image_id"] != image
            ]
            catalog_uploads.decide(connection, decisions, self.tools.clock())
            if any(one.verdict == "rejected" for one in decisions):
                catalog_images.drop_members(connection, self.source, [image])
        self._step()

    def _step(self) -> None:
        self.done += 1
        self.tools.progress("rendered", self.done, self.total)
