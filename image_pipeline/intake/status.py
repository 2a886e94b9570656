"""What became of uploads, as the service tells it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from image_pipeline.catalog import intake as catalog_intake
from image_pipeline.catalog.engine import Catalog
from image_pipeline.catalog.intake import BatchState, UploadState
from image_pipeline.delivery.reader import Manifests
from image_pipeline.delivery.signing import Sign, signer
from image_pipeline.delivery.urls import url_builder
from image_pipeline.intake.capability import Capability
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import batch_manifest_key, image_manifest_key

#: States after which nothing happens any more.
FINAL = frozenset({"published", "rejected"})

#: S3 looks at a permission when a request begins: what began in time may end that much later.
GRACE_SECONDS = 600

#: Uploads that are remembered to have arrived, while the pipeline has not discovered them: those of
#: some minutes. Whoever asks every second does not ask the bucket each time.
MOST_ARRIVED = 10_000

#: What a page needs of a manifest to show the picture.
_PICTURE = (
    "src", "srcset", "sizes", "width", "height", "dominant_color", "placeholder", "thumbhash",
    "html",
)  # fmt: skip


class StatusReader:
    """Reads what became of uploads from catalog and bucket. Blocks; safe to share by threads."""

    def __init__(
        self, settings: Settings, bucket: Bucket, catalog: Catalog, clock: Callable[[], datetime]
    ) -> None:
        self.settings = settings
        self.bucket = bucket
        self.catalog = catalog
        self.clock = clock
        self._signers: dict[str, Sign | None] = {}
        self._arrived: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def manifests(self) -> Manifests:
        """Where published pictures are read: Redis where there is one, else the bucket."""
        return Manifests(self.settings, self.bucket, signed=True)

    def close(self) -> None:
        """Close the connections to Redis."""
        if "manifests" in self.__dict__:
            self.manifests.close()

    def uploads(
        self, wanted: Mapping[str, Capability], *, look: Iterable[str] = ()
    ) -> dict[str, dict[str, Any]]:
        """The state of uploads by their ids: one query for each source.

        Of ``look`` it is also asked whether the bucket has what the catalog does not know yet.
        """
        known = self._known(wanted.values())
        looked_at = frozenset(look)
        found = {}
        for upload, one in wanted.items():
            row = known.get((one.source, self._key(one)))
            if row is not None:
                found[upload] = self._discovered(upload, one.source, row)
            else:
                found[upload] = self._missing(upload, one, upload in looked_at)
        return found

    def batch(self, batch: str) -> BatchState | None:
        """A batch as the catalog has it; None where there is none."""
        with self.catalog.read() as connection:
            return catalog_intake.batch_state(connection, batch)

    def batch_answer(self, batch: BatchState) -> dict[str, Any]:
        """What is told of a batch."""
        taken = batch.verdicts.get("accepted", 0) + batch.verdicts.get("duplicate", 0)
        state = _progress(batch.state)
        if batch.state == "done":
            state = "published" if taken else "rejected"
        key = batch_manifest_key(batch.id)
        return {
            "id": batch.id,
            "source": batch.source,
            "state": state,
            "created_at": _text(batch.created_at),
            "finished_at": batch.finished_at and _text(batch.finished_at),
            "uploads": batch.uploads,
            "bytes": batch.bytes,
            "verdicts": batch.verdicts,
            "reasons": batch.reasons,
            "manifest": self._url(batch.source, key) if batch.state == "done" else None,
        }

    def queue(self, sources: list[str]) -> dict[str, Any]:
        """How much of these sources waits, since when, and how much comes out."""
        now = self.clock()
        with self.catalog.read() as connection:
            queue = catalog_intake.queue(connection, sources, now)
        oldest = (now - queue.oldest_at).total_seconds() if queue.oldest_at else None
        minutes = catalog_intake.WINDOW.total_seconds() / 60
        return {
            "sources": sources,
            "queue_depth": queue.waiting + queue.in_batches,
            "waiting": queue.waiting,
            "processing": queue.in_batches,
            "oldest_waiting_seconds": None if oldest is None else max(0.0, round(oldest, 1)),
            "throughput_per_minute": round(queue.finished / minutes, 2),
        }

    def _known(self, wanted: Iterable[Capability]) -> dict[tuple[str, str], UploadState]:
        keys: dict[str, list[str]] = {}
        for one in wanted:
            keys.setdefault(one.source, []).append(self._key(one))
        found = {}
        with self.catalog.read() as connection:
            for source, some in keys.items():
                rows = catalog_intake.states(connection, source, some)
                found.update({(source, key): row for key, row in rows.items()})
        return found

    def _key(self, one: Capability) -> str:
        return one.key(self.settings.sources[one.source].prefix)

    def _missing(self, upload: str, one: Capability, look: bool) -> dict[str, Any]:
        """Nothing was discovered under the key."""
        late = self.clock().timestamp() > one.expires_at + GRACE_SECONDS
        if (look or late) and self._has_arrived(self._key(one)):
            return _answer(upload, "waiting", received=True)
        if late:
            message = "nothing was sent while the permission worked: ask for another one"
            return _answer(upload, "rejected", received=False, reason="expired", message=message)
        return _answer(upload, "waiting", received=False)

    def _has_arrived(self, key: str) -> bool:
        if key in self._arrived:
            return True
        if self.bucket.head(key) is None:
            return False
        with self._lock:
            self._arrived[key] = None
            if len(self._arrived) > MOST_ARRIVED:
                self._arrived.popitem(last=False)
        return True

    def _discovered(self, upload: str, source: str, row: UploadState) -> dict[str, Any]:
        told: dict[str, Any] = {"batch": row.batch_id}
        if row.verdict in ("accepted", "duplicate"):
            picture = self._picture(source, row)
            if picture is not None:
                assert row.image_id is not None
                key = image_manifest_key(source, row.image_id)
                told |= {"manifest": self._url(source, key), "picture": picture}
                return _answer(upload, "published", **told)
            if row.batch_state == "done":
                message = "the picture was published, and is not any more"
                return _answer(upload, "rejected", reason="withdrawn", message=message, **told)
        elif row.verdict == "rejected":
            return _answer(upload, "rejected", reason=row.reason, message=row.message, **told)
        if row.batch_state == "given_up":
            message = row.message or "the pipeline could not finish it: its operator has to look"
            return _answer(upload, "rejected", reason=row.reason or "failed", message=message,
                           **told)  # fmt: skip
        return _answer(upload, _progress(row.batch_state), **told)

    def _picture(self, source: str, row: UploadState) -> dict[str, Any] | None:
        """What a page shows; None until the manifest, which is announced before, is there."""
        is_due = row.announced or row.batch_state == "done"
        if not is_due or row.image_id is None:
            return None
        try:
            manifest = self.manifests.image(source, row.image_id)
        except LookupError:
            return None
        return {name: manifest[name] for name in _PICTURE}

    def _url(self, source: str, key: str) -> str:
        if source not in self._signers:
            self._signers[source] = signer(self.settings, source, self.bucket)
        sign = self._signers[source]
        base = self.settings.base_url_of(source)
        return sign(key) if sign else url_builder(base, self.bucket.url)(key)


def _progress(batch_state: str | None) -> str:
    """``waiting`` until a run was asked for, then ``processing`` whatever it takes."""
    if batch_state in (None, "waiting"):
        return "waiting"
    return "rejected" if batch_state == "given_up" else "processing"


def _answer(upload: str, state: str, *, received: bool = True, **told: Any) -> dict[str, Any]:
    nothing = {"batch": None, "manifest": None, "picture": None, "reason": None, "message": None}
    return {"id": upload, "state": state, "received": received, **nothing, **told}


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
