"""First stage: every upload of a batch is downloaded, decoded once and gets its verdict."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import uploads as catalog_uploads
from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.uploads import Decision, Upload
from image_pipeline.dedupe import bands
from image_pipeline.imaging.inspection import Inspection, inspect_image
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.performance.timings import Watch
from image_pipeline.settings import Limits
from image_pipeline.stages.fetching import ARCHIVED, ArchivedError, Fetched, fetch
from image_pipeline.stages.timing import Stage, record_part, record_wait, timed
from image_pipeline.stages.tools import INTERNAL_ERROR, STORAGE_ERROR, Tools
from image_pipeline.store.bucket import ObjectChangedError, ObjectGoneError, StoreError
from image_pipeline.workers.pool import Job, Outcome

#: Verdicts are committed in groups: each costs a transaction, each lost one a decode.
COMMIT_EVERY = 25


def inspect_batch(tools: Tools, batch: str) -> list[dict[str, Any]]:
    """Give every upload of the batch a verdict; those that have a final one are left alone.

    Returns one row per upload, see :func:`image_pipeline.catalog.uploads.report`.
    """
    with tools.catalog.read() as connection:
        known = catalog_uploads.of_batch(connection, batch)
    pending = [upload for upload in known if upload.verdict in (None, "failed")]
    if pending:
        source = pending[0].source
        limits = tools.source(source).limits
        record_wait(tools, batch, source)
        began_at = tools.clock()
        with timed(tools, "inspect", batch, source) as stage:
            desk = _Desk(tools, limits, total=len(known), done=len(known) - len(pending))
            for outcome in tools.workers.run(inspect_image, desk.jobs(pending)):
                desk.judge(outcome)
            desk.commit()
            desk.sum_up(stage)
        record_part(tools, batch, stage, "fetch", desk.fetched, began_at)
    with tools.catalog.read() as connection:
        return catalog_uploads.report(connection, batch)


def verdict_before_download(upload: Upload, limits: Limits) -> Decision | None:
    """What the size alone decides."""
    if upload.size == 0:
        return _rejection(upload.id, Rejected(Reason.empty_file, "the file has no bytes"))
    if upload.size > limits.megabytes * 1e6:
        message = f"{upload.size / 1e6:.1f} MB, allowed are {limits.megabytes:g} MB"
        return _rejection(upload.id, Rejected(Reason.too_many_bytes, message))
    return None


def decision(upload: int, error: Exception, seconds: float = 0.0) -> Decision:
    """The verdict behind an exception: ``rejected`` is the file's fault, ``failed`` is ours."""
    if isinstance(error, Rejected):
        return _rejection(upload, error, seconds)
    if isinstance(error, ObjectGoneError):
        gone = Rejected(Reason.gone, "deleted from the bucket before it was processed")
        return _rejection(upload, gone, seconds)
    if isinstance(error, ObjectChangedError):
        replaced = Rejected(Reason.superseded, "overwritten before it was processed")
        return _rejection(upload, replaced, seconds)
    message = f"{type(error).__name__}: {error}"[:500]
    return Decision(upload, "failed", _failure(error), message, seconds=seconds)


def _failure(error: Exception) -> str:
    """The reason of a failure that is not the file's fault."""
    if isinstance(error, ArchivedError):
        return ARCHIVED
    return STORAGE_ERROR if isinstance(error, (OSError, StoreError)) else INTERNAL_ERROR


def _rejection(upload: int, error: Rejected, seconds: float = 0.0) -> Decision:
    return Decision(upload, "rejected", str(error.reason), error.message[:500], seconds=seconds)


