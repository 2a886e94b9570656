"""The quality a JPEG was saved at, from its quantisation tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

#: The luminance table at quality 50, in rows (ITU-T T.81, table K.1).
_LUMA = np.array(
    [
        (16, 11, 10, 16, 24, 40, 51, 61),
        (12, 12, 14, 19, 26, 58, 60, 55),
        (14, 13, 16, 24, 40, 57, 69, 56),
        (14, 17, 22, 29, 51, 87, 80, 62),
        (18, 22, 37, 56, 68, 109, 103, 77),
        (24, 35, 55, 64, 81, 104, 113, 92),
        (49, 64, 78, 87, 103, 121, 120, 101),
        (72, 92, 95, 98, 112, 100, 103, 99),
    ]
).reshape(64)


def jpeg_quality(luma: Sequence[int]) -> int:
    """The quality, 1 to 100, at which libjpeg's luminance table is nearest to this one.

    ``luma`` has 64 divisors of at least 1, in rows. libjpeg scales the standard's table by
    5000 / q percent below quality 50 and by 200 - 2 q from there on (jcparam.c,
    ``jpeg_quality_scaling``), so a table of its own is found exactly. Cameras and Photoshop use
    tables of their own: theirs get the least squares of the logarithms, as every frequency
    counts by its ratio; the divisors of high ones are larger and would drown the rest.
    """
    distances = np.square(_standard_logs() - np.log(np.maximum(luma, 1))).sum(axis=1)
    return int(distances.argmin()) + 1


@cache
def _standard_logs() -> NDArray[np.float64]:
    """Logarithms of libjpeg's tables, one row for each quality from 1 to 100."""
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    logs: NDArray[np.float64] = np.log(np.clip((_LUMA * percent + 50) // 100, 1, 255))
    return logs
