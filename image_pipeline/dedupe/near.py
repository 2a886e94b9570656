"""Pictures that resemble each other without being the same: mirrored, turned, framed, marked.

Hashes give candidates, small grey pictures laid over each other decide. What is found here is
recorded and reported, never acted on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from image_pipeline.dedupe.grouping import MIN_TEXTURE
from image_pipeline.imaging.fingerprint import texture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Sketch = NDArray[np.uint8]
    Floats = NDArray[np.float64]

#: What may be done to a picture to bring it over another, in the order of
#: :func:`dihedral_hashes`. Turns are clockwise; ``transpose`` mirrors along the diagonal from
#: the upper left, ``transverse`` along the other one.
TRANSFORMS = (
    "identity", "turned 90", "turned 180", "turned 270",
    "mirrored", "flipped", "transpose", "transverse",
)  # fmt: skip

#: Those that exchange width and height.
_SIDEWAYS = (False, True, False, True, False, False, True, True)

#: pHash bits within which a pair is looked at. Of 71 pictures it brings all that were mirrored,
#: turned or cropped by 5 % around the centre and 99 % of those with a border of 5 %, but only
#: 58 % of those cropped by 5 % at a corner. Chance brings 23 times as many within 12.
PHASH_CANDIDATE = 10

#: dHash bits within which a pair is looked at, for the sake of logos and captions: they move
#: few of its bits and many of the pHash's.
DHASH_CANDIDATE = 6

#: Texture that a pair found by dHash alone needs. Every smooth slope from light to dark has
#: much the same dHash: parts of skies with a texture of 5 to 8 reach a score of 0.93.
DHASH_TEXTURE = 2 * MIN_TEXTURE

#: Correlation from which on a candidate is near. Of candidates among 327,645 pairs of 81 pictures
#: and their ninths the best of two unrelated photographs reached 0.76, a stereo pair 0.80.
#: Mirrored or turned ones, saved at quality 60, had 0.90 or more; crops of 5 % 0.88 or more.
MIN_SCORE = 0.80

#: Relative difference of width/height up to which a picture may be another one's content. A
#: trimmed object fills its box whatever its shape; only its aspect tells it from another.
CONTENT_ASPECT = 0.1

#: Pixels of a sketch's side.
_SIDE = 32

#: Frequencies compared, per axis: the finer ones of 32 pixels are noise after a small shift.
_FREQUENCIES = 12

#: Parts of a picture that are compared with a whole one, as if it had been cropped: (top, left,
#: height, width) in shares, around the centre and at the corners. The first is the whole.
_CROPS = (
    (0.0, 0.0, 1.0, 1.0),
    (0.025, 0.025, 0.95, 0.95), (0.05, 0.05, 0.9, 0.9),
    *((top, left, 0.95, 0.95) for top in (0.0, 0.05) for left in (0.0, 0.05)),
    *((top, left, 0.9, 0.9) for top in (0.0, 0.1) for left in (0.0, 0.1)),
)  # fmt: skip

#: Parts that are compared with the same part, to leave out a logo or a caption along one side.
_PARTS = (
    (0.0, 0.0, 0.84, 1.0), (0.16, 0.0, 0.84, 1.0), (0.0, 0.0, 1.0, 0.84), (0.0, 0.16, 1.0, 0.84),
)  # fmt: skip

FoundBy = Literal["phash", "dhash", "dihedral", "content"]


@dataclass(frozen=True, slots=True)
class Sketched:
    """What verification looks at, as in :class:`~image_pipeline.imaging.fingerprint.Fingerprint`.

    ``aspect`` is width/height; the ``content`` fields are None without a border.
    Raises ValueError, naming the image, if a sketch is not one.
    """

    id: str
    phash64: int
    dhash64: int
    texture: float
    sketch: bytes
    content_phash64: int | None
    content_sketch: bytes | None
    aspect: float
    content_aspect: float | None

    def __post_init__(self) -> None:
        for sketch in (self.sketch, self.content_sketch):
            if sketch is not None and len(sketch) != _SIDE * _SIDE:
                raise ValueError(f"image {self.id}: a sketch of {len(sketch)} bytes, not 1,024")


@dataclass(frozen=True, slots=True)
class Nearness:
    """Why two pictures are near.

    ``found_by`` names the hash that made them candidates, ``transform`` what brings the first
    over the second (one of :data:`TRANSFORMS`), ``distance`` the bits between those hashes,
    ``score`` the correlation of the aligned sketches, 0-1.
    """

    found_by: FoundBy
    transform: str
    distance: int
    score: float


def dihedral_hashes(sketch: bytes) -> tuple[int, ...]:
    """The unsigned 64-bit pHash of a 32 x 32 sketch in all forms of :data:`TRANSFORMS`.

    Each is bit for bit what imagehash computes of the turned or mirrored sketch.
    """
    import numpy as np
    from scipy.fftpack import dct  # type: ignore[import-untyped]

    square = _square(sketch)
    turns = [np.rot90(square, -quarter) for quarter in range(4)]
    mirrors = [square[:, ::-1], square[::-1], square.T, square[::-1, ::-1].T]
    # imagehash transforms columns, then rows; the same library in the same order gives the
    # same bits, which changing the signs of one transform would not.
    columns = dct(np.stack(turns + mirrors), axis=1)[:, :8]
    low = dct(columns, axis=2)[:, :, :8].reshape(8, 64)
    above = low > np.median(low, axis=1, keepdims=True)
    return tuple(int.from_bytes(row.tobytes(), "big") for row in np.packbits(above, axis=1))


def hashes_of(picture: Sketched) -> list[tuple[int, bytes]]:
    """What a picture is looked up by: pHash and sketch of itself and of its content.

    As far as they have texture, whatever the rest is: a product may fill a tenth of a white
    page. Hashes of what has none are noise, and alike by the thousand.
    """
    found = []
    if picture.content_phash64 is not None and picture.content_sketch is not None:
        if not _has_texture(picture.content_sketch):
            return []
        found.append((picture.content_phash64, picture.content_sketch))
    if picture.texture >= MIN_TEXTURE:
        found.append((picture.phash64, picture.sketch))
    return found


def verify(one: Sketched, other: Sketched) -> Nearness | None:
    """Whether two pictures are candidates and show the same in some form; None if not.

    The sketches, whole and without a border, are laid over each other in all 8 forms, one of
    them also a little cropped, and without what lies along one side.
    """
    import numpy as np

    matches = [_match(ours, theirs) for ours, theirs in _views(one, other)]
    if not matches:
        return None
    scores = np.max(matches, axis=0)
    if scores.max() < MIN_SCORE:
        return None
    evidence = _evidence(one, other)
    if evidence is None:
        return None
    found_by, bits = evidence
    # A dHash is compared as it is: what agrees then is no evidence of a turn.
    transform = 0 if found_by == "dhash" else int(np.argmax(scores))
    score = float(scores[transform])
    if score < MIN_SCORE:
        return None
    return Nearness(found_by, TRANSFORMS[transform], bits, round(min(score, 1.0), 3))


def near_groups(
    edges: Iterable[tuple[str, str, float]], rank_of: Callable[[str], Any]
) -> dict[str, list[str]]:
    """Stars for reports, from pairs of ids and their scores: each centre with its members.

    Ids are taken best first by ``rank_of``; each joins the centre it has the best score with,
    or becomes one. Centres without members are left out, members are in order of rank.
    """
    scores: dict[str, dict[str, float]] = {}
    for one, other, score in edges:
        scores.setdefault(one, {})[other] = score
        scores.setdefault(other, {})[one] = score
    stars: dict[str, list[str]] = {}
    # Centres are made in order of rank, so the first of equal scores is the better one.
    for image in sorted(scores, key=lambda image: (rank_of(image), image)):
        centres = [centre for centre in stars if centre in scores[image]]
        if centres:
            stars[max(centres, key=scores[image].__getitem__)].append(image)
        else:
            stars[image] = []
    return {centre: members for centre, members in stars.items() if members}


def _evidence(one: Sketched, other: Sketched) -> tuple[FoundBy, int] | None:
    """The hash by which two pictures are candidates, the plainest first, and its distance."""
    bits = (one.phash64 ^ other.phash64).bit_count()
    if bits <= PHASH_CANDIDATE:
        return "phash", bits
    ours, theirs = [_whole_hashes(one)], [_whole_hashes(other)]
    bits = _closest(ours, theirs)
    if bits <= PHASH_CANDIDATE:
        return "dihedral", bits
    bits = _closest(ours + _content_hashes(one), theirs + _content_hashes(other))
    if bits <= PHASH_CANDIDATE:
        return "content", bits
    bits = (one.dhash64 ^ other.dhash64).bit_count()
    rich = min(one.texture, other.texture) >= DHASH_TEXTURE
    return ("dhash", bits) if rich and bits <= DHASH_CANDIDATE else None


#: The hash of a picture and those of its 8 forms.
_Hashes = tuple[int, tuple[int, ...]]


def _whole_hashes(picture: Sketched) -> _Hashes:
    return picture.phash64, dihedral_hashes(picture.sketch)


def _content_hashes(picture: Sketched) -> list[_Hashes]:
    if picture.content_phash64 is None or picture.content_sketch is None:
        return []
    return [(picture.content_phash64, dihedral_hashes(picture.content_sketch))]


def _closest(ours: list[_Hashes], theirs: list[_Hashes]) -> int:
    """The fewest bits between a hash of one picture and a form of the other.

    Turning a sketch rounds differently from turning the picture: whichever of the two is
    turned, so that it does not matter which of them was there first.
    """
    return min(
        min((one ^ form).bit_count() for form in other_forms)
        for first, second in ((ours, theirs), (theirs, ours))
        for (one, _), (_, other_forms) in product(first, second)
    )


@dataclass(frozen=True, slots=True)
class _View:
    """A picture or its content: width/height, and the spectra of its crops and its parts."""

    aspect: float
    is_content: bool
    spectra: Floats


def _views(one: Sketched, other: Sketched) -> list[tuple[_View, _View]]:
    """What of two pictures is compared: all that has texture, but not one border with another.

    Of two that both have a border, the contents alone; a border around nothing is nothing.
    """
    our_content, their_content = _content(one), _content(other)
    ours, theirs = _whole(one, our_content), _whole(other, their_content)
    pairs = [(ours, theirs), (our_content, theirs), (ours, their_content)]
    if our_content and their_content:
        pairs = [(our_content, their_content)]
    return [(left, right) for left, right in pairs if left and right]


def _has_texture(sketch: bytes) -> bool:
    return texture(Image.frombytes("L", (_SIDE, _SIDE), sketch)) >= MIN_TEXTURE


def _bordered(picture: Sketched) -> bool:
    return picture.content_sketch is not None and picture.content_aspect is not None


def _whole(picture: Sketched, content: _View | None) -> _View | None:
    if picture.texture < MIN_TEXTURE or (_bordered(picture) and content is None):
        return None
    return _View(picture.aspect, False, _spectra(picture.sketch))


def _content(picture: Sketched) -> _View | None:
    sketch, aspect = picture.content_sketch, picture.content_aspect
    if sketch is None or aspect is None or not _has_texture(sketch):
        return None
    return _View(aspect, True, _spectra(sketch))


def _match(ours: _View, theirs: _View) -> Floats:
    """The best correlation of two views in each of the 8 forms of :data:`TRANSFORMS`: (8,)."""
    import numpy as np

    crops, parts = slice(len(_CROPS)), slice(len(_CROPS), None)
    turned = _turned(ours.spectra[crops])
    # Cropped is either the second picture or the first.
    scores = np.maximum(
        (turned[:, 0] @ theirs.spectra[crops].reshape(len(_CROPS), -1).T).max(axis=1),
        (turned @ theirs.spectra[0].ravel()).max(axis=1),
    )
    same_part = (ours.spectra[parts] * theirs.spectra[parts]).sum(axis=(1, 2))
    scores[0] = max(scores[0], same_part.max())
    if ours.is_content or theirs.is_content:
        for form, sideways in enumerate(_SIDEWAYS):
            aspect = 1 / ours.aspect if sideways else ours.aspect
            if abs(aspect - theirs.aspect) > CONTENT_ASPECT * max(aspect, theirs.aspect):
                scores[form] = 0.0
    return np.asarray(scores)


def _spectra(sketch: bytes) -> Floats:
    """Normalised frequencies of the crops and parts of a sketch: (15, 12, 12).

    Weighted by their height: in photographs amplitudes fall with frequency, so without it
    all that is bright above and dark below would be alike.
    """
    import numpy as np

    rows, columns, weights = _readers()
    spectra = weights * (rows @ _square(sketch).astype(np.float64) @ columns.transpose(0, 2, 1))
    length = np.sqrt((spectra**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(spectra / np.maximum(length, 1e-9))


def _turned(spectra: Floats) -> Floats:
    """Spectra of the 8 forms of :data:`TRANSFORMS`: (8, crops, 144).

    Mirroring changes the sign of every other cosine; it is exact here, where no median cuts.
    """
    import numpy as np

    signs = (-1.0) ** np.arange(_FREQUENCIES)
    across, down = signs[None, :], signs[:, None]
    diagonal = spectra.transpose(0, 2, 1)
    forms = [
        spectra, diagonal * across, spectra * across * down, diagonal * down,
        spectra * across, spectra * down, diagonal, diagonal * across * down,
    ]  # fmt: skip
    return np.stack(forms).reshape(len(forms), len(spectra), -1)


@cache
def _readers() -> tuple[Floats, Floats, Floats]:
    """Matrices that read the frequencies of parts out of a sketch, and the weights of these.

    Rows and columns (15, 12, 32), crops first; weights (12, 12).
    """
    import numpy as np

    frequency, place = np.arange(_FREQUENCIES)[:, None], np.arange(_SIDE)[None, :]
    cosines = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _SIDE))
    cosines[0] /= np.sqrt(2)
    boxes = _CROPS + _PARTS
    rows = np.stack([cosines @ _zoom(top, height) for top, _, height, _ in boxes])
    columns = np.stack([cosines @ _zoom(left, width) for _, left, _, width in boxes])
    return rows, columns, np.hypot(frequency, frequency.T).astype(np.float64)


def _zoom(start: float, size: float) -> Floats:
    """The matrix that enlarges the part of a line from ``start`` on (shares of it), linearly."""
    import numpy as np

    at = np.clip((start + size * (np.arange(_SIDE) + 0.5) / _SIDE) * _SIDE - 0.5, 0, _SIDE - 1)
    weights: Floats = np.maximum(0.0, 1 - np.abs(at[:, None] - np.arange(_SIDE)[None, :]))
    return weights


def _square(sketch: bytes) -> Sketch:
    import numpy as np

    return np.frombuffer(sketch, np.uint8).reshape(_SIDE, _SIDE)
