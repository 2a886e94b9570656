"""Run a function over many images in isolated processes, so that a bad one costs only itself.

Decoders crash, hang and eat memory on files made for it. Pebble's pool survives that where
the standard ones lose the batch, but its processes share one pipe guarded by locks: a process
that is killed while it holds a lock, or has sent half a message, takes the pool with it. So
only file names pass through Pebble, in messages small enough to be written in one piece;
images and results travel in files of a private folder. What is left (Pebble gives up when a
process dies while none is busy) is met by replacing the pool and handing in again what it held.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import pickle
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Workers
from image_pipeline.workers import child

K = TypeVar("K")
T = TypeVar("T")

#: A process is replaced after this many images: codecs leak, and fragmentation counts
#: against the address space limit. 200 makes the start of a process under 1 % of its work.
TASKS_PER_PROCESS = 200

#: Upper end of the 12-16 bytes per pixel that decoding, converting and resizing were
#: measured to hold at their peak.
BYTES_PER_PIXEL = 16

#: Charged for an image of unknown size: a picture of a current phone or camera.
UNKNOWN_MEGAPIXELS = 24.0

#: Verdicts that may be an accident (a process killed by hand or by the kernel, a machine
#: under load), so that they need a second witness.
SECOND_CHANCE = frozenset({Reason.timeout, Reason.crashed_decoder, Reason.out_of_memory})

#: Seconds between looks for calls whose process vanished without a word.
LOOK_SECONDS = 1.0

#: Seconds past the longest time one call may take before the pool is taken for stuck: covers
#: Pebble's own 60 s wait for a lock that a dead process holds.
STUCK_SECONDS = 90.0

#: Times a pool may break with no image worked on in between before the fault is taken to
#: be ours: a start takes a second or less, so a worker that cannot start shows in seconds.
MAX_BREAKS = 5


@dataclass(frozen=True, slots=True)
class Job(Generic[K]):
    """One image to work on.

    ``key`` is the caller's name for it. ``load`` returns the encoded image and is called in
    the parent when the job is admitted. ``arguments`` are passed to the function after the
    bytes and must be picklable. ``megapixels`` is the decoded size in 10^6 pixels, 0 if unknown.
    """

    key: K
    load: Callable[[], bytes]
    arguments: tuple[Any, ...] = ()
    megapixels: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome(Generic[K, T]):
    """What became of one job: a value, or an error.

    The error is a :class:`Rejected` when it is the image's fault; anything else is ours (and
    carries the worker's traceback as a note). ``seconds`` is the wall time of the function in
    the worker, 0 when unknown.
    """

    key: K
    value: T | None
    error: Exception | None
    seconds: float


class ImageWorkers:
    """Worker processes, and the rules by which images are handed to them.

    At most ``processes + 1`` images are in flight, so that no worker waits for bytes, and
    their decoded pixels fit into the memory of all workers together; one image is always
    admitted. An image that crashes its worker, exceeds its memory or its time is tried once
    more, alone in a fresh process with twice the time, before that becomes its verdict.

    Images and answers travel in files of a private folder inside ``folder``, or inside the
    system's for temporary files.

    Use it as a context manager, from one thread. Leaving it ends every process. Workers
    import the module of the function they run, and ``__main__`` if that is a script:
    keep both light.
    """

    def __init__(self, settings: Workers, folder: Path | None = None) -> None:
        self._settings = settings
        self._parent = folder
        self._seconds = settings.seconds_per_image
        self._directory: Path | None = None
        self._first: _Lane | None = None
        self._second: _Lane | None = None
        self._numbers = count()
        self._breaks = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to start the processes and return at once. Raises ``RuntimeError`` if closed."""
        self._first_lane()

    def run(self, function: Callable[..., T], jobs: Iterable[Job[K]]) -> Iterator[Outcome[K, T]]:
        """Call ``function(data, *arguments)`` for every job; outcomes come as they finish.

        Lazy and bounded: jobs are taken, and images loaded, only as fast as outcomes are.
        The function must be importable by name. A job that cannot be loaded or pickled gets
        that error as its outcome. Raises :class:`WorkerError` if no worker stays alive, and
        whatever iterating over ``jobs`` raises; images then in flight are given up, as they
        are when the iterator is closed early.
        """
        waiting = _Waiting(jobs)
        flight: list[_Attempt[K]] = []
        try:
            yield from self._admit(function, waiting, flight)
            while flight:
                attempt = self._next_ended(flight)
                outcome: Outcome[K, T] | None = self._judge(attempt)
                if outcome is not None:
                    flight.remove(attempt)
                    attempt.forget()
                # Before the caller's turn, so that the workers are busy during it.
                yield from self._admit(function, waiting, flight)
                if outcome is not None:
                    yield outcome
        finally:
            for attempt in flight:
                attempt.forget()

    def close(self) -> None:
        """End every process, busy or not, and remove the private folder."""
        self._closed = True
        for lane in (self._first, self._second):
            if lane is not None:
                lane.close()
        self._first = self._second = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _first_lane(self) -> _Lane:
        if self._first is None:
            self._first = self._new_lane(self._settings.count, TASKS_PER_PROCESS)
        return self._first

    def _second_lane(self) -> _Lane:
        """One process at a time, each for one image: a second chance must be a clean one."""
        if self._second is None:
            self._second = self._new_lane(1, 1)
        return self._second

    def _new_lane(self, processes: int, tasks: int) -> _Lane:
        self._require_open()
        confinement = (str(self._folder()), self._settings.memory_megabytes)
        return _Lane(processes, tasks, confinement, self._count_break)

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("these workers are closed")

    def _count_break(self) -> None:
        self._breaks += 1
        if self._breaks > MAX_BREAKS:
            raise child.WorkerError("worker processes do not stay alive; see the log for why")

    def _folder(self) -> Path:
        if self._directory is None:
            if self._parent is not None:
                self._parent.mkdir(parents=True, exist_ok=True)
            self._directory = Path(tempfile.mkdtemp(prefix="image-workers-", dir=self._parent))
        return self._directory

    def _admit(
        self,
        function: Callable[..., T],
        waiting: _Waiting[K],
        flight: list[_Attempt[K]],
    ) -> Iterator[Outcome[K, T]]:
        """Hand in jobs while there is room; yields the outcomes of those that cannot be."""
        processes = self._settings.count
        budget = self._settings.memory_megabytes * processes / BYTES_PER_PIXEL
        while len(flight) <= processes and (job := waiting.peek()) is not None:
            megapixels = job.megapixels or UNKNOWN_MEGAPIXELS
            if flight and megapixels + sum(other.megapixels for other in flight) > budget:
                return
            waiting.take()
            lane = self._first_lane()
            try:
                call = self._write_call(function, job)
            except Exception as error:  # noqa: BLE001 - whatever load() raises is this job's
                yield Outcome(job.key, None, error, 0.0)
            else:
                flight.append(_Attempt(job.key, megapixels, call, lane, self._seconds))

    def _write_call(self, function: Callable[..., T], job: Job[K]) -> Path:
        call = self._folder() / f"{next(self._numbers)}.call"
        try:
            content = (function, job.arguments, job.load())
            with call.open("wb") as file:
                pickle.dump(content, file, pickle.HIGHEST_PROTOCOL)
        except BaseException:
            call.unlink(missing_ok=True)
            raise
        return call

    def _next_ended(self, flight: list[_Attempt[K]]) -> _Attempt[K]:
        """Wait until an attempt has ended in one way or another."""
        self._require_open()
        patience = 2 * self._seconds + STUCK_SECONDS
        since = time.monotonic()
        while True:
            ended, _ = wait([a.future for a in flight], LOOK_SECONDS, FIRST_COMPLETED)
            for attempt in flight:
                if attempt.future in ended or (not ended and attempt.is_orphaned()):
                    return attempt
            is_stuck = time.monotonic() - since > patience
            for lane in {attempt.lane for attempt in flight}:
                if is_stuck or lane.is_broken():
                    lane.replace()
                    for attempt in flight:
                        if attempt.lane is lane:
                            attempt.submit()
                    since = time.monotonic()

    def _judge(self, attempt: _Attempt[K]) -> Outcome[K, T] | None:
        """Turn an attempt that ended into an outcome; None if the image is tried again."""
        try:
            outcome: Outcome[K, T] = attempt.outcome()
        except BrokenProcessPool:
            attempt.submit()
            return None
        self._breaks = 0
        error = outcome.error
        if isinstance(error, Rejected) and error.reason in SECOND_CHANCE and not attempt.second:
            attempt.try_again(self._second_lane())
            return None
        return outcome


