"""The ground of a scene of Gaussians: a plane with many of them on it and few below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail
from lpm.gaussians.far import Floats

TRIALS = 2000
"""Planes through three random points: one of a ground with a sixth of them is met with a chance of .9999."""
THICK = 0.005
"""How far from the plane a point still counts, in diagonals of the scene (the middle 96 % of it)."""
BELOW = 0.05
"""Share of the points that may lie below the ground: what is reflected in it, and floaters."""
STEEP = np.cos(np.radians(45))
MOST = 20_000
"""Points that are looked at."""


@dataclass
class Plane:
    """normal . x = height."""

    normal: Floats
    """[3] of length 1, up."""
    height: float
    share: float
    """Of the points that lie on it."""


def ground_plane(xyz: Floats, up: Floats, seed: int = 0) -> Plane:
    """The ground among points [N, 3] (opaque ones); `up` [3]: about where up is.

    Raises:
        LpmError: fewer than 100 points, or no plane has a twentieth of them on it.
    """
    r = np.random.default_rng(seed)
    up = up / np.linalg.norm(up)
    if len(xyz) < 100:
        fail("level", f"{len(xyz)} opaque Gaussians", "100 or more to find the ground by")
    low, high = np.quantile(xyz, (0.02, 0.98), axis=0)
    points = xyz[((xyz >= low) & (xyz <= high)).all(1)]
    points = points if len(points) <= MOST else points[r.choice(len(points), MOST, replace=False)]
    thick = THICK * float(np.linalg.norm(high - low))
    best, found = 0.0, None
    for _ in range(TRIALS):
        a, b, c = points[r.integers(0, len(points), 3)]
        normal = np.cross(b - a, c - a)
        length = float(np.linalg.norm(normal))
        if length == 0 or abs(normal @ up) < STEEP * length:
            continue
        normal = normal / length * np.sign(normal @ up)
        off = points @ normal - a @ normal
        on = np.abs(off) <= thick
        if on.mean() > best and (off < -thick).mean() <= BELOW:
            best, found = float(on.mean()), on
    if found is None or best < 0.05:
        fail("level", f"the best plane has {best:.1%} of the opaque Gaussians on it", "5 % or more",
             "--up tells about where up is; lpm-edit transform turns by hand")  # fmt: skip
    return _fitted(points[found], up, best)


def _fitted(points: NDArray[np.float64], up: Floats, share: float) -> Plane:
    """The plane with the least squares of distances to `points`."""
    middle = points.mean(0)
    normal = np.linalg.svd(points - middle, full_matrices=False)[2][2]
    normal = normal * np.sign(normal @ up)
    return Plane(normal, float(normal @ middle), share)
