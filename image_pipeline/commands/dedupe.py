"""``image-pipeline dedupe``: duplicate groups among local files."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from image_pipeline.commands.display import print_json, print_table, progress_bar, size
from image_pipeline.commands.files import check_regular, distinct_files, failure, read_file
from image_pipeline.dedupe.grouping import MIN_TEXTURE, TIERS, Picture, group, rank
from image_pipeline.dedupe.index import build
from image_pipeline.dedupe.near import (
    DHASH_CANDIDATE,
    PHASH_CANDIDATE,
    TRANSFORMS,
    Nearness,
    Sketched,
    dihedral_hashes,
    hashes_of,
    near_groups,
    verify,
)
from image_pipeline.imaging.inspection import Inspection, inspect_image
from image_pipeline.imaging.verdict import Rejected
from image_pipeline.settings import Limits, Settings
from image_pipeline.workers.opening import AnyWorkers, open_workers
from image_pipeline.workers.pool import Job, Outcome

Tier = Literal["bytes", "pixels", "picture", "near"]

#: Every tier with what it says of a file and its canonical, the surest evidence first.
MEANINGS: Mapping[Tier, str] = {
    "bytes": "the same file",
    "pixels": "the same pixels, other metadata or packing",
    "picture": "the same picture, saved again or scaled",
    "near": "resembles it (mirrored, turned, framed, marked, cropped a little): look first",
}

#: Transforms in words that are true in both directions.
_TURNED: Mapping[str, str] = dict(
    zip(
        TRANSFORMS,
        (
            "", "turned a quarter", "turned by half", "turned a quarter", "mirrored",
            "mirrored upside down", "mirrored and turned", "mirrored and turned",
        ),
        strict=True,
    )
)  # fmt: skip

#: The last second that ``datetime`` knows: file systems remember later ones.
_LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Member:
    """A file that repeats the canonical of its group, ``distance`` bits of a hash away.

    ``how`` says in words what was done to a near one, where that is known.
    """

    path: Path
    tier: Tier
    distance: int
    how: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A file to keep, and what repeats it."""

    canonical: Path
    members: tuple[Member, ...]


