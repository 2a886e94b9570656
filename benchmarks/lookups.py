"""One process that looks up 64-bit hashes with one tool, and says what that took.

``python -m benchmarks.lookups TOOL FOLDER`` reads ``hashes.npy`` and ``queries.npy`` there,
writes what it found as ``<tool>-<distance>.npy`` and prints :class:`Lookups` as JSON. The
rivals do it as people who know them would.
"""

# ruff: noqa: PLC0415 - each tool loads only what it needs: its memory is measured

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from benchmarks.look import peak_bytes, resident_bytes
from image_pipeline.dedupe.bands import BANDS, WIDTHS, signed, split

#: The distance of the picture tier, the largest one that four bands find cheaply, and the
#: one at which tools like imagededup call pictures duplicates.
DISTANCES = (4, 7, 10)

ROUNDS = 5

NAME, TOKEN = "benchmark", "benchmark"

#: A BK-tree walks a large part of itself for one query, which would be minutes for all of them:
#: it is asked one of so many. A prime, so that neighbours at other distances are among them.
STEP = 101

#: Finds the pairs of these queries within a distance: rows of (query, row, distance).
Find = Callable[[np.ndarray, int], np.ndarray]


@dataclass(slots=True)
class Lookups:
    """What the lookups took. ``seconds`` are medians of a batch, by distance.

    ``ready`` are the seconds from everything imported to the first lookup: loading or building.
    ``first`` is the first batch (distance 7), which meets cold memory. ``idle`` and ``peak``
    are resident bytes when everything is imported and at the most; ``mapped`` those of the
    growth that are pages of files. ``asked`` is the number of queries in a batch.
    """

    ready: float = 0.0
    first: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    asked: int = 0
    idle: int = 0
    peak: int = 0
    mapped: int = 0


def ours(folder: Path) -> Find:
    """The snapshot that a run opens."""
    from image_pipeline.catalog import snapshot

    found = snapshot.load(folder, NAME, TOKEN)
    assert found is not None
    index = found.index

    def find(queries: np.ndarray, distance: int) -> np.ndarray:
        matches = index.within(queries, distance)
        return np.stack([matches.query, matches.row, matches.distance], axis=1)

    return find


def faiss_flat(folder: Path) -> Find:
    """faiss-cpu's exhaustive index of bit strings, which is exact as well."""
    import faiss

    return _faiss(folder, faiss.IndexBinaryFlat(64))


def faiss_one(folder: Path) -> Find:
    """The same in one thread."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss_flat(folder)


def faiss_bands(folder: Path) -> Find:
    """faiss-cpu's own index of four bands of 16 bits, in one thread."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexBinaryMultiHash(64, 4, 16)
    look = _faiss(folder, index)

    def find(queries: np.ndarray, distance: int) -> np.ndarray:
        # As many flips as it takes to miss nothing.
        index.nflip = distance // 4
        return look(queries, distance)

    return find


def _faiss(folder: Path, index: Any) -> Find:
    index.add(np.load(folder / "hashes.npy").view(np.uint8).reshape(-1, 8))

    def find(queries: np.ndarray, distance: int) -> np.ndarray:
        # Its radius is the first distance that is too large.
        limits, apart, rows = index.range_search(
            queries.view(np.uint8).reshape(-1, 8), distance + 1
        )
        query = np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
        return np.stack([query, rows, apart.astype(np.int64)], axis=1)

    return find


def bk_tree(folder: Path) -> Find:
    """A tree of pybktree with the fastest distance function that Python has."""
    import pybktree

    rows: dict[int, list[int]] = {}
    for row, value in enumerate(np.load(folder / "hashes.npy").tolist()):
        rows.setdefault(value, []).append(row)
    tree = pybktree.BKTree(lambda one, other: (one ^ other).bit_count(), rows)

    def find(queries: np.ndarray, distance: int) -> np.ndarray:
        found = [
            (query, row, apart)
            for query, asked in enumerate(queries.tolist())
            for apart, value in tree.find(asked, distance)
            for row in rows[value]
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 3)

    return find


