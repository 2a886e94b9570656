"""Pictures on products: every published design of a source on every template it wants.

What is to be made follows from comparing the catalog with the templates, so a run that was
killed is gone on with by the next one, and a changed template costs its own mockups only. Files
are stored and recorded as those of a recipe are (:mod:`~image_pipeline.stages.storing`), and a
mockup is announced before its manifest is put.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import mockups as catalog_mockups
from image_pipeline.catalog import removals as catalog_removals
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog import warmth as catalog_warmth
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.mockups import Announcement, Failure, Place, Wanted
from image_pipeline.catalog.publications import alone, existing
from image_pipeline.catalog.uploads import Upload
from image_pipeline.delivery.manifest import (
    SCHEMA_VERSION,
    PublishedImage,
    mockup_manifest,
    to_json,
)
from image_pipeline.delivery.urls import url_builder
from image_pipeline.imaging.inspection import Inspection, inspect_image
from image_pipeline.imaging.mockup_template import DESCRIPTION
from image_pipeline.imaging.mockups import render_mockup
from image_pipeline.imaging.recipe import (
    PlannedVariant,
    extension,
    plan_variants,
    variant_fingerprint,
)
from image_pipeline.imaging.rendering import RenderedVariant
from image_pipeline.settings import Limits, Settings
from image_pipeline.stages.announcing import REMOVAL_LOOKS, await_removal, held_back
from image_pipeline.stages.fetching import load_original
from image_pipeline.stages.inspecting import decision
from image_pipeline.stages.storing import THREADS, Shelf, being_removed_error
from image_pipeline.stages.templates import (
    Ready,
    Templates,
    folders,
    load_templates,
    state_of,
    wanted_names,
    wants_mockups,
)
from image_pipeline.stages.tools import Tools
from image_pipeline.stages.warming import ranked
from image_pipeline.store.bucket import Bucket, ObjectGoneError
from image_pipeline.store.layout import (
    SHORT_LIVED,
    mockup_manifest_key,
    mockup_size,
    variant_key,
)
from image_pipeline.workers.pool import Job

#: Between runs for what could not be made, or was left to the next run.
PAUSE = timedelta(hours=1)

#: Rows withdrawn in one transaction.
_WITHDRAWN = 500

#: Failures that a run shows.
_SHOWN = 50

#: Formats in which a mockup is looked at for its colours: those first that keep transparency.
_LOOKED_AT = ("webp", "avif", "jpeg")


@dataclass(slots=True)
class Tally:
    """What a run did. ``rendered`` mockups were composed, ``published`` ones announced.

    ``files`` and ``bytes_out`` are those of what was published, ``later`` mockups are left to
    the next run: housekeeping is removing a file of them, or one is lost. ``problems`` tells of
    templates that cannot be used, ``failures`` of designs that could not be composed.
    """

    problems: dict[str, str] = field(default_factory=dict)
    templates: int = 0
    due: int = 0
    rendered: int = 0
    published: int = 0
    withdrawn: int = 0
    failed: int = 0
    later: int = 0
    files: int = 0
    bytes_out: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def make_mockups(tools: Tools, source: str | None = None) -> Tally:
    """Make what is due of one source or of all, and withdraw what nobody wants any more."""
    templates = load_templates(tools)
    tally = Tally(templates.problems, len(templates.ready))
    with tools.catalog.read() as connection:
        known = {*wants_mockups(tools.settings), *catalog_mockups.sources(connection)}
    for name in sorted(known & tools.settings.sources.keys()):
        if source in (None, name):
            _Studio(tools, name, templates, tally).run()
    return tally


def form_of(settings: Settings, source: str) -> str:
    """12 hex digits that change with what a manifest says beside the files of a mockup."""
    document = [
        SCHEMA_VERSION,
        settings.base_url_of(source),
        settings.delivery.sizes,
        settings.sources[source].access,
    ]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:12]


def planned_files(ready: Ready, image: str) -> dict[str, PlannedVariant]:
    """The object keys of an image's mockup on a template; some may turn out to be dropped."""
    return {
        mockup_key(ready, image, plan): plan
        for plan in plan_variants(ready.template.recipe, ready.width, ready.height)
    }


