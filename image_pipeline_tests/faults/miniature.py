"""The pipeline in miniature: its real stages, catalog and housekeeping over a bucket in memory.

Only the pictures are not real: an upload is a line of text, what is "rendered" from it another,
so a batch takes milliseconds. Everything happens in one thread and in the same order each time:
:class:`Meddler` can therefore stop any step at its n-th request to the bucket or the catalog, or
let something else happen at that moment.
"""

import hashlib
import random
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from image_pipeline.catalog import batches, schema
from image_pipeline.catalog.engine import Catalog
from image_pipeline.imaging.fingerprint import Fingerprint
from image_pipeline.imaging.inspection import Inspection, inspect_image
from image_pipeline.imaging.recipe import plan_variants
from image_pipeline.imaging.rendering import RenderedVariant
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.maintenance import planning
from image_pipeline.settings import Batches, Formats, Recipe, Settings, Size, Source, Webp
from image_pipeline.stages.batching import look_at_source
from image_pipeline.stages.deduplicating import deduplicate_batch
from image_pipeline.stages.inspecting import inspect_batch
from image_pipeline.stages.publishing import finish_batch, publish_batch
from image_pipeline.stages.rendering import render_batch
from image_pipeline.stages.tools import Spool, Tools
from image_pipeline.store.bucket import ObjectGoneError, StoreError
from image_pipeline.workers.pool import Outcome
from image_pipeline_tests.fake_bucket import FakeBucket, Stored

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

SOURCES = ("photos", "shop")

#: A picture whose files no decoder reads, and one that decodes but never renders.
UNREADABLE, UNRENDERABLE = 5, 4


def picture(number: int, copy: int) -> bytes:
    """An upload. Copies of a picture are duplicates; the higher one is the better one."""
    return f"picture {number} copy {copy}".encode()


def recipe(quality: int) -> Recipe:
    """Two files for an image."""
    return Recipe(
        sizes={
            "thumb": Size(role="thumbnail", width=40, height=40, fit="cover"),
            "large": Size(width=120, height=80),
        },
        formats=Formats(webp=Webp(quality=quality)),
    )


#: Requests to the catalog, by what is about to happen or has.
TRANSACTION = ("read", "write", "commit", "committed")


class KilledError(BaseException):
    """The process is no more: nothing catches this, and nothing more is done after it."""


class Meddler:
    """Counts requests to bucket and catalog and does something at the n-th of them.

    ``outside`` is for what itself writes to the catalog: inside a transaction it would wait for
    ever, so the next request after it is taken.
    """

    def __init__(self) -> None:
        self.left: int | None = None
        self.act: Callable[[str], None] = lambda name: None
        self.outside = False
        self.dead = False
        self.writing = 0
        self.fired = False

    def arm(self, at: int, act: Callable[[str], None], outside: bool) -> None:
        self.left, self.act, self.outside, self.fired = at, act, outside, False

    def disarm(self) -> None:
        self.left, self.dead = None, False

    def __call__(self, name: str) -> None:
        if self.dead:
            raise KilledError
        if self.left is None or (self.outside and self.writing):
            return
        self.left -= 1
        if self.left <= 0:
            self.left, self.fired = None, True
            self.act(name)

    def kill(self, name: str) -> None:
        """The process ends here."""
        self.dead = True
        raise KilledError

    def fail(self, name: str) -> None:
        """The request fails; the process goes on."""
        if name in TRANSACTION:
            raise OperationalError(name, {}, Exception("server closed the connection"))
        raise StoreError("503 SlowDown")


class WatchedCatalog(Catalog):
    """A catalog whose transactions can be stopped before they begin, end, or say that they did."""

    def __init__(self, url: str, meddler: Meddler) -> None:
        super().__init__(url)
        self.meddler = meddler

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        self.meddler("read")
        with super().read() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        self.meddler("write")
        with super().write() as connection:
            self.meddler.writing += 1
            try:
                yield connection
                self.meddler("commit")
            finally:
                self.meddler.writing -= 1
        self.meddler("committed")


