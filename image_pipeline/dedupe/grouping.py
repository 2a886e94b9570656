"""Which images show the same picture, and which of them stands for the others.

Groups are stars: every member was compared with its canonical. Nearness is not transitive,
so a chain of near pictures never becomes one group. The groups are a function of the set of
images and of nothing else: what arrived first, and with what, changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from image_pipeline.dedupe.bands import REACH, probes, split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Cells = NDArray[np.float64]

Tier = Literal["pixels", "picture"]

#: The tiers told here, the surer one first. The tier ``bytes`` is one image to begin with.
TIERS: tuple[Tier, ...] = ("pixels", "picture")

#: Bits of the 64-bit pHash that a re-encode or a rescale may flip. Distances are even, for a
#: median cuts the bits in halves; 99 % stay within 4, the grain of wood saved at quality 30 comes
#: to 6. Of 100,368 pairs of unrelated photographs one came this near, and it is a crop.
PHASH64_DISTANCE = REACH

#: Bits of the 256-bit pHash for the same picture. No unrelated pair of that set came within
#: 60, while re-encodes stay within 31, the match distance that PDQ publishes too.
PHASH256_DISTANCE = 31

#: A hash of a picture without structure is noise. Skies and gradients measured below 5, the
#: next photograph 11.7.
MIN_TEXTURE = 5.0

#: Relative difference of width/height; rounding to whole pixels moves a 1/8 copy by less.
ASPECT_TOLERANCE = 0.02

#: Levels (0-255) of Cb or Cr that a cell of the same picture may be off. In 81 pictures saves
#: at JPEG quality 10 to 60 and copies at 1/8 moved none by more than 7, a hue turned by 60
#: degrees moved each by 19 or more. Without it a red shirt is a blue one: of 57 pictures 29
#: were merged with themselves in other hues.
CHROMA_TOLERANCE = 12

#: Levels of luma (0-255) that 2 x 2 cells of a sketch of the same picture may be off, and the
#: share of the contrast around them that comes on top: one pixel of shift moves an edge by as
#: much. Hashes hardly see what is small: of 31 photographs 15 were merged with their copy that
#: carries a logo. In units of what is tolerated, saves down to JPEG quality 10 and copies at
#: 1/8 come to 0.60 and files of one scene in nine orientations to 0.79; from 2.68 on begin
#: logos of 30 % x 7 % of the picture, from 1.98 on white boxes of 10 % x 4 %.
DETAIL_TOLERANCE = 6
DETAIL_CONTRAST = 0.2

#: Pixels of a sketch's side.
SKETCH_SIDE = 32

#: Sketches kept in their normal form, 16 kB each: a canonical is compared with all its members.
_KEPT = 256

#: Quality taken for lossy formats that do not tell theirs. Encoders' defaults amount to about
#: this, so a JPEG saved better than usual stands before a WebP or AVIF of it, a poorer one not.
UNKNOWN_QUALITY = 80

_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Picture:
    """What grouping looks at.

    Sizes in pixels; ``phash64`` unsigned; ``phash256`` 64 hex digits; ``pixels``, ``texture``,
    ``chroma`` and ``sketch`` as in :class:`~image_pipeline.imaging.fingerprint.Fingerprint`,
    ``pixels``, ``chroma`` and ``sketch`` None if never computed: then there is nothing to
    compare. ``quality`` of a JPEG, 1-100; ``bordered`` if it has a uniform border; ``since`` is
    when it was first seen, aware.

    Raises ValueError, naming the image, if a hash or the sketch is not one.
    """

    id: str
    width: int
    height: int
    lossless: bool
    phash64: int
    phash256: str
    texture: float
    pixels: str | None
    quality: int | None
    bordered: bool
    has_profile: bool
    animated: bool
    has_alpha: bool
    since: datetime
    chroma: str | None = None
    sketch: bytes | None = None

    def __post_init__(self) -> None:
        for name, value in (("phash256", self.phash256), ("chroma", self.chroma)):
            if value is not None and not (len(value) == 64 and _HEX.issuperset(value)):
                raise ValueError(f"image {self.id}: {name} is not 64 hex digits: {value!r}")
        if not 0 <= self.phash64 < 1 << 64:
            raise ValueError(f"image {self.id}: phash64 is not of 64 bits: {self.phash64}")
        if self.sketch is not None and len(self.sketch) != SKETCH_SIDE**2:
            raise ValueError(f"image {self.id}: a sketch of {len(self.sketch)} bytes, not 1,024")


@dataclass(frozen=True, slots=True)
class Relation:
    """Two images show the same picture: by which evidence, and how many bits of pHash apart."""

    tier: Tier
    distance: int


@dataclass(frozen=True, slots=True)
class Grouping:
    """``image`` is stood for by ``canonical``; ``tier`` is None where they are the same."""

    image: str
    canonical: str
    tier: Tier | None
    distance: int


#: What :func:`rank` sorts by.
Rank = tuple[int, bool, int, bool, bool, datetime, str]


def rank(picture: Picture) -> Rank:
    """Sort key, best first.

    More pixels, then lossless, then the better JPEG quality, without a border, with a colour
    profile, seen earlier, and at last the id. Never the size of the file: that rewards wasteful
    encoders.
    """
    quality = UNKNOWN_QUALITY if picture.quality is None else picture.quality
    return (
        -picture.width * picture.height,
        not picture.lossless,
        -quality,
        picture.bordered,
        not picture.has_profile,
        picture.since,
        picture.id,
    )


def relation(one: Picture, other: Picture, tiers: Collection[str] = TIERS) -> Relation | None:
    """Whether both show the same picture, by the surest of ``tiers``; None if not. Symmetric.

    Animations are compared by their bytes alone: hashes know their first frame only.
    """
    if one.animated or other.animated:
        return None
    if "pixels" in tiers and _same_pixels(one, other):
        return Relation("pixels", 0)
    return _same_picture(one, other) if "picture" in tiers else None


def group(
    pictures: Iterable[Picture],
    tiers: Collection[str] = TIERS,
    apart: Collection[frozenset[str]] = (),
) -> list[Grouping]:
    """Who stands for whom among whole connected components under :func:`relation`, best first.

    Pictures are taken best first. Each joins the canonical nearest to it (by tier, then by
    distance, then by rank) or becomes one. ``apart`` are pairs of ids that people declared to
    be different pictures: such two never are in one group, whoever stands for it.

    The result is a function of the set. With a whole component (see :func:`component`) it is
    what all images together would give, so batches may come in any order.
    """
    strangers: defaultdict[str, set[str]] = defaultdict(set)
    for pair in apart:
        for image in pair:
            strangers[image] |= pair - {image}
    canonicals = _Index()
    members: defaultdict[str, set[str]] = defaultdict(set)
    groupings = []
    for picture in sorted({one.id: one for one in pictures}.values(), key=rank):
        found = _nearest(picture, canonicals, tiers, strangers[picture.id], members)
        if found is None:
            canonicals.add(picture)
            found = Grouping(picture.id, picture.id, None, 0)
        members[found.canonical].add(picture.id)
        groupings.append(found)
    return groupings


def component(
    seeds: Iterable[Picture],
    candidates: Callable[[Sequence[Picture]], Iterable[Picture]],
    tiers: Collection[str] = TIERS,
) -> list[Picture]:
    """Seeds and all that is connected with them under :func:`relation`: input for :func:`group`.

    ``candidates`` is asked once per step outwards, for all pictures reached by the step before;
    it gives at least every image within the hash distance or with equal ``pixels``.
    """
    reached = {seed.id: seed for seed in seeds}
    frontier = list(reached.values())
    while frontier:
        edge = _Index()
        for picture in frontier:
            edge.add(picture)
        found = {
            one.id: one
            for one in candidates(frontier)
            if one.id not in reached
            and any(relation(one, other, tiers) for other in edge.near(one))
        }
        reached.update(found)
        frontier = list(found.values())
    return list(reached.values())


def _same_pixels(one: Picture, other: Picture) -> bool:
    same_size = (one.width, one.height) == (other.width, other.height)
    return one.pixels is not None and one.pixels == other.pixels and same_size


def _same_picture(one: Picture, other: Picture) -> Relation | None:
    if min(one.texture, other.texture) < MIN_TEXTURE or one.has_alpha != other.has_alpha:
        return None
    bits = (one.phash64 ^ other.phash64).bit_count()
    if bits > PHASH64_DISTANCE:
        return None
    ours, theirs = one.width * other.height, other.width * one.height
    if abs(ours - theirs) > ASPECT_TOLERANCE * max(ours, theirs):
        return None
    if (int(one.phash256, 16) ^ int(other.phash256, 16)).bit_count() > PHASH256_DISTANCE:
        return None
    if not _same_colours(one.chroma, other.chroma):
        return None
    return Relation("picture", bits) if _same_details(one.sketch, other.sketch) else None


def _same_colours(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return True
    pairs = zip(bytes.fromhex(one), bytes.fromhex(other), strict=True)
    return all(abs(ours - theirs) <= CHROMA_TOLERANCE for ours, theirs in pairs)


def _same_details(one: bytes | None, other: bytes | None) -> bool:
    """Whether two sketches are the same everywhere, but for brightness and contrast."""
    if one is None or other is None or one == other:
        return True
    import numpy as np

    ours, theirs = _normal(one), _normal(other)
    if not (ours.spread and theirs.spread):
        return False
    # Both at the contrast halfway between them, so that it does not matter which is first.
    scale = np.sqrt(ours.spread * theirs.spread)
    away = np.abs(_block_means(scale * (ours.cells - theirs.cells)))
    # What a logo covers has no contrast of its own in the picture without it.
    contrast = _block_means(scale * np.minimum(ours.contrast, theirs.contrast))
    return bool((away <= DETAIL_TOLERANCE + DETAIL_CONTRAST * contrast).all())


@dataclass(frozen=True, slots=True)
class _Normal:
    """A sketch of mean 0 and deviation 1, (32, 32); ``spread`` is its deviation in levels.

    ``contrast`` is the difference between the brightest and the darkest of 3 x 3 cells.
    """

    cells: Cells
    contrast: Cells
    spread: float


@lru_cache(maxsize=_KEPT)
def _normal(sketch: bytes) -> _Normal:
    import numpy as np

    levels = np.frombuffer(sketch, np.uint8).reshape(SKETCH_SIDE, SKETCH_SIDE).astype(np.float64)
    spread = float(levels.std())
    cells = (levels - levels.mean()) / (spread or 1.0)
    brightest, darkest = (_of_three(pick, cells) for pick in (np.maximum, np.minimum))
    return _Normal(cells, brightest - darkest, spread)


def _of_three(pick: np.ufunc, cells: Cells) -> Cells:
    """``pick`` of every cell and those of its eight neighbours that there are: (32, 32)."""
    for _ in range(2):
        picked = cells.copy()
        pick(picked[1:], cells[:-1], out=picked[1:])
        pick(picked[:-1], cells[1:], out=picked[:-1])
        cells = picked.T
    return cells


def _block_means(cells: Cells) -> Cells:
    """The means of all blocks of 2 x 2 cells, overlapping: (31, 31).

    After a rescale some of a detail falls on the other side of a cell's edge; here it cancels.
    """
    rows = cells[1:] + cells[:-1]
    return (rows[:, 1:] + rows[:, :-1]) / 4


def _nearest(
    picture: Picture,
    canonicals: _Index,
    tiers: Collection[str],
    strangers: Collection[str],
    members: dict[str, set[str]],
) -> Grouping | None:
    related = [
        (TIERS.index(how.tier), how.distance, rank(other), how.tier, other.id)
        for other in canonicals.near(picture)
        if (how := relation(picture, other, tiers)) and members[other.id].isdisjoint(strangers)
    ]
    if not related:
        return None
    _, distance, _, tier, canonical = min(related)
    return Grouping(picture.id, canonical, tier, distance)


class _Index:
    """Pictures by their pixels and by the bands of their hash: all that may be related."""

    def __init__(self) -> None:
        self._by_key: defaultdict[object, dict[str, Picture]] = defaultdict(dict)

    def add(self, picture: Picture) -> None:
        for key in (picture.pixels, *enumerate(split(picture.phash64))):
            self._by_key[key][picture.id] = picture

    def near(self, picture: Picture) -> list[Picture]:
        found: dict[str, Picture] = {}
        for key in (picture.pixels, *probes(picture.phash64)):
            found.update(self._by_key.get(key, {}))
        return list(found.values())
