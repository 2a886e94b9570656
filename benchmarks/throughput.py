"""Photographs per second of the imaging core, beside other tools on the same cores."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import click
import psutil
import yaml
from PIL import Image

from benchmarks.memory import LOOK_SECONDS, Peak, watched
from benchmarks.photos import photographs
from benchmarks.report import FOLDER, Report, Row, describe_machine
from image_pipeline.commands.files import LocalFile
from image_pipeline.settings import Workers

CHECKOUT = Path(__file__).parents[1]
RIVALS = Path(__file__).parent / "rivals"

#: Enough for starting up to be a few percent of a run; more only takes longer.
MOST = 40

#: Rounds in which every tool has its turn; the best counts, as other work on the machine only
#: ever adds to a time.
ROUNDS = 3

#: Times our throughput is that of the textbook script and of sharp, and the share of tuned
#: libvips' throughput that must be reached: Pillow resizes without SIMD.
TIMES_TEXTBOOK = 2.2
TIMES_SHARP = 2.0
SHARE_OF_VIPS = 0.95

#: Share of the memory of the textbook script.
MEMORY_OF_TEXTBOOK = 0.1

#: What resizing, checking and hashing may add to the time of the codecs.
TIMES_FLOOR = 1.15

#: Megabytes (10^6 bytes) of a run with one worker: the smallest machines that clouds rent.
GOAL_MEGABYTES = 512.0

#: The sizes of the default recipe. The crop is in the middle, as nobody's own idea of where to
#: cut is being compared.
SIZES: dict[str, dict[str, Any]] = {
    "xlarge": {"width": 2560, "height": 1440, "cover": False},
    "large": {"width": 1920, "height": 1080, "cover": False},
    "medium": {"width": 1024, "height": 768, "cover": False},
    "small": {"width": 640, "height": 480, "cover": False},
    "thumbnail": {"width": 400, "height": 400, "cover": True},
}

QUALITY = 85

#: sharp's own default quality of JPEG and WebP.
SHARP_QUALITY = 80

OURS, TEXTBOOK, SHARP, VIPS, FLOOR = (
    "image-pipeline process", "textbook Pillow", "sharp", "pyvips", "codecs alone"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Work:
    """What a script of :mod:`benchmarks.rivals` is given. ``formats`` are qualities."""

    files: list[str]
    out: str
    cores: int
    formats: dict[str, int]
    progressive: bool = True
    sizes: dict[str, dict[str, Any]] = field(default_factory=lambda: SIZES)


@dataclass(frozen=True, slots=True)
class Used:
    """One run of a tool: wall and CPU seconds of its processes, and what it wrote.

    ``own`` are the seconds it counts itself, without the start of its first process; ``sizes``
    is the number of files and of bytes by file name up to the first dash and by extension.
    """

    wall: float
    cpu: float
    own: float
    sizes: dict[tuple[str, str], tuple[int, int]]

    @property
    def files(self) -> int:
        """Number of files written."""
        return sum(count for count, _ in self.sizes.values())

    def bytes_of(self, kind: str) -> int:
        """Bytes of a format by its file extension."""
        return sum(size for (_, found), (_, size) in self.sizes.items() if found == kind)


@dataclass(frozen=True, slots=True)
class Tool:
    """How a tool is started: its command and standard input, from files and a folder."""

    name: str
    command: Callable[[Sequence[Path], Path], tuple[list[str], str]]
    folder: Path = CHECKOUT


class Bench:
    """The photographs, the settings and the tools of one measurement."""

    def __init__(self, folder: Path, files: list[Path], cores: int) -> None:
        self.folder = folder
        self.files = files
        self.cores = cores
        self.megapixels = [_megapixels(file) for file in files]
        self.megabytes = sum(file.stat().st_size for file in files) / 1e6
        self._config = folder / "pipeline.yaml"
        self._config.write_text(yaml.safe_dump(_settings()), encoding="utf-8")

    def ours(self, recipe: str, workers: int | None = None) -> Tool:
        """``image-pipeline process`` with a recipe."""

        def command(files: Sequence[Path], out: Path) -> tuple[list[str], str]:
            return [
                *(sys.executable, "-m", "image_pipeline.cli", "process", *map(str, files)),
                *("--out", str(out), "--recipe", recipe, "--config", str(self._config)),
                *("--workers", str(workers or self.cores), "--json"),
            ], ""

        return Tool(OURS, command)

    def script(self, name: str, start: Sequence[str], folder: Path = CHECKOUT, **work: Any) -> Tool:
        """A script of :mod:`benchmarks.rivals`; ``work`` goes into :class:`Work`."""

        def command(files: Sequence[Path], out: Path) -> tuple[list[str], str]:
            given = {"formats": {"webp": QUALITY, "jpeg": QUALITY}, **work}
            names = [str(file) for file in files]
            return list(start), json.dumps(asdict(Work(names, str(out), self.cores, **given)))

        return Tool(name, command, folder)

    def run(self, tool: Tool, count: int | None = None) -> Used:
        """Start a tool on the first ``count`` photographs and wait for its end."""
        with self._started(tool, count) as (process, out, answer):
            began = time.perf_counter()
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            said = _said(tool, process, answer)
            # Codecs alone count their own CPU: the pictures had to be made ready as well.
            cpu = said.get("cpu", used.ru_utime + used.ru_stime)
            return Used(wall, cpu, said["seconds"], _written(out))

    def peak(self, tool: Tool, count: int | None = None) -> Peak:
        """The most memory that a tool's processes hold meanwhile; a run of its own."""
        with self._started(tool, count) as (process, _, answer):
            peak = watched(psutil.Process(process.pid))
            process.wait()
            _said(tool, process, answer)
            return peak

    @contextmanager
    def _started(
        self, tool: Tool, count: int | None
    ) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            out, answer, given = Path(name, "out"), Path(name, "answer"), Path(name, "given")
            command, words = tool.command(self.files[:count], out)
            given.write_text(words, encoding="utf-8")
            with given.open("rb") as stdin, answer.open("wb") as stdout:
                process = subprocess.Popen(
                    command,
                    cwd=tool.folder,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=subprocess.DEVNULL,
                )
            try:
                yield process, out, answer
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Run every tool in turns, then ours alone with other numbers of photographs and workers."""
    machine = describe_machine()
    given = photographs(min(images, MOST), folder)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="throughput-", dir=FOLDER) as name:
        place = Path(name).resolve()
        bench = Bench(place, _copies(given, min(images, MOST), place / "photos"), Workers().count)
        rivals, notes = _rivals(bench)
        rounds = 1 if quick else ROUNDS
        tools = [bench.ours("bench"), *rivals]
        peaks = {tool.name: bench.peak(tool) for tool in tools}
        runs = _in_turns(bench, tools, rounds)
        rows = [
            *_beside(runs, peaks, len(bench.files)),
            *_linearity(bench, runs, peaks[OURS]),
            *_with_avif(bench, rounds, notes),
        ]
    return Report(
        "throughput",
        f"{len(bench.files)} photographs to {len(SIZES)} sizes in WebP and JPEG,"
        " beside other tools",
        tuple(rows),
        (*_notes(bench, runs, len(given), rounds), *notes),
        machine,
    )


def _settings() -> dict[str, Any]:
    """The recipe that all tools follow, and the default one with AVIF alone."""
    sizes = {
        name: {
            "width": size["width"],
            "height": size["height"],
            "quality_offset": 0,
            **({"role": "thumbnail", "fit": "cover", "crop": "center"} if size["cover"] else {}),
        }
        for name, size in SIZES.items()
    }
    formats = {"webp": {"quality": QUALITY}, "jpeg": {"quality": QUALITY}}
    return {
        "recipes": {
            "bench": {"sizes": sizes, "formats": formats},
            "avif": {"formats": {"avif": {}}},
        }
    }


def _copies(files: Sequence[LocalFile], count: int, folder: Path) -> list[Path]:
    """``count`` files: each photograph as often as needed, under names of their own."""
    folder.mkdir()
    made = []
    for number, file in enumerate(islice(cycle(files), count)):
        path = folder / f"{number:03}{file.path.suffix}"
        shutil.copy(file.path, path)
        made.append(path)
    return made


def _megapixels(file: Path) -> float:
    with Image.open(file) as opened:
        return opened.width * opened.height / 1e6


def _rivals(bench: Bench) -> tuple[list[Tool], list[str]]:
    """The tools that are installed, and notes about those that are not."""
    python = {"textbook.py": TEXTBOOK, "floor.py": FLOOR}
    notes = []
    if importlib.util.find_spec("pyvips"):
        python["vips.py"] = VIPS
    else:
        notes.append(f"{VIPS} is not installed: pip install '.[bench]'")
    rivals = [bench.script(name, (sys.executable, str(RIVALS / file)))
              for file, name in python.items()]  # fmt: skip
    installed = _sharp()
    if installed is None:
        notes.append(f"{SHARP} is not installed: it needs npm")
    else:
        rivals.append(bench.script(SHARP, ("node", str(RIVALS / "sharp.mjs")), installed))
    return rivals, notes


def _sharp() -> Path | None:
    """The folder with sharp in it, installed if need be; None without npm or a registry."""
    folder = FOLDER.resolve() / "sharp"
    wanted = (RIVALS / "package.json").read_text(encoding="utf-8")
    kept = folder / "package.json"
    if (folder / "node_modules" / "sharp").is_dir() and kept.read_text("utf-8") == wanted:
        return folder
    if not (shutil.which("npm") and shutil.which("node")):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(wanted, encoding="utf-8")
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
    done = subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False)
    return folder if done.returncode == 0 else None


def _in_turns(bench: Bench, tools: Sequence[Tool], rounds: int) -> dict[str, list[Used]]:
    runs: dict[str, list[Used]] = {tool.name: [] for tool in tools}
    for number in range(rounds):
        for tool in tools:
            print(f"throughput: round {number + 1} of {rounds}, {tool.name}", file=sys.stderr)
            runs[tool.name].append(bench.run(tool))
    return runs


def _beside(runs: Mapping[str, list[Used]], peaks: Mapping[str, Peak], count: int) -> Iterator[Row]:
    """Ours beside each rival: wall, own seconds, CPU, memory."""
    ours = runs[OURS]
    yield Row("photographs per second", count / _wall(ours), "")
    goals = {
        TEXTBOOK: 1 / TIMES_TEXTBOOK, SHARP: 1 / TIMES_SHARP, VIPS: 1 / SHARE_OF_VIPS,
        FLOOR: TIMES_FLOOR,
    }  # fmt: skip
    for name in (other for other in goals if other in runs):
        theirs = runs[name]
        # Making pictures ready is no codec's work: only its own count says what they took.
        wall = _own(theirs) if name == FLOOR else _wall(theirs)
        yield Row(f"beside {name}: whole run", _wall(ours), "s", wall, goals[name], "ratio")
        yield Row(f"beside {name}: without starting Python or node", _own(ours), "s", _own(theirs))
        yield Row(f"beside {name}: CPU", _cpu(ours), "s", _cpu(theirs))
        if name != FLOOR:
            goal = MEMORY_OF_TEXTBOOK if name == TEXTBOOK else None
            held = peaks[OURS].pss / 1e6, peaks[name].pss / 1e6
            yield Row(f"beside {name}: peak memory (PSS)", held[0], "MB", held[1], goal, "ratio")
        for kind in ("webp", "jpg"):
            written = ours[0].bytes_of(kind) / 1e6, theirs[0].bytes_of(kind) / 1e6
            yield Row(f"beside {name}: {kind} written", written[0], "MB", written[1])


def _linearity(bench: Bench, runs: Mapping[str, list[Used]], whole_peak: Peak) -> Iterator[Row]:
    """Ours with fewer photographs, and with one worker."""
    count = len(bench.files)
    tool = bench.ours("bench")
    found: dict[str, tuple[int, Used, Peak]] = {}
    for part in (max(1, count // 4), max(1, count // 2)):
        print(f"throughput: {part} photographs", file=sys.stderr)
        label = f"{part} photographs, {bench.cores} workers"
        found[label] = (part, _best(bench, tool, part), bench.peak(tool, part))
    best = min(runs[OURS], key=lambda used: used.wall)
    found[f"{count} photographs, {bench.cores} workers"] = (count, best, whole_peak)
    half = max(1, count // 2)
    print(f"throughput: {half} photographs, one worker", file=sys.stderr)
    alone = bench.ours("bench", 1)
    one = f"{half} photographs, 1 worker"
    found[one] = (half, _best(bench, alone, half), bench.peak(alone, half))
    few, first, _ = next(iter(found.values()))
    if count > few:
        further = (best.wall - first.wall) / (count - few)
        codecs = _own(runs[FLOOR]) / count
        label = f"each photograph past {few}, beside {FLOOR}"
        yield Row(label, 1000 * further, "ms", 1000 * codecs, TIMES_FLOOR, "ratio")
    for label, (part, used, peak) in found.items():
        goal = GOAL_MEGABYTES if label == one else None
        yield Row(f"{label}: photographs per second", part / used.wall, "")
        megapixels = sum(bench.megapixels[:part])
        yield Row(f"{label}: CPU per megapixel of source", 1000 * used.cpu / megapixels, "ms")
        yield Row(f"{label}: peak memory (PSS)", peak.pss / 1e6, "MB", None, goal)
        yield Row(f"{label}: of it, the process that hands out the work", peak.own / 1e6, "MB")


def _best(bench: Bench, tool: Tool, count: int) -> Used:
    return min((bench.run(tool, count) for _ in range(2)), key=lambda used: used.wall)


def _with_avif(bench: Bench, rounds: int, notes: list[str]) -> Iterator[Row]:
    """The default recipe, which has AVIF, beside sharp's defaults, which have not."""
    if any(note.startswith(SHARP) for note in notes):
        return
    formats = {"webp": SHARP_QUALITY, "jpeg": SHARP_QUALITY}
    sharp = bench.script(
        SHARP, ("node", str(RIVALS / "sharp.mjs")), FOLDER.resolve() / "sharp",
        formats=formats, progressive=False,
    )  # fmt: skip
    turns = [(bench.ours("web"), bench.ours("avif"), sharp)] * rounds
    print("throughput: the default recipe", file=sys.stderr)
    runs = [tuple(bench.run(tool) for tool in turn) for turn in turns]
    web, avif, theirs = (list(used) for used in zip(*runs, strict=True))
    yield Row("AVIF, WebP and JPEG beside sharp's WebP and JPEG: CPU", _cpu(web), "s",
              _cpu(theirs), 1.0, "ratio")  # fmt: skip
    yield Row("AVIF, WebP and JPEG beside sharp's WebP and JPEG: whole run", _wall(web), "s",
              _wall(theirs))  # fmt: skip
    yield Row("AVIF alone beside sharp's WebP and JPEG: CPU", _cpu(avif), "s", _cpu(theirs),
              1.0, "ratio")  # fmt: skip
    # Of several formats only those are kept that are smaller than their fallback, so that their
    # means would be of other photographs; AVIF alone and JPEG, the last fallback, always stay.
    for name in SIZES:
        for used, ours, other in ((avif, "avif", "webp"), (web, "jpg", "jpg")):
            mine, theirs_too = (run[0].sizes.get(key) for run, key in (
                (used, (name, ours)), (theirs, (name, other)),
            ))  # fmt: skip
            if mine and theirs_too and mine[0] == theirs_too[0]:
                label = f"{name}: mean {ours} beside sharp's {other}"
                count = mine[0]
                yield Row(label, mine[1] / count / 1e3, "kB", theirs_too[1] / count / 1e3)


