"""What poses say of matches (Hartley and Zisserman 2004, sections 9.6 and 11.4.3): for all pairs of a scene at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lpm.plausibility.matches import Pair
from lpm.scenes.scene import Floats

OPENCV: Floats = np.diag([1.0, -1.0, -1.0])
"""OpenGL's camera axes to OpenCV's, and back."""


@dataclass
class Evidence:
    """All matches of a scene."""

    pairs: Sequence[Pair]
    pixels: float
    """Of a small picture for one unit of a ray: what distances are counted in."""
    near: float
    """Pixels that a match may be off and count as explained."""

    @cached_property
    def of(self) -> NDArray[np.int64]:
        """[M] the pair of each match."""
        return np.repeat(np.arange(len(self.pairs)), [len(pair.rays) for pair in self.pairs])

    @cached_property
    def views(self) -> NDArray[np.int64]:
        """[P, 2]"""
        return np.array([(pair.first, pair.second) for pair in self.pairs], np.int64).reshape(-1, 2)

    @cached_property
    def rays(self) -> Floats:
        """[M, 2, 3], z = 1."""
        both = np.concatenate([pair.rays for pair in self.pairs]) if self.pairs else np.zeros((0, 2, 2))
        return np.concatenate([both, np.ones((len(both), 2, 1))], 2)

    def residuals(
        self, c2w: Floats, focal: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """[M] Sampson's distance of each match under the poses `c2w` [V, 4, 4] (OpenGL), signed, pixels; and whether
        the point is in front of both cameras.

        Args:
            focal: a factor on the focal lengths. shift: of the principal points, pixels of a small picture.
        """
        turned, moved = relative(c2w, self.views)
        a, b = np.moveaxis(self.rays, 1, 0)
        if focal != 1 or shift != (0.0, 0.0):
            bend = np.diag([1 / focal, 1 / focal, 1.0])
            bend[:2, 2] = -np.array(shift) / (self.pixels * focal)
            a, b = a @ bend.T, b @ bend.T
        x, y, z = np.moveaxis(moved, -1, 0)
        zero = np.zeros_like(x)
        cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
        essential = (cross @ turned)[self.of]
        line = np.einsum("mij,mj->mi", essential, a)
        back = np.einsum("mij,mi->mj", essential, b)
        off = (b * line).sum(1)
        size = np.sqrt((line[:, :2] ** 2).sum(1) + (back[:, :2] ** 2).sum(1))
        away = np.where(size > 1e-12, off / np.maximum(size, 1e-12), 0) * self.pixels * focal
        # Depths along both rays where they are nearest to each other: depth1 * a + moved = depth2 * b.
        a = np.einsum("mij,mj->mi", turned[self.of], a)
        t = moved[self.of]
        aa, bb, ab = (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)
        at, bt = (a * t).sum(1), (b * t).sum(1)
        slack = self.near / (self.pixels * focal) * np.linalg.norm(t, axis=1)  # far points may seem beyond infinity
        ahead = (ab * bt - bb * at >= -slack * bb) & (aa * bt - ab * at >= -slack * aa)
        # Where a camera only turned, there is no line: a match is where the turn puts it.
        still = np.linalg.norm(t, axis=1) < 1e-9 * max(1e-3, float(np.abs(c2w[:, :3, 3]).max()))
        if still.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                turn = np.linalg.norm(a[:, :2] / a[:, 2:] - b[:, :2] / b[:, 2:], axis=1) * self.pixels * focal
            away = np.where(still, np.where(a[:, 2] > 0, turn, np.inf), away)
            ahead = ahead | still
        return away, ahead

    def explained(self, c2w: Floats, focal: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Floats:
        """[P] share of each pair's matches that the poses explain."""
        away, ahead = self.residuals(c2w, focal, shift)
        return self.per_pair((np.abs(away) <= self.near) & ahead)

    def per_pair(self, values: NDArray[np.generic]) -> Floats:
        """[P] mean over each pair's matches of `values` [M]."""
        count = np.bincount(self.of, minlength=len(self.pairs))
        total = np.bincount(self.of, np.asarray(values, np.float64), len(self.pairs))
        return np.asarray(total / np.maximum(count, 1), np.float64)


def relative(c2w: Floats, views: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Rotations [P, 3, 3] and translations [P, 3] from the first camera of each of `views` [P, 2] to the second, by
    their poses `c2w` (OpenGL), in OpenCV's axes."""
    turns = c2w[:, :3, :3] @ OPENCV
    first, second = turns[views[:, 0]], turns[views[:, 1]]
    back = np.moveaxis(second, -1, -2)
    return back @ first, np.einsum("pij,pj->pi", back, c2w[views[:, 0], :3, 3] - c2w[views[:, 1], :3, 3])
