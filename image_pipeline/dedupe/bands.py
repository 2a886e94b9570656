"""Finding near 64-bit hashes by their bands.

Five bands of a hash are indexed columns. Two hashes that differ in at most six bits agree in
one of the last three bands, or up to one bit in one of the first two: were they farther apart
in every band, they would differ in 2 + 2 + 1 + 1 + 1 bits (pigeonhole). So a few equal values
find every hash within distance 6, and nothing has to be compared with everything.
"""

from __future__ import annotations

#: Widths in bits, from the most significant on; together the 64 bits of a hash.
WIDTHS = (13, 13, 13, 13, 12)

BANDS = len(WIDTHS)

#: By band, how many bits of it may differ for a hash to be found by it.
RADII = (1, 1, 0, 0, 0)

#: The largest distance at which no neighbour is missed.
REACH = sum(radius + 1 for radius in RADII) - 1


def split(value: int) -> tuple[int, ...]:
    """The bands of an unsigned 64-bit hash, each 0 to 8,191."""
    bands = []
    for width in reversed(WIDTHS):
        bands.append(value & ((1 << width) - 1))
        value >>= width
    return tuple(reversed(bands))


def probes(value: int) -> list[tuple[int, int]]:
    """(band, value) pairs, 31 of them: hashes within :data:`REACH` have one of these bands."""
    found = []
    for band, (own, width, radius) in enumerate(zip(split(value), WIDTHS, RADII, strict=True)):
        found.append((band, own))
        if radius:
            found.extend((band, own ^ (1 << bit)) for bit in range(width))
    return found


def signed(value: int) -> int:
    """An unsigned 64-bit integer as the signed one of the same bits: databases have no other."""
    return value - (1 << 64) if value >= 1 << 63 else value


def unsigned(value: int) -> int:
    """The inverse of :func:`signed`."""
    return value & ((1 << 64) - 1)
