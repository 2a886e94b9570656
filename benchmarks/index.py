"""Near hashes among very many: the index of the pipeline beside what else finds them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.lookups import DISTANCES, NAME, ROUNDS, TOKEN, TOOLS, Lookups
from benchmarks.project import CHECKOUT
from benchmarks.report import Grid, Report, Row, describe_machine
from image_pipeline.catalog import snapshot
from image_pipeline.dedupe.index import build

SIZES = (100_000, 1_000_000, 10_000_000)

#: A batch of 100 pictures, each in all 8 orientations.
QUERIES = 100 * 8

#: The distance that the goals are for: the largest that one flipped bit a band is enough for.
GOAL_DISTANCE = 7

LOOKUPS = f"{QUERIES} lookups, <= {GOAL_DISTANCE} bits"
MEMORY = "memory that looking up adds"

#: In milliseconds and megabytes, by the number of hashes.
GOALS = {
    (1_000_000, LOOKUPS): 250.0,
    (1_000_000, MEMORY): 50.0,
    (10_000_000, LOOKUPS): 2500.0,
}

#: The rival that the rows name; the others are in the grid.
BESIDE = "faiss-one"

#: A BK-tree of a million hashes is built in half a minute on a machine with nothing else to do.
PATIENCE_SECONDS = 1800.0

COLUMNS = (
    "tool", "hashes", *(f"<= {distance} bits, ms" for distance in DISTANCES),
    f"lookups/s, <= {GOAL_DISTANCE} bits", "ready after, s", "grown by, MB", "wrong pairs",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """Lookups of one tool; ``wrong`` pairs were missed by it, or are none."""

    hashes: int
    tool: str
    lookups: Lookups
    wrong: int

    @property
    def seconds(self) -> dict[int, float]:
        """For :data:`QUERIES` lookups, by distance; scaled, if the tool was asked fewer."""
        scale = QUERIES / self.lookups.asked
        return {int(distance): taken * scale for distance, taken in self.lookups.seconds.items()}

    @property
    def grown(self) -> float:
        """Megabytes."""
        return (self.lookups.peak - self.lookups.idle) / 1e6


def measure(images: int, photos: Path | None, quick: bool) -> Report:
    """Build, save, open and look up at every size; every tool in a process of its own."""
    machine = describe_machine()
    rows: list[Row] = []
    every: list[Measured] = []
    for hashes in SIZES[:1] if quick else SIZES:
        with tempfile.TemporaryDirectory(prefix="index-") as name:
            folder = Path(name)
            rows += _prepare(folder, hashes)
            measured = list(_measure_tools(folder, hashes))
        rows += _rows(hashes, measured)
        every += measured
    missing = [tool.name for tool in TOOLS.values() if find_spec(tool.needs) is None]
    few = next((one.lookups.asked for one in every if TOOLS[one.tool].step > 1), 0)
    return Report(
        "index",
        f"{QUERIES} lookups of near 64-bit hashes, beside faiss-cpu in one thread",
        tuple(rows),
        tuple(_notes(missing, few)),
        machine,
        (Grid(COLUMNS, tuple(_grid_row(one) for one in every)),),
    )


def _notes(missing: list[str], few: int) -> Iterator[str]:
    yield (
        f"random hashes; near each of the {QUERIES} queries one was planted, 0 to 12 bits away."
        f" Medians of {ROUNDS} batches, each tool in a new process"
    )
    yield (
        "wrong pairs: those that the tool found and a comparison of everything with everything"
        " did not, or the other way round"
    )
    yield (
        "ready after: opening the snapshot with its checksum; for the others, loading the hashes"
        " and building what they search in, except SQLite, whose database file is made before"
    )
    yield (
        "grown by: peak resident memory beyond that of the process when everything is imported;"
        " pages of the snapshot are counted, which the system shares and takes back at will"
    )
    yield "this index and SQLite use one thread; SQLite finds all within 4 bits, not more"
    if few:
        yield f"pybktree was asked {few} of the queries at each distance; its seconds are scaled"
    if missing:
        yield f"not installed, so not measured (pip install '.[bench]'): {', '.join(missing)}"


def _prepare(folder: Path, count: int) -> list[Row]:
    """Hashes, queries, all pairs and the snapshot, as files."""
    print(f"index: {count:,} hashes", file=sys.stderr)
    random = np.random.default_rng(count)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    queries = random.integers(0, 2**64, QUERIES, dtype=np.uint64)
    for query, row in enumerate(random.choice(count, QUERIES, replace=False).tolist()):
        flips = random.choice(64, query % 13, replace=False).tolist()
        hashes[row] = int(queries[query]) ^ sum(1 << flip for flip in flips)
    np.save(folder / "hashes.npy", hashes)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "pairs.npy", _all_pairs(hashes, queries))
    started = time.perf_counter()
    index = build(hashes)
    built = time.perf_counter() - started
    started = time.perf_counter()
    path = snapshot.save(folder, NAME, index, np.arange(1, count + 1), TOKEN)
    saved = time.perf_counter() - started
    return [
        Row(f"{count:,} hashes: building", built, "s"),
        Row(f"{count:,} hashes: saving", saved, "s"),
        Row(f"{count:,} hashes: on disk", path.stat().st_size / 1e6, "MB"),
    ]


def _all_pairs(hashes: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Query, row and distance of every pair that is near enough for any distance asked for."""
    found = []
    for query, asked in enumerate(queries):
        apart = np.bitwise_count(hashes ^ asked)
        rows = np.flatnonzero(apart <= max(DISTANCES))
        found.append(np.stack([np.full(len(rows), query), rows, apart[rows]], axis=1))
    return np.concatenate(found).astype(np.int64)