def _wall(runs: Sequence[Used]) -> float:
    return min(used.wall for used in runs)


def _own(runs: Sequence[Used]) -> float:
    return min(used.own for used in runs)


def _cpu(runs: Sequence[Used]) -> float:
    return min(used.cpu for used in runs)


def _said(tool: Tool, process: subprocess.Popen[bytes], answer: Path) -> dict[str, float]:
    """The JSON that a tool printed. Raises ``ClickException`` if it failed."""
    if process.returncode:
        raise click.ClickException(f"{tool.name} ended with exit code {process.returncode}")
    said: dict[str, float] = json.loads(answer.read_text(encoding="utf-8"))
    return said


def _written(out: Path) -> dict[tuple[str, str], tuple[int, int]]:
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for path in out.rglob("*.*"):
        if path.is_file():
            key = (path.stem.partition("-")[0], path.suffix[1:])
            count, size = found.get(key, (0, 0))
            found[key] = (count + 1, size + path.stat().st_size)
    return found


def _notes(
    bench: Bench, runs: Mapping[str, list[Used]], different: int, rounds: int
) -> tuple[str, ...]:
    written = ", ".join(f"{name} {used[0].files}" for name, used in runs.items())
    spread = "; ".join(
        f"{name} {' / '.join(f'{used.wall:.1f}' for used in found)} s"
        for name, found in runs.items()
    )
    return (
        f"{len(bench.files)} files ({different} different photographs), {bench.megabytes:.0f} MB,"
        f" median {median(bench.megapixels):.1f} megapixels; {bench.cores} cores for every tool;"
        f" the best of {rounds} rounds in turns: {spread}",
        f"files written, of {len(bench.files) * len(SIZES) * 2} expected: {written}; WebP {QUALITY}"
        f" method 4, JPEG {QUALITY} progressive 4:2:0 for all",
        "ours also checks every file, hashes it, finds duplicates' fingerprints, its colour and"
        " its placeholder, and decodes in processes that a bad file cannot take along",
        "the codecs alone have their pictures ready and no start-up: their seconds are those of"
        " the codecs' calls divided by the cores",
        f"memory is looked at every {LOOK_SECONDS:g} s in runs of their own, summed over all"
        " processes of a tool",
    )
