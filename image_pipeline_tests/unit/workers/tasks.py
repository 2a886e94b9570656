"""Functions that the tests send to workers: they must be importable by name."""

from __future__ import annotations

import ctypes
import io
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from image_pipeline.imaging.rendering import process_image
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits, Recipe


def size(data: bytes) -> int:
    return len(data)


def repeat(data: bytes, times: int) -> bytes:
    return data * times


def process_id(data: bytes) -> int:
    return os.getpid()


def environment(data: bytes) -> dict[str, str]:
    return dict(os.environ)


def modules(data: bytes) -> set[str]:
    return {name.partition(".")[0] for name in sys.modules}


def modules_loaded_by_work(data: bytes) -> set[str]:
    """Libraries that rendering a picture for a whole recipe loads on top."""
    picture = io.BytesIO()
    Image.new("RGB", (900, 700), "teal").save(picture, "jpeg")
    before = modules(b"")
    processed = process_image(picture.getvalue(), Recipe(), Limits())
    assert processed.variants
    return modules(b"") - before - sys.stdlib_module_names


def limits(data: bytes) -> dict[str, tuple[int, int]]:
    names = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_NOFILE")
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def mapped_and_cpu(data: bytes) -> tuple[int, float]:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize(), time.process_time()


def interrupt(data: bytes) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "still here"


def write_noise(data: bytes) -> int:
    return os.write(2, b"TIFFReadDirectory: Warning, unknown field\n")


def _segfault() -> object:
    return ctypes.string_at(0)


ENDS: dict[str, Callable[[], object]] = {
    "segfault": _segfault,
    "abort": os.abort,
    "exit 3": lambda: os._exit(3),
    "exit 0": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def die(data: bytes, how: str | None) -> int:
    if how is not None:
        ENDS[how]()
    return len(data)


def die_once(data: bytes, how: str, flag: Path) -> int:
    if not flag.exists():
        flag.touch()
        ENDS[how]()
    return len(data)


def hang(data: bytes, long: bool) -> int:
    if long:
        threading.Event().wait()
    return len(data)


def hang_once(data: bytes, flag: Path) -> int:
    if not flag.exists():
        flag.touch()
        threading.Event().wait()
    return len(data)


def hog(data: bytes, megabytes: int) -> int:
    return len(bytearray(megabytes * 1_000_000))


def hog_once(data: bytes, megabytes: int, flag: Path) -> int:
    if not flag.exists():
        flag.touch()
        hog(data, megabytes)
    return len(data)


def reject(data: bytes, flag: Path) -> NoReturn:
    with flag.open("a") as file:
        file.write("x")
    raise Rejected(Reason.decode_error, "not an image")


class UnpicklableError(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class UnpicklesWronglyError(Exception):
    """Pickles well; unpickling calls it with one argument and fails."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def fail(data: bytes, how: str) -> Any:
    if how == "value":
        raise ValueError("no such thing")
    if how == "unpicklable":
        raise UnpicklableError("has a lock")
    if how == "unpickles wrongly":
        raise UnpicklesWronglyError("two", "arguments")
    if how == "exit":
        sys.exit("good bye")
    if how == "result":
        return threading.Lock()
    return len(data)


def meet(data: bytes, fifo: Path, flags: int) -> None:
    """Return when another process has opened the other end of the pipe."""
    os.close(os.open(fifo, flags))


def report_and_hang(data: bytes, fifo: Path, busy: bool) -> None:
    """Write this process's id into the pipe, then never return, nor close the pipe."""
    with fifo.open("w", buffering=1) as file:
        file.write(f"{os.getpid()}\n")
        if busy:
            # Exponential, in C, without letting go of the interpreter: no other thread runs.
            re.match(r"(a+)+b", "a" * 64)
        threading.Event().wait()


def die_at_start(directory: str, memory_megabytes: int) -> NoReturn:
    """Take the place of the real initializer."""
    raise RuntimeError("cannot start")
