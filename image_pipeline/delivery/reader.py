"""What a web application reads manifests with: Redis first, the bucket where it has to.

::

    manifests = Manifests(load_settings())
    manifest = manifests.image("photos", image_id)     # a dict, or LookupError
    page.write(manifest["html"])

One object serves all threads of a process.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from image_pipeline.delivery.manifest_cache import CacheError, Kind, Look, ManifestCache
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket, ObjectGoneError, StoreError
from image_pipeline.store.layout import batch_manifest_key, image_manifest_key, index_key

if TYPE_CHECKING:
    from image_pipeline.delivery.signing import Sign

#: After a failure Redis is left alone for so many seconds, so that one request in that time pays
#: for its timeout, and a server that is back is soon used again.
PAUSE_SECONDS = 5.0

#: Names come from visitors. None of ours has other characters, and none of these leads out of a
#: folder of the bucket.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")

#: Of thumbnails equally large, first the one that every browser reads.
_THUMBNAIL_FORMATS = ("webp", "jpeg", "avif")

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Breaker:
    """Leaves a server alone after it has failed; safe to share between threads.

    While it is open, one caller in each :data:`PAUSE_SECONDS` may try. All others do without.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the last attempt failed."""
        return self._until is not None

    def allows(self) -> bool:
        """Whether to try now."""
        if self._until is None:
            return True
        with self._lock:
            now = self._clock()
            if self._until is not None and now < self._until:
                return False
            self._until = now + PAUSE_SECONDS
            return True

    def failed(self) -> bool:
        """An attempt failed; True if it is the first after one that succeeded."""
        with self._lock:
            first = self._until is None
            self._until = self._clock() + PAUSE_SECONDS
            return first

    def succeeded(self) -> bool:
        """An attempt succeeded; True if it is the first after one that failed."""
        with self._lock:
            first = self._until is not None
            self._until = None
            return first


class Manifests:
    """Manifests of the sources of ``settings``; one object serves all threads of a process.

    What Redis does not have is read from the bucket and stored in Redis for the next one. With
    Redis away, or none configured, everything comes from the bucket. With ``signed`` the URLs
    of private sources are signed (:mod:`image_pipeline.delivery.signing`).

    Every method raises ``LookupError`` for what is not published, and ``StoreError`` if neither
    has an answer. Neither is ever stored. Dictionaries are the caller's own.
    """

    def __init__(
        self,
        settings: Settings,
        bucket: Bucket | None = None,
        *,
        signed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.cache = (
            ManifestCache(settings.redis, settings.bucket.name) if settings.redis.url else None
        )
        self.breaker = Breaker(clock)
        self._bucket = bucket
        self._signed = signed
        self._signers: dict[str, Sign | None] = {}

    @cached_property
    def bucket(self) -> Bucket:
        """The bucket of the settings, opened when it is first needed."""
        return self._bucket or Bucket(self.settings.bucket)

    def close(self) -> None:
        """Close the connections to Redis."""
        if self.cache:
            self.cache.close()

    def image(self, source: str, image_id: str) -> dict[str, Any]:
        """The manifest of an image, or of a duplicate by its own id."""
        manifest = self._manifest(source, image_id)
        if not self._signed or self.settings.sources[source].access == "public":
            return manifest
        from image_pipeline.delivery.signing import sign_manifest

        return sign_manifest(manifest, self._signer(source))

    def thumbnail(self, source: str, image_id: str) -> tuple[bytes, str]:
        """The bytes of an image's smallest thumbnail, and their media type."""
        chosen = smallest_thumbnail(self._manifest(source, image_id))
        if chosen is None:
            raise LookupError(f"there is no thumbnail of {image_id!r} in {source!r}")
        key = chosen["key"]
        where = (Kind.THUMBNAIL, key) if self.settings.redis.thumbnails else None
        return self._read(source, where, key, bytes), f"image/{chosen['format']}"

    def batch(self, source: str, batch: str) -> dict[str, Any]:
        """What a batch of the source brought, upload by upload."""
        self._check(source, batch)
        document = self._read(source, (Kind.BATCH, batch), batch_manifest_key(batch), _document)
        if document.get("source") != source:
            raise LookupError(f"the source {source!r} has no batch {batch!r}")
        return document

    def index(self, source: str) -> dict[str, Any]:
        """The pointer to the pages that list every image of a source."""
        self._check(source)
        return self._read(source, (Kind.INDEX, ""), index_key(source), _document)

    def page(self, source: str, number: int) -> dict[str, Any]:
        """A page of the index, by its number from 0 on."""
        keys = {page["page"]: page["key"] for page in self.index(source)["pages"]}
        if number not in keys:
            raise LookupError(f"the index of {source!r} has no page {number}")
        key = keys[number]
        return self._read(source, (Kind.PAGE, key), key, _document)

    def statistics(self, source: str) -> dict[str, Any] | None:
        """Figures of a source, a few minutes old; None if nobody published any lately."""
        self._check(source)
        look = self._look(source, Kind.STATISTICS, "")
        try:
            return _document(look.value) if look and look.value is not None else None
        except ValueError:
            return None

    def _manifest(self, source: str, image: str) -> dict[str, Any]:
        self._check(source, image)

        def load(data: bytes) -> dict[str, Any]:
            document = _document(data)
            if document.get("id") != image:
                raise ValueError("is the manifest of another image")
            return document

        return self._read(source, (Kind.MANIFEST, image), image_manifest_key(source, image), load)

    def _read(
        self, source: str, where: tuple[Kind, str] | None, key: str, load: Callable[[bytes], T]
    ) -> T:
        """What Redis has at ``where``, else the object ``key``, which is then stored there.

        ``load`` raises ``ValueError`` for what it cannot use: in Redis, that is as if there
        were nothing.
        """
        look = self._look(source, *where) if where else None
        if look and look.value is not None:
            try:
                return load(look.value)
            except ValueError:
                _log.warning("what Redis has of %s cannot be read; it is replaced", key)
        try:
            data = self.bucket.get(key)
            loaded = load(data)
        except ObjectGoneError:
            raise LookupError(f"nothing is published as {key}") from None
        except ValueError as error:
            raise StoreError(f"{key}: {error}") from None
        if look:
            self._fill(look, data)
        return loaded

    def _look(self, source: str, kind: Kind, name: str) -> Look | None:
        if self.cache is None or not self.breaker.allows():
            return None
        try:
            look = self.cache.look(source, kind, name)
        except CacheError as error:
            self._lost(error)
            return None
        if self.breaker.succeeded():
            _log.warning("Redis is back")
        return look

    def _fill(self, look: Look, data: bytes) -> None:
        assert self.cache is not None
        try:
            self.cache.fill([(look, data)])
        except CacheError as error:
            self._lost(error)

    def _lost(self, error: CacheError) -> None:
        if self.breaker.failed():
            _log.warning("without Redis, manifests come from the bucket: %s", error)

    def _check(self, source: str, *names: str) -> None:
        if source not in self.settings.sources:
            raise LookupError(f"there is no source {source!r}")
        for name in names:
            if not _NAME.fullmatch(name):
                raise LookupError(f"nothing is ever published as {name!r}")

    def _signer(self, source: str) -> Sign:
        from image_pipeline.delivery.signing import signer

        if source not in self._signers:
            self._signers[source] = signer(self.settings, source, self.bucket)
        sign = self._signers[source]
        assert sign is not None, "of a private source"
        return sign


def smallest_thumbnail(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The variant of a manifest that is its smallest thumbnail; None if it has none."""
    variants: Sequence[dict[str, Any]] = manifest["variants"]
    return min(
        (one for one in variants if one["role"] == "thumbnail"),
        key=lambda one: (one["width"] * one["height"], _THUMBNAIL_FORMATS.index(one["format"])),
        default=None,
    )


def _document(data: bytes) -> dict[str, Any]:
    """A JSON object; ``ValueError`` for anything else."""
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("is no JSON object")
    return document