def _measure_tools(folder: Path, count: int) -> Iterator[Measured]:
    for name, tool in TOOLS.items():
        if find_spec(tool.needs) is None or (tool.most is not None and count > tool.most):
            continue
        print(f"index: {count:,} hashes, {tool.name}", file=sys.stderr)
        if tool.before is not None:
            tool.before(folder)
        lookups = _look_up(name, folder)
        yield Measured(count, name, lookups, _wrong(folder, name))


def _look_up(name: str, folder: Path) -> Lookups:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.lookups", name, str(folder)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return Lookups(**json.loads(answer.stdout))


def _wrong(folder: Path, name: str) -> int:
    """Pairs in which a tool differs from the comparison of everything with everything."""
    pairs = np.load(folder / "pairs.npy")
    step = TOOLS[name].step
    pairs = pairs[pairs[:, 0] % step == 0]
    wrong = 0
    for distance in TOOLS[name].distances:
        expected = {tuple(pair) for pair in pairs[pairs[:, 2] <= distance].tolist()}
        found = np.load(folder / f"{name}-{distance}.npy").tolist()
        wrong += len(expected ^ {(query * step, row, apart) for query, row, apart in found})
    return wrong


def _rows(count: int, measured: list[Measured]) -> Iterator[Row]:
    """The index beside faiss-cpu in one thread."""
    by_tool = {one.tool: one for one in measured}
    other = by_tool.get(BESIDE)
    beside = {what: value for what, value, _ in _figures(other)} if other else {}
    for what, value, unit in _figures(by_tool["ours"]):
        goal = GOALS.get((count, what))
        yield Row(f"{count:,} hashes: {what}", value, unit, beside.get(what), goal)


def _figures(one: Measured) -> Iterator[tuple[str, float, str]]:
    """What is said of a tool, how much and in which unit."""
    yield "opening", one.lookups.ready * 1e3, "ms"
    yield f"first {LOOKUPS}", one.lookups.first * 1e3, "ms"
    for distance in DISTANCES:
        yield f"{QUERIES} lookups, <= {distance} bits", one.seconds[distance] * 1e3, "ms"
    yield MEMORY, one.grown, "MB"
    yield "of it, not pages of files", one.grown - one.lookups.mapped / 1e6, "MB"
    yield "wrong pairs", one.wrong, ""


def _grid_row(one: Measured) -> tuple[str, ...]:
    seconds = [one.seconds.get(distance) for distance in DISTANCES]
    at_goal = one.seconds.get(GOAL_DISTANCE)
    return (
        TOOLS[one.tool].name,
        f"{one.hashes:,}",
        *("" if taken is None else f"{taken * 1e3:,.1f}" for taken in seconds),
        "" if at_goal is None else f"{QUERIES / at_goal:,.0f}",
        f"{one.lookups.ready:.2f}",
        f"{one.grown:,.0f}",
        str(one.wrong),
    )