def mockup_key(ready: Ready, image: str, plan: PlannedVariant) -> str:
    """The object key of one file of a mockup."""
    return variant_key(
        image,
        mockup_size(ready.template.name, plan.size),
        plan.width,
        plan.height,
        variant_fingerprint(image, ready.recipe),
        extension(plan.format),
    )


class _Studio:
    """The mockups of one source."""

    def __init__(self, tools: Tools, source: str, templates: Templates, tally: Tally) -> None:
        self.tools = tools
        self.source = source
        self.tally = tally
        asked = tools.source(source).mockups
        # What is published on a template that is broken now stays until it is mended.
        self.names = wanted_names(asked, templates.known)
        self.ready = {name: templates.ready[name] for name in self.names if name in templates.ready}
        recipes = {name: one.recipe for name, one in self.ready.items()}
        self.wanted = Wanted(recipes, form_of(tools.settings, source), tools.clock())
        self.url_of = url_builder(tools.settings.base_url_of(source), tools.bucket.url)
        self.done = 0
        self.total = 0

    def run(self) -> None:
        """A chunk of designs at a time: what is committed is not made again."""
        self._withdraw()
        with self.tools.catalog.read() as connection:
            self.total = catalog_mockups.count_due(connection, self.source, self.wanted)
        self.tally.due += self.total
        after, chunk = "", self.tools.settings.mockups.chunk
        while True:
            with self.tools.catalog.read() as connection:
                places = catalog_mockups.due(connection, self.source, self.wanted, after, chunk)
            if not places:
                return
            self._make(places)
            after = places[-1].image_id

    def _withdraw(self) -> None:
        while True:
            with self.tools.catalog.write() as connection:
                places = catalog_mockups.unwanted(connection, self.source, self.names, _WITHDRAWN)
                catalog_mockups.withdraw(connection, self.source, places)
            if not places:
                return
            self.tally.withdrawn += len(places)

    def _make(self, places: Sequence[Place]) -> None:
        images = sorted({place.image_id for place in places})
        with self.tools.catalog.read() as connection:
            originals = catalog_uploads.originals(connection, images)
            rows = catalog_images.get_images(connection, images)
            lacking = set(places) - self._complete(connection, places).keys()
        bench = _Bench(self)
        jobs = self._jobs([place for place in places if place in lacking], originals, rows)
        if lacking:
            bench.press(render_mockup, jobs)
        not_made = bench.failed | bench.gone
        self.tally.rendered += len(lacking) - len(not_made)
        self.tally.failed += len(bench.failed)
        self._publish([place for place in places if place not in not_made])
        self.step(len(set(places) - lacking))
        for uploads in originals.values():
            for upload in uploads:
                self.tools.spool.path(upload.id).unlink(missing_ok=True)

    def step(self, count: int) -> None:
        """So many more mockups are done."""
        if count:
            self.done += count
            self.tools.progress(f"mockups of {self.source}", self.done, self.total)

    def _jobs(
        self,
        places: Sequence[Place],
        originals: Mapping[str, list[Upload]],
        rows: Mapping[str, Mapping[str, Any]],
    ) -> Iterator[Job[Place]]:
        limits = self.tools.source(self.source).limits
        for place in places:
            ready, row = self.ready[place.template], rows[place.image_id]
            yield Job(
                place,
                partial(load_original, self.tools, originals.get(place.image_id, [])),
                (ready.template, ready.files, limits),
                (row["width"] * row["height"] + ready.width * ready.height) / 1e6,
            )

    def _complete(
        self, connection: sa.Connection, places: Collection[Place]
    ) -> dict[Place, list[dict[str, Any]]]:
        """The rows of the files of those mockups that have all of them; dropped ones left out."""
        found: dict[Place, list[dict[str, Any]]] = {}
        for name, ready in self.ready.items():
            ids = [place.image_id for place in places if place.template == name]
            rows = catalog_images.variants_of(connection, ids, ready.recipe)
            for image in ids:
                mine = rows.get(image, [])
                if planned_files(ready, image).keys() <= {row["key"] for row in mine}:
                    found[Place(image, name)] = [row for row in mine if not row["dropped"]]
        return found

    def _publish(self, places: Sequence[Place]) -> None:
        """Announce and put the manifests of what is complete.

        Looks again as long as housekeeping removes a file that one of them needs. What it has
        removed is not complete any more, and made by the next run.
        """
        left: Collection[Place] = set(places)
        for looks in range(REMOVAL_LOOKS):
            if looks:
                await_removal()
            with self.tools.catalog.read() as connection:
                files = self._complete(connection, left)
            # One at a time: a slower process could put a manifest that is no more so.
            with alone(self.tools.catalog, catalog_mockups.lock_name(self.source)):
                documents = self._documents(files)
                left = self._announce_and_put(documents, files)
            if not left:
                break
        published = set(places) - set(left)
        self.tally.later += len(left)
        self.tally.later += len(published) - self._count(published)

    def _count(self, places: Collection[Place]) -> int:
        """Count what is published of these by now; how many there are."""
        with self.tools.catalog.read() as connection:
            files = self._complete(connection, places)
            found = catalog_mockups.recipes_of(connection, self.source, places)
        current = [one for one in files if found.get(one) == self.wanted.recipes[one.template]]
        self.tally.published += len(current)
        self.tally.files += sum(len(files[one]) for one in current)
        self.tally.bytes_out += sum(row["bytes"] for one in current for row in files[one])
        return len(current)

    def _documents(
        self, files: Mapping[Place, Sequence[Mapping[str, Any]]]
    ) -> dict[Place, dict[str, Any]]:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="look") as threads:
            looks = threads.map(self._looked_at, files, files.values())
            return {
                place: self._document(place, rows, look)
                for (place, rows), look in zip(files.items(), looks, strict=True)
                if look is not None
            }

    def _looked_at(self, place: Place, rows: Sequence[Mapping[str, Any]]) -> Inspection | None:
        """What the smallest file of a mockup looks like. None, and all is made anew, if it is lost.

        A mockup has colours of its own: a placeholder of the design would flash behind it.
        """
        smallest = min(rows, key=_order_of_looking)
        try:
            return inspect_image(self.tools.bucket.get(smallest["key"]), Limits())
        except ObjectGoneError:
            with self.tools.catalog.write() as connection:
                pair = (place.image_id, smallest["recipe"])
                catalog_mockups.lose_files(connection, [pair])
            return None

    def _document(
        self, place: Place, rows: Sequence[Mapping[str, Any]], look: Inspection
    ) -> dict[str, Any]:
        ready, source = self.ready[place.template], self.tools.source(self.source)
        sizes = ready.template.recipe.sizes
        plans = planned_files(ready, place.image_id)
        variants = [
            {**row, "size": plans[row["key"]].size, "role": sizes[plans[row["key"]].size].role}
            for row in rows
        ]
        picture = {
            "id": place.image_id,
            "width": ready.width,
            "height": ready.height,
            "has_alpha": look.has_alpha,
            "animated": False,
            "dominant_color": look.dominant_color,
            "placeholder": look.placeholder,
            "focal_x": look.focal_point[0],
            "focal_y": look.focal_point[1],
            "thumbhash": look.thumbhash,
        }
        image = PublishedImage.from_rows(self.source, source.access, picture, variants, ())
        sizes_attribute = self.tools.settings.delivery.sizes
        return mockup_manifest(image, place.template, ready.recipe, self.url_of, sizes_attribute)

    def _announce_and_put(
        self,
        documents: Mapping[Place, Mapping[str, Any]],
        files: Mapping[Place, Sequence[Mapping[str, Any]]],
    ) -> set[Place]:
        """Returns those that have to wait for a removal."""
        held, announced = self._announce(documents, files)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="manifest") as threads:
            list(threads.map(lambda one: self._put(one.place, documents[one.place]), announced))
        with self.tools.catalog.write() as connection:
            catalog_mockups.settle(connection, self.source, announced)
        return held

    def _put(self, place: Place, document: Mapping[str, Any]) -> None:
        key = self._manifest_key(place)
        self.tools.bucket.put(key, to_json(document), "application/json", SHORT_LIVED)

    def _manifest_key(self, place: Place) -> str:
        return mockup_manifest_key(self.source, place.template, place.image_id)

    def _announce(
        self,
        documents: Mapping[Place, Mapping[str, Any]],
        files: Mapping[Place, Sequence[Mapping[str, Any]]],
    ) -> tuple[set[Place], list[Announcement]]:
        """In one transaction: every file is there and stays, and this is what names it."""
        needed = {row["key"]: place for place in documents for row in files[place]}
        own = {self._manifest_key(place): place for place in documents}
        with self.tools.catalog.write() as connection:
            catalog_removals.hold(connection)
            held = held_back(connection, needed, own, self.tools.clock())
            ids = {place.image_id for place in documents}
            standing = catalog_mockups.standing(connection, self.source, ids)
            rows = [
                Announcement(
                    place, self.wanted.recipes[place.template], self.wanted.form, _digest(document)
                )
                for place, document in documents.items()
                if place not in held and place.image_id in standing
            ]
            now_named = {row.place for row in rows}
            keys = {key for key, place in {**needed, **own}.items() if place in now_named}
            # What is needed again was not seen unneeded, should that end before the next look.
            housekeeping.forget_sightings(connection, keys)
            self._tell_the_warmer(connection, {one: files[one] for one in now_named})
            catalog_mockups.announce(connection, self.source, rows, self.tools.clock())
        return held, rows

    def _tell_the_warmer(
        self, connection: sa.Connection, files: Mapping[Place, Sequence[Mapping[str, Any]]]
    ) -> None:
        """Ask the edge for the new files, and not for those they take the place of."""
        before = catalog_mockups.recipes_of(connection, self.source, files)
        gone = [
            row["key"]
            for place, recipe in before.items()
            if recipe != self.wanted.recipes[place.template]
            for rows in catalog_images.variants_of(connection, [place.image_id], recipe).values()
            for row in rows
        ]
        has_edge = self.tools.settings.base_url_of(self.source) is not None
        new = ranked((place.image_id, rows) for place, rows in files.items() if has_edge)
        catalog_warmth.exchange(connection, self.source, gone, new, self.tools.clock())