@dataclass(slots=True)
class Findings:
    """What was found out: pictures and bytes by file, groups, and the files that are no pictures.

    ``rejected`` has a code of ``docs/verdicts.md`` and a message for each of those.
    """

    pictures: dict[Path, Picture] = field(default_factory=dict)
    bytes: dict[Path, int] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    rejected: dict[Path, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class _File:
    """A file and when it was written; sorts by age, then by path."""

    written: datetime
    path: Path


@dataclass(frozen=True, slots=True)
class _Seen:
    """One distinct file, with all files of the same bytes."""

    picture: Picture
    sketched: Sketched
    paths: tuple[Path, ...]


def run_dedupe(
    settings: Settings, paths: Iterable[Path], weakest: str, workers: int | None, as_json: bool
) -> None:
    """Compare files and report groups; nothing is changed.

    ``weakest`` is the last of :data:`MEANINGS` that is looked for.
    """
    findings = Findings()
    with open_workers(settings.workers.with_processes(workers)) as pool, progress_bar() as progress:
        # Not by name: files of one name in several folders are what is looked for.
        distinct = _same_bytes((file.path for file in distinct_files(paths)), findings)
        task = progress.add_task("looking at pictures", total=len(distinct))
        seen = []
        for one in _inspect(pool, distinct, findings):
            seen += [one] if one else []
            progress.advance(task)
    findings.groups = _groups(seen, weakest)
    if as_json:
        print_json(_document(findings))
    else:
        _print(findings)


def in_words(found_by: str, transform: str) -> str:
    """What was done to a near picture: ``mirrored, framed``; empty where nothing says so.

    ``found_by`` and ``transform`` as in :class:`~image_pipeline.dedupe.near.Nearness`.
    """
    framed = "framed" if found_by == "content" else ""
    return ", ".join(filter(None, (_TURNED[transform], framed)))


def picture_of(image: str, found: Inspection, since: datetime) -> Picture:
    """What grouping looks at, of an inspected file; ``since`` is when it was first seen."""
    prints = found.fingerprint
    return Picture(
        id=image,
        width=found.width,
        height=found.height,
        lossless=found.lossless,
        phash64=prints.phash64,
        phash256=prints.phash256,
        texture=prints.texture,
        pixels=prints.pixels,
        quality=found.quality,
        bordered=prints.content is not None,
        has_profile=found.has_profile,
        animated=found.animated,
        has_alpha=found.has_alpha,
        since=since,
        chroma=prints.chroma,
        sketch=prints.sketch,
    )


def sketched_of(image: str, found: Inspection) -> Sketched:
    """What verification looks at, of an inspected file."""
    prints = found.fingerprint
    content = prints.content
    return Sketched(
        id=image,
        phash64=prints.phash64,
        dhash64=prints.dhash64,
        texture=prints.texture,
        sketch=prints.sketch,
        content_phash64=content.phash64 if content else None,
        content_sketch=content.sketch if content else None,
        aspect=found.width / found.height,
        content_aspect=content.width / content.height if content else None,
    )


def near_pairs(pictures: Sequence[Sketched]) -> dict[tuple[str, str], Nearness]:
    """Every near pair among pictures, by their ids.

    Candidates come from exact lookups, so that ten thousand pictures take seconds and not the
    fifty million comparisons of everything with everything.
    """
    found = {}
    for first, second in candidate_pairs(pictures):
        one, other = pictures[first], pictures[second]
        nearness = verify(one, other)
        if nearness is not None:
            found[one.id, other.id] = nearness
    return found


def candidate_pairs(pictures: Sequence[Sketched]) -> NDArray[np.int64]:
    """Pairs of positions that some hash brings within its distance: (pairs, 2), in order.

    Every pair once, the smaller position first.
    """
    textured = [place for place, one in enumerate(pictures) if one.texture >= MIN_TEXTURE]
    hashed = [(place, *view) for place, one in enumerate(pictures) for view in hashes_of(one)]
    owners, hashes = [place for place, _, _ in hashed], [value for _, value, _ in hashed]
    turned = [(place, form) for place, _, sketch in hashed for form in dihedral_hashes(sketch)]
    asking, queries = [place for place, _ in turned], [form for _, form in turned]
    across = [pictures[place].dhash64 for place in textured]
    found = (
        _within(hashes, owners, queries, asking, PHASH_CANDIDATE),
        _within(across, textured, across, textured, DHASH_CANDIDATE),
    )
    return np.unique(np.concatenate(found), axis=0)


def _within(
    hashes: list[int], owners: list[int], queries: list[int], asking: list[int], distance: int
) -> NDArray[np.int64]:
    """Pairs of owners and askers, the smaller first, whose hashes are within ``distance``."""
    matches = build(np.array(hashes, np.uint64)).within(np.array(queries, np.uint64), distance)
    places = np.array(asking, np.int64)[matches.query], np.array(owners, np.int64)[matches.row]
    pairs = np.sort(np.stack(places, axis=1), axis=1)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def _same_bytes(paths: Iterable[Path], findings: Findings) -> list[tuple[_File, ...]]:
    """Files by equal bytes, in order; the oldest of equal ones first.

    Only files of equal size are read for it: those of another size cannot have the same bytes.
    """
    by_size: dict[int, list[_File]] = defaultdict(list)
    for path in paths:
        try:
            check_regular(path)
        except Rejected as error:
            findings.rejected[path] = _why(error)
            continue
        known = path.stat()
        findings.bytes[path] = known.st_size
        by_size[known.st_size].append(_File(written_at(known.st_mtime), path))
    found = []
    for alike in by_size.values():
        by_digest: dict[str, list[_File]] = defaultdict(list)
        for file in alike:
            try:
                by_digest[_sha256(file.path) if len(alike) > 1 else ""].append(file)
            except OSError as error:
                findings.rejected[file.path] = _why(error)
        found += [tuple(sorted(same)) for same in by_digest.values()]
    return found


def written_at(seconds: float) -> datetime:
    """The time of a file, from seconds since 1970; times that no calendar has become its ends."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LAST_SECOND), UTC)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inspect(
    pool: AnyWorkers, distinct: Sequence[tuple[_File, ...]], findings: Findings
) -> Iterator[_Seen | None]:
    """Look at one of each set of equal files; None for what is no picture, as they come."""
    limits = Limits()
    jobs = (
        Job(position, partial(read_file, files[0].path, limits), (limits,))
        for position, files in enumerate(distinct)
    )
    outcome: Outcome[int, Inspection]
    for outcome in pool.run(inspect_image, jobs):
        oldest = distinct[outcome.key][0]
        paths = tuple(file.path for file in distinct[outcome.key])
        if outcome.value is None:
            findings.rejected.update(dict.fromkeys(paths, _why(outcome.error)))
            yield None
            continue
        picture = picture_of(str(oldest.path), outcome.value, oldest.written)
        findings.pictures.update(dict.fromkeys(paths, picture))
        yield _Seen(picture, sketched_of(picture.id, outcome.value), paths)


def _why(error: Exception | None) -> tuple[str, str]:
    """The code and the message of a file that could not be compared."""
    if isinstance(error, Rejected):
        return error.reason, error.message
    return failure(error)


def _groups(seen: Iterable[_Seen], weakest: str) -> list[Group]:
    """Groups in the order of their canonicals' paths; members by tier, then by path."""
    by_id = {one.picture.id: one for one in seen}
    order: list[str] = list(MEANINGS)
    wanted = order[: order.index(weakest) + 1]
    members: dict[str, list[Member]] = defaultdict(list)
    canonicals = []
    for found in group((one.picture for one in by_id.values()), set(TIERS) & set(wanted)):
        first, *copies = by_id[found.image].paths
        if found.tier is None:
            canonicals.append(found.canonical)
        else:
            members[found.canonical].append(Member(first, found.tier, found.distance))
        # A copy of a member is to the canonical what the member is.
        tier: Tier = found.tier or "bytes"
        members[found.canonical] += [Member(copy, tier, found.distance) for copy in copies]
    if "near" in wanted:
        for canonical, near in _near_members([by_id[image] for image in canonicals]).items():
            members[canonical] += near
    return [
        Group(by_id[canonical].paths[0], tuple(sorted(found, key=_by_tier)))
        for canonical, found in sorted(members.items())
        if found
    ]


def _by_tier(member: Member) -> tuple[int, str]:
    return list(MEANINGS).index(member.tier), str(member.path)


def _near_members(canonicals: Sequence[_Seen]) -> dict[str, list[Member]]:
    """What is near each canonical: stars, every member verified against its centre."""
    by_id = {one.picture.id: one for one in canonicals}
    pairs = near_pairs([one.sketched for one in canonicals])
    stars = near_groups(
        ((one, other, nearness.score) for (one, other), nearness in pairs.items()),
        lambda image: rank(by_id[image].picture),
    )
    found = {}
    for centre, images in stars.items():
        found[centre] = [
            Member(
                by_id[image].paths[0],
                "near",
                nearness.distance,
                in_words(nearness.found_by, nearness.transform),
            )
            for image in images
            if (nearness := pairs.get((centre, image)) or pairs[image, centre])
        ]
    return found


def _document(findings: Findings) -> dict[str, object]:
    return {
        "images": len(findings.pictures),
        "groups": [
            {
                "canonical": str(group.canonical),
                "members": [
                    {"path": str(one.path), "tier": one.tier, "distance": one.distance}
                    for one in group.members
                ],
            }
            for group in findings.groups
        ],
        "rejected": [
            {"path": str(path), "reason": str(reason)}
            for path, (reason, _) in sorted(findings.rejected.items())
        ],
    }


def _print(findings: Findings) -> None:
    rows = []
    for number, found in enumerate(findings.groups, 1):
        rows.append(_cells(findings, number, found.canonical, "canonical", "", ""))
        rows += [
            _cells(findings, number, one.path, one.tier, one.distance, one.how)
            for one in found.members
        ]
    columns = ("group", "file", "tier", "bits", "how", "pixels", "size")
    if rows:
        print_table(columns, rows, numbers=("group", "bits", "pixels", "size"))
        print()
    if findings.rejected:
        refused = [(path, *why) for path, why in sorted(findings.rejected.items())]
        print_table(("not compared", "reason", "message"), refused)
        print()
    _print_totals(findings)


def _cells(
    findings: Findings, number: int, path: Path, tier: str, bits: int | str, how: str
) -> tuple[object, ...]:
    picture = findings.pictures[path]
    pixels = f"{picture.width}x{picture.height}"
    return number, path, tier, bits, how, pixels, size(findings.bytes[path])


def _print_totals(findings: Findings) -> None:
    members = [one for group in findings.groups for one in group.members]
    print(f"{len(findings.pictures)} images, {len(findings.groups)} groups of duplicates")
    for tier, meaning in MEANINGS.items():
        count = sum(one.tier == tier for one in members)
        if count:
            print(f"  {count:>5} {tier:<8} {meaning}")
    sure = sum(findings.bytes[one.path] for one in members if one.tier != "near")
    if sure:
        print(f"{size(sure)} are in files that only repeat another one; near ones are not counted")
