"""The same work on other machines: a Dask cluster in place of processes of this one.

Every thread of a Dask worker has an isolated process of its own, made and judged by
:mod:`image_pipeline.workers.pool`, so limits and verdicts are those of one machine. What is new is
that whole workers vanish. That is never an image's fault: what they held is sent to others.

Whoever reaches a Dask scheduler may run code on its workers (work travels as pickles), so a
cluster belongs into a closed network, with TLS as Dask's own configuration describes it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Self, TypeVar

from image_pipeline.imaging.recipe import RENDER_VERSION, encoder_versions
from image_pipeline.settings import Workers
from image_pipeline.workers.child import WorkerError
from image_pipeline.workers.pool import STUCK_SECONDS, ImageWorkers, Job, Outcome

K = TypeVar("K")
T = TypeVar("T")

#: Seconds until a scheduler has to answer, and until the first worker has to be there: more
#: than the start of a container, less than anybody wants to watch nothing happen.
CONNECT_SECONDS = 15.0
FIRST_WORKER_SECONDS = 120.0

#: Images under way for each thread of the cluster: one at work, one that is there when it ends.
IN_FLIGHT = 2

#: Times an image may lose its worker before the fault is taken to be ours.
MAX_LOSSES = 5

#: Seconds between looks at how many threads the cluster has.
LOOK_SECONDS = 1.0

_local = threading.local()


class ClusterWorkers:
    """Workers of a Dask cluster, with the interface of :class:`ImageWorkers`.

    Any number of them may come and go while images are worked on. Use it as a context manager,
    from one thread.
    """

    def __init__(self, settings: Workers) -> None:
        if settings.cluster is None:
            raise ValueError("the settings name no cluster")
        self._settings = settings
        self._address = settings.cluster
        # Dask's client; it has no types of its own.
        self._client: Any = None
        self._threads = 0
        self._looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Connect to the scheduler. Raises :class:`WorkerError` where nobody answers."""
        if self._client is not None:
            return
        try:
            from distributed import Client
        except ImportError:
            raise WorkerError(
                "workers.cluster is set, but 'distributed' is not installed:"
                " pip install 'image-pipeline[cluster]'"
            ) from None
        try:
            # Straight to the workers and back: pictures would fill the scheduler's memory.
            self._client = Client(  # type: ignore[no-untyped-call]
                self._address,
                timeout=CONNECT_SECONDS,
                direct_to_workers=True,
                set_as_default=False,
            )
        except (OSError, TimeoutError) as error:
            raise WorkerError(
                f"no Dask scheduler answers at {self._address} (workers.cluster): {error}"
            ) from error

    def run(self, function: Callable[..., T], jobs: Iterable[Job[K]]) -> Iterator[Outcome[K, T]]:
        """Call ``function(data, *arguments)`` for every job; outcomes come as they finish.

        As :meth:`ImageWorkers.run`: lazy, bounded, every job has an outcome. Raises
        :class:`WorkerError` if the scheduler is gone or no worker is there.
        """
        self.start()
        flight = _Flight[K](self._client, function, self._settings)
        waiting = iter(jobs)
        ended = False
        try:
            while True:
                while not ended and len(flight) < self._room():
                    job = next(waiting, None)
                    if job is None:
                        ended = True
                    elif (refused := flight.send(job)) is not None:
                        yield refused
                if not flight:
                    return
                if (outcome := flight.next_ended(self._patience())) is not None:
                    yield outcome
        finally:
            flight.forget()

    def close(self) -> None:
        """Leave the cluster; its workers stay."""
        client, self._client = self._client, None
        if client is not None:
            client.close(timeout=CONNECT_SECONDS)

    def _patience(self) -> float:
        """Seconds in which some image has to end: a first and a second try, and what waits."""
        return 3 * IN_FLIGHT * self._settings.seconds_per_image + STUCK_SECONDS

    def _room(self) -> int:
        """How many images may be under way."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS or not self._threads:
            self._threads = self._count_threads()
            self._looked = now
        return IN_FLIGHT * max(1, self._threads)

    def _count_threads(self) -> int:
        try:
            threads = sum(self._client.nthreads().values())
            if not threads and not self._threads:
                self._client.wait_for_workers(1, timeout=FIRST_WORKER_SECONDS)
                threads = sum(self._client.nthreads().values())
        except TimeoutError:
            raise WorkerError(
                f"the Dask scheduler at {self._address} has no workers: start some, each with"
                f" 'dask worker {self._address} --nthreads 1 --no-nanny'"
            ) from None
        except (OSError, ValueError) as error:
            raise WorkerError(f"the Dask scheduler at {self._address} is gone") from error
        return int(threads)


@dataclass(slots=True)
class _Sent(Generic[K]):
    job: Job[K]
    future: Any
    losses: int = 0


class _Flight(Generic[K]):
    """The images under way. Ended ones arrive in a queue, from the client's own thread."""

    def __init__(self, client: Any, function: Callable[..., Any], rules: Workers) -> None:
        self._client = client
        self._function = function
        self._rules = rules.model_copy(update={"processes": 1})
        self._sent: dict[int, _Sent[K]] = {}
        self._numbers = count()
        self._ended: queue.Queue[int] = queue.Queue()

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, job: Job[K], losses: int = 0) -> Outcome[K, Any] | None:
        """Hand in a job; an outcome at once if it cannot be loaded."""
        try:
            data = job.load()
        except Exception as error:  # noqa: BLE001 - whatever load() raises is this job's
            return Outcome(job.key, None, error, 0.0)
        number = next(self._numbers)
        try:
            (held,) = self._client.scatter([data], direct=True, hash=False)
        except (OSError, TimeoutError) as error:
            raise WorkerError("the Dask scheduler is gone") from error
        future = self._client.submit(
            perform, self._function, held, job.arguments, self._rules, what_renders(),
            pure=False,
        )  # fmt: skip
        self._sent[number] = _Sent(job, future, losses)
        future.add_done_callback(lambda _: self._ended.put(number))
        return None

    def next_ended(self, patience: float) -> Outcome[K, Any] | None:
        """Wait for the next image to end; None if it lost its worker and was sent again."""
        try:
            number = self._ended.get(timeout=patience)
        except queue.Empty:
            raise WorkerError("no image came back from the cluster for too long") from None
        sent = self._sent.pop(number)
        try:
            value, error, seconds = sent.future.result(timeout=patience)
        except Exception as loss:  # noqa: BLE001 - Dask has many names for a worker that is gone
            return self._lost(sent, loss)
        return Outcome(sent.job.key, value, error, seconds)

    def _lost(self, sent: _Sent[K], error: Exception) -> Outcome[K, Any] | None:
        if self._client.status != "running":
            raise WorkerError("the Dask scheduler is gone") from error
        if sent.losses < MAX_LOSSES:
            return self.send(sent.job, sent.losses + 1)
        ours = WorkerError(f"{sent.losses + 1} workers of the cluster were lost with this image")
        ours.__cause__ = error
        return Outcome(sent.job.key, None, ours, 0.0)

    def forget(self) -> None:
        """Stop what is still under way."""
        if self._sent and self._client.status == "running":
            self._client.cancel([sent.future for sent in self._sent.values()])
        self._sent.clear()