def fill_bands(folder: Path) -> None:
    """A database of the hashes with the columns that :func:`sqlite` asks for."""
    hashes = np.load(folder / "hashes.npy")
    columns = [f"b{band}" for band in range(BANDS)]
    bands = [
        ((hashes >> np.uint64(64 - end)) & np.uint64((1 << width) - 1)).tolist()
        for end, width in zip(accumulate(WIDTHS), WIDTHS, strict=True)
    ]
    with closing(sqlite3.connect(folder / "bands.db")) as connection, connection:
        connection.execute(
            f"CREATE TABLE images (row INTEGER PRIMARY KEY, phash64, {', '.join(columns)})"
        )
        connection.executemany(
            f"INSERT INTO images VALUES (?, ?{', ?' * BANDS})",
            zip(range(len(hashes)), hashes.view(np.int64).tolist(), *bands, strict=True),
        )
        for column in columns:
            connection.execute(f"CREATE INDEX ix_{column} ON images ({column}, phash64)")


def sqlite(folder: Path) -> Find:
    """Five indexed columns of bands, whose pigeonholes find all within distance 4."""
    connection = sqlite3.connect(folder / "bands.db")
    sql = " UNION ".join(
        f"SELECT row, phash64 FROM images WHERE b{band} = ?" for band in range(BANDS)
    )

    def find(queries: np.ndarray, distance: int) -> np.ndarray:
        found = [
            (query, row, apart)
            for query, asked in enumerate(queries.tolist())
            for row, value in connection.execute(sql, split(asked))
            # XOR of two signed integers has the bits of that of the unsigned ones.
            if (apart := ((value ^ signed(asked)) & 0xFFFF_FFFF_FFFF_FFFF).bit_count()) <= distance
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 3)

    return find


@dataclass(frozen=True, slots=True)
class Tool:
    """Who looks up; ``needs`` is the module it comes in, ``most`` the hashes it is given.

    It is asked every ``step``-th query. ``before`` makes files that it needs, in another process.
    """

    name: str
    prepare: Callable[[Path], Find]
    needs: str
    distances: tuple[int, ...] = DISTANCES
    most: int | None = None
    step: int = 1
    before: Callable[[Path], None] | None = None


TOOLS: Mapping[str, Tool] = {
    "ours": Tool("this index", ours, "image_pipeline.catalog.snapshot"),
    "faiss-one": Tool("faiss-cpu IndexBinaryFlat, 1 thread", faiss_one, "faiss"),
    "faiss": Tool("faiss-cpu IndexBinaryFlat, all threads", faiss_flat, "faiss"),
    # Beyond a million hashes these take minutes to fill, or gigabytes.
    "faiss-bands": Tool(
        "faiss-cpu IndexBinaryMultiHash 4 x 16, 1 thread", faiss_bands, "faiss", most=1_000_000
    ),
    "sqlite": Tool(
        "SQLite, five band columns",
        sqlite,
        "sqlite3",
        distances=(4,),
        most=1_000_000,
        before=fill_bands,
    ),
    "bk-tree": Tool("pybktree", bk_tree, "pybktree", most=1_000_000, step=STEP),
}


def look_up(name: str, folder: Path) -> Lookups:
    """Prepare a tool, ask it at every distance, and keep what it found."""
    tool = TOOLS[name]
    import_module(tool.needs)
    asked = np.load(folder / "queries.npy")[:: tool.step]
    looked = Lookups(asked=len(asked), idle=resident_bytes())
    shared = _mapped_bytes()
    started = time.perf_counter()
    find = tool.prepare(folder)
    looked.ready = time.perf_counter() - started
    middle = tool.distances[len(tool.distances) // 2]
    started = time.perf_counter()
    find(asked, middle)
    looked.first = time.perf_counter() - started
    for distance in tool.distances:
        times = []
        for _ in range(1 if tool.step > 1 else ROUNDS):
            started = time.perf_counter()
            found = find(asked, distance)
            times.append(time.perf_counter() - started)
        looked.seconds[str(distance)] = median(times)
        np.save(folder / f"{name}-{distance}.npy", found)
    looked.peak, looked.mapped = peak_bytes(), _mapped_bytes() - shared
    return looked


def _mapped_bytes() -> int:
    """Resident bytes of this process that are pages of files; 0 where nobody tells."""
    memory: Any = psutil.Process().memory_info()
    return getattr(memory, "shared", 0)


def main() -> None:
    name, folder = sys.argv[1:]
    print(json.dumps(asdict(look_up(name, Path(folder)))))


if __name__ == "__main__":
    main()
