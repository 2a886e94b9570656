"""Pictures that resemble a canonical without being it: found, recorded, never acted on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from image_pipeline.catalog import groups as catalog_groups
from image_pipeline.catalog import near as catalog_near
from image_pipeline.catalog.engine import chunks
from image_pipeline.catalog.near import Hashes, Near
from image_pipeline.dedupe import bands
from image_pipeline.dedupe.grouping import MIN_TEXTURE, rank
from image_pipeline.dedupe.near import (
    DHASH_CANDIDATE,
    PHASH_CANDIDATE,
    Nearness,
    Sketched,
    dihedral_hashes,
    hashes_of,
    verify,
)
from image_pipeline.stages.timing import Stage, timed
from image_pipeline.stages.tools import Tools

if TYPE_CHECKING:
    import numpy as np
    import sqlalchemy as sa
    from numpy.typing import NDArray

    from image_pipeline.dedupe.index import HammingIndex

    Unsigned = NDArray[np.uint64]
    Integers = NDArray[np.int64]

#: Members up to which the index is made anew for every batch: reading them takes 0.1 s. So
#: many may also have come since a snapshot before the next one is made.
SMALL = 20_000

#: Share of a snapshot that may have come since. At 10 million hashes a new one takes about
#: half a minute, the tail before it half a second a batch.
TAIL_SHARE = 0.05

#: Candidates of one picture that are verified, the nearest first; each takes 0.1 to 0.2 ms.
#: More are alike where thousands of pictures were made on one template.
MOST_CANDIDATES = 2_000


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found: pairs, how many were verified, and how many were too many for it."""

    pairs: int
    candidates: int
    left_out: int


def find_near(tools: Tools, batch: str, source: str) -> Search:
    """Look for pictures near to the canonicals that a batch brought or changed; record them.

    All canonicals of the source are searched, in the eight forms that turning and mirroring
    give, with and without a uniform border. Pairs that people separated are left out. May be
    repeated at any time: what is recorded stays as it is.

    Raises :class:`~image_pipeline.catalog.groups.DamagedRowError`.
    """
    if not tools.source(source).duplicates.near:
        return Search(0, 0, 0)
    with timed(tools, "near", batch, source) as stage:
        return _find_near(tools, batch, source, stage)


def _find_near(tools: Tools, batch: str, source: str, stage: Stage) -> Search:
    with tools.catalog.read() as connection:
        changed = catalog_groups.members_changed_by(connection, batch)
        demoted = [row.image_id for row in changed if row.canonical_id != row.image_id]
        touched = _touched(
            connection, source, catalog_near.canonicals_changed_by(connection, batch)
        )
        stage.images = len(touched)
        lookup = _Lookup.open(tools, connection, source) if touched else None
        wanted = lookup.candidates(touched) if lookup else _Wanted({}, 0)
        found = _verified(connection, source, touched, wanted)
        pairs = _ranked(connection, source, found)
    with tools.catalog.write() as connection:
        catalog_near.forget_near(connection, source, demoted)
        catalog_near.record_near(connection, source, pairs, tools.clock())
    looked_at = sum(len(owners) for owners in wanted.owners.values())
    return Search(len(pairs), looked_at, wanted.left_out)


def _touched(connection: sa.Connection, source: str, ids: Iterable[str]) -> list[Sketched]:
    found: list[Sketched] = []
    for part in chunks(ids):
        rows = catalog_near.sketched_canonicals(connection, source, ids=part)
        found.extend(one for _, one in rows.values() if hashes_of(one))
    return found


@dataclass(frozen=True, slots=True)
class _Wanted:
    """By member number, the positions of the pictures it may be near to; and who was too many."""

    owners: dict[int, list[int]]
    left_out: int


def _verified(
    connection: sa.Connection, source: str, touched: Sequence[Sketched], wanted: _Wanted
) -> dict[tuple[str, str], Nearness]:
    """Pairs of ids that verification confirms; the first of each is brought over the second."""
    apart = catalog_groups.separated(connection, source, [one.id for one in touched])
    found: dict[tuple[str, str], Nearness] = {}
    for part in chunks(sorted(wanted.owners)):
        others = catalog_near.sketched_canonicals(connection, source, numbers=part)
        for number, other in others.values():
            for position in wanted.owners[number]:
                one = touched[position]
                pair = (one.id, other.id)
                if one.id == other.id or pair[::-1] in found or frozenset(pair) in apart:
                    continue
                nearness = verify(one, other)
                if nearness:
                    found[pair] = nearness
    return found