class _Desk:
    """Uploads in, verdicts out. Several uploads of the same bytes are decoded once."""

    def __init__(self, tools: Tools, limits: Limits, total: int, done: int) -> None:
        self.tools = tools
        self.limits = limits
        self.total = total
        self.done = done
        self.waiting: dict[str, list[Upload]] = {}  # by SHA-256, while the worker has it
        self.judged: dict[str, Exception | None] = {}  # by SHA-256: None is accepted
        self.decisions: list[Decision] = []
        self.images: list[dict[str, Any]] = []
        self.sketches: list[dict[str, Any]] = []
        self.fetched = Watch()
        self.inspected = Watch()
        self.waited = 0.0  # seconds for downloads
        self.verdicts: Counter[str] = Counter()
        self.bytes_in = 0

    def jobs(self, pending: list[Upload]) -> Iterator[Job[str]]:
        """One job per file that nobody has decoded yet."""
        wanted = []
        for upload in pending:
            early = verdict_before_download(upload, self.limits)
            if early:
                self._decide(early)
            else:
                wanted.append(upload)
        for group in chunks(self._arriving(fetch(self.tools, wanted)), 8):
            yield from self._jobs_of(group)

    def judge(self, outcome: Outcome[str, Inspection]) -> None:
        """The worker's answer decides every upload of these bytes."""
        sha256, error = outcome.key, outcome.error
        uploads = self.waiting.pop(sha256)
        self.inspected.add(uploads[0].id, outcome.seconds)
        if outcome.value is not None:
            now = self.tools.clock()
            self.images.append(image_row(sha256, uploads[0].size, outcome.value, now))
            self.sketches.append(sketch_row(sha256, outcome.value))
        if error is None or isinstance(error, Rejected):
            self.judged[sha256] = error
        for position, upload in enumerate(uploads):
            self._settle(upload, sha256, error, outcome.seconds if position == 0 else 0.0)

    def commit(self) -> None:
        """Write what was decided, unless another run of the batch was faster."""
        with self.tools.catalog.write() as connection:
            catalog_images.add_images(connection, self.images)
            catalog_images.add_sketches(connection, self.sketches)
            catalog_uploads.decide(connection, self.decisions, self.tools.clock(), only_open=True)
        self.images.clear()
        self.sketches.clear()
        self.decisions.clear()

    def sum_up(self, stage: Stage) -> None:
        """Say of the stage what it did."""
        stage.uses_workers = True
        stage.images, stage.bytes_in = self.verdicts.total(), self.bytes_in
        stage.watch, stage.elsewhere = self.inspected, self.waited
        stage.amounts.update(self.verdicts)

    def _arriving(self, fetched: Iterable[Fetched]) -> Iterator[Fetched]:
        """The same, with a look at the clock on both sides."""
        began = time.monotonic()
        for one in fetched:
            self.waited += time.monotonic() - began
            if one.path is not None:
                self.fetched.add(one.upload.id, one.seconds)
                self.bytes_in += one.upload.size
            yield one
            began = time.monotonic()

    def _jobs_of(self, group: list[Fetched]) -> Iterator[Job[str]]:
        with self.tools.catalog.read() as connection:
            known = catalog_images.get_images(connection, (one.sha256 for one in group))
        self.judged.update(dict.fromkeys(known))
        for one in group:
            if one.error or one.path is None:
                self._decide(decision(one.upload.id, one.error or OSError("no file")))
            elif one.sha256 in self.judged:
                self._settle(one.upload, one.sha256, self.judged[one.sha256])
            elif one.sha256 in self.waiting:
                self.waiting[one.sha256].append(one.upload)
            else:
                self.waiting[one.sha256] = [one.upload]
                yield Job(one.sha256, partial(one.path.read_bytes), (self.limits,))

    def _settle(
        self, upload: Upload, sha256: str, error: Exception | None, seconds: float = 0.0
    ) -> None:
        if error is None:
            self._decide(Decision(upload.id, "accepted", image_id=sha256, seconds=seconds))
        else:
            self._decide(decision(upload.id, error, seconds))

    def _decide(self, verdict: Decision) -> None:
        self.decisions.append(verdict)
        self.verdicts[verdict.verdict] += 1
        self.done += 1
        self.tools.progress("inspected", self.done, self.total)
        if len(self.decisions) >= COMMIT_EVERY:
            self.commit()


def image_row(sha256: str, size: int, found: Inspection, now: datetime) -> dict[str, Any]:
    """What the catalog keeps of an image of ``size`` bytes."""
    prints, content = found.fingerprint, found.fingerprint.content
    focal_x, focal_y = found.focal_point
    return {
        "id": sha256,
        "bytes": size,
        "format": found.format,
        "width": found.width,
        "height": found.height,
        "orientation": found.orientation,
        "mode": found.mode,
        "has_alpha": found.has_alpha,
        "animated": found.animated,
        "lossless": found.lossless,
        "flags": list(found.flags),
        "phash64": bands.signed(prints.phash64),
        "phash256": prints.phash256,
        "dhash64": bands.signed(prints.dhash64),
        "texture": prints.texture,
        "dominant_color": found.dominant_color,
        "placeholder": found.placeholder,
        "created_at": now,
        "frames": found.frames,
        "quality": found.quality,
        "has_profile": found.has_profile,
        "pixels": prints.pixels,
        "chroma": prints.chroma,
        "content_width": content.width if content else None,
        "content_height": content.height if content else None,
        "content_phash64": bands.signed(content.phash64) if content else None,
        "focal_x": focal_x,
        "focal_y": focal_y,
        "thumbhash": found.thumbhash,
        **{f"b{n}": value for n, value in enumerate(bands.split(prints.phash64))},
    }


def sketch_row(sha256: str, found: Inspection) -> dict[str, Any]:
    """The small grey pictures of an image, for verification."""
    content = found.fingerprint.content
    return {
        "image_id": sha256,
        "luma": found.fingerprint.sketch,
        "content_luma": content.sketch if content else None,
    }
