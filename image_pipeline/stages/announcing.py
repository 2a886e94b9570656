"""Manifests of images: announced in the catalog, then put.

Announced and put are two steps. A process may end between them, and a slower one may put what it
has read before. So whoever finds a manifest announced as it should be reads it from the bucket
before leaving it as it is.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from image_pipeline.catalog import housekeeping
from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import publications as catalog_publications
from image_pipeline.catalog import removals as catalog_removals
from image_pipeline.catalog.publications import Announced, Announcement, Files
from image_pipeline.delivery.manifest import to_json
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.stages.tools import Tools
from image_pipeline.store.bucket import ObjectGoneError
from image_pipeline.store.layout import SHORT_LIVED, image_manifest_key

THREADS = 12

#: While housekeeping removes a file that is needed again, it is looked for again as often, with
#: this pause: it removes up to 1,000 objects at a time, which takes some seconds.
REMOVAL_LOOKS = 60
REMOVAL_PAUSE = 0.5

K = TypeVar("K")


def await_removal() -> None:
    """Give housekeeping the time to end what it does."""
    time.sleep(REMOVAL_PAUSE)


def held_back(
    connection: sa.Connection, needed: Mapping[str, K], own: Mapping[str, K], now: datetime
) -> set[K]:
    """Whose manifests may not be announced now: a file of theirs is not there, or goes.

    ``needed`` has the keys of files, ``own`` those of the manifests themselves, both with whose
    they are. Hold the lock of removals, and announce in the same transaction.
    """
    lost = needed.keys() - catalog_publications.existing(connection, needed)
    both = {**needed, **own}
    going = catalog_removals.being_removed(connection, both, now)
    return {both[key] for key in lost | going}


class Manifests:
    """The manifests that one attempt of a batch publishes.

    ``written`` has the digest of what this process last put, or found in the bucket, by image
    id; ``versions`` its version; ``puts`` counts objects put.
    """

    def __init__(self, tools: Tools, source: str, batch: str) -> None:
        self.tools = tools
        self.source = source
        self.batch = batch
        self.recipe = recipe_fingerprint(tools.recipe(source))
        self.written: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.puts = 0

    def publish(self, documents: Mapping[str, Mapping[str, Any]]) -> set[str] | None:
        """Announce and put the manifests that differ from what was written; None if none does.

        Returns the canonicals whose manifests were held back, with all of their aliases: a file
        of theirs is being removed, or the group has changed since ``documents`` were made.
        """
        digests = {image: _digest(document) for image, document in documents.items()}
        different = {
            image: document
            for image, document in documents.items()
            if self.written.get(image) != digests[image]
        }
        if not different:
            return None
        held, announced = self._announce(different, digests)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="manifest") as threads:
            puts = threads.map(
                lambda image: self._write(image, documents[image], announced[image]), announced
            )
            self.puts += sum(puts)
        for image, one in announced.items():
            self.written[image], self.versions[image] = digests[image], one.version
        return held

    def _announce(
        self, documents: Mapping[str, Mapping[str, Any]], digests: Mapping[str, str]
    ) -> tuple[set[str], dict[str, Announced]]:
        """In one transaction: every file is there and stays, and this is what names it."""
        with self.tools.catalog.write() as connection:
            catalog_removals.hold(connection)
            held = self._held(connection, documents)
            rows = [
                Announcement(image, Files(document["canonical"], self.recipe), digests[image])
                for image, document in documents.items()
                if document["canonical"] not in held
            ]
            # What is needed again was not seen unneeded, should that end before the next look.
            housekeeping.forget_sightings(
                connection,
                {
                    variant["key"]
                    for document in documents.values()
                    if document["canonical"] not in held
                    for variant in document["variants"]
                },
            )
            return held, catalog_publications.announce(
                connection, self.source, self.batch, rows, self.tools.clock()
            )

    def _held(
        self, connection: sa.Connection, documents: Mapping[str, Mapping[str, Any]]
    ) -> set[str]:
        needed = {
            variant["key"]: document["canonical"]
            for document in documents.values()
            for variant in document["variants"]
        }
        own = {
            image_manifest_key(self.source, image): document["canonical"]
            for image, document in documents.items()
        }
        members = catalog_images.members_of(connection, self.source, documents)
        # Somebody else stands for it by now; what is announced last has to be what is so.
        stale = {
            documents[image]["canonical"]
            for image, row in members.items()
            if row.canonical_id != documents[image]["canonical"]
        }
        return stale | held_back(connection, needed, own, self.tools.clock())

    def _write(self, image: str, document: Mapping[str, Any], announced: Announced) -> bool:
        """Put a manifest; False if it was there already."""
        key, data = image_manifest_key(self.source, image), to_json(document)
        if not announced.is_new and self._stored(key) == data:
            return False
        self.tools.bucket.put(key, data, "application/json", SHORT_LIVED)
        return True

    def _stored(self, key: str) -> bytes | None:
        try:
            return self.tools.bucket.get(key)
        except ObjectGoneError:
            return None

    def documents(
        self, images: Iterable[str], documents: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, tuple[int, bytes]]:
        """Version and bytes of manifests that were published."""
        return {image: (self.versions[image], to_json(documents[image])) for image in images}


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(document)).hexdigest()