def _order_of_looking(row: Mapping[str, Any]) -> tuple[int, int, str]:
    return (row["width"] * row["height"], _LOOKED_AT.index(row["format"]), row["key"])


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(document)).hexdigest()


class _Bench(Shelf[Place]):
    """Composes designs in workers, stores what comes out, commits what is stored."""

    def __init__(self, studio: _Studio) -> None:
        super().__init__(studio.tools)
        self.studio = studio
        self.source = studio.source
        self.templates = {ready.recipe: name for name, ready in studio.ready.items()}
        self.failed: set[Place] = set()
        self.gone: set[Place] = set()  # forgotten, or withdrawn, while they were composed
        self.holder = f"withdraw {secrets.token_hex(8)}"
        self.going: set[str] = set()

    def _name(self, picture: Place, variant: RenderedVariant) -> dict[str, Any]:
        ready, plan = self.studio.ready[picture.template], variant.plan
        return {
            "key": mockup_key(ready, picture.image_id, plan),
            "image_id": picture.image_id,
            "recipe": ready.recipe,
            "role": catalog_mockups.ROLE,
            "size": mockup_size(picture.template, plan.size),
        }

    def _picture_of(self, row: Mapping[str, Any]) -> Place:
        return Place(row["image_id"], self.templates[row["recipe"]])

    def _unwanted(self, connection: sa.Connection) -> set[Place]:
        """Of designs that were forgotten, or stand for nobody any more; their removal begins."""
        mine = {self._picture_of(row) for row in self.rows}
        ids = {place.image_id for place in mine}
        standing = catalog_mockups.standing(connection, self.source, ids)
        gone = {place for place in mine if place.image_id not in standing}
        keys = {row["key"] for row in self.rows if self._picture_of(row) in gone}
        # Another source may have the same design on the same template.
        keys -= existing(connection, keys)
        self.going = catalog_removals.begin(connection, self.holder, keys, self.tools.clock())
        return gone

    def _take_back(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """For good: somebody may have asked for the design to be forgotten."""
        bucket = self.tools.bucket
        for key in sorted(self.going):
            if bucket.versioned:
                bucket.erase(key)
            else:
                bucket.delete([key])
        with self.tools.catalog.write() as connection:
            catalog_removals.hold(connection)
            catalog_removals.end_forgetting(connection, self.holder, self.tools.clock())
        self.gone |= {self._picture_of(row) for row in rows}

    def _refuse(self, picture: Place, error: Exception, seconds: float) -> None:
        """What is published of it stays, and the other designs go on."""
        judged = decision(0, error, seconds)
        failure = Failure(
            picture,
            self.studio.wanted.recipes[picture.template],
            judged.verdict,
            judged.reason or "",
            judged.message or "",
        )
        self.failed.add(picture)
        with self.tools.catalog.write() as connection:
            if catalog_mockups.standing(connection, self.source, [picture.image_id]):
                catalog_mockups.fail(connection, self.source, [failure], self.tools.clock())
        if len(self.studio.tally.failures) < _SHOWN:
            self.studio.tally.failures.append(
                {
                    "source": self.source,
                    "template": picture.template,
                    "image_id": picture.image_id,
                    "verdict": failure.verdict,
                    "reason": failure.reason,
                    "message": failure.message,
                }
            )
        self._step()

    def _postpone_all(self, seconds: Mapping[Place, float]) -> None:
        for place, took in seconds.items():
            self._refuse(place, being_removed_error(place.image_id), took)

    def _step(self) -> None:
        self.studio.step(1)


@dataclass(frozen=True, slots=True)
class StateRun:
    """The newest run that was asked for in a state: how it ended, and how long ago."""

    succeeded: bool
    age: timedelta


def current_state(settings: Settings, bucket: Bucket, catalog: Catalog) -> str:
    """Hex digits that change when mockups may be due: with templates, settings, finished batches.

    Costs a listing of the templates and one small query; nothing is read of any template.
    """
    found = folders(bucket, settings.mockups.templates)
    with catalog.read() as connection:
        finished = catalog_mockups.newest_batch(connection, wants_mockups(settings))
    document = json.dumps([state_of(settings, found), finished])
    return hashlib.sha256(document.encode()).hexdigest()[:12]


def why_run(newest: StateRun | None, is_unfinished: Callable[[], bool]) -> str | None:
    """Why mockups should be made now; None if they should not.

    ``newest`` is the newest run for the current state, which has ended; a run that is under way
    is waited for before anybody asks.
    """
    if newest is None:
        return "a template, the settings or a source changed"
    if newest.age < PAUSE:
        return None
    if not newest.succeeded:
        return "the last run failed"
    return "some mockups were left to be made" if is_unfinished() else None


def is_unfinished(settings: Settings, bucket: Bucket, catalog: Catalog, now: datetime) -> bool:
    """Whether some design lacks a mockup that may be made now. Looks at every design once."""
    found = folders(bucket, settings.mockups.templates)
    known = [name for name, files in found.items() if DESCRIPTION in files]
    with catalog.read() as connection:
        return any(
            catalog_mockups.is_unfinished(
                connection,
                source,
                set(wanted_names(settings.sources[source].mockups, known)).intersection(known),
                now - PAUSE,
            )
            for source in wants_mockups(settings)
        )
