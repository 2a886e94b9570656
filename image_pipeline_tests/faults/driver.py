"""The program that is killed: the upload sensor and the job it asks for, in one process.

Started with ``python -m``, it imports everything once and then forks a child for each order it
reads from stdin: a child begins its work at once, as a process of its own, and can be killed
like one. Faults are built in from outside, around functions of the product.

Orders are JSON, one a line: ``{"start": {...}}`` is answered with a pid, ``{"wait": pid}`` with
the exit code (negative: the signal), when there is one.
"""

from __future__ import annotations

import functools
import gc
import importlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: A child that takes longer is stuck: it takes about 2 s, several times that on a busy machine.
CHILD_SECONDS = 90

#: What a child would otherwise import, in 2 s, before it does anything.
IMPORTED = (
    "image_pipeline.definitions",
    "image_pipeline.commands.demo",
    "alembic.command",
    "boto3",
    "dagster._core.storage.sqlite_storage",
    "psycopg2",
    "pyarrow.parquet",
    "s3transfer.manager",
    "sqlalchemy.dialects.postgresql.psycopg2",
)

#: Transactions of one child that does nothing but write.
WRITES = 50

#: So small that a batch of eight uploads is committed in several parts.
COMMITS = {
    "image_pipeline.stages.inspecting:COMMIT_EVERY": 2,
    "image_pipeline.stages.storing:COMMIT_ROWS": 10,
    "image_pipeline.stages.storing:IMAGES_UNDER_WAY": 1,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the ``nth`` call of ``target`` (``module:name.name``).

        Only calls with a text argument that contains ``match`` are counted. ``act`` is ``kill``
    XX"""

    target: str
    when: str = "before"
    nth: int = 1
    match: str = ""
    act: str = "kill"

    def __str__(self) -> str:
        name = self.target.rpartition(":")[2]
        return " ".join(filter(None, [self.when, name, self.match, f"#{self.nth}"]))


@dataclass(frozen=True, slots=True)
class Order:
    """One child: its folder and variables, what it does and which faults it meets.

    ``task`` is ``prepare`` (an empty catalog and Dagster home), ``look`` (until a run is asked
    for, which is not started), ``once`` (until one run has ended), ``cycle`` (look and run until
    nothing is left), ``run`` (``partition``, whatever its state) or ``write`` (many small
    transactions, each of which reads and then writes).
    """

    folder: str
    environment: dict[str, str]
    task: str = "cycle"
    partition: str = ""
    faults: tuple[Fault, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def main() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    for name, value in COMMITS.items():
        module, _, constant = name.partition(":")
        setattr(importlib.import_module(module), constant, value)
    # What is there now stays for ever: no child needs to look through it, or copy it.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            answer = _fork(order["start"])
        else:
            _, status = os.waitpid(order["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        print(json.dumps(answer), flush=True)


def _fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        signal.alarm(CHILD_SECONDS)
        _redirect(Path(order["folder"]) / "driver.log")
        os.environ.update(order["environment"])
        faults = [Fault(**fault) for fault in order.pop("faults")]
        for fault in faults:
            _build_in(fault, Path(order["folder"]))
        code = _perform(Order(**order))
    except BaseException:  # noqa: BLE001 - this process must not return into the parent's loop
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(descriptor, target)


def _perform(order: Order) -> int:
    from dagster import DagsterInstance, RunRequest

    from image_pipeline.catalog.engine import Catalog
    from image_pipeline.commands.demo import _run, _Sensor
    from image_pipeline.settings import load_settings

    settings = load_settings()
    catalog = Catalog(settings.catalog.url)
    if order.task == "write":
        return _write(catalog)
    with DagsterInstance.from_config(order.environment["DAGSTER_HOME"]) as instance:
        if order.task == "prepare":
            catalog.migrate()
            return 0
        if order.task == "run":
            _run(RunRequest(partition_key=order.partition), instance)
            return 0
        sensor = _Sensor(settings, "photos", instance)
        while True:
            requests = sensor.look()
            if order.task == "look" and requests:
                return 0
            for request in requests:
                run_requested(request, instance, _run)
            if order.task == "cycle" and _is_settled(catalog):
                return 0
            if order.task == "once" and requests:
                return 0
            if not requests:
                time.sleep(0.05)


def run_requested(request: Any, instance: Any, run: Callable[[Any, Any], None]) -> None:
    """A step of its own, so that a fault can come between a request and its run."""
    run(request, instance)


def _write(catalog: Any) -> int:
    from datetime import UTC, datetime

    from image_pipeline.catalog import uploads
    from image_pipeline.catalog.engine import lock

    now = datetime.now(UTC)
    for number in range(WRITES):
        with catalog.write() as connection:
            lock(connection, "writers")
            seen = sum(row["uploads"] for row in uploads.counts(connection))
            row = {
                "source": "photos", "key": f"{os.getpid()}/{number}", "etag": f"{seen}", "size": 1,
                "last_modified": now, "discovered_at": now,
            }  # fmt: skip
            uploads.add(connection, [row])
    return 0


def _is_settled(catalog: Any) -> bool:
    from image_pipeline.catalog import batches, uploads

    with catalog.read() as connection:
        waiting = any(row["state"] == "waiting" for row in uploads.counts(connection))
        return not waiting and not batches.open_ids(connection)


def _build_in(fault: Fault, folder: Path) -> None:
    """Wrap the function that a fault is about."""
    module, _, path = fault.target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real = getattr(owner, name)
    numbers = itertools.count(1)
    lock = threading.Lock()

    @functools.wraps(real)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        texts = [value for value in (*args, *kwargs.values()) if isinstance(value, str)]
        number = 0
        if any(fault.match in text for text in texts) or not fault.match:
            with lock:
                number = next(numbers)
        if fault.when == "before":
            _strike(fault, number, folder, args)
        answer = real(*args, **kwargs)
        if fault.when == "after":
            _strike(fault, number, folder, args)
        return answer

    setattr(owner, name, wrapped)


def _strike(fault: Fault, number: int, folder: Path, args: tuple[Any, ...]) -> None:
    if number != fault.nth:
        return
    (folder / "struck").touch()
    if fault.act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.act == "kill_group":
        os.killpg(0, signal.SIGKILL)
    elif fault.act == "lock":
        from sqlalchemy.exc import OperationalError

        raise OperationalError("BEGIN IMMEDIATE", None, Exception("database is locked"))
    elif fault.act == "cut":
        args[0].exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    elif fault.act == "pause":
        (folder / "paused").touch()
        while not (folder / "resume").exists():
            time.sleep(0.02)


if __name__ == "__main__":
    # The functions that faults are built around must be those of the importable module.
    from image_pipeline_tests.faults.driver import main as importable_main

    importable_main()
