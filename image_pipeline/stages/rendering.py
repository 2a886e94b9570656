"""Third stage: every canonical image becomes variants in the bucket, then rows in the catalog."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.batches import OPEN
from image_pipeline.catalog.uploads import Decision, Upload
from image_pipeline.imaging.recipe import (
    PlannedVariant,
    extension,
    keeps_animation,
    plan_variants,
    recipe_fingerprint,
    variant_fingerprint,
)
from image_pipeline.imaging.rendering import RenderedVariant, render
from image_pipeline.performance.timings import Watch
from image_pipeline.settings import Recipe, Role
from image_pipeline.stages.fetching import load_original
from image_pipeline.stages.inspecting import decision
from image_pipeline.stages.regrouping import canonicals_of_batch, judge_again, regroup
from image_pipeline.stages.storing import Shelf, being_removed_error
from image_pipeline.stages.timing import Stage, record_part, timed, weigh
from image_pipeline.stages.tools import PUBLISHED, Tools
from image_pipeline.store.layout import variant_key
from image_pipeline.workers.pool import Job

if TYPE_CHECKING:
    from concurrent.futures import Future

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
    began_at, stored = tools.clock(), Watch()
    with timed(tools, "render", batch, source) as stage:
        rows = _render(tools, batch, roles, stage, stored)
    record_part(tools, batch, stage, "store", stored, began_at)
    return [row for row in rows if row["role"] in roles and not row["dropped"]]


def _render(
    tools: Tools, batch: str, roles: Collection[Role], stage: Stage, stored: Watch
) -> list[dict[str, Any]]:
    source = stage.source
    recipe = tools.recipe(source)
    fingerprint = recipe_fingerprint(recipe)
    stage.uses_workers, stage.recipe = True, fingerprint
    tried: set[str] = set()
    before: set[str] | None = None
    while True:
        with tools.catalog.read() as connection:
            canonicals = canonicals_of_batch(connection, source, batch)
            works = plan_work(connection, canonicals, recipe, roles)
            existing = catalog_images.variants_of(connection, canonicals, fingerprint)
        rows = [row for made in existing.values() for row in made]
        have = {row["key"] for row in rows}
        before = have if before is None else before
        missing = [w for w in works if w.image not in tried and not have.issuperset(w.keys)]
        if not missing:
            stage.amounts = weigh([row for row in rows if row["key"] not in before])
            stage.bytes_out = round(sum(_by_format(stage.amounts)))
            return rows
        tried.update(work.image for work in missing)
        press = _Press(tools, batch, source, recipe, roles)
        press.watch, press.stored_after = stage.watch, stored
        press.run(missing, len(works))
        stage.images += press.made
        stage.bytes_in += press.bytes_in
        stage.elsewhere = stored.total


def _by_format(amounts: Mapping[str, float]) -> list[float]:
    return [number for name, number in amounts.items() if name.startswith("bytes.")]


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


class _Press(Shelf[str]):
    """Renders images in workers, stores what comes out, commits what is stored."""

    def __init__(
        self,
        tools: Tools,
        batch: str,
        source: str,
        recipe: Recipe,
        roles: Collection[Role],
    ) -> None:
        super().__init__(tools)
        self.batch = batch
        self.source = source
        self.recipe = recipe
        self.roles = roles
        self.total = 0
        self.done = 0
        self.fingerprint = recipe_fingerprint(recipe)
        self.keys: dict[str, set[str]] = {}
        self.originals: dict[str, Upload] = {}  # by image: the upload that a time is told of
        self.watch = Watch()
        self.stored_after = Watch()
        self.made = 0
        self.bytes_in = 0

    def run(self, missing: Sequence[Work], total: int) -> None:
        """Render and store; an image that cannot be rendered gets its verdict."""
        self.total, self.done = total, total - len(missing)
        self.keys = {work.image: set(work.keys) for work in missing}
        self.originals = {work.image: work.originals[0] for work in missing if work.originals}
        self.press(render, self._jobs(missing))

    def _jobs(self, missing: Sequence[Work]) -> Iterator[Job[str]]:
        limits = self.tools.source(self.source).limits
        for work in missing:
            yield Job(
                work.image,
                partial(load_original, self.tools, work.originals),
                (self.recipe, limits, tuple(self.roles)),
                work.megapixels,
            )

    def _name(self, picture: str, variant: RenderedVariant) -> dict[str, Any]:
        plan = variant.plan
        return {
            "key": key_of(picture, plan, variant_fingerprint(picture, self.fingerprint)),
            "image_id": picture,
            "recipe": self.fingerprint,
            "role": plan.role,
            "size": plan.size,
        }

    def _picture_of(self, row: Mapping[str, Any]) -> str:
        return str(row["image_id"])

    def _recorded(self, connection: sa.Connection, pictures: Collection[str]) -> None:
        uploads = catalog_uploads.of_batch(connection, self.batch)
        first = {one.image_id: one.id for one in reversed(uploads) if one.image_id in pictures}
        worked = {first[key]: took for key, took in self.seconds.items() if key in first}
        catalog_uploads.add_seconds(connection, worked)
        for picture in pictures:
            self.watch.add(self.originals[picture].id, self.seconds.get(picture, 0.0))
            self.bytes_in += self.originals[picture].size
        self.made += len(pictures)

    def _collect(self, picture: str, puts: list[Future[dict[str, Any]]]) -> None:
        began = time.monotonic()
        super()._collect(picture, puts)
        self.stored_after.add(self.originals[picture].id, time.monotonic() - began)

    def _postpone_all(self, seconds: Mapping[str, float]) -> None:
        for image, took in seconds.items():
            self._judge(image, being_removed_error(image), took)

    def _refuse(self, picture: str, error: Exception, seconds: float) -> None:
        """The uploads of an image that cannot be rendered get their verdict.

        If it is the file's own fault, the image stands for nobody any more and the others of
        its group are grouped anew at once: what was published of them stays, and what takes
        its place is rendered next. Uploads of other batches that are still open are theirs to
        judge. What another run has rendered meanwhile is not ours to refuse.
        """
        self._judge(picture, error, seconds)
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
