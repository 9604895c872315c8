"""Positions beyond float32: kept as an offset in double and what is left of them.

In a national grid a scene lies millions of metres from the origin, where float32 knows steps of half a metre.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERATED = 0.01
"""Rounding of positions that is allowed, times the median size of the Gaussians."""
HALF_STEP = 2.0**-24
"""Largest error of rounding to float32, times the number."""


def offset_of(xyz: Floats, sizes: Floats) -> Floats:
    """[3] to take from `xyz` [N, 3] before they become float32: zeros where that needs none, else round numbers.

    Args:
        sizes: [N] of the Gaussians, the unit of `xyz`; rows that are not finite do not count.
    """
    sound = np.isfinite(xyz).all(1) & np.isfinite(sizes)
    xyz, sizes = xyz[sound], sizes[sound]
    if not len(xyz) or np.abs(xyz).max() * HALF_STEP <= TOLERATED * np.median(sizes):
        return np.zeros(3)
    middle = np.median(xyz, axis=0)
    spread = max(float(np.median(np.abs(xyz - middle))), float(np.median(sizes)), 1e-300)
    step = 10.0 ** np.ceil(np.log10(spread))
    rounded: Floats = np.round(middle / step) * step
    return rounded


def numbers(offset: Floats) -> str:
    """`offset` [3] as text, to the last bit."""
    return " ".join(f"{float(value)!r}" for value in offset)
