"""Removing objects by the hundred, each only if it still is what it was planned as.

Of every object: HEAD, a copy to the trash, and, when the copies are seen to be there, one
request that deletes up to a thousand. What must not go is decided before, see
:mod:`image_pipeline.maintenance.applying`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Literal

from image_pipeline.maintenance.plans import Entry
from image_pipeline.store.bucket import (
    Bucket,
    Head,
    Object,
    ObjectArchivedError,
    ObjectChangedError,
    ObjectGoneError,
    StoreError,
)

#: What became of an entry. ``trashed`` and ``archived`` are gone from their places, ``gone``
#: was so before; all others stay where they are. ``unclear`` is what a request that broke off
#: may or may not have deleted.
Outcome = Literal[
    "trashed", "archived", "gone", "skipped_now_live", "skipped_changed", "skipped_busy",
    "skipped_archived", "failed", "unclear",
]  # fmt: skip

#: Objects whose HEAD and copy are under way. Latency rules: S3 answers a copy in 20 to 100 ms.
THREADS = 32

#: Seconds after which a plan that waits for its copies says that it is still at work.
RENEW_SECONDS = 15.0

#: Pages of the trash that are listed to see the copies of one chunk; what is not on them is
#: asked for by itself. A plan is in the order of keys, so that its copies are on one or two.
_PAGES = 3

#: What keeps objects that are removed instead of being deleted.
ARCHIVE = "GLACIER"


@dataclass(frozen=True, slots=True)
class Removed:
    """What became of an entry, and the error of one that failed."""

    entry: Entry
    outcome: Outcome
    error: str = ""


class TooManyErrors(Exception):  # noqa: N818 - a decision, not a fault of the program
    """More objects failed than a removal puts up with; nothing of the chunk was deleted."""

    def __init__(self, failed: Sequence[Removed]) -> None:
        super().__init__(f"{len(failed)} objects failed")
        self.failed = failed


@dataclass(frozen=True, slots=True)
class _Copied:
    """A copy that was made: its ETag."""

    entry: Entry
    etag: str


_Made = _Copied | Removed


class Remover:
    """Removes chunks of entries. ``trash`` tells where the copy of a key goes.

    ``still_mine`` is asked from time to time, ``surely_mine`` before anything is deleted; they
    raise where the work now belongs to somebody else.
    """

    def __init__(
        self,
        bucket: Bucket,
        trash: Callable[[str], str],
        *,
        archive: bool,
        still_mine: Callable[[], None],
        surely_mine: Callable[[], None] | None = None,
        threads: int = THREADS,
    ) -> None:
        self.bucket = bucket
        self.trash = trash
        self.archive = archive
        self.still_mine = still_mine
        self.surely_mine = surely_mine or still_mine
        self.threads = threads

    @property
    def _done(self) -> Outcome:
        return "archived" if self.archive else "trashed"

    def remove(self, entries: Sequence[Entry], errors_left: int) -> list[Removed]:
        """Remove up to 1,000 entries. Raises :class:`TooManyErrors` before it deletes any."""
        copied, results = self._copy_all(entries, errors_left)
        there = self._copies(self.trash(one.entry.key) for one in copied)
        checked: list[_Copied] = []
        for one in copied:
            if _is_copy(there.get(self.trash(one.entry.key)), one):
                checked.append(one)
            else:
                results.append(Removed(one.entry, "failed", "its copy is not in the trash"))
        # The clock of a machine that slept did not tell how long: so the catalog is asked.
        self.surely_mine()
        return results + self._delete([one.entry for one in checked])

    def _copy_all(
        self, entries: Sequence[Entry], errors_left: int
    ) -> tuple[list[_Copied], list[Removed]]:
        copied: list[_Copied] = []
        results: list[Removed] = []
        with ThreadPoolExecutor(self.threads, thread_name_prefix="remove") as threads:
            futures = [threads.submit(self._copy, entry) for entry in entries]
            try:
                for made in self._as_made(futures):
                    if isinstance(made, _Copied):
                        copied.append(made)
                        continue
                    results.append(made)
                    failed = [one for one in results if one.outcome == "failed"]
                    if len(failed) > errors_left:
                        raise TooManyErrors(failed)
            finally:
                threads.shutdown(cancel_futures=True)
        return copied, results

    def _as_made(self, futures: Sequence[Future[_Made]]) -> Iterator[_Made]:
        """Results in the order of their coming; long waits are told to whom the work belongs."""
        waiting = set(futures)
        while waiting:
            try:
                for future in as_completed(list(waiting), RENEW_SECONDS):
                    waiting.remove(future)
                    self.still_mine()
                    yield future.result()
            except TimeoutError:
                self.still_mine()

    def _copy(self, entry: Entry) -> _Made:
        """Look at an object and copy it to the trash."""
        try:
            head = self.bucket.head(entry.key)
            if head is None:
                return self._without_original(entry)
            if not is_as_planned(head, entry):
                return Removed(entry, "skipped_changed")
            to = self.trash(entry.key)
            wanted = ARCHIVE if self.archive else None
            made = self.bucket.copy(
                entry.key, to, etag=entry.etag, storage_class=wanted, known=head
            )
        except ObjectArchivedError:
            # It could be copied only after a restore that costs more than it lies there for.
            return Removed(entry, "skipped_archived")
        except (ObjectChangedError, ObjectGoneError):
            return Removed(entry, "skipped_changed")
        except StoreError as error:
            return Removed(entry, "failed", str(error))
        return _Copied(entry, made)

    def _without_original(self, entry: Entry) -> Removed:
        """Gone by somebody else's hand, unless an attempt that was killed had moved it."""
        copy = self.bucket.head(self.trash(entry.key))
        was_ours = copy is not None and copy.size == entry.size
        return Removed(entry, self._done if was_ours else "gone")

    def _copies(self, keys: Iterable[str]) -> Mapping[str, Object | Head]:
        """What lies in the trash under these keys."""
        wanted = sorted(keys, key=str.encode)
        found: dict[str, Object | Head] = {}
        if not wanted:
            return found
        # Keys sort by their bytes. A page begins behind a key, so the first is asked for alone.
        after, folder = wanted[0], self.trash("")
        for _ in range(_PAGES):
            page = self.bucket.page(folder, after)
            found.update((one.key, one) for one in page.objects)
            if not page.more or page.objects[-1].key.encode() >= wanted[-1].encode():
                break
            after = page.objects[-1].key
        for key in wanted:
            head = None if key in found else self.bucket.head(key)
            if head is not None:
                found[key] = head
        return found

    def _delete(self, entries: Sequence[Entry]) -> list[Removed]:
        """Delete what was copied, if it still is that."""
        if not entries:
            return []
        etags = {entry.key: entry.etag for entry in entries}
        try:
            errors = self.bucket.delete(list(etags), etags=etags)
        except StoreError as error:
            return [Removed(entry, "unclear", str(error)) for entry in entries]
        return [self._deleted(entry, errors.get(entry.key)) for entry in entries]

    def _deleted(self, entry: Entry, error: str | None) -> Removed:
        if error is None:
            return Removed(entry, self._done)
        if error.startswith("PreconditionFailed"):
            return Removed(entry, "skipped_changed")
        return Removed(entry, "failed", error)


def is_as_planned(head: Head, entry: Entry) -> bool:
    """Whether an object is the one that was planned on: version, size, and time of writing.

    Bytes that somebody has written once more have the same ETag and another time. Listings tell
    times in milliseconds on some stores, HEAD tells whole seconds everywhere.
    """
    return (head.etag, head.size, head.last_modified.replace(microsecond=0)) == (
        entry.etag,
        entry.size,
        entry.last_modified.replace(microsecond=0),
    )


def _is_copy(found: Object | Head | None, made: _Copied) -> bool:
    return found is not None and (found.etag, found.size) == (made.etag, made.entry.size)
