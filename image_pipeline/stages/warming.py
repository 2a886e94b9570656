"""Asking the edge for what was published, so that no visitor is the first.

It fails nothing: a file that could not be warmed is reported, and due again in the next pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog import warmth as catalog_warmth
from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.warmth import Due
from image_pipeline.delivery.urls import url_builder
from image_pipeline.delivery.warmer import Warmer
from image_pipeline.delivery.warming import Answer
from image_pipeline.stages.tools import Tools

#: Keys read at a time, and answers written at a time: memory does not grow with what is due.
PAGE = 1000
COMMIT_EVERY = 200

#: Images whose files one statement asks for.
_IMAGES = 200

#: Answers shown of those that were no success.
_SHOWN = 50


@dataclass(slots=True)
class Pass:
    """What one pass found. ``first_byte_seconds`` are those of every answer."""

    asked: int = 0
    hits: int = 0
    misses: int = 0
    unknown: int = 0
    bytes: int = 0
    first_byte_seconds: list[float] = field(default_factory=list)
    failures: int = 0
    shown_failures: list[dict[str, Any]] = field(default_factory=list)
    without_edge: list[str] = field(default_factory=list)

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
        self.first_byte_seconds.append(answer.seconds_to_first_byte)
        self.hits += answer.cache == "hit"
        self.misses += answer.cache == "miss"
        self.unknown += answer.cache == "unknown"


def warm_sources(tools: Tools, sources: Sequence[str], *, force: bool = False) -> Pass:
    """Ask for what is due of these sources; with ``force`` for everything that is published."""
    found = Pass()
    for source in sources:
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
        for some in chunks(images, _IMAGES):
            _Round(tools, uploads[0].source, found, False).run(some)
    return found


class _Round:
    """One source, page by page."""

    def __init__(self, tools: Tools, source: str, found: Pass, force: bool) -> None:
        self.tools = tools
        self.source = source
        self.found = found
        self.began = tools.clock()
        self.fresh = timedelta(hours=tools.settings.fresh_hours_of(source))
        self.force = force

    def run(self, images: Sequence[str] | None) -> None:
        edge = self.tools.settings.base_url_of(self.source)
        if edge is None:
            self.found.without_edge.append(self.source)
            return
        url_of = url_builder(edge, edge)
        rules = self.tools.settings.delivery.warming
        with Warmer(rules, [edge]) as warmer:
            for part in chunks(warmer.warm(self._targets(edge, url_of, images)), COMMIT_EVERY):
                self._record(edge, part)

    def _targets(
        self, edge: str, url_of: Callable[[str], str], images: Sequence[str] | None
    ) -> Iterator[tuple[str, str]]:
        before = self.began if self.force else self.began - self.fresh
        due = Due(edge, before, self.began)
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
        self.tools.progress("warmed", self.found.asked, self.found.asked)


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
