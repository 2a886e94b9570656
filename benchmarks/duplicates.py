"""What each tier of duplicates finds and what it takes for the same, beside imagehash alone."""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import click
import imagehash
import numpy as np
from PIL import Image, ImageOps

from benchmarks.edits import EDITS, Edit, original_of
from benchmarks.report import Grid, Report, Row, describe_machine
from image_pipeline.commands.dedupe import candidate_pairs, picture_of, sketched_of
from image_pipeline.commands.display import progress_bar
from image_pipeline.commands.files import find_files
from image_pipeline.dedupe.grouping import CHROMA_TOLERANCE, MIN_TEXTURE, Picture, relation
from image_pipeline.dedupe.index import build
from image_pipeline.dedupe.near import Sketched, verify
from image_pipeline.imaging.inspection import inspect_image
from image_pipeline.samples import photograph
from image_pipeline.settings import Limits

TIERS = ("bytes", "pixels", "picture", "near")
ACTED_ON = 3

#: The distance at which imagehash and imagededup call two pictures duplicates by default.
RIVAL_DISTANCE = 10
RIVAL = f"imagehash pHash <= {RIVAL_DISTANCE}"

#: Longest side of an original: a shop's picture. Hashes see less than 100 pixels of it, and a
#: grid of a hundred photographs stays a matter of minutes.
SIDE = 1600

#: Names of folders with a meaning: shots from one place that are not duplicates; edits of one
#: picture, the same in both; and as many pictures as there are names before the underscore.
CONSECUTIVE, EDITED, ORIENTED = "consecutive", ("edits", "dihedral"), "orientation"

#: Edits that a goal speaks of.
SAVED = tuple(edit for edit in EDITS if edit.family in ("re-encoding", "rescale"))
BORDERS = ("white border 5 %", "black border 5 %")


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture: a file, or the seed of a generated one; ``files`` show it too."""

    name: str
    original: Path | int
    consecutive: bool = False
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """One file, as the pipeline and as imagehash see it. ``edit`` is empty for an original."""

    scene: str
    edit: str
    digest: str
    picture: Picture
    sketched: Sketched
    rival: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about two files: a place in :data:`TIERS` or None, and imagehash's."""

    tier: int | None
    rival: bool


def measure(images: int, folder: Path | None, quick: bool) -> Report:
    """Edit every picture in every way, and compare everything with everything."""
    machine = describe_machine()
    scenes = _scenes(images, folder)
    seen = _look(scenes)
    originals = {one.scene: one for one in seen if not one.edit}
    textured = {name for name, one in originals.items() if one.picture.texture >= MIN_TEXTURE}
    found = {(one.scene, one.edit): compare(originals[one.scene], one) for one in seen if one.edit}
    grid = {key: verdict for key, verdict in found.items() if key[0] in textured}
    started = time.perf_counter()
    false, hard = _false_pairs(seen, {scene.name for scene in scenes if scene.consecutive})
    seconds = time.perf_counter() - started
    return Report(
        "duplicates",
        f"Duplicates among {len(scenes)} pictures and {len(seen) - len(scenes):,} edits of them",
        _rows(grid, _recoloured(grid, originals), false, hard),
        (*_notes(seen, textured, (false, hard), seconds), *_missed_by_name(grid)),
        machine,
        (_recall(grid), _precision(grid, false, hard), *_by_others(scenes, found)),
    )


def compare(one: Seen, other: Seen) -> Verdict:
    """The surest tier in which two files are duplicates, and whether imagehash calls them so."""
    rival = (one.rival ^ other.rival).bit_count() <= RIVAL_DISTANCE
    if one.digest == other.digest:
        return Verdict(0, rival)
    same = relation(one.picture, other.picture)
    if same is not None:
        return Verdict(TIERS.index(same.tier), rival)
    return Verdict(None if verify(one.sketched, other.sketched) is None else 3, rival)


# ------------------------------------------------------------------------------ the pictures


def _scenes(images: int, folder: Path | None) -> list[Scene]:
    """At most ``images`` of a folder with all below it, or as many generated ones."""
    if folder is None:
        return [Scene(f"generated {seed}", seed) for seed in range(images)]
    by_scene: dict[str, list[Path]] = {}
    for file in find_files([folder]):
        if _is_picture(file.path):
            by_scene.setdefault(_scene_name(file.path, file.name), []).append(file.path)
    if not by_scene:
        raise click.ClickException(f"there are no pictures in {folder}")
    return [
        Scene(name, paths[0], paths[0].parent.name == CONSECUTIVE, tuple(paths[1:]))
        for name, paths in by_scene.items()
    ][:images]


def _scene_name(path: Path, name: str) -> str:
    kind = path.parent.name
    if kind in EDITED:
        return EDITED[0]
    return f"{kind} {path.stem.partition('_')[0]}" if kind == ORIENTED else name


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except (OSError, ValueError):
        return False