class Inline:
    """An executor that does everything at once, in this thread."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function, *arguments, **named):
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - as an executor does; a kill is none
            future.set_exception(error)
        return future

    def map(self, function, *iterables, timeout=None, chunksize=1, buffersize=None):
        return iter([function(*arguments) for arguments in zip(*iterables, strict=False)])

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


class TextWorkers:
    """Workers that read and render the lines of text that are pictures here."""

    def run(self, function, jobs):
        work = _inspect if function is inspect_image else _render
        for job in jobs:
            try:
                value = work(job.load(), *job.arguments)
            except Exception as error:  # noqa: BLE001 - what the pool hands to its caller
                yield Outcome(job.key, None, error, 0.0)
            else:
                yield Outcome(job.key, value, None, 0.0)


def _read(data: bytes) -> tuple[int, int]:
    found = re.fullmatch(rb"picture (\d+) copy (\d+)", data)
    if found is None or int(found[1]) == UNREADABLE:
        raise Rejected(Reason.not_an_image, "not a picture")
    return int(found[1]), int(found[2])


def _inspect(data: bytes, limits: object) -> Inspection:
    number, copy = _read(data)
    seeded = random.Random(number)
    prints = Fingerprint(
        phash64=seeded.getrandbits(64),
        phash256=seeded.randbytes(32).hex(),
        dhash64=0,
        texture=50.0,
        pixels=hashlib.sha256(data).hexdigest(),
        sketch=seeded.randbytes(1024),
        chroma=seeded.randbytes(32).hex(),
    )
    return Inspection(
        format="jpeg", width=60 * (copy + 1), height=40 * (copy + 1), orientation=1,
        has_alpha=False, animated=False, frames=1, lossless=False, quality=90, has_profile=False,
        mode="RGB", flags=(), fingerprint=prints, dominant_color="#102030",
        placeholder="data:image/webp;base64,AA==", focal_point=(0.5, 0.5), thumbhash="AA==",
    )  # fmt: skip


def _render(data: bytes, recipe: Recipe, limits: object, roles: object) -> list[RenderedVariant]:
    number, copy = _read(data)
    if number == UNRENDERABLE:
        raise Rejected(Reason.truncated, "breaks off")
    rendered = []
    for plan in plan_variants(recipe, 60 * (copy + 1), 40 * (copy + 1), roles):
        text = f"{data.decode()}: {plan.size} {plan.width} quality {plan.quality}".encode()
        dropped = plan.size == "large" and copy == 0
        digest = hashlib.sha256(text).hexdigest()
        rendered.append(RenderedVariant(plan, b"" if dropped else text, digest, len(text), dropped))
    return rendered


@cache
def make_settings(qualities: tuple[tuple[str, int], ...]) -> Settings:
    """Small batches that close at once, and housekeeping as it is unless configured."""
    return Settings(
        sources={name: Source(prefix=f"uploads/{name}/", recipe=name) for name in SOURCES},
        recipes={name: recipe(quality) for name, quality in qualities},
        batches=Batches(
            max_images=2, max_age_seconds=0, quiet_seconds=0, max_attempts=3, retry_seconds=0
        ),
        maintenance={"dry_run": False, "cleanup": {"protected": ["keep/"]}},
    )


class World:
    """A bucket, a catalog, a clock, and what people and the pipeline do with them.

    ``truth`` holds the bytes that were last put under each key, whatever housekeeping did
    since; ``lost`` what was taken behind the catalog's back and nobody has made again.
    """

    def __init__(self, folder, catalog: WatchedCatalog) -> None:
        self.folder = folder
        self.clock_at = START
        self.catalog = catalog
        self.meddler = catalog.meddler
        self.meddler.disarm()
        self.bucket = FakeBucket(self.clock)
        self.bucket.before = self._before
        self.bucket.after = self._after
        self.truth: dict[str, bytes] = {}
        self.lost: set[str] = set()
        self.foreign: set[str] = set()
        self.qualities = dict.fromkeys(SOURCES, 80)
        self.cursors = dict.fromkeys(SOURCES, "")
        self.numbers = count()
        self.failures: list = []
        empty(catalog)

    def advance(self, **parts: float) -> None:
        """Time passes."""
        self.clock_at += timedelta(**parts)

    def clock(self) -> datetime:
        return self.clock_at

    def settings(self) -> Settings:
        return make_settings(tuple(self.qualities.items()))

    def _before(self, name: str, key: str) -> None:
        # Whoever asks the bucket inside a transaction is met at its end.
        if not self.meddler.writing:
            self.meddler(name)

    def _after(self, name: str, key: str) -> None:
        if name == "put":
            self.truth[key] = self.bucket.objects[key].data
            self.lost.discard(key)
        self._before(name, key)

    # What people do

    def upload(self, source: str, name: str, data: bytes) -> None:
        """Somebody writes a file, perhaps over another one."""
        self.write(f"uploads/{source}/{name}.jpg", data)

    def write(self, key: str, data: bytes, days: float = 0) -> None:
        """An object that the pipeline did not make, so many days ago."""
        self.bucket.write(key, data, days)
        self.truth[key] = data

    def delete(self, key: str) -> None:
        """Somebody deletes a file, on purpose."""
        self.bucket.objects.pop(key, None)
        self.truth.pop(key, None)

    def lose(self, key: str) -> None:
        """An object vanishes that the catalog relies on."""
        self.bucket.objects.pop(key, None)
        self.lost.add(key)

    # What the pipeline does

    def look(self, source: str) -> list[str]:
        """A tick of a sensor: the batches it asks for."""
        look = look_at_source(
            self.settings(), self.bucket, self.catalog, source, "", lambda batches: {}, self.clock,
            lambda seconds: None,
        )  # fmt: skip
        return [request.batch for request in look.requests]

    def run(self, batch: str) -> None:
        """A run of a batch, as the assets of the job do it one after the other."""
        owner = f"run-{next(self.numbers)}"
        spool = Spool(self.folder / owner)
        tools = Tools(self.settings(), self.bucket, self.catalog, TextWorkers(), spool, self.clock)
        with self.catalog.write() as connection:
            batches.hold(connection, batch, owner, self.clock_at + timedelta(minutes=1))
        try:
            inspect_batch(tools, batch)
            deduplicate_batch(tools, batch)
            render_batch(tools, batch)
            published = publish_batch(tools, batch)
            self.failures = [
                (row["key"], row["reason"], row["message"]) for row in published.unfinished
            ]
            if not published.unfinished:
                finish_batch(tools, batch, published)
        except ObjectGoneError as error:
            # A run may fail for want of a file that was lost, until it is made again.
            if str(error) not in self.lost:
                raise
            self.failures = [error]
        finally:
            if not self.meddler.dead:
                with self.catalog.write() as connection:
                    batches.release(connection, batch, owner, self.clock_at)
            spool.clear()

    def etag_of_truth(self, key: str) -> str | None:
        """The version of a key that was put last."""
        data = self.truth.get(key)
        return None if data is None else Stored(data, START).etag

    def change_recipe(self, source: str, quality: int) -> None:
        """From the next run on."""
        self.qualities[source] = quality

    def open_batches(self) -> list[str]:
        """Batches that may be run: asked for and not yet done."""
        with self.catalog.engine.connect() as connection:
            return list(
                connection.execute(
                    sa.select(schema.batches.c.id)
                    .where(schema.batches.c.state.in_(("requested", "running")))
                    .order_by(schema.batches.c.id)
                ).scalars()
            )


def empty(catalog: Catalog) -> None:
    """A catalog as it is after its migrations; far quicker than a new one."""
    Catalog.migrate(catalog)
    with Catalog.write(catalog) as connection:
        for table in reversed(schema.metadata.sorted_tables):
            connection.execute(sa.delete(table))


@contextmanager
def meddled(
    world: World, at: int, act: Callable[[str], None], *, outside: bool = False
) -> Iterator[None]:
    """Let ``act`` happen at the n-th request of the block; what follows from it ends the block."""
    world.meddler.arm(at, act, outside)
    try:
        yield
    except KilledError:
        pass
    except (StoreError, OperationalError):
        if not world.meddler.fired:
            raise
    finally:
        world.meddler.disarm()


def run_in_one_thread(monkeypatch) -> None:
    """Every room of the pipeline loses its threads; names that are random become numbers."""
    for name, module in list(sys.modules.items()):
        if name.startswith("image_pipeline.") and hasattr(module, "ThreadPoolExecutor"):
            monkeypatch.setattr(module, "ThreadPoolExecutor", Inline)
        # Whoever is waited for is in this thread as well: there is no end to wait for.
        if name.startswith("image_pipeline.") and hasattr(module, "REMOVAL_LOOKS"):
            monkeypatch.setattr(module, "REMOVAL_LOOKS", 2)
        if name.startswith("image_pipeline.") and hasattr(module, "REMOVAL_PAUSE"):
            monkeypatch.setattr(module, "REMOVAL_PAUSE", 0)
    numbers = count()
    monkeypatch.setattr(secrets, "token_hex", lambda size=4: f"{next(numbers):0{2 * size}x}")
    monkeypatch.setattr(planning, "server_time", lambda bucket: datetime.now(UTC))
    monkeypatch.setattr(
        "image_pipeline.stages.publishing.contact_sheet", lambda pictures: b"a sheet"
    )
