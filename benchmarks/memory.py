"""How much memory a run and its workers hold, and whether it grows with the batch."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.photos import photographs
from benchmarks.project import ONE_BATCH, new_project, quiet_process, run_command
from benchmarks.report import Report, Row, describe_machine
from image_pipeline.commands.files import LocalFile

#: Megabytes (10^6 bytes) of a run with two workers.
GOAL_MEGABYTES = 700.0

WORKERS = 2

#: How much larger the second batch is.
TIMES = 3

LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Peak:
    """The most memory a process and its descendants held at one time, in bytes.

    ``pss`` shares what several processes map between them; ``resident`` counts it for each.
    ``own`` is the part of the first process at the peak of ``pss``.
    """

    pss: int = 0
    resident: int = 0
    own: int = 0


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Run a batch, and one three times as big, with two workers each."""
    machine = describe_machine()
    files = photographs(images * TIMES, folder)
    few = files[: max(1, len(files) // TIMES)]
    small, large = _peak(few), _peak(files)
    rows = []
    for count, peak in ((len(few), small), (len(files), large)):
        rows += [
            Row(f"{count} photographs, peak (PSS)", peak.pss / 1e6, "MB", None, GOAL_MEGABYTES),
            Row(f"{count} photographs, of it the run's own process", peak.own / 1e6, "MB"),
            Row(f"{count} photographs, peak (sum of RSS)", peak.resident / 1e6, "MB"),
        ]
    grown = (large.pss / 1e6, small.pss / 1e6)
    rows.append(Row(f"{len(files)} photographs beside {len(few)}", grown[0], "MB", grown[1], 1.0,
                    "ratio"))  # fmt: skip
    return Report(
        "memory",
        f"Memory of a run and its {WORKERS} workers",
        tuple(rows),
        (
            f"looked at every {LOOK_SECONDS:g} s: the run's process and all its descendants; PSS"
            " shares what several of them map (libraries) between them, RSS counts it for each",
            "the embedded S3 server is another process and not counted",
        ),
        machine,
    )


def _peak(files: Sequence[LocalFile]) -> Peak:
    with new_project({**ONE_BATCH, "workers": {"processes": WORKERS}}) as project:
        batch = project.new_batch(files)
        print(f"memory: a batch of {len(files)}", file=sys.stderr)
        with quiet_process(run_command(batch), project.environment) as process:
            return watched(psutil.Process(process.pid))


def watched(root: psutil.Process) -> Peak:
    """Look at a tree of processes until its root has ended."""
    peak = Peak()
    ended = threading.Event()
    while not ended.wait(LOOK_SECONDS):
        with suppress(psutil.NoSuchProcess):
            if root.status() == psutil.STATUS_ZOMBIE:
                break
            tree = [root, *root.children(recursive=True)]
            held = [_memory(process) for process in tree]
            pss = sum(one for one, _ in held)
            if pss > peak.pss:
                peak.pss, peak.own = pss, held[0][0]
            peak.resident = max(peak.resident, sum(resident for _, resident in held))
            continue
        break
    return peak


def _memory(process: psutil.Process) -> tuple[int, int]:
    """PSS and RSS in bytes; RSS for both where the system does not know PSS; 0 if it ended."""
    try:
        resident: int = process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0, 0
    with suppress(OSError):
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        if found:
            return int(found[1]) * 1024, resident
    return resident, resident
