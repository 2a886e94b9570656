"""Manifests in Redis or Valkey, for readers that want them faster than a bucket gives them.

Keys of a source begin with ``image-pipeline:{<bucket>/<source>}``; the braces keep them in one
slot of a cluster. Behind it come

``:generation``
    part of every other key; a new one, and nothing that was stored before is found any more.
``:edition``
    counts publications; what is written anew with each (index, batches) is stored under it.
``:<generation>:manifest:<image>``
    the pointer: the version of the manifest that readers get, set after the body is there and
    only to a newer version.
``:<generation>:manifest:<image>:<version>``
    the body.
``:<generation>:<kind>:<name>``, with ``:<edition>`` behind it for index and batches
    a body that needs no pointer.
``:counters``, ``:mended``
    hits and misses by kind; until when the catalog was compared with what is here.

A body is one byte for its encoding (``r`` as it is, ``z`` zlib), the CRC-32 of what follows in
four bytes, big endian, and the document. Generation and edition start from the server's clock in
microseconds: what a server has lost, or was told to forget, never comes again under their names.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from image_pipeline.settings import EMBEDDED, RedisSettings

#: Larger documents are left to the bucket: a server that sends one keeps all others waiting.
MAX_BYTES = 8 * 1024 * 1024

#: Documents of a pipeline. Their pointers are compared and set by one script, which keeps the
#: server busy for about a millisecond.
CHUNK = 500

#: A pointer outlives its body by as much again, so that whoever was held up between writing to
#: the catalog and publishing still finds that somebody was faster.
_POINTER_LIVES = 2

#: Level of zlib: of 11.6 kB of manifest it leaves 1,973 bytes in 46 us. Level 1 takes as long and
#: leaves 3 % more, level 6 takes half as long again and leaves 5 % less (docs/redis.md).
_LEVEL = 3

_NUMBER = """
local function text(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value or false
end
local function number(key, renew)
  local value = text(key)
  if value and #value <= 18 and string.match(value, '^%d+$') then
    if renew then value = string.format('%.0f', redis.call('INCR', key)) end
    return value
  end
  local now = redis.call('TIME')
  value = now[1] .. string.format('%06d', now[2])
  local stored = redis.pcall('SET', key, value)
  if renew and stored.err then return redis.error_reply(stored.err) end
  return value
end
"""

#: KEYS generation, edition, counters; ARGV prefix, kind, name, what versions the body, and
#: whether to "count" and return the body or only to "peek". The keys of bodies are in the same
#: slot, by their braces. What cannot be written (no memory, a replica) is no reason not to read.
#: Versions beyond 15 digits are none of ours: they are no longer exact in Lua.
_LOOK = (
    _NUMBER
    + """
local generation, version = number(KEYS[1]), ''
local body = ARGV[1] .. ':' .. generation .. ':' .. ARGV[2] .. ':' .. ARGV[3]
if ARGV[4] == 'edition' then
  version = number(KEYS[2])
  body = body .. ':' .. version
elseif ARGV[4] == 'pointer' then
  version = text(body)
  if not version or #version > 15 or not string.match(version, '^%d+$') then version = '0' end
  body = body .. ':' .. version
end
if ARGV[5] == 'peek' then
  return {generation, version, redis.call('EXISTS', body) == 1 and ''}
end
local value = text(body)
redis.pcall('HINCRBY', KEYS[3], (value and 'hits:' or 'misses:') .. ARGV[2], 1)
return {generation, version, value}
"""
)

#: KEYS generation or edition; returns the new value.
_RENEW = _NUMBER + "return number(KEYS[1], true)"

#: KEYS pointers; ARGV milliseconds, then a version for each pointer. Returns how many were set.
_FLIP = """
local flipped = 0
for place, pointer in ipairs(KEYS) do
  local version, old = ARGV[place + 1], redis.pcall('GET', pointer)
  if type(old) ~= 'string' or #old > 15 or not string.match(old, '^%d+$') then old = false end
  if old and tonumber(old) > tonumber(version) then
    redis.call('UNLINK', pointer .. ':' .. version)
  else
    redis.call('SET', pointer, version, 'PX', ARGV[1])
    if old and old ~= version then redis.call('UNLINK', pointer .. ':' .. old) end
    flipped = flipped + 1
  end
end
return flipped
"""

#: KEYS pointers; ARGV a version for each. Removes those of older versions; returns how many.
_DROP = """
local dropped = 0
for place, pointer in ipairs(KEYS) do
  local old = redis.pcall('GET', pointer)
  if type(old) == 'string' and (tonumber(old) or 0) < tonumber(ARGV[place]) then
    redis.call('UNLINK', pointer, pointer .. ':' .. old)
    dropped = dropped + 1
  end
end
return dropped
"""


class CacheError(Exception):
    """The server failed, refused, is too slow or is not there. Never carries a password."""


class Kind(StrEnum):
    """What is kept. Pages of an index and thumbnails never change under their names."""

    MANIFEST = "manifest"
    INDEX = "index"
    PAGE = "page"
    BATCH = "batch"
    THUMBNAIL = "thumbnail"
    STATISTICS = "statistics"


#: What part of a body's key changes with its contents; nothing where the name does, or time.
_VERSIONED_BY = {Kind.MANIFEST: "pointer", Kind.INDEX: "edition", Kind.BATCH: "edition"}


@dataclass(frozen=True, slots=True)
class Look:
    """What was found under a name: ``value`` is None if it is not there, or is not readable.

    ``generation`` and ``version`` are those of the moment. What is read from the bucket
    afterwards is at least as new as they are.
    """

    source: str
    kind: Kind
    name: str
    generation: str
    version: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Counted:
    """Hits and misses of one kind since the server first counted."""

    kind: str
    hits: int
    misses: int


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself. ``most_bytes`` is 0 where it has no limit."""

    version: str
    keys: int
    bytes: int
    most_bytes: int
    evicted: int
    seconds_up: int


class ManifestCache:
    """A pool of connections to the server of ``settings``; safe to share between threads.

    ``bucket`` is the name of the bucket whose manifests these are. Nothing is connected before
    it is needed. Every method raises :class:`CacheError` where the server does not do its part.
    """

    def __init__(self, settings: RedisSettings, bucket: str) -> None:
        self.settings = settings
        self.bucket = bucket

    @cached_property
    def client(self) -> Any:
        """The client of redis-py. Its errors are not translated: for tests and benchmarks."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        wait = self.settings.timeout_seconds
        url = address(self.settings)
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=self.settings.connections,
                timeout=wait,
                socket_timeout=wait,
                socket_connect_timeout=wait,
                # The bucket is there at once, redis-py's second attempts come after seconds.
                # A connection that a restart has cut is noticed before it is used.
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except ValueError:
            raise CacheError(
                "redis.url: must be like redis://host:6379/0, rediss:// or unix://"
            ) from None
        # Documents are bytes, whatever the options of the URL say.
        pool.connection_kwargs["decode_responses"] = False
        return redis.Redis(connection_pool=pool)

    def close(self) -> None:
        """Close the connections."""
        if "client" in self.__dict__:
            self.client.close()
            self.client.connection_pool.disconnect()

    def look(self, source: str, kind: Kind, name: str) -> Look:
        """What is stored under a name now; counted as a hit or a miss."""
        keys, arguments = self._question(source, kind, name, "count")
        with _translated():
            generation, version, stored = self._look(keys, arguments)
        value = None if stored is None else _decoded(stored)
        return Look(source, kind, name, generation.decode(), version.decode(), value)

    def peek(self, source: str, kind: Kind, names: Sequence[str]) -> list[tuple[Look, bool]]:
        """For each name a look without its value, and whether there is one; nothing is counted.

        Meant for up to :data:`CHUNK` names: they travel together.
        """
        with _translated(), self.client.pipeline(transaction=False) as pipeline:
            for name in names:
                keys, arguments = self._question(source, kind, name, "peek")
                self._look(keys, arguments, client=pipeline)
            answers = pipeline.execute()
        return [
            (Look(source, kind, name, generation.decode(), version.decode(), None), there == b"")
            for name, (generation, version, there) in zip(names, answers, strict=True)
        ]

    def fill(self, found: Iterable[tuple[Look, bytes]]) -> int:
        """Store what was read from the bucket after looks that found nothing; how many.

        It is stored for those who would have found it then: of a generation or an edition that
        is no more it is out of reach, and a manifest published meanwhile stays. Bodies are sent
        first, pointers set when all of them have arrived. What is larger than
        :data:`MAX_BYTES` is left out.
        """
        fitting = [(look, data) for look, data in found if len(data) <= MAX_BYTES]
        with _translated():
            with self.client.pipeline(transaction=False) as pipeline:
                for look, data in fitting:
                    body = f"{self._key(look)}:{look.version}".removesuffix(":")
                    kept = self._milliseconds(look.kind)
                    pipeline.set(body, self._encoded(data), px=kept)
                pipeline.execute()
            pointed = [look for look, _ in fitting if look.kind is Kind.MANIFEST]
            if pointed:
                kept = self._milliseconds(Kind.MANIFEST) * _POINTER_LIVES
                keys = [self._key(look) for look in pointed]
                self._flip(keys, [kept, *(look.version for look in pointed)])
        return len(fitting)

    def publish(self, source: str, documents: Iterable[tuple[str, int, bytes]]) -> Iterator[int]:
        """Publish manifests: (image, version, JSON). Yields, per part, how many are in place.

        Those of which a newer version is there count as well.
        """
        generation = self._generation(source)
        rest = iter(documents)
        while part := list(islice(rest, CHUNK)):
            yield self.fill(
                (Look(source, Kind.MANIFEST, image, generation, str(version), None), data)
                for image, version, data in part
            )

    def drop_older(self, source: str, versions: Mapping[str, int]) -> int:
        """Forget manifests that are older than these versions, by image; how many there were."""
        folder = f"{self._prefix(source)}:{self._generation(source)}:{Kind.MANIFEST.value}"
        keys = [f"{folder}:{image}" for image in versions]
        with _translated():
            return int(self._drop(keys, list(versions.values())))

    def renew_edition(self, source: str) -> None:
        """Index and batches of a source have changed: what is stored of them is out of date."""
        with _translated():
            self._renew([f"{self._prefix(source)}:edition"])

    def invalidate(self, source: str) -> None:
        """Nothing of a source that is stored is found from now on. It runs out by itself."""
        with _translated():
            self._renew([f"{self._prefix(source)}:generation"])

    def mended_until(self, source: str) -> datetime | None:
        """Until when the catalog was compared with what is here; None if nobody knows."""
        with _translated():
            # Unlike GET, this finds nothing where something else is stored.
            (found,) = self.client.mget([f"{self._prefix(source)}:mended"])
        try:
            until = datetime.fromisoformat(found.decode("ascii")) if found else None
        except ValueError:
            return None
        return until if until and until.tzinfo else None

    def set_mended(self, source: str, until: datetime) -> None:
        """Remember that the catalog was compared with what is here."""
        with _translated():
            self.client.set(f"{self._prefix(source)}:mended", until.isoformat())

    def counted(self, source: str) -> list[Counted]:
        """Hits and misses by kind, those that were ever asked for."""
        with _translated():
            found = self.client.hgetall(f"{self._prefix(source)}:counters")
        numbers = {name: int(value) for name, value in found.items() if value.isdigit()}
        counted = [
            Counted(
                kind.value,
                numbers.get(f"hits:{kind.value}".encode(), 0),
                numbers.get(f"misses:{kind.value}".encode(), 0),
            )
            for kind in Kind
        ]
        return [one for one in counted if one.hits or one.misses]

    def server(self) -> Server:
        """Ask the server how it is."""
        with _translated():
            said = self.client.info()
            keys = self.client.dbsize()
        return Server(
            version=str(said.get("valkey_version") or said.get("redis_version", "")),
            keys=keys,
            bytes=said.get("used_memory", 0),
            most_bytes=said.get("maxmemory", 0),
            evicted=said.get("evicted_keys", 0),
            seconds_up=said.get("uptime_in_seconds", 0),
        )

    def _question(
        self, source: str, kind: Kind, name: str, how: str
    ) -> tuple[list[str], list[str]]:
        prefix = self._prefix(source)
        keys = [f"{prefix}:generation", f"{prefix}:edition", f"{prefix}:counters"]
        return keys, [prefix, kind.value, name, _VERSIONED_BY.get(kind, ""), how]

    def _generation(self, source: str) -> str:
        ((look, _),) = self.peek(source, Kind.STATISTICS, [""])
        return look.generation

    def _key(self, look: Look) -> str:
        return f"{self._prefix(look.source)}:{look.generation}:{look.kind.value}:{look.name}"

    def _prefix(self, source: str) -> str:
        return f"image-pipeline:{{{self.bucket}/{source}}}"

    def _milliseconds(self, kind: Kind) -> int:
        keep = self.settings.keep_minutes
        minutes = {
            Kind.MANIFEST: keep.manifest,
            Kind.INDEX: keep.index,
            Kind.PAGE: keep.index,
            Kind.BATCH: keep.manifest,
            Kind.THUMBNAIL: keep.thumbnail,
            Kind.STATISTICS: keep.statistics,
        }
        return max(1, round(minutes[kind] * 60_000))

    def _encoded(self, data: bytes) -> bytes:
        mark, stored = b"r", data
        if len(data) >= self.settings.compress_from_bytes:
            smaller = zlib.compress(data, _LEVEL)
            if len(smaller) < len(data):
                mark, stored = b"z", smaller
        return mark + zlib.crc32(stored).to_bytes(4, "big") + stored

    @cached_property
    def _look(self) -> Any:
        return self.client.register_script(_LOOK)

    @cached_property
    def _flip(self) -> Any:
        return self.client.register_script(_FLIP)

    @cached_property
    def _drop(self) -> Any:
        return self.client.register_script(_DROP)

    @cached_property
    def _renew(self) -> Any:
        return self.client.register_script(_RENEW)


def address(settings: RedisSettings) -> str:
    """The URL of the server; that of the embedded one is looked up.

    Raises :class:`CacheError` where none is configured or the embedded one was never started.
    """
    if settings.url is None:
        raise CacheError("no redis.url is set")
    if settings.url != EMBEDDED:
        return settings.url
    try:
        port = int((settings.data / "port").read_text(encoding="ascii"))
        password = (settings.data / "password").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        raise CacheError(
            "the embedded Valkey server has never been started here: run 'make dev' or 'make demo'"
        ) from None
    return f"redis://:{password}@127.0.0.1:{port}/0"


def shown_address(settings: RedisSettings) -> str:
    """Where the server is, for people: without a password."""
    try:
        parts = urlsplit(address(settings))
    except (CacheError, ValueError):
        return str(settings.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def _translated() -> Iterator[None]:
    """Make every failure of redis-py a :class:`CacheError`."""
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise CacheError(f"{type(error).__name__}: {error}") from error


def _decoded(stored: bytes) -> bytes | None:
    """The document of a body; None if this is not one, is damaged, or would be too large."""
    mark, check, rest = stored[:1], stored[1:5], stored[5:]
    if mark not in (b"r", b"z") or check != zlib.crc32(rest).to_bytes(4, "big"):
        return None
    if mark == b"r":
        return rest
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(rest, MAX_BYTES)
    except zlib.error:
        return None
    return data if inflate.eof else None
