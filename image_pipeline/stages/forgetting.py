"""Forgetting an upload on a person's request: it, and all that was made and known of it.

What other uploads share stays: files and hashes of the same bytes, and of a picture that stood
for others until one of them does. The rows of the uploads themselves go last. They say what is
left to do, so that a call that was killed, or that has to wait for a batch, is finished by the
next one; whoever has forgotten looks again at every place and says what is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import sqlalchemy as sa

from image_pipeline.catalog import batches as catalog_batches
from image_pipeline.catalog import forgetting as catalog_forgetting
from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import mockups as catalog_mockups
from image_pipeline.catalog import removals as catalog_removals
from image_pipeline.catalog.batches import OPEN
from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.publications import alone
from image_pipeline.delivery.manifest_cache import CacheError
from image_pipeline.delivery.urls import url_builder
from image_pipeline.maintenance.forgetting import (
    DOCUMENTS,
    EMPTY,
    Names,
    Report,
    as_names,
    kept_because,
    rewritten,
    without_rows,
)
from image_pipeline.stages.caching import open_cache
from image_pipeline.stages.indexing import update_index
from image_pipeline.stages.regrouping import judge_again, regroup
from image_pipeline.stages.source_gallery import write_source_gallery
from image_pipeline.stages.tools import PUBLISHED, Tools
from image_pipeline.store.bucket import ObjectGoneError
from image_pipeline.store.layout import (
    image_manifest_key,
    index_key,
    mockup_manifest_key,
    mockup_manifests,
    source_gallery_key,
    trash_key,
)

#: Documents read and objects looked for at a time.
THREADS = 12

_PLANS = "plans/"
_INVENTORIES = "plans/inventories/"


class ForgetError(Exception):
    """It cannot be done now, or not so; the message says why, and what to do instead."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What is to be forgotten: versions of one key of a source, and the images only they have.

    ``doomed`` are those images. ``shared`` are images that go on without this key, with the
    uploads that have their bytes too.
    """

    key: str
    source: str
    uploads: list[dict[str, Any]]
    doomed: list[str]
    shared: dict[str, list[dict[str, Any]]]

    @property
    def ids(self) -> list[int]:
        return [row["id"] for row in self.uploads]

    @property
    def leaving(self) -> list[str]:
        """Images that the source has no upload of any more."""
        rest = {
            image
            for image, others in self.shared.items()
            if any(row["source"] == self.source for row in others)
        }
        return [image for image in [*self.doomed, *self.shared] if image not in rest]


def forget(tools: Tools, key: str, source: str | None = None) -> Report:
    """Forget every version of an upload. See :class:`Report` for what is left to wait for.

    On a versioned bucket all versions go for good, which needs ``s3:DeleteObjectVersion``.
    Raises :class:`ForgetError`: nobody knows the key, several sources have it, or a batch is at
    work on it now; ``StoreError`` where the bucket fails, and another call goes on.
    """
    case = _find(tools, key, source)
    report = Report(key, case.source, images=list(case.doomed))
    for image, others in case.shared.items():
        report.kept.append(kept_because(others, image))
    return _Forgetting(tools, case, report).run()


def _find(tools: Tools, key: str, source: str | None) -> _Case:
    with tools.catalog.read() as connection:
        rows = catalog_forgetting.uploads_of_key(connection, key, source)
        sources = sorted({row["source"] for row in rows})
        if not rows:
            raise ForgetError(f"no upload {key!r} is known: it was never discovered, or forgotten")
        if len(sources) > 1:
            raise ForgetError(f"{key!r} is in {', '.join(sources)}: name one with --source")
        if sources[0] not in tools.settings.sources:
            raise ForgetError(
                f"source {sources[0]!r} is not in the settings any more: put it back until this"
                " is done, its groups have to be formed anew"
            )
        busy = [row["batch_id"] for row in rows if row["state"] in OPEN and not _begun(row)]
        if busy:
            raise ForgetError(
                f"batch {busy[0]} is at work on {key!r}: try again when it is done"
                " ('image-pipeline status' shows it)"
            )
        ids = [row["id"] for row in rows]
        images = {row["image_id"] for row in rows if row["image_id"]}
        others = {
            image: catalog_forgetting.other_uploads(connection, image, ids)
            for image in sorted(images)
        }
    doomed = [image for image, found in others.items() if not found]
    shared = {image: found for image, found in others.items() if found}
    return _Case(key, sources[0], rows, doomed, shared)


def _begun(row: dict[str, Any]) -> bool:
    return bool(row["reason"] == catalog_forgetting.FORGOTTEN)


class _Forgetting:
    """One call; every step may have been done by a former one."""

    def __init__(self, tools: Tools, case: _Case, report: Report) -> None:
        self.tools = tools
        self.case = case
        self.report = report
        self.versioned = tools.bucket.versioned
        self.url_of = url_builder(tools.settings.base_url_of(case.source), tools.bucket.url)

    def run(self) -> Report:
        """All that can be done now."""
        self._detach()
        self._erase([*self._trash_of([self.case.key]), self.case.key])
        self._unpublish()
        if self._is_waited_for():
            return self.report
        for image in self.case.doomed:
            self._remove_pixels(image)
        if not self._is_gone_from_mirror():
            return self.report
        names = as_names([self.case.key], self.case.doomed)
        self._rewrite(names)
        self._end(names)
        self._prove(names)
        return self.report

    def _detach(self) -> None:
        """Let others stand for what the images stood for, once; the uploads' rows tell by whom.

        The batches that publish it are noted there, for calls to come.
        """
        case, now = self.case, self.tools.clock()
        fresh = [row["id"] for row in case.uploads if not _begun(row)]
        if not fresh:
            return
        batches: set[str] = set()
        with self.tools.catalog.write() as connection:
            catalog_groups.hold_groups(connection, case.source)
            catalog_forgetting.mark_forgotten(connection, fresh, now)
            for image in case.leaving:
                batches |= self._leave_group(connection, image)
            for image in sorted(set(case.shared) - set(case.leaving)):
                batches |= self._hand_over(connection, image)
            catalog_forgetting.note_batches(connection, fresh, batches)
            catalog_batches.reopen(connection, sorted(batches), now)

    def _leave_group(self, connection: sa.Connection, image: str) -> set[str]:
        """Take an image out of its group; the batch of the one that stands for it from now on."""
        source = self.case.source
        member = catalog_images.members_of(connection, source, [image]).get(image)
        if member is None:
            return set()
        group = catalog_groups.members_under(connection, source, [member.canonical_id])
        rest = [row.image_id for row in group if row.image_id != image]
        catalog_groups.drop_member(connection, source, image)
        if not rest:
            return set()
        policy = self.tools.source(source).duplicates
        batch = self._batch_of(connection, rest[0])
        changed = regroup(connection, source, policy, batch, rest, {})
        judge_again(connection, source, policy, changed, self.tools.clock())
        # Also where nobody else takes its place: its name is in the manifests of the others.
        left = catalog_images.members_of(connection, source, rest)
        catalog_groups.change_members(
            connection, [replace(row, batch_id=batch) for row in left.values()]
        )
        return {batch}

    def _hand_over(self, connection: sa.Connection, image: str) -> set[str]:
        """An image stays by another upload of its source, which brings it from now on."""
        source = self.case.source
        other = next(row for row in self.case.shared[image] if row["source"] == source)
        batch = other["batch_id"]
        if batch is None or image not in catalog_images.members_of(connection, source, [image]):
            return set()
        catalog_forgetting.bring_by(connection, source, image, other["id"], batch)
        row = catalog_images.members_of(connection, source, [image])[image]
        judge_again(
            connection, source, self.tools.source(source).duplicates, [row], self.tools.clock()
        )
        return {batch}

    def _batch_of(self, connection: sa.Connection, image: str) -> str:
        rows = catalog_groups.uploads_of(connection, self.case.source, [image])
        return next(
            str(row["batch_id"]) for row in rows if row["batch_id"] and row["verdict"] in PUBLISHED
        )

    def _unpublish(self) -> None:
        """Manifests of the images in this source, and the pages of the index that list them."""
        source = self.case.source
        manifests = self._manifests()
        # Not between the announcement of a mockup and its manifest.
        with alone(self.tools.catalog, catalog_mockups.lock_name(source)):
            with self.tools.catalog.write() as connection:
                for image in self.case.leaving:
                    catalog_forgetting.unpublish(connection, source, image)
            self._erase([*manifests, *self._trash_of(manifests)])
        self._update_index(as_names([], self.case.leaving))
        self._empty_cache()

    def _manifests(self) -> list[str]:
        """Of the images in this source, and of their mockups on whatever template."""
        source = self.case.source
        folder = mockup_manifests(source)
        templates = [
            one.removeprefix(folder).rstrip("/") for one in self.tools.bucket.folders(folder)
        ]
        return [
            key
            for image in self.case.leaving
            for key in (
                image_manifest_key(source, image),
                *(mockup_manifest_key(source, name, image) for name in templates),
            )
        ]

    def _update_index(self, names: Names) -> None:
        """Make the pages anew that mention an image, and end the old ones, whatever their age."""
        bucket, folder = self.tools.bucket, index_key(self.case.source).removesuffix("index.json")
        pages = {key: data for key, data in self._documents(folder) if names.may_be_in(data)}
        self._looked("indexes", len(pages))
        if not pages or not names.images:
            return
        others = {image for data in pages.values() for image in _listed_on(data)}
        others -= set(names.images)
        if not others:
            # Nobody names the page any more: without a pointer, every page is made.
            bucket.delete([index_key(self.case.source)])
        update_index(self.tools, self.case.source, frozenset(others), self.url_of)
        self._erase(sorted(pages.keys() - {index_key(self.case.source)}))

    def _empty_cache(self) -> None:
        if self.tools.settings.redis.url is None:
            return
        try:
            cache = open_cache(self.tools.settings.redis, self.tools.bucket.name)
            cache.invalidate(self.case.source)
        except CacheError as error:
            self.report.pending.append(f"Redis could not be told: {error}; run it again")
        else:
            self.report.removed.append(f"redis: everything of source {self.case.source}")

    def _is_waited_for(self) -> bool:
        """Whether others are still served with the pixels, or a manifest still names the key."""
        with self.tools.catalog.read() as connection:
            served = [
                f"image {row['image_id']} of source {row['source']} is served with files of"
                f" {image} until it has its own"
                for image in self.case.doomed
                for row in catalog_forgetting.named_by_others(connection, image)
            ]
            noted = catalog_forgetting.noted_batches(connection, self.case.ids)
            open_batches = catalog_forgetting.unfinished(connection, noted)
        self.report.pending += served
        self.report.pending += [
            f"batch {batch} has to publish what follows: the upload sensor asks for it at its"
            " next look, or materialize that partition; then run this again"
            for batch in open_batches
        ]
        return bool(served or open_batches)

    def _is_gone_from_mirror(self) -> bool:
        """Before the rows go: a second call needs them to find what an absent server still has."""
        from image_pipeline.mirror.forgetting import forget_copies

        settings, catalog = self.tools.settings, self.tools.catalog
        self.report.remains += forget_copies(settings, catalog, [self.case.key], self.case.doomed)
        return not self.report.remains

    def _remove_pixels(self, image: str) -> None:
        """The files of an image, announced like every removal: somebody may render them anew."""
        bucket, holder = self.tools.bucket, f"forget {image}"
        keys = [one.key for one in bucket.list(f"variants/{image}/")]
        with self.tools.catalog.write() as connection:
            catalog_removals.hold(connection)
            if catalog_forgetting.other_uploads(connection, image, self.case.ids):
                raise ForgetError(f"image {image} was uploaded again meanwhile: run it once more")
            catalog_removals.begin(connection, holder, keys, self.tools.clock())
            catalog_forgetting.drop_variants(connection, image)
        self._erase([*keys, *self._trash_of([f"variants/{image}/"])])
        if self.versioned:
            self._erase({one.key for one in bucket.versions(f"variants/{image}/")})
        with self.tools.catalog.write() as connection:
            catalog_removals.hold(connection)
            catalog_removals.end_forgetting(connection, holder, self.tools.clock())

    def _rewrite(self, names: Names) -> None:
        """Take every mention out of the documents of batches, tables and plans."""
        for folder in DOCUMENTS:
            count = 0
            for key, data in self._documents(folder):
                count += 1
                if key.startswith(_PLANS) and not key.startswith(_INVENTORIES):
                    self._rewrite_plan(key, data, names)
                else:
                    self._rewrite_document(key, rewritten(data, names))
            self._looked(folder, count)

    def _rewrite_document(self, key: str, data: bytes | None) -> None:
        if data is None:
            return
        if data == EMPTY:
            self._erase([key])
            return
        bucket = self.tools.bucket
        # First the new version, then the old ones go: a ledger that is lost is nowhere else.
        found = bucket.versions(key) if self.versioned else ()
        old = [one for one in found if one.key == key]
        head = bucket.head(key)
        if head is not None:
            bucket.put(key, data, head.content_type, head.cache_control or None)
            self.report.rewritten.append(key)
        if old:
            bucket.erase(key, old)

    def _rewrite_plan(self, key: str, data: bytes, names: Names) -> None:
        """A plan is known by its digest: the catalog has the new one first."""
        found = without_rows(data, names)
        if found is None:
            return
        left, entries = found
        plan = key.removeprefix(_PLANS).removesuffix(".parquet")
        with self.tools.catalog.write() as connection:
            digest = hashlib.sha256(left).hexdigest()
            catalog_forgetting.set_digest(connection, plan, digest, entries)
        self._rewrite_document(key, left)

    def _end(self, names: Names) -> None:
        """The rows, in one transaction: the uploads' own last of all."""
        with self.tools.catalog.write() as connection:
            catalog_groups.hold_groups(connection, self.case.source)
            for image in self.case.doomed:
                if catalog_forgetting.other_uploads(connection, image, self.case.ids):
                    self.report.kept.append(f"image {image}: it was uploaded again meanwhile")
                else:
                    catalog_forgetting.drop_image(connection, image)
            catalog_forgetting.drop_uploads(connection, self.case.ids)
            both = [*names.keys, *names.images]
            catalog_forgetting.drop_mentions(connection, both, names.are_in)
        self.report.removed.append("catalog: every row of the images and uploads")
        if source_gallery_key(self.case.source) in self.report.removed:
            write_source_gallery(self.tools, self.case.source, self.url_of)

    def _prove(self, names: Names) -> None:
        """Look again: objects, documents and rows."""
        bucket = self.tools.bucket
        places = [self.case.key, *(f"variants/{image}/" for image in names.images)]
        places += self._manifests()
        remains = self.report.remains
        for place in places:
            found = [one.key for one in bucket.list(place) if _belongs(one.key, place)]
            if self.versioned:
                found += [one.key for one in bucket.versions(place) if _belongs(one.key, place)]
            remains += [f"object {key}" for key in dict.fromkeys(found)]
        remains += [f"object {key}" for key in self._trash_of(places)]
        for folder in DOCUMENTS:
            remains += [
                f"document {key}"
                for key, data in self._documents(folder)
                if rewritten(data, names) is not None
            ]
        with self.tools.catalog.read() as connection:
            both = [*names.keys, *names.images]
            rows = catalog_forgetting.rows_naming(connection, both, names.are_in)
        remains += [f"{count} rows of table {table}" for table, count in rows.items()]

    def _documents(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Every object of a folder with its bytes, a few read ahead."""
        bucket = self.tools.bucket

        def read(key: str) -> tuple[str, bytes]:
            try:
                return key, bucket.get(key)
            except ObjectGoneError:
                return key, b""

        with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as threads:
            for part in chunks((one.key for one in bucket.list(folder)), 4 * THREADS):
                yield from threads.map(read, part)

    def _trash_of(self, places: Sequence[str]) -> list[str]:
        """What lies in the trash of these objects, and of all objects of these folders."""
        with self.tools.catalog.read() as connection:
            plans = catalog_forgetting.plans_with_trash(connection)
        look = partial(_listed, self.tools.bucket, self.versioned)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="look") as threads:
            found = threads.map(look, [trash_key(plan, one) for plan in plans for one in places])
            return [key for keys in found for key in keys]

    def _erase(self, keys: Collection[str]) -> None:
        """Delete objects for good, and say so: those that were there."""
        wanted = list(dict.fromkeys(keys))
        with ThreadPoolExecutor(THREADS, thread_name_prefix="erase") as threads:
            gone = list(threads.map(self._erase_one, wanted))
        for key, was_there in zip(wanted, gone, strict=True):
            if was_there:
                self.report.removed.append(key)
                if not key.startswith("trash/"):
                    self.report.urls.append(self.url_of(key))

    def _erase_one(self, key: str) -> bool:
        bucket = self.tools.bucket
        if self.versioned:
            return bucket.erase(key) > 0
        if bucket.head(key) is None:
            return False
        failed = bucket.delete([key])
        if failed:
            raise ForgetError(f"{key} could not be deleted: {failed[key]}")
        return True

    def _looked(self, place: str, count: int) -> None:
        self.report.looked_at[place] = self.report.looked_at.get(place, 0) + count


def _belongs(key: str, place: str) -> bool:
    """Whether an object is meant by the name of an object or of a folder."""
    return key == place or (place.endswith("/") and key.startswith(place))


def _listed_on(page: bytes) -> list[str]:
    """The images that a page of an index lists."""
    return [str(entry["id"]) for entry in json.loads(page).get("images", ())]


def _listed(bucket: Any, versioned: bool, place: str) -> list[str]:
    entries = bucket.versions(place) if versioned else bucket.list(place)
    return list(dict.fromkeys(one.key for one in entries if _belongs(one.key, place)))
