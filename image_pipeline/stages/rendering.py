"""Third stage: every canonical image becomes variants in the bucket, then rows in the catalog.

The object is written first and the row second. A kill in between leaves an object that the
next attempt writes again under the same name with the same bytes; never a row without one.
Housekeeping may be removing an object of that very name: then it is written once more before
its row is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import removals as catalog_removals
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.batches import OPEN
from image_pipeline.catalog.uploads import Decision, Upload
from image_pipeline.imaging.metadata import find_metadata
from image_pipeline.imaging.recipe import (
    PlannedVariant,
    extension,
    keeps_animation,
    mime_type,
    plan_variants,
    recipe_fingerprint,
    variant_fingerprint,
)
from image_pipeline.imaging.rendering import RenderedVariant, render
from image_pipeline.settings import Recipe, Role
from image_pipeline.stages.announcing import REMOVAL_LOOKS, await_removal
from image_pipeline.stages.fetching import load_original
from image_pipeline.stages.inspecting import decision
from image_pipeline.stages.regrouping import canonicals_of_batch, judge_again, regroup
from image_pipeline.stages.tools import PUBLISHED, Tools
from image_pipeline.store.bucket import StoreError
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
    """A canonical image: its originals, and the files it should have.

    ``megapixels`` (10^6 pixels) are those that rendering decodes.
    """

    image: str
    megapixels: float
    originals: list[Upload]
    keys: dict[str, PlannedVariant]


def render_batch(tools: Tools, batch: str, roles: Collection[Role] = ROLES) -> list[dict[str, Any]]:
    """Render what the canonical images of a batch lack; returns one row per published variant.

    Canonicals that belong to other batches are looked after as well: a duplicate is not
    published before the picture that stands for it. Where one turns out not to be renderable,
    others take its place and are rendered too.
    """
    with tools.catalog.read() as connection:
        source = batch_source(connection, batch)
    recipe = tools.recipe(source)
    fingerprint = recipe_fingerprint(recipe)
    tried: set[str] = set()
    while True:
        with tools.catalog.read() as connection:
            canonicals = canonicals_of_batch(connection, source, batch)
            works = plan_work(connection, canonicals, recipe, roles)
            existing = catalog_images.variants_of(connection, canonicals, fingerprint)
        rows = [row for made in existing.values() for row in made]
        have = {row["key"] for row in rows}
        missing = [w for w in works if w.image not in tried and not have.issuperset(w.keys)]
        if not missing:
            return [row for row in rows if row["role"] in roles and not row["dropped"]]
        tried.update(work.image for work in missing)
        _Press(tools, batch, source, recipe, roles).run(missing, len(works))


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
            _megapixels(recipe, row),
            originals.get(image, []),
            expected_keys(image, row["width"], row["height"], recipe, roles, row["frames"]),
        )
        for image, row in rows.items()
    ]


def _megapixels(recipe: Recipe, row: Mapping[str, Any]) -> float:
    pixels = float(row["width"] * row["height"])
    moves = keeps_animation(recipe, row["width"], row["height"], row["frames"])
    return pixels * (row["frames"] if moves else 1) / 1e6


def expected_keys(
    image: str,
    width: int,
    height: int,
    recipe: Recipe,
    roles: Collection[Role] = ROLES,
    frames: int = 1,
) -> dict[str, PlannedVariant]:
    """The object keys that a recipe gives an image of this size (pixels, upright).

    Some of the files may turn out not to be worth publishing: their rows say ``dropped``.
    """
    fingerprint = variant_fingerprint(image, recipe_fingerprint(recipe))
    return {
        key_of(image, plan, fingerprint): plan
        for plan in plan_variants(recipe, width, height, roles, frames)
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
    ) -> None:
        self.tools = tools
        self.batch = batch
        self.source = source
        self.recipe = recipe
        self.roles = roles
        self.total = 0
        self.done = 0
        self.fingerprint = recipe_fingerprint(recipe)
        self.keys: dict[str, set[str]] = {}
        self.rows: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self.stored: dict[str, tuple[bytes, str]] = {}  # by key, until the row is written
        self.sure: set[str] = set()  # keys that were seen after all removals they might meet
        self.mark: catalog_removals.Mark = ()

    def run(self, missing: Sequence[Work], total: int) -> None:
        """Render and store; an image that cannot be rendered gets its verdict."""
        self.total, self.done = total, total - len(missing)
        self.keys = {work.image: set(work.keys) for work in missing}
        with self.tools.catalog.read() as connection:
            self.mark = catalog_removals.mark(connection)
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
                work.megapixels,
            )

    def _store(self, image: str, variant: RenderedVariant) -> dict[str, Any]:
        plan = variant.plan
        key = key_of(image, plan, variant_fingerprint(image, self.fingerprint))
        if not variant.dropped:
            self.stored[key] = variant.data, mime_type(plan.format)
            self._put(key)
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
            "bytes": variant.length,
            "sha256": variant.sha256,
            "dropped": variant.dropped,
            "metadata": [] if variant.dropped else find_metadata(variant.data),
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

    def _put(self, key: str) -> None:
        data, kind = self.stored[key]
        self.tools.bucket.put(key, data, kind, IMMUTABLE)

    def _commit(self) -> None:
        """Record what is stored; what housekeeping is removing is stored again before."""
        looks = 0
        self._record()
        while self.rows:
            looks += 1
            if looks > REMOVAL_LOOKS:
                self._give_up()
                break
            await_removal()
            self._record()

    def _record(self) -> None:
        """Commit the rows of files that are there and stay. The others are left in ``rows``.

        A file may have been written while it was being removed, and be gone. While it is being
        removed, the catalog says so; that some removal has ended since, the mark says. Then it
        is looked for: what is seen after that is newer than what was to be removed, and stays.
        """
        if self._record_sure():
            return
        unsure = [row["key"] for row in self.rows if row["key"] in self.stored]
        with self.tools.catalog.write() as connection:
            catalog_removals.hold(connection)
            going = catalog_removals.being_removed(connection, unsure, self.tools.clock())
        looked_for = sorted(set(unsure) - going - self.sure)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="look") as threads:
            there = threads.map(self._put_if_gone, looked_for)
            self.sure.update(key for key, known in zip(looked_for, there, strict=True) if known)
        self._record_sure()

    def _record_sure(self) -> bool:
        """Commit what surely is there, whole images only; whether that was everything."""
        with self.tools.catalog.write() as connection:
            catalog_removals.hold(connection)
            keys = {row["key"] for row in self.rows if not row["dropped"]} - self.sure
            going = catalog_removals.being_removed(connection, keys, self.tools.clock())
            doubtful = going if catalog_removals.mark(connection) == self.mark else keys
            waiting = {row["image_id"] for row in self.rows if row["key"] in doubtful}
            sure = [row for row in self.rows if row["image_id"] not in waiting]
            catalog_images.add_variants(connection, sure)
            self._count_seconds(connection, {row["image_id"] for row in sure})
        self._drop(sure)
        self.rows = [row for row in self.rows if row["image_id"] in waiting]
        return not self.rows

    def _drop(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Nothing more is to be done about these."""
        for row in rows:
            self.stored.pop(row["key"], None)
            self.sure.discard(row["key"])
            self.seconds.pop(row["image_id"], None)

    def _count_seconds(self, connection: sa.Connection, images: Collection[str]) -> None:
        uploads = catalog_uploads.of_batch(connection, self.batch)
        first = {one.image_id: one.id for one in reversed(uploads) if one.image_id in images}
        worked = {first[key]: took for key, took in self.seconds.items() if key in first}
        catalog_uploads.add_seconds(connection, worked)

    def _put_if_gone(self, key: str) -> bool:
        try:
            if self.tools.bucket.head(key) is None:
                self._put(key)
        except StoreError:
            return False
        return True

    def _give_up(self) -> None:
        """Images whose files are being removed for too long are tried again with the batch."""
        images = dict.fromkeys(row["image_id"] for row in self.rows)
        for image in images:
            error = StoreError(f"housekeeping is removing files of {image}")
            self._judge(image, error, self.seconds.get(image, 0.0))
        self._drop(self.rows)
        self.rows.clear()

    def _refuse(self, image: str, error: Exception, seconds: float) -> None:
        """The uploads of an image that cannot be rendered get their verdict.

        If it is the file's own fault, the image stands for nobody any more and the others of
        its group are grouped anew at once: what was published of them stays, and what takes
        its place is rendered next. Uploads of other batches that are still open are theirs to
        judge. What another run has rendered meanwhile is not ours to refuse.
        """
        self._judge(image, error, seconds)
        self._step()

    def _judge(self, image: str, error: Exception, seconds: float) -> None:
        with self.tools.catalog.write() as connection:
            catalog_groups.hold_groups(connection, self.source)
            have = catalog_images.variants_of(connection, [image], self.fingerprint)
            if not self.keys[image] <= {row["key"] for row in have.get(image, ())}:
                uploads = catalog_groups.uploads_of(connection, self.source, [image])
                final = decision(0, error).verdict == "rejected"
                decisions = [
                    decision(row["id"], error, seconds)
                    for row in uploads
                    if row["verdict"] in PUBLISHED
                    and (row["batch_id"] == self.batch or (final and row["state"] not in OPEN))
                ]
                catalog_uploads.decide(connection, decisions, self.tools.clock())
                if final and decisions:
                    self._dissolve(connection, image)
                else:
                    self._postpone(connection, image, error)

    def _dissolve(self, connection: sa.Connection, image: str) -> None:
        """Take an image out of its group; the rest finds who stands for it from now on."""
        policy = self.tools.source(self.source).duplicates
        under = catalog_groups.members_under(connection, self.source, [image])
        rest = [row.image_id for row in under if row.image_id != image]
        catalog_groups.drop_member(connection, self.source, image)
        changed = regroup(connection, self.source, policy, self.batch, rest, {})
        judge_again(connection, self.source, policy, changed, self.tools.clock())

    def _postpone(self, connection: sa.Connection, image: str, error: Exception) -> None:
        """What waits for an image that may be rendered yet is tried again with the batch."""
        anew = f"the picture that stands for it could not be rendered ({error})"[:500]
        decisions = [
            Decision(row["id"], "failed", "canonical_failed", anew)
            for row in catalog_uploads.report(connection, self.batch)
            if row["canonical_id"] == image
            and row["image_id"] != image
            and row["verdict"] in PUBLISHED
        ]
        catalog_uploads.decide(connection, decisions, self.tools.clock())

    def _step(self) -> None:
        self.done += 1
        self.tools.progress("rendered", self.done, self.total)