def _look(scenes: Sequence[Scene]) -> list[Seen]:
    seen: list[Seen] = []
    with (
        ProcessPoolExecutor(mp_context=get_context("spawn")) as pool,
        progress_bar() as progress,
    ):
        task = progress.add_task("editing pictures", total=len(scenes))
        for found in pool.map(look_at, scenes):
            seen += found
            progress.advance(task)
    return seen


def look_at(scene: Scene) -> list[Seen]:
    """A picture, every edit of it, and the files that show it too. The original comes first."""
    original = original_of(_pixels(scene.original))
    return [
        _seen(scene, "", original.data),
        *(_seen(scene, edit.name, edit.apply(original)) for edit in EDITS),
        *(_seen(scene, path.name, path.read_bytes()) for path in scene.files),
    ]


def _pixels(original: Path | int) -> Image.Image:
    if isinstance(original, int):
        return photograph(SIDE, SIDE * 3 // 4, original)
    with Image.open(original) as image:
        image.draft("RGB", (SIDE, SIDE))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return upright


def _seen(scene: Scene, edit: str, data: bytes) -> Seen:
    name = f"{scene.name}: {edit or 'original'}"
    found = inspect_image(data, Limits())
    with Image.open(io.BytesIO(data)) as image:
        rival = int(str(imagehash.phash(image)), 16)
    return Seen(
        scene.name,
        edit,
        hashlib.sha256(data).hexdigest(),
        picture_of(name, found, datetime.now(UTC)),
        sketched_of(name, found),
        rival,
    )


# ------------------------------------------------------------------------- what is not the same


@dataclass(slots=True)
class Mistakes:
    """Pairs of different scenes, and what took them for duplicates.

    ``pairs`` is how many there are, ``tiers`` counts them by place in :data:`TIERS`, ``rival``
    is imagehash's count. ``named`` has the scenes of those that the pipeline found.
    """

    pairs: int = 0
    tiers: Counter[int] = field(default_factory=Counter)
    rival: int = 0
    named: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, one: Seen, other: Seen, tier: int) -> None:
        """Count a pair that the pipeline found."""
        first, second = sorted((one.scene, other.scene))
        self.tiers[tier] += 1
        self.named[TIERS[tier], first, second] += 1


def _false_pairs(seen: Sequence[Seen], consecutive: set[str]) -> tuple[Mistakes, Mistakes]:
    """Mistakes among unrelated scenes, and among consecutive shots of one place.

    Only pairs within some hash's distance are compared: the others are what no tier can find.
    """
    unrelated, hard = Mistakes(), Mistakes()
    sizes = Counter(one.scene for one in seen)
    for first, second in combinations(sizes, 2):
        kind = hard if {first, second} <= consecutive else unrelated
        kind.pairs += sizes[first] * sizes[second]
    for one, other in _across(seen, map(tuple, candidate_pairs([one.sketched for one in seen]))):
        tier = compare(one, other).tier
        if tier is not None:
            kind = hard if {one.scene, other.scene} <= consecutive else unrelated
            kind.add(one, other, tier)
    for one, other in _across(seen, _rival_pairs(seen)):
        kind = hard if {one.scene, other.scene} <= consecutive else unrelated
        kind.rival += 1
    return unrelated, hard


def _across(seen: Sequence[Seen], pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[Seen, Seen]]:
    """Those pairs of positions that are of different scenes."""
    for first, second in pairs:
        if seen[first].scene != seen[second].scene:
            yield seen[first], seen[second]


def _rival_pairs(seen: Sequence[Seen]) -> Iterator[tuple[int, int]]:
    hashes = np.array([one.rival for one in seen], np.uint64)
    matches = build(hashes).within(hashes, RIVAL_DISTANCE)
    for query, row in zip(matches.query.tolist(), matches.row.tolist(), strict=True):
        if query < row:
            yield query, row


# ----------------------------------------------------------------------------------- the report

Found = Mapping[tuple[str, str], Verdict]


def _rows(
    grid: Found, recoloured: Sequence[Verdict], false: Mistakes, hard: Mistakes
) -> tuple[Row, ...]:
    acted_on = sum(kind.tiers[tier] for kind in (false, hard) for tier in range(ACTED_ON))
    turned = [edit for edit in EDITS if edit.family == "turn"]
    framed = [edit for edit in EDITS if edit.name in BORDERS]
    picture, near = ACTED_ON - 1, ACTED_ON
    return (
        Row("false merges in tiers that are acted on", acted_on, "pairs",
            false.rival + hard.rival, 0),
        Row("consecutive shots found near", hard.tiers[near], "pairs", hard.rival),
        Row("pictures with colours merged with other colours", _share(recoloured, picture), "%",
            _rival_share(recoloured), 0),
        _missed("re-encodes and rescales missed by picture", grid, SAVED, picture, 0.0),
        _missed("turns and mirrorings missed by near", grid, turned, near, 5.0),
        _missed("5 % borders missed by near", grid, framed, near, 5.0),
    )  # fmt: skip