def what_renders() -> str:
    """The code and the encoders that decide which bytes a picture becomes."""
    encoders = ", ".join(f"{name} {version}" for name, version in encoder_versions().items())
    return f"version {RENDER_VERSION}, {encoders}"


def perform(
    function: Callable[..., Any],
    data: bytes,
    arguments: tuple[Any, ...],
    rules: Workers,
    renders: str,
) -> tuple[Any, Exception | None, float]:
    """Run on a Dask worker: one call in an isolated process of this thread's.

    A worker that renders otherwise than the pipeline must not work for it: names of files say
    what made them, and another encoder would put other bytes under the same name.
    """
    if what_renders() != renders:
        problem = f"renders with {what_renders()}, but the pipeline with {renders}"
        return None, WorkerError(f"a worker of the cluster {problem}: install the same"), 0.0
    (outcome,) = _isolated(rules).run(function, [Job(0, lambda: data, arguments)])
    return outcome.value, outcome.error, outcome.seconds


def _isolated(rules: Workers) -> ImageWorkers:
    """The isolated process of this thread; another one where the limits have changed."""
    held: tuple[Workers, ImageWorkers] | None = getattr(_local, "held", None)
    if held is not None and held[0] == rules:
        return held[1]
    if held is not None:
        held[1].close()
    made = ImageWorkers(rules)
    _local.held = (rules, made)
    return made