def _ranked(
    connection: sa.Connection, source: str, found: dict[tuple[str, str], Nearness]
) -> list[Near]:
    """Pairs with the better picture as the canonical one."""
    ids = sorted({image for pair in found for image in pair})
    place = {one.id: rank(one) for one in catalog_groups.get_pictures(connection, source, ids)}
    pairs = []
    for (one, other), how in found.items():
        better, worse = sorted((one, other), key=lambda image: place[image])
        turned = how.transform if worse == one else _BACK.get(how.transform, how.transform)
        pairs.append(Near(worse, better, how.found_by, turned, how.distance, how.score))
    return pairs


#: What undoes a transform; every other one undoes itself.
_BACK = {"turned 90": "turned 270", "turned 270": "turned 90"}


@dataclass(frozen=True, slots=True)
class _Hashes:
    """Hashes of one kind with the member numbers they belong to, some of them indexed."""

    parts: list[tuple[HammingIndex, Integers]]

    def within(
        self, queries: Unsigned, owners: Integers, distance: int
    ) -> tuple[Integers, Integers, Integers]:
        """(owner, member number, distance) of every match, as three arrays."""
        import numpy as np

        found = [
            (owners[match.query], numbers[match.row], match.distance.astype(np.int64))
            for index, numbers in self.parts
            for match in [index.within(queries, distance)]
        ]
        owner, number, bits = (np.concatenate(column) for column in zip(*found, strict=True))
        return owner, number, bits


@dataclass(frozen=True, slots=True)
class _Lookup:
    """All hashes of a source: pHashes, with those of contents within borders, and dHashes."""

    phashes: _Hashes
    dhashes: _Hashes

    @classmethod
    def open(cls, tools: Tools, connection: sa.Connection, source: str) -> _Lookup:
        """From the snapshots on this machine and what came since, or from the catalog alone.

        A snapshot is a cache: without one, or with one of another catalog, it is made anew.
        """
        shelf = _Shelf(tools.spool.root.parent / "hashes", tools.catalog.url, source)
        last = catalog_near.last_number(connection, source)
        if last <= SMALL:
            return cls._of(shelf.read(connection, 0), None)
        saved = shelf.load(connection)
        if saved is None or last - saved.last > max(SMALL, TAIL_SHARE * saved.last):
            saved = shelf.save(connection)
        return cls._of(shelf.read(connection, saved.last), saved)

    @classmethod
    def _of(cls, tail: _Arrays, saved: _Saved | None) -> _Lookup:
        from image_pipeline.dedupe.index import build

        phashes = [*(saved.phashes if saved else ()), (build(tail.phashes), tail.phash_numbers)]
        dhashes = [*(saved.dhashes if saved else ()), (build(tail.dhashes), tail.dhash_numbers)]
        return cls(_Hashes(phashes), _Hashes(dhashes))

    def candidates(self, touched: Sequence[Sketched]) -> _Wanted:
        """Whose sketches are to be compared with those of ``touched``."""
        import numpy as np

        forms: list[int] = []
        owners: list[int] = []
        for position, one in enumerate(touched):
            hashes = {form for _, sketch in hashes_of(one) for form in dihedral_hashes(sketch)}
            forms.extend(sorted(hashes))
            owners.extend([position] * len(hashes))
        places = [place for place, one in enumerate(touched) if one.texture >= MIN_TEXTURE]
        plain = np.array([touched[place].dhash64 for place in places], dtype=np.uint64)
        found = [
            self.phashes.within(
                np.array(forms, dtype=np.uint64), np.array(owners), PHASH_CANDIDATE
            ),
            self.dhashes.within(plain, np.array(places, dtype=np.int64), DHASH_CANDIDATE),
        ]
        owner, number, bits = (np.concatenate(column) for column in zip(*found, strict=True))
        return _nearest(owner, number, bits)


def _nearest(owner: Integers, number: Integers, bits: Integers) -> _Wanted:
    """Every pair once, and of each owner only the nearest :data:`MOST_CANDIDATES`."""
    import numpy as np

    order = np.lexsort((bits, number, owner))
    owner, number, bits = owner[order], number[order], bits[order]
    first = np.ones(len(owner), dtype=bool)
    first[1:] = (owner[1:] != owner[:-1]) | (number[1:] != number[:-1])
    owner, number, bits = owner[first], number[first], bits[first]
    order = np.lexsort((number, bits, owner))
    owner, number = owner[order], number[order]
    starts = np.searchsorted(owner, owner)
    kept = np.arange(len(owner)) - starts < MOST_CANDIDATES
    wanted: dict[int, list[int]] = {}
    for member, position in zip(number[kept].tolist(), owner[kept].tolist(), strict=True):
        wanted.setdefault(member, []).append(position)
    return _Wanted(wanted, int((~kept).sum()))


