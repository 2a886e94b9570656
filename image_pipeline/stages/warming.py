"""Asking the edge for what was published, so that no visitor is the first.

It fails nothing: a file that could not be warmed is reported, and due again in the next pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import mockups as catalog_mockups
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog import warmth as catalog_warmth
from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.warmth import Due, Wanted
from image_pipeline.delivery.manifest import PublishedImage, Variant, warm_list
from image_pipeline.delivery.signing import SigningError, signer
from image_pipeline.delivery.urls import url_builder
from image_pipeline.delivery.warmer import Warmer
from image_pipeline.delivery.warming import Answer
from image_pipeline.imaging.recipe import recipe_fingerprint
from image_pipeline.stages.timing import timed
from image_pipeline.stages.tools import Tools

#: Keys read at a time, and answers written at a time: memory does not grow with what is due.
PAGE = 1000
COMMIT_EVERY = 200

#: Images whose files one statement asks for.
_IMAGES = 200

#: Answers shown of those that were no success.
_SHOWN = 50

#: Times kept of all: enough for a median and a 95th percentile, however many there were.
_TIMES = 10_000


@dataclass(slots=True)
class Pass:
    """What one pass found.

    ``first_byte_seconds`` are those of the answers, of evenly chosen ones where there were more
    than 10,000. ``protocols`` counts answers by their version of HTTP. ``without_edge`` are
    sources that have no edge, ``unsigned`` private ones whose URLs cannot be signed, and why.
    """

    asked: int = 0
    hits: int = 0
    misses: int = 0
    unknown: int = 0
    bytes: int = 0
    first_byte_seconds: list[float] = field(default_factory=list)
    failures: int = 0
    shown_failures: list[dict[str, Any]] = field(default_factory=list)
    without_edge: list[str] = field(default_factory=list)
    unsigned: dict[str, str] = field(default_factory=dict)
    protocols: dict[str, int] = field(default_factory=dict)

    def count(self, source: str, key: str, answer: Answer) -> None:
        """Add one answer."""
        self.asked += 1
        self.bytes += answer.bytes
        if not answer.warm:
            self.failures += 1
            if len(self.shown_failures) < _SHOWN:
                row = {"source": source, "key": key, "status": answer.status}
                self.shown_failures.append({**row, "error": answer.error})
            return
        self._sample(answer.seconds_to_first_byte)
        self.protocols[answer.protocol] = self.protocols.get(answer.protocol, 0) + 1
        self.hits += answer.cache == "hit"
        self.misses += answer.cache == "miss"
        self.unknown += answer.cache == "unknown"

    def _sample(self, seconds: float) -> None:
        """Keep the time of every answer, then of every second, every fourth ..."""
        answers = self.hits + self.misses + self.unknown
        if answers % (1 << (answers // _TIMES).bit_length()) == 0:
            if len(self.first_byte_seconds) == _TIMES:
                del self.first_byte_seconds[1::2]
            self.first_byte_seconds.append(seconds)


def warm_sources(tools: Tools, sources: Sequence[str], *, force: bool = False) -> Pass:
    """Ask for what is due of these sources; with ``force`` for everything that is published.

    What is known of a source is first brought up to date with what is published of it.
    """
    found = Pass()
    for source in sources:
        if tools.settings.base_url_of(source) is not None:
            catch_up(tools, source)
        with _timed(tools, None, source, found):
            _Round(tools, source, found, force).run(None)
    return found


def warm_batch(tools: Tools, batch: str) -> Pass:
    """Ask for what the images of a batch brought and the edge has not seen yet."""
    found = Pass()
    with tools.catalog.read() as connection:
        uploads = catalog_uploads.of_batch(connection, batch)
        report = catalog_uploads.report(connection, batch)
    images = sorted({row["canonical_id"] for row in report if row["canonical_id"]})
    if uploads:
        source = uploads[0].source
        with _timed(tools, batch, source, found):
            for some in chunks(images, _IMAGES):
                _Round(tools, source, found, False).run(some)
    return found


@contextmanager
def _timed(tools: Tools, batch: str | None, source: str, found: Pass) -> Iterator[None]:
    """Write down what is added to ``found`` meanwhile, with files for images."""
    names = ("hits", "misses", "failures")
    asked, size = found.asked, found.bytes
    before = {name: getattr(found, name) for name in names}
    with timed(tools, "warm", batch, source) as stage:
        yield
        stage.images, stage.bytes_out = found.asked - asked, found.bytes - size
        stage.amounts = {name: getattr(found, name) - before[name] for name in names}


def catch_up(tools: Tools, source: str) -> None:
    """Make known what was published while the source had no edge; forget what no longer is.

    Publishing tells the warmer of every image, but only where there is an edge to warm.
    """
    recipe = recipe_fingerprint(tools.recipe(source))
    after: str | None = ""
    while after is not None:
        with tools.catalog.read() as connection:
            missing = catalog_warmth.unknown(connection, source, recipe, after, _IMAGES)
        after = _add_unknown(tools, source, recipe, after) if missing else None
    _add_mockups(tools, source)
    with tools.catalog.read() as connection:
        gone = catalog_warmth.unpublished(connection, source)
    if gone:
        with tools.catalog.write() as connection:
            catalog_warmth.replace(connection, source, gone, [], tools.clock())


def _add_unknown(tools: Tools, source: str, recipe: str, after: str) -> str | None:
    """Add the files of some images; the id of the last one, None if there was none any more."""
    with tools.catalog.write() as connection:
        # Asked again: a batch may have published an image since, and told of it.
        found = dict(catalog_warmth.unknown(connection, source, recipe, after, _IMAGES))
        wanted = _wanted(connection, found)
        catalog_warmth.replace(connection, source, found, wanted, tools.clock())
    return max(found, default=None)


def _add_mockups(tools: Tools, source: str) -> None:
    """Add the files of mockups that were made while the source had no edge."""
    after: str | None = ""
    while after is not None:
        with tools.catalog.read() as connection:
            is_over = not catalog_mockups.unwarmed(connection, source, after, 1)
        if is_over:
            return
        with tools.catalog.write() as connection:
            found = catalog_mockups.unwarmed(connection, source, after, _IMAGES)
            files = [
                (image, catalog_images.variants_of(connection, [image], recipe).get(image, []))
                for image, recipe in found
            ]
            catalog_warmth.exchange(connection, source, [], ranked(files), tools.clock())
        after = max((image for image, _ in found), default=None)


class _Files(NamedTuple):
    """As much of a published image as its place in the warm list depends on."""

    id: str
    variants: tuple[Variant, ...]


def _wanted(connection: sa.Connection, recipes: Mapping[str, str]) -> list[Wanted]:
    """The files of these images, made with these recipes, in the order of the warm list."""
    files: list[tuple[str, list[dict[str, Any]]]] = []
    for recipe in sorted(set(recipes.values())):
        ids = [image for image, its in recipes.items() if its == recipe]
        rows = catalog_images.variants_of(connection, ids, recipe)
        files += [(image, rows.get(image, [])) for image in ids]
    return ranked(files)


def ranked(files: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[Wanted]:
    """Rows of files of images (by their ids) in the order of the warm list."""
    images = [
        _Files(image, tuple(_variant(row) for row in rows if not row["dropped"]))
        for image, rows in files
    ]
    entries = warm_list(cast("list[PublishedImage]", images), lambda key: key)
    return [Wanted(one["key"], one["image"], one["rank"]) for one in entries]


def _variant(row: Mapping[str, Any]) -> Variant:
    fields = ("role", "size", "format", "width", "height", "bytes", "sha256", "key")
    return Variant(*(row[field] for field in fields))


class _Round:
    """One source, page by page."""

    def __init__(self, tools: Tools, source: str, found: Pass, force: bool) -> None:
        self.tools = tools
        self.source = source
        self.found = found
        self.began = tools.clock()
        self.fresh = timedelta(hours=tools.settings.fresh_hours_of(source))
        self.force = force
        self.total = found.asked

    def run(self, images: Sequence[str] | None) -> None:
        edge = self.tools.settings.base_url_of(self.source)
        if edge is None:
            self.found.without_edge.append(self.source)
            return
        try:
            # Signed one by one and only when it is asked for: nothing is kept that opens a file.
            sign = signer(self.tools.settings, self.source, self.tools.bucket)
        except SigningError as error:
            self.found.unsigned[self.source] = str(error)
            return
        before = self.began if self.force else self.began - self.fresh
        due = Due(edge, before, self.began)
        with self.tools.catalog.read() as connection:
            self.total += catalog_warmth.count_due(connection, self.source, due, images)
        rules = self.tools.settings.delivery.warming
        with Warmer(rules, [edge]) as warmer:
            targets = self._targets(due, sign or url_builder(edge, edge), images)
            for part in chunks(warmer.warm(targets), COMMIT_EVERY):
                self._record(edge, part)

    def _targets(
        self, due: Due, url_of: Callable[[str], str], images: Sequence[str] | None
    ) -> Iterator[tuple[str, str]]:
        on_the_way: set[str] = set()
        while True:
            with self.tools.catalog.read() as connection:
                page = catalog_warmth.next_due(
                    connection, self.source, due, PAGE + len(on_the_way), images
                )
            new = [key for key in page if key not in on_the_way]
            if not new:
                return
            # What is not recorded yet is still due in the catalog.
            on_the_way = set(page)
            for key in new:
                yield key, url_of(key)

    def _record(self, edge: str, answers: Sequence[tuple[str, Answer]]) -> None:
        now = self.tools.clock()
        for key, answer in answers:
            self.found.count(self.source, key, answer)
        rows = [_row(key, answer, edge, now) for key, answer in answers]
        with self.tools.catalog.write() as connection:
            catalog_warmth.record(connection, self.source, rows)
        total = max(self.total, self.found.asked)
        self.tools.progress("warmed", self.found.asked, total)


def _row(key: str, answer: Answer, edge: str, now: datetime) -> dict[str, Any]:
    return {
        "key": key,
        "asked_at": now,
        "edge": edge,
        "status": answer.status,
        "cache": answer.cache,
        "first_byte_seconds": answer.seconds_to_first_byte,
        "bytes": answer.bytes,
        "attempts": answer.attempts,
        "error": answer.error or None,
    }