def _recoloured(grid: Found, originals: Mapping[str, Seen]) -> list[Verdict]:
    """Other hues of pictures that have any: in grey they all look the same."""
    names = {edit.name for edit in EDITS if edit.family == "colour"}
    return [
        verdict
        for (scene, edit), verdict in grid.items()
        if edit in names and _has_colours(originals[scene].picture)
    ]


def _has_colours(picture: Picture) -> bool:
    cells = bytes.fromhex(picture.chroma or "")
    return any(abs(level - 128) > CHROMA_TOLERANCE for level in cells)


def _missed(what: str, grid: Found, edits: Sequence[Edit], tier: int, goal: float) -> Row:
    names = {edit.name for edit in edits}
    verdicts = [verdict for (_, edit), verdict in grid.items() if edit in names]
    missed = 100 - _share(verdicts, tier)
    return Row(what, missed, "%", 100 - _rival_share(verdicts), goal)


def _share(verdicts: Sequence[Verdict], tier: int) -> float:
    """Percent found in this tier or a surer one."""
    count = sum(verdict.tier is not None and verdict.tier <= tier for verdict in verdicts)
    return 100 * count / max(1, len(verdicts))


def _rival_share(verdicts: Sequence[Verdict]) -> float:
    return 100 * sum(verdict.rival for verdict in verdicts) / max(1, len(verdicts))


def _recall(grid: Found) -> Grid:
    rows = []
    for edit in EDITS:
        verdicts = [verdict for (_, name), verdict in grid.items() if name == edit.name]
        shares = [*(_share(verdicts, tier) for tier in range(len(TIERS))), _rival_share(verdicts)]
        rows.append((edit.name, *map(_percent, shares)))
    columns = ("found, % (in this tier or a surer one)", *TIERS, RIVAL)
    return Grid(columns, tuple(rows))


def _percent(share: float) -> str:
    """Whole percent, where only all of them are 100 and only none of them is 0."""
    if share in (0.0, 100.0):
        return f"{share:.0f}"
    return f"{min(max(share, 0.1), 99.9):.{0 if 1 <= share <= 99 else 1}f}"


def _precision(grid: Found, false: Mistakes, hard: Mistakes) -> Grid:
    true = Counter(verdict.tier for verdict in grid.values())
    rows = [
        _kinds(name, true[tier], false.tiers[tier], hard.tiers[tier])
        for tier, name in enumerate(TIERS)
    ]
    rival = sum(verdict.rival for verdict in grid.values())
    rows.append(_kinds(RIVAL, rival, false.rival, hard.rival))
    columns = (
        "pairs found by each tier alone", "edits of one picture",
        f"unrelated, of {false.pairs:,}", f"consecutive shots, of {hard.pairs:,}", "precision",
    )  # fmt: skip
    return Grid(columns, tuple(rows))


def _kinds(name: str, true: int, false: int, hard: int) -> tuple[str, ...]:
    precision = f"{true / (true + false + hard):.4f}" if true + false + hard else "-"
    return name, f"{true:,}", f"{false:,}", f"{hard:,}", precision


def _by_others(scenes: Sequence[Scene], found: Found) -> Iterator[Grid]:
    """Files that others edited: how many are found as what, beside the first of their scene."""
    counted: dict[str, Counter[int | None]] = {}
    for scene in scenes:
        for path in scene.files:
            tiers = counted.setdefault(path.parent.name, Counter())
            tiers[found[scene.name, path.name].tier] += 1
    rows = [
        (folder, *(str(tiers[tier]) for tier in (*range(len(TIERS)), None)))
        for folder, tiers in counted.items()
    ]
    if rows:
        yield Grid(("edited by others: files by tier", *TIERS, "not found"), tuple(rows))


def _notes(
    seen: Sequence[Seen], textured: set[str], mistakes: Iterable[Mistakes], seconds: float
) -> tuple[str, ...]:
    flat = sorted({one.scene for one in seen} - textured)
    notes = [
        f"originals have {SIDE} pixels on their longer side, edits are saved as JPEG at quality 85"
        " unless they say otherwise; a generated picture is no photograph, so use --photos",
        f"every pair of the {len(seen):,} files was looked at, {seconds:.0f} s on one core",
        f"{RIVAL} hashes the file as it is, as imagehash and imagededup do by default",
    ]
    if flat:
        names = ", ".join(flat)
        notes.append(
            f"too little texture to be compared by hash, so not counted as missed: {names}"
        )
    for kind in mistakes:
        for (tier, one, other), count in kind.named.most_common(10):
            notes.append(f"look whether these are unrelated: {one} and {other}, {tier} {count}")
    return tuple(notes)


def _missed_by_name(grid: Found) -> Iterator[str]:
    """Re-encodes and rescales that are no duplicate to any tier that is acted on."""
    names = {edit.name for edit in SAVED}
    for (scene, edit), verdict in grid.items():
        if edit in names and (verdict.tier is None or verdict.tier >= ACTED_ON):
            yield f"missed by picture: {scene}, {edit}"
