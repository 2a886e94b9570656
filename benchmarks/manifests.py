"""Manifests in Redis, beside the same manifests in the bucket, and how they get there."""

from __future__ import annotations

import base64
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.report import Report, Row, describe_machine
from image_pipeline.catalog.engine import chunks
from image_pipeline.delivery.manifest import PublishedImage, Variant, image_manifest, to_json
from image_pipeline.delivery.manifest_cache import CHUNK, ManifestCache
from image_pipeline.delivery.reader import Manifests
from image_pipeline.delivery.urls import url_builder
from image_pipeline.embedded import EmbeddedS3
from image_pipeline.embedded_valkey import EmbeddedValkey
from image_pipeline.settings import BucketSettings, RedisSettings, Settings
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import SHORT_LIVED, image_manifest_key

SOURCE = "photos"

PUBLISHED = 10_000
READ = 1_000
ROUNDS = 5
THREADS = 8

#: The five sizes of the default recipe, of a picture of 3:2.
_SIZES = (
    ("thumbnail", "thumbnail", 400, 400), ("responsive", "small", 640, 427),
    ("responsive", "medium", 1024, 683), ("responsive", "large", 1620, 1080),
    ("responsive", "xlarge", 2160, 1440),
)  # fmt: skip

_FORMATS = ("avif", "webp", "jpeg")

#: No request of a benchmark is given up because the machine is busy.
_PATIENCE = 30.0


def measure(images: int, photos: Path | None, quick: bool) -> Report:
    """Publish manifests in parts and one by one; read them from Redis and from the bucket."""
    machine = describe_machine()
    published, read, rounds = (1_000, 100, 2) if quick else (PUBLISHED, READ, ROUNDS)
    documents = {_hash(number): _document(number) for number in range(published)}
    with (
        tempfile.TemporaryDirectory() as name,
        EmbeddedS3(Path(name, "s3")),
        EmbeddedValkey(Path(name, "valkey")) as valkey,
    ):
        bucket = BucketSettings(endpoint_url="embedded", data=Path(name, "s3"))
        redis = RedisSettings(url=valkey.url, timeout_seconds=_PATIENCE)
        publisher = _Publisher(redis, documents)
        rows = _writing(publisher, rounds)
        size = publisher.bytes_each()
        publisher.cache.close()
        rows += _reading(bucket, redis, dict(list(documents.items())[:read]), rounds)
    raw = sum(map(len, documents.values())) / len(documents)
    notes = (
        f"{published:,} manifests of {raw:,.0f} bytes, the default recipe of one picture;"
        f" {size:,.0f} bytes of memory for each in Redis, everything included",
        "beside pipelined publication: the same published one by one; beside that: redis-py alone,"
        " a pipeline of SETs of the same bytes uncompressed and without versions",
        "beside reading from Redis: reading the same from the embedded bucket on this machine. A"
        " bucket of AWS is a network away, as a Redis of one's own is",
    )
    return Report("manifests", "Manifests in Redis", tuple(rows), notes, machine)


def _hash(number: object) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _document(number: int) -> bytes:
    """A manifest whose fingerprints, sizes and placeholder are as random as real ones."""
    image = _hash(number)
    placeholder = base64.b64encode(hashlib.shake_256(image.encode()).digest(90)).decode()
    variants = [
        Variant(
            role, size, kind, width, height,
            int(_hash((number, size, kind))[:5], 16), _hash((image, size, kind)),
            f"variants/{image}/{size}-{width}x{height}.{_hash((number, 1))[:16]}.{kind}",
        )
        for role, size, width, height in _SIZES
        for kind in _FORMATS
    ]  # fmt: skip
    published = PublishedImage(
        id=image, source=SOURCE, width=6000, height=4000, has_alpha=False, animated=False,
        dominant_color=f"#{image[:6]}", placeholder=f"data:image/webp;base64,{placeholder}",
        variants=tuple(variants), uploads=(f"uploads/photos/IMG_{number:05}.jpg",), aliases=(),
        thumbhash=placeholder[:28],
    )  # fmt: skip
    return to_json(image_manifest(published, url_builder("https://cdn.example.com", "")))


class _Publisher:
    """Ways to publish the same manifests."""

    def __init__(self, redis: RedisSettings, documents: dict[str, bytes]) -> None:
        self.cache = ManifestCache(redis, "images")
        self.rows = [(image, 1, data) for image, data in documents.items()]

    def pipelined(self) -> None:
        for _ in self.cache.publish(SOURCE, self.rows):
            pass

    def one_by_one(self) -> None:
        for row in self.rows:
            for _ in self.cache.publish(SOURCE, [row]):
                pass

    def plain(self) -> None:
        for part in chunks(self.rows, CHUNK):
            with self.cache.client.pipeline(transaction=False) as pipeline:
                for image, _, data in part:
                    pipeline.set(f"plain:{image}", data, ex=3600)
                pipeline.execute()

    def bytes_each(self) -> float:
        """Memory of the server for one manifest."""
        self.cache.client.flushall()
        before = self.cache.server().bytes
        self.pipelined()
        return (self.cache.server().bytes - before) / len(self.rows)


def _writing(publisher: _Publisher, rounds: int) -> list[Row]:
    ways = (publisher.pipelined, publisher.one_by_one, publisher.plain)
    seconds: list[list[float]] = [[], [], []]
    for number in range(rounds):
        print(f"manifests: publishing, round {number + 1} of {rounds}", file=sys.stderr)
        for way, taken in zip(ways, seconds, strict=True):
            publisher.cache.client.flushall()
            taken.append(_timed(way))
    ours, each, floor = map(median, seconds)
    count = f"{len(publisher.rows):,} manifests"
    return [
        Row(f"publish {count}, pipelined beside one by one", ours, "s", each),
        Row(f"publish {count}, pipelined beside plain SETs", ours, "s", floor),
    ]


def _reading(
    bucket: BucketSettings, redis: RedisSettings, documents: dict[str, bytes], rounds: int
) -> list[Row]:
    store = Bucket(bucket)
    store.create_if_missing()
    for image, data in documents.items():
        store.put(image_manifest_key(SOURCE, image), data, "application/json", SHORT_LIVED)
    readers = [
        Manifests(Settings(bucket=bucket, redis=redis), store),
        Manifests(Settings(bucket=bucket), store),
    ]
    alone: list[list[float]] = [[], []]
    crowd: list[list[float]] = [[], []]
    images = [*documents]
    _one_after_the_other(readers[0], images)  # fills Redis
    for number in range(rounds):
        print(f"manifests: reading, round {number + 1} of {rounds}", file=sys.stderr)
        for place, reader in enumerate(readers):
            alone[place].append(_one_after_the_other(reader, images) * 1000)
            crowd[place].append(_at_once(reader, images))
    for reader in readers:
        reader.close()
    store.client.close()
    return [
        Row("read a manifest, median", median(alone[0]), "ms", median(alone[1])),
        Row(f"read by {THREADS} threads", median(crowd[0]), "per s", median(crowd[1])),
    ]


def _one_after_the_other(reader: Manifests, images: Sequence[str]) -> float:
    """The median seconds of a read."""
    return median(_timed(partial(reader.image, SOURCE, image)) for image in images)


def _at_once(reader: Manifests, images: Sequence[str]) -> float:
    """Reads a second, of all threads together."""

    def read() -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            for _ in threads.map(lambda image: reader.image(SOURCE, image), images):
                pass

    return len(images) / _timed(read)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
