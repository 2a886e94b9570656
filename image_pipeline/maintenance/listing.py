"""Listing a whole bucket in parallel, every object exactly once or not at all.

S3 lists keys in the order of their UTF-8 bytes, which is also the order of Python's strings, so
the bucket is cut into ranges between any keys and each is listed by itself. Where the cuts lie
decides how quickly it goes, never what is found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from image_pipeline.settings import OWN_PREFIXES
from image_pipeline.store.bucket import Object, Page, StoreError

#: Requests at a time. S3 answers a page within 0.1 s, and taking one in costs a core about 80 ms:
#: more threads would wait for one another, with their pages in memory.
THREADS = 4

#: Ranges of one source's prefix. Enough for all threads, few beside the pages of a large bucket.
MAX_FOLDERS = 64

#: How far down folders are looked for where there are fewer than threads.
_MAX_DEPTH = 2

#: What names below these prefixes begin with: their ids are hexadecimal.
_DIGITS = "0123456789abcdef"


class Lists(Protocol):
    """What listing needs of a bucket."""

    def page(self, prefix: str, after: str = "") -> Page:
        """The next page of keys behind ``after``."""

    def folders(self, prefix: str) -> list[str]:
        """The common prefixes directly below ``prefix``."""


@dataclass(frozen=True, slots=True)
class Range:
    """Keys behind ``after``, up to and including ``until``; to the end if that is None."""

    after: str
    until: str | None


def list_all(
    bucket: Lists, prefixes: Mapping[str, str], threads: int = THREADS
) -> Iterator[list[Object]]:
    """Every object of the bucket, a page at a time, in no order.

    ``prefixes`` are those of the sources, by name. Pages are asked for no faster than they are
    taken. Raises ``StoreError`` as soon as one page fails: what was given until then is not the
    whole bucket.
    """
    objects, rest = _taken(bucket.page(""), Range("", None))
    if objects:
        yield objects
    if rest is not None:
        yield from _list_ranges(bucket, _ranges(rest.after, cuts_of(bucket, prefixes)), threads)


def _list_ranges(bucket: Lists, ranges: Iterable[Range], threads: int) -> Iterator[list[Object]]:
    waiting = deque(ranges)
    flying: dict[Future[Page], Range] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="listing") as pool:
        try:
            while waiting or flying:
                while waiting and len(flying) < threads:
                    part = waiting.popleft()
                    flying[pool.submit(bucket.page, "", part.after)] = part
                done, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    part = flying.pop(future)
                    objects, rest = _taken(future.result(), part)
                    if rest is not None:
                        waiting.appendleft(rest)
                    if objects:
                        yield objects
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def cuts_of(bucket: Lists, prefixes: Mapping[str, str]) -> list[str]:
    """Where to cut a bucket of ours: by the first digit of ids, and by the folders of sources."""
    cuts = list(OWN_PREFIXES)
    manifests = [f"manifests/{source}/" for source in prefixes]
    cuts += [prefix + digit for prefix in ("variants/", *manifests) for digit in _DIGITS]
    for prefix in prefixes.values():
        folders = _folders(bucket, prefix)
        step = -(-len(folders) // MAX_FOLDERS) or 1
        cuts += [prefix, *folders[::step]]
    return cuts


def _folders(bucket: Lists, prefix: str) -> list[str]:
    """The folders of a source; deeper ones where the first are few, as those of years are."""
    folders = bucket.folders(prefix)
    for _ in range(_MAX_DEPTH):
        if not 0 < len(folders) < THREADS:
            break
        deeper = [folder for one in folders for folder in bucket.folders(one)]
        folders = deeper or folders
    return folders


def _ranges(after: str, cuts: Iterable[str]) -> list[Range]:
    """The ranges between the cuts behind a key: each further key lies in exactly one."""
    bounds = [after, *sorted({cut for cut in cuts if cut > after})]
    return [Range(one, other) for one, other in pairwise(bounds)] + [Range(bounds[-1], None)]


def _taken(page: Page, part: Range) -> tuple[list[Object], Range | None]:
    """The objects of a page that lie in its range, and what of the range is still to be listed.

    Raises ``StoreError`` for a page that is not what was asked for.
    """
    if page.more and not page.objects:
        raise StoreError(f"the listing behind {part.after!r} says that more follows, but not what")
    keys = [part.after, *(one.key for one in page.objects)]
    if any(one >= other for one, other in pairwise(keys)):
        raise StoreError(f"the listing behind {part.after!r} is not in the order of its keys")
    inside = [one for one in page.objects if part.until is None or one.key <= part.until]
    if not page.more or len(inside) < len(page.objects):
        return inside, None
    return inside, Range(page.objects[-1].key, part.until)
