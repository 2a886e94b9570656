"""What runs inside a worker process: its confinement, and one call after the other.

A worker decodes files from strangers, so it gets no credentials, no way to find other programs,
little memory and little time, and it does not outlive the process that started it. This
module imports only the standard library: whatever it imported would be loaded before
:func:`confine` has set the number of threads of the numeric libraries.
"""

from __future__ import annotations

import fcntl
import importlib
import math
import os
import pickle
import pkgutil
import resource
import shutil
import signal
import threading
import time
import traceback
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

#: Value, error and wall seconds of one call, as :func:`perform` writes them.
Answer: TypeAlias = tuple[Any, Exception | None, float]

#: Exit code of a worker that ran out of memory: EX_OSERR of sysexits.h.
EXIT_OUT_OF_MEMORY = 71

#: What a worker may know of its surroundings. A list of what must go would never be complete:
#: passwords also sit in variables called DATABASE_URL or SENTRY_DSN.
KEPT_VARIABLES = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ")

#: Threads of OpenMP, OpenBLAS, MKL and Accelerate. Every core has its own worker already.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

#: Libraries that the imaging room imports where it uses them.
PRELOADED = ("numpy", "scipy.fftpack", "imagehash", "pillow_heif")

#: A worker holds about a dozen files; the rest is room for imports.
OPEN_FILES = 128

#: Seconds between looks at the parent, for the case that its pipe was inherited by another
#: process and therefore does not close when the parent dies.
WATCH_SECONDS = 1.0

#: CPU seconds (of all threads) past the wall limit, so that the parent's clock strikes first.
#: The CPU limit is for decoders that outlive their parent.
CPU_GRACE_SECONDS = 1


class WorkerError(Exception):
    """An error of ours around an image: not the image's fault, and not a verdict."""


def confine(directory: str, memory_megabytes: int) -> None:
    """Turn a new process into a worker; called once, before its first image.

    ``directory`` holds the calls and answers; the worker removes it if the parent dies.
    ``memory_megabytes`` (10^6 bytes) is what an image may use on top of the address space
    that is mapped once everything is imported. The limit comes last because OpenBLAS, loaded
    under a small one, spins for ever instead of failing. Where a platform lacks a limit
    (macOS has no usable RLIMIT_AS), the worker runs without it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A Python handler would wait for the decoder to return; the default action does not.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _clear_environment()
    _import_imaging()
    threading.Thread(target=_die_with_parent, args=(directory,), daemon=True).start()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    mapped = _mapped_bytes()
    if mapped is not None:
        _limit(resource.RLIMIT_AS, mapped + memory_megabytes * 1_000_000)
    # Codecs write to descriptor 2 as they please (libtiff: hundreds of lines for one file).
    # Errors in Python travel back as exceptions.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)


def _clear_environment() -> None:
    """Forget credentials; also keeps libraries that start later to one thread.

    The kernel's record of the first environment (/proc/self/environ) stays readable: this
    keeps secrets from libraries and subprocesses, not from code that has taken over.
    """
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    # Pillow looks for Ghostscript on the PATH; unset would mean the system's default PATH.
    os.environ["PATH"] = ""


def _import_imaging() -> None:
    """Load the imaging room, so that no image pays for it in time or memory."""
    for library in PRELOADED:
        importlib.import_module(library)
    package = importlib.import_module("image_pipeline.imaging")
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)


def _die_with_parent(directory: str) -> None:
    """Wait for the end of the parent, then clean up and end at once.

    PR_SET_PDEATHSIG would be simpler but is tied to the *thread* that started the process,
    which may end long before the parent does.
    """
    parent = parent_process()
    while parent is not None and parent.is_alive() and os.getppid() == parent.pid:
        parent.join(WATCH_SECONDS)
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


def _mapped_bytes() -> int | None:
    """Size of the address space; None where /proc is missing."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * resource.getpagesize()


def _limit(which: int, value: int) -> None:
    """Lower a limit for good, as far as the platform knows it and its hard limit allows it."""
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(which, (value, value))


def _limit_cpu(seconds: float) -> None:
    """Let this process burn ``seconds`` more, then die of SIGXCPU."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + seconds) + CPU_GRACE_SECONDS
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def perform(call: str, answer: str, seconds: float) -> None:
    """Run one call: read it from the file ``call``, write its :data:`Answer` to ``answer``.

    The file is kept locked meanwhile, which tells the parent that somebody is at work on it.
    Running out of memory ends the process: nothing said after that could be relied upon.
    """
    _limit_cpu(seconds)
    try:
        with Path(call).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            packed = _answer(file)
            Path(answer).write_bytes(packed)
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)


def _answer(file: BinaryIO) -> bytes:
    """Return the pickled answer to one pickled call; ``MemoryError`` passes through."""
    started = time.perf_counter()
    try:
        function, arguments, data = pickle.load(file)  # noqa: S301 - the parent wrote it
        started = time.perf_counter()
        value = function(data, *arguments)
        seconds = time.perf_counter() - started
        return pickle.dumps((value, None, seconds), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - also SystemExit; the parent decides
        return _pack_error(error, time.perf_counter() - started)


def _pack_error(error: BaseException, seconds: float) -> bytes:
    """Pickle an error with its traceback as a note.

    Errors that do not survive pickling, and those that would end the parent (``SystemExit``),
    become a :class:`WorkerError` that quotes them.
    """
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, Exception):
        with suppress(Exception):
            error.add_note(trace)
            packed = pickle.dumps((None, error, seconds), pickle.HIGHEST_PROTOCOL)
            pickle.loads(packed)  # noqa: S301 - just written
            return packed
    quoted = WorkerError(trace.strip().rpartition("\n")[2])
    quoted.add_note(trace)
    return pickle.dumps((None, quoted, seconds), pickle.HIGHEST_PROTOCOL)