class _Waiting(Generic[K]):
    """The jobs not yet admitted, of which only the next one is ever taken from the caller."""

    def __init__(self, jobs: Iterable[Job[K]]) -> None:
        self._jobs = iter(jobs)
        self._next: Job[K] | None = None

    def peek(self) -> Job[K] | None:
        if self._next is None:
            self._next = next(self._jobs, None)
        return self._next

    def take(self) -> None:
        self._next = None


class _Lane:
    """A Pebble pool, and its successors when it breaks."""

    def __init__(
        self,
        processes: int,
        tasks: int,
        confinement: tuple[str, int],
        on_break: Callable[[], None],
    ) -> None:
        self._processes = processes
        self._tasks = tasks
        self._confinement = confinement
        self._on_break = on_break
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=self._processes,
            max_tasks=self._tasks,
            initializer=child.confine,
            initargs=self._confinement,
            # Not fork: the parent runs threads, whose locks a forked child would inherit held.
            context=multiprocessing.get_context("spawn"),
        )
        # Asking starts the processes, which would otherwise wait for the first image.
        if not pool.active:
            raise child.WorkerError("the pool of worker processes did not start")
        return pool

    def submit(self, call: Path, answer: Path, seconds: float) -> Future[None]:
        arguments = (str(call), str(answer), seconds)
        try:
            return self._pool.schedule(child.perform, arguments, {}, seconds)
        except RuntimeError:
            # Pebble's answer from a pool that broke, perhaps a moment ago.
            self.replace()
            return self._pool.schedule(child.perform, arguments, {}, seconds)

    def is_broken(self) -> bool:
        return not self._pool.active

    def replace(self) -> None:
        """End the pool and start another; what it held must be submitted again."""
        self._on_break()
        self.close()
        self._pool = self._new_pool()

    def close(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


class _Attempt(Generic[K]):
    """One image in flight: its files, and the call that is running or waiting for a worker."""

    def __init__(self, key: K, megapixels: float, call: Path, lane: _Lane, seconds: float) -> None:
        self.key = key
        self.megapixels = megapixels
        self.lane = lane
        self.second = False
        self._seconds = seconds
        self._call = call
        self._answer = call.with_suffix(".answer")
        self.submit()

    def submit(self) -> None:
        self._orphaned = 0
        self._answer.unlink(missing_ok=True)
        self.future = self.lane.submit(self._call, self._answer, self._seconds)

    def try_again(self, lane: _Lane) -> None:
        self.future.cancel()
        self.lane = lane
        self.second = True
        self._seconds *= 2
        self.submit()

    def is_orphaned(self) -> bool:
        """Whether the call was taken by a process that is gone; looked at once in a while.

        Pebble does not notice a process that leaves with exit code 0, nor one that dies before
        its receipt for the call was read. The lock on the call's file went with the process.
        It is also free for an instant before and after the work, hence two looks.
        """
        free = self.future.running() and _is_unlocked(self._call)
        self._orphaned = self._orphaned + 1 if free else 0
        return self._orphaned >= 2

    def outcome(self) -> Outcome[K, Any]:
        """Return what came of a call that ended. Raises ``BrokenProcessPool`` if the pool did."""
        try:
            if self.future.done():
                self.future.result()
                return self._read()
            error = Rejected(Reason.crashed_decoder, "the decoder ended the process")
        except FutureTimeoutError:
            error = Rejected(Reason.timeout, f"took longer than {self._seconds:g} s")
        except ProcessExpired as expired:
            error = _verdict(expired.exitcode, self._seconds)
        except BrokenProcessPool:
            raise
        except Exception as ours:  # noqa: BLE001 - a full disk, a folder swept by others
            return Outcome(self.key, None, ours, 0.0)
        return Outcome(self.key, None, error, 0.0)

    def _read(self) -> Outcome[K, Any]:
        try:
            with self._answer.open("rb") as file:
                # No worse than Pebble's own messages, which are pickled too.
                value, error, seconds = pickle.load(file)  # noqa: S301
        except Exception as unreadable:  # noqa: BLE001 - garbage may fail in any way
            value, error, seconds = None, unreadable, 0.0
        return Outcome(self.key, value, error, seconds)

    def forget(self) -> None:
        """Stop the call if it still runs, and remove its files."""
        self.future.cancel()
        self._call.unlink(missing_ok=True)
        self._answer.unlink(missing_ok=True)


def _is_unlocked(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _verdict(exitcode: int, seconds: float) -> Rejected:
    """Judge an image by the end of the process that had it."""
    if exitcode == child.EXIT_OUT_OF_MEMORY:
        return Rejected(Reason.out_of_memory, "needs more memory than an image may use")
    if exitcode == -signal.SIGXCPU:
        return Rejected(Reason.timeout, f"took longer than {seconds:g} s")
    if exitcode < 0:
        with suppress(ValueError):
            name = signal.Signals(-exitcode).name
            return Rejected(Reason.crashed_decoder, f"the decoder died of {name}")
    return Rejected(Reason.crashed_decoder, f"the decoder ended the process (exit {exitcode})")
