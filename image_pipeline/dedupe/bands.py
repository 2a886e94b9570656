"""Finding near 64-bit hashes by their bands.

Two hashes that differ in at most four bits agree wholly in at least one of five bands
(pigeonhole). So equality on five indexed columns finds every hash within distance 4, and
nothing has to be compared with everything.
"""

from __future__ import annotations

#: Widths in bits, from the most significant on; together the 64 bits of a hash.
WIDTHS = (13, 13, 13, 13, 12)

BANDS = len(WIDTHS)

#: The largest distance at which no neighbour is missed.
REACH = BANDS - 1


def split(value: int) -> tuple[int, ...]:
    """The bands of an unsigned 64-bit hash, each 0 to 8,191."""
    bands = []
    for width in reversed(WIDTHS):
        bands.append(value & ((1 << width) - 1))
        value >>= width
    return tuple(reversed(bands))


def signed(value: int) -> int:
    """An unsigned 64-bit integer as the signed one of the same bits: databases have no other."""
    return value - (1 << 64) if value >= 1 << 63 else value


def unsigned(value: int) -> int:
    """The inverse of :func:`signed`."""
    return value & ((1 << 64) - 1)