@dataclass(frozen=True, slots=True)
class _Arrays:
    """Hashes of members in the order of their numbers, with these numbers."""

    phashes: Unsigned
    phash_numbers: Integers
    dhashes: Unsigned
    dhash_numbers: Integers


@dataclass(frozen=True, slots=True)
class _Saved:
    """Indexes of everybody up to the number ``last``, mapped from disk."""

    phashes: list[tuple[HammingIndex, Integers]]
    dhashes: list[tuple[HammingIndex, Integers]]
    last: int


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The snapshots of a source in a local folder."""

    folder: Path
    url: str
    source: str

    def read(self, connection: sa.Connection, after: int) -> _Arrays:
        """The hashes of everybody after a number, from the catalog."""
        import numpy as np

        pages = catalog_near.hashes_after(connection, self.source, after)
        parts = [_arrays(page) for page in pages] or [_arrays([])]
        return _Arrays(
            np.concatenate([part.phashes for part in parts]),
            np.concatenate([part.phash_numbers for part in parts]),
            np.concatenate([part.dhashes for part in parts]),
            np.concatenate([part.dhash_numbers for part in parts]),
        )

    def load(self, connection: sa.Connection) -> _Saved | None:
        """The snapshots, if both are there and of this catalog as it is now."""
        from image_pipeline.catalog import snapshot

        phashes = snapshot.load(self.folder, self._name("phash"), self._token)
        dhashes = snapshot.load(self.folder, self._name("dhash"), self._token)
        if phashes is None or dhashes is None or not len(dhashes.numbers):
            return None
        # Two processes may have saved at once, one its pHashes and the other its dHashes.
        if phashes.last_number != dhashes.last_number:
            return None
        last = dhashes.last_number
        newest = next(catalog_near.hashes_after(connection, self.source, last - 1, 1), [])
        # A catalog that was made anew, or a number given a second time.
        if [(row.number, row.dhash64) for row in newest] != [
            (last, bands.signed(int(dhashes.index.hashes[-1])))
        ]:
            return None
        return _Saved([(phashes.index, phashes.numbers)], [(dhashes.index, dhashes.numbers)], last)

    def save(self, connection: sa.Connection) -> _Saved:
        """Make the snapshots anew; mapped from disk where that went well, else from memory."""
        from image_pipeline.catalog import snapshot
        from image_pipeline.dedupe.index import build

        arrays = self.read(connection, 0)
        # Up to the newest of which both hashes are known; what came after it is in the tail.
        last = int(arrays.dhash_numbers[-1]) if len(arrays.dhash_numbers) else 0
        before = arrays.phash_numbers <= last
        phash_numbers = arrays.phash_numbers[before]
        phashes, dhashes = build(arrays.phashes[before]), build(arrays.dhashes)
        kept = ((phashes, phash_numbers, "phash"), (dhashes, arrays.dhash_numbers, "dhash"))
        # A cache: where it cannot be kept, the next batch reads the catalog again.
        with suppress(OSError):
            for index, numbers, kind in kept:
                snapshot.save(self.folder, self._name(kind), index, numbers, self._token)
        in_memory = _Saved([(phashes, phash_numbers)], [(dhashes, arrays.dhash_numbers)], last)
        return self.load(connection) or in_memory

    def _name(self, kind: str) -> str:
        return f"{self.source}-{kind}"

    @property
    def _token(self) -> str:
        # Snapshots of before lack the contents of pictures that have no texture as a whole.
        return hashlib.sha256(f"contents {self.url}".encode()).hexdigest()[:16]


def _arrays(page: Sequence[Hashes]) -> _Arrays:
    import numpy as np

    wholes = [row for row in page if row.phash64 is not None]
    numbers = np.array([row.number for row in wholes], dtype=np.int64)
    phashes = np.array([row.phash64 for row in wholes], dtype=np.int64)
    contents = [
        (row.number, row.content_phash64) for row in page if row.content_phash64 is not None
    ]
    content_numbers = np.array([number for number, _ in contents], dtype=np.int64)
    content_hashes = np.array([value for _, value in contents], dtype=np.int64)
    dhashes = np.array([row.dhash64 for row in wholes], dtype=np.int64)
    return _Arrays(
        np.concatenate([phashes, content_hashes]).view(np.uint64),
        np.concatenate([numbers, content_numbers]),
        dhashes.view(np.uint64),
        numbers,
    )
