"""Which new images are the same picture as a canonical, and which become canonical.

Groups are stars: every member was compared with its canonical. Nearness is not transitive,
so a chain of near pictures never becomes one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from image_pipeline.dedupe.bands import REACH, split

#: Bits of the 64-bit pHash that a re-encode or a rescale may flip: 99 % of them stay within
#: 4, and among 100,368 pairs of unrelated photographs one came this near (itself a crop).
PHASH64_DISTANCE = REACH

#: Bits of the 256-bit pHash for the same picture. No unrelated pair of that set came within
#: 60, while re-encodes stay within 31, the match distance that PDQ publishes too.
PHASH256_DISTANCE = 31

#: A hash of a picture without structure is noise. Skies and gradients measured below 5, the
#: next photograph 11.7.
MIN_TEXTURE = 5.0

#: Relative difference of width/height; rounding to whole pixels moves a 1/8 copy by less.
ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Picture:
    """What grouping looks at. Sizes in pixels; ``phash64`` unsigned; ``phash256`` hex."""

    id: str
    width: int
    height: int
    lossless: bool
    phash64: int
    phash256: str
    texture: float


@dataclass(frozen=True, slots=True)
class Grouping:
    """``image`` is stood for by ``canonical``, ``distance`` bits of pHash away."""

    image: str
    canonical: str
    distance: int


def distance(one: Picture, other: Picture) -> int | None:
    """The pHash distance (0-4) if both show the same picture, else None."""
    if min(one.texture, other.texture) < MIN_TEXTURE:
        return None
    bits = (one.phash64 ^ other.phash64).bit_count()
    if bits > PHASH64_DISTANCE:
        return None
    ours, theirs = one.width * other.height, other.width * one.height
    if abs(ours - theirs) > ASPECT_TOLERANCE * max(ours, theirs):
        return None
    if (int(one.phash256, 16) ^ int(other.phash256, 16)).bit_count() > PHASH256_DISTANCE:
        return None
    return bits


def rank(picture: Picture) -> tuple[int, int, str]:
    """Sort key, best first: more true pixels, then lossless, then the id as a fixed tie-break."""
    return (-picture.width * picture.height, 0 if picture.lossless else 1, picture.id)


def group(new: Iterable[Picture], canonicals: Sequence[Picture]) -> list[Grouping]:
    """Assign every new picture to the nearest canonical, or make it one.

    The result does not depend on the order of ``new``: pictures are taken best first, so that
    within a batch a small copy never stands for its large original.
    """
    index = _Index()
    for canonical in canonicals:
        index.add(canonical)
    groupings = []
    for picture in sorted(new, key=rank):
        near = [
            (bits, rank(other), other.id)
            for other in index.near(picture)
            if (bits := distance(picture, other)) is not None
        ]
        if near:
            bits, _, canonical_id = min(near)
            groupings.append(Grouping(picture.id, canonical_id, bits))
        else:
            index.add(picture)
            groupings.append(Grouping(picture.id, picture.id, 0))
    return groupings


class _Index:
    """Pictures by the bands of their hash; finds all within :data:`PHASH64_DISTANCE`."""

    def __init__(self) -> None:
        self._by_band: dict[tuple[int, int], dict[str, Picture]] = {}

    def add(self, picture: Picture) -> None:
        for band in enumerate(split(picture.phash64)):
            self._by_band.setdefault(band, {})[picture.id] = picture

    def near(self, picture: Picture) -> list[Picture]:
        found: dict[str, Picture] = {}
        for band in enumerate(split(picture.phash64)):
            found.update(self._by_band.get(band, {}))
        return list(found.values())
