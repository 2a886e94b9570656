"""Rendered files on their way: from workers into the bucket, and then into the catalog.

The object is written first and the row second. A kill in between leaves an object that the
next attempt writes again under the same name with the same bytes; never a row without one.
Housekeeping may be removing an object of that very name: then it is written once more before
its row is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import removals as catalog_removals
from image_pipeline.imaging.metadata import find_metadata
from image_pipeline.imaging.recipe import mime_type
from image_pipeline.imaging.rendering import RenderedVariant
from image_pipeline.stages.announcing import REMOVAL_LOOKS, await_removal
from image_pipeline.stages.tools import Tools
from image_pipeline.store.bucket import StoreError
from image_pipeline.store.layout import IMMUTABLE
from image_pipeline.workers.pool import Job

#: PUTs at a time, pictures whose PUTs may be under way, and rows per commit.
THREADS = 12
IMAGES_UNDER_WAY = 3
COMMIT_ROWS = 60

K = TypeVar("K", bound=Hashable)


class Shelf(ABC, Generic[K]):
    """Renders in workers, stores what comes out, commits what is stored.

    A picture is known by its key ``K``; the rows of its files come into the catalog together.
    """

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.rows: list[dict[str, Any]] = []
        self.seconds: dict[K, float] = {}
        self.stored: dict[str, tuple[bytes, str]] = {}  # by key, until the row is written
        self.sure: set[str] = set()  # keys that were seen after all removals they might meet
        self.mark: catalog_removals.Mark = ()

    @abstractmethod
    def _name(self, picture: K, variant: RenderedVariant) -> dict[str, Any]:
        """What only the caller knows of a file: its key, image, recipe, role and size."""

    @abstractmethod
    def _picture_of(self, row: Mapping[str, Any]) -> K:
        """Whose file a row is."""

    @abstractmethod
    def _refuse(self, picture: K, error: Exception, seconds: float) -> None:
        """A picture could not be rendered or stored."""

    @abstractmethod
    def _postpone_all(self, seconds: Mapping[K, float]) -> None:
        """Files of these pictures are being removed for too long: they are made another time."""

    @abstractmethod
    def _step(self) -> None:
        """One more picture is done."""

    def _unwanted(self, connection: sa.Connection) -> set[K]:
        """Pictures of which nobody wants files any more; asked in the transaction of the rows."""
        return set()

    def _take_back(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """These files of unwanted pictures were stored, and are not recorded."""

    def _recorded(self, connection: sa.Connection, pictures: Collection[K]) -> None:
        """The rows of these pictures are written in this transaction."""

    def press(self, function: Callable[..., list[RenderedVariant]], jobs: Iterable[Job[K]]) -> None:
        """Render and store everything; what fails is refused, by itself."""
        with self.tools.catalog.read() as connection:
            self.mark = catalog_removals.mark(connection)
        under_way: deque[tuple[K, list[Future[dict[str, Any]]]]] = deque()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="put") as threads:
            for outcome in self.tools.workers.run(function, jobs):
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

    def _store(self, picture: K, variant: RenderedVariant) -> dict[str, Any]:
        plan, row = variant.plan, self._name(picture, variant)
        if not variant.dropped:
            self.stored[row["key"]] = variant.data, mime_type(plan.format)
            self._put(row["key"])
        return {
            **row,
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

    def _collect(self, picture: K, puts: list[Future[dict[str, Any]]]) -> None:
        """Wait for the PUTs of a picture; all of them succeeded or none is recorded."""
        try:
            self.rows.extend([put.result() for put in puts])
        except Exception as error:  # noqa: BLE001 - whatever a thread met decides this one only
            self._refuse(picture, error, 0.0)
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
        """Commit what surely is there, whole pictures only; whether that was everything."""
        with self.tools.catalog.write() as connection:
            catalog_removals.hold(connection)
            keys = {row["key"] for row in self.rows if not row["dropped"]} - self.sure
            going = catalog_removals.being_removed(connection, keys, self.tools.clock())
            doubtful = going if catalog_removals.mark(connection) == self.mark else keys
            unwanted = self._unwanted(connection)
            waiting = {self._picture_of(row) for row in self.rows if row["key"] in doubtful}
            waiting -= unwanted
            sure = [row for row in self.rows if self._picture_of(row) not in waiting | unwanted]
            catalog_images.add_variants(connection, sure)
            self._recorded(connection, {self._picture_of(row) for row in sure})
        back = [row for row in self.rows if self._picture_of(row) in unwanted]
        if back:
            self._take_back(back)
        self._drop([*sure, *back])
        self.rows = [row for row in self.rows if self._picture_of(row) in waiting]
        return not self.rows

    def _drop(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Nothing more is to be done about these."""
        for row in rows:
            self.stored.pop(row["key"], None)
            self.sure.discard(row["key"])
            self.seconds.pop(self._picture_of(row), None)

    def _put_if_gone(self, key: str) -> bool:
        try:
            if self.tools.bucket.head(key) is None:
                self._put(key)
        except StoreError:
            return False
        return True

    def _give_up(self) -> None:
        """Pictures whose files are being removed for too long are made another time."""
        pictures = dict.fromkeys(self._picture_of(row) for row in self.rows)
        self._postpone_all({one: self.seconds.get(one, 0.0) for one in pictures})
        self._drop(self.rows)
        self.rows.clear()


def being_removed_error(image: str) -> StoreError:
    """What to say of an image whose files housekeeping is removing for too long."""
    return StoreError(f"housekeeping is removing files of {image}")
