"""Publishing to Redis what was published to the bucket, so that readers need not ask it.

It fails nothing: a batch is published when its manifests are in the bucket. Where Redis could
not be told of a new manifest, readers may get the one before it until that runs out
(``redis.keep_minutes.manifest``), or until the next batch of the source or ``cache warm`` is
through: either compares what Redis has with the catalog, for every batch that ended since this
was last done, and drops what is older. So nothing has to be remembered while Redis is away.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache

from image_pipeline.catalog import cached as catalog_cached
from image_pipeline.catalog import showing as catalog_showing
from image_pipeline.catalog.cached import Published
from image_pipeline.catalog.engine import chunks
from image_pipeline.delivery.manifest import SCHEMA_VERSION, to_json
from image_pipeline.delivery.manifest_cache import CHUNK, CacheError, Kind, Look, ManifestCache
from image_pipeline.delivery.reader import Breaker, smallest_thumbnail
from image_pipeline.settings import RedisSettings
from image_pipeline.stages.tools import Tools
from image_pipeline.store.bucket import ObjectGoneError
from image_pipeline.store.layout import image_manifest_key, index_key

THREADS = 12

#: How far the clocks of machines that run batches may be apart.
_CLOCKS_APART = timedelta(minutes=5)

#: Batches whose publications are compared at a time: with 200 images each, 10,000 rows.
_BATCHES = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cached:
    """What became of manifests that were to be published to Redis.

    ``dropped`` counts older manifests of other batches that were found there. ``reason`` says
    why something failed; it is empty if nothing did, or if Redis is not configured.
    """

    published: int = 0
    failed: int = 0
    dropped: int = 0
    reason: str = ""


def publish_to_redis(
    tools: Tools, source: str, documents: Mapping[str, tuple[int, bytes]], index: bytes | None
) -> Cached:
    """Publish manifests of a source: ``documents`` are (version, JSON) by image id.

    To be called when they, ``index`` and the manifest of the batch are in the bucket. A batch
    may be published in parts; only the last of them has an ``index``. Never raises: what went
    wrong is in the result, and in one warning.
    """
    redis = tools.settings.redis
    if redis.url is None:
        return Cached()
    if not _breaker(redis).allows():
        return Cached(0, len(documents), 0, "Redis failed a moment ago")
    cache = open_cache(redis, tools.settings.bucket.name)
    published, dropped = 0, 0
    try:
        rows = ((image, version, data) for image, (version, data) in documents.items())
        for count in cache.publish(source, rows):
            published += count
        _store_thumbnails(tools, cache, source, (data for _, data in documents.values()))
        if index is not None:
            cache.renew_edition(source)
            _store_index(tools, cache, source, index)
            dropped = _drop_older(tools, cache, source)
    except Exception as error:  # noqa: BLE001 - with its manifests in the bucket it is published
        return _failed(redis, source, published, len(documents) - published, error)
    _breaker(redis).succeeded()
    too_large = len(documents) - published
    reason = f"{too_large} manifests are too large for Redis" if too_large else ""
    return Cached(published, too_large, dropped, reason)


def warm_redis(tools: Tools, source: str, *, force: bool = False) -> Cached:
    """Give Redis what it does not have of a source; with ``force`` also what it has.

    Reads manifests from the bucket, as readers would. Raises ``StoreError`` if that fails;
    what is wrong with Redis is in the result.
    """
    if tools.settings.redis.url is None:
        return Cached()
    cache = open_cache(tools.settings.redis, tools.settings.bucket.name)
    published, dropped, after = 0, 0, ""
    try:
        dropped = _drop_older(tools, cache, source)
        if index := _get(tools, index_key(source)):
            _store_index(tools, cache, source, index)
        while page := _published_after(tools, source, after):
            published += _fill(tools, cache, source, page, force)
            after = page[-1].image_id
            tools.progress("cached", published, published)
    except CacheError as error:
        return _failed(tools.settings.redis, source, published, 0, error)
    return Cached(published, 0, dropped)


@lru_cache(maxsize=4)
def open_cache(settings: RedisSettings, bucket: str) -> ManifestCache:
    """The one pool of connections of this process."""
    return ManifestCache(settings, bucket)


@lru_cache(maxsize=4)
def _breaker(settings: RedisSettings) -> Breaker:
    """So that the parts of a publication do not wait for a server that hangs, each on its own."""
    return Breaker()


def _failed(
    settings: RedisSettings, source: str, published: int, failed: int, error: Exception
) -> Cached:
    reason = str(error)
    if isinstance(error, CacheError):
        _breaker(settings).failed()
    else:
        reason = f"{type(error).__name__}: {error}"
    _log.warning(
        "%s: not all is published to Redis (%s). Readers use the bucket for what Redis does not"
        " have; an older manifest that it has runs out, or is dropped by the next batch or"
        " 'image-pipeline cache warm'",
        source,
        reason,
    )
    return Cached(published, failed, 0, reason)


def _drop_older(tools: Tools, cache: ManifestCache, source: str) -> int:
    """Drop what Redis has of older versions than the catalog; how many there were.

    A batch ends after it was published, and what was stored before it ended runs out. So only
    batches count that ended since this was last done, and no longer ago than things are kept.
    """
    began = tools.clock()
    kept = timedelta(minutes=tools.settings.redis.keep_minutes.manifest)
    since = began - kept - _CLOCKS_APART
    done = cache.mended_until(source)
    if done and done <= began:
        since = max(since, done)
    with tools.catalog.read() as connection:
        batches = catalog_cached.batches_since(connection, source, since)
    dropped = 0
    for some in chunks(batches, _BATCHES):
        with tools.catalog.read() as connection:
            versions = catalog_cached.versions_of(connection, some)
        for part in chunks(versions.items(), CHUNK):
            dropped += cache.drop_older(source, dict(part))
    cache.set_mended(source, began - _CLOCKS_APART)
    return dropped


def _store_index(tools: Tools, cache: ManifestCache, source: str, index: bytes) -> None:
    """Store the index, and figures of the source if there are none from the last minutes."""
    ((look, _),) = cache.peek(source, Kind.INDEX, [""])
    # Read after the edition was renewed, as a reader would: two batches publish at once, and
    # only the bucket knows whose index came last.
    current = _get(tools, index_key(source))
    if current is not None:
        cache.fill([(look, current)])
    ((look, there),) = cache.peek(source, Kind.STATISTICS, [""])
    if not there:
        cache.fill([(look, _statistics(tools, source, current or index))])


def _statistics(tools: Tools, source: str, index: bytes) -> bytes:
    with tools.catalog.read() as connection:
        received = catalog_showing.source_totals(connection, source)
    return to_json(
        {
            "schema_version": SCHEMA_VERSION,
            "source": source,
            "generated_at": tools.clock().isoformat(),
            "batches": received.batches,
            "uploads": received.uploads,
            "bytes_in": received.bytes,
            "published": json.loads(index)["totals"],
        }
    )


def _store_thumbnails(
    tools: Tools, cache: ManifestCache, source: str, documents: Iterable[bytes]
) -> None:
    """Store the smallest thumbnail of each manifest, those that are not there yet."""
    if not tools.settings.redis.thumbnails:
        return
    chosen = (smallest_thumbnail(json.loads(document)) for document in documents)
    keys = sorted({variant["key"] for variant in chosen if variant})
    for part in chunks(keys, CHUNK):
        found = cache.peek(source, Kind.THUMBNAIL, part)
        missing = {look.name: look for look, there in found if not there}
        cache.fill(_loaded(tools, missing))


def _published_after(tools: Tools, source: str, after: str) -> list[Published]:
    with tools.catalog.read() as connection:
        return catalog_cached.published_after(connection, source, after, CHUNK)


def _fill(
    tools: Tools, cache: ManifestCache, source: str, page: list[Published], force: bool
) -> int:
    """Store manifests from the bucket, those that are not there; how many."""
    found = cache.peek(source, Kind.MANIFEST, [one.image_id for one in page])
    wanted = {
        image_manifest_key(source, look.name): look for look, there in found if force or not there
    }
    known = {one.image_id: one for one in page}
    loaded = [
        (_versioned(look, known[look.name], data), data) for look, data in _loaded(tools, wanted)
    ]
    count = cache.fill(loaded)
    _store_thumbnails(tools, cache, source, (data for _, data in loaded))
    return count


def _versioned(look: Look, published: Published, data: bytes) -> Look:
    """The look with the version of what was read, if that is the one the catalog knows.

    Between the catalog and the bucket somebody else may be publishing.
    """
    if hashlib.sha256(data).hexdigest() != published.digest:
        return look
    return replace(look, version=str(published.version))


def _loaded(tools: Tools, looks: Mapping[str, Look]) -> list[tuple[Look, bytes]]:
    """The objects of these keys, without those that are gone."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="cache") as threads:
        loaded = threads.map(lambda key: _get(tools, key), looks)
        pairs = zip(looks.values(), loaded, strict=True)
        return [(look, data) for look, data in pairs if data is not None]


def _get(tools: Tools, key: str) -> bytes | None:
    try:
        return tools.bucket.get(key)
    except ObjectGoneError:
        return None
