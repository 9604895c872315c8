"""Where the tiles are, and which cameras each needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail
from lpm.scenes.scene import Floats, Scene

GRID = 24
"""Cells along a photo's longer side: of points that fall into one, those far behind the nearest are hidden."""
BEHIND = 1.3
"""Times the nearest depth in a cell at which a point counts as hidden."""
OUTLIERS = 0.01
"""Share of the points at either end of an axis that does not count when tiles are laid out."""
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """T boxes on the ground that together cover all of it, and do not overlap; they have no top and no bottom."""

    axes: Floats
    """[2, 3] the two directions along the ground, unit vectors in the frame of the scene's poses."""
    low: Floats
    """[T, 2] the lower ends along `axes`, world; -inf at the rim."""
    high: Floats
    """[T, 2] the upper ends; inf at the rim. A box holds its lower and not its upper end."""

    def __len__(self) -> int:
        return len(self.low)

    def holding(self, xyz: Floats, cell: int, margin: float = 0.0) -> NDArray[np.bool_]:
        """[N] bool: `xyz` [N, 3] (world) are in `cell`, made larger by `margin` (world) on every side."""
        at = xyz @ self.axes.T
        held: NDArray[np.bool_] = ((at >= self.low[cell] - margin) & (at < self.high[cell] + margin)).all(1)
        return held


def lay_out(scene: Scene, count: int) -> Cells:
    """`count` cells with about as many points of `scene` in each, each cut across the longer side of a larger one.

    Raises:
        LpmError: the scene has no points, or fewer than a hundred a tile.
    """
    points = _points(scene)
    if len(points) < 100 * count:
        fail("--tiles", f"{count}, and the scene has {len(points)} points", "at least 100 points a tile", "fewer tiles")
    up = scene.c2w[:, :3, 1].mean(0)
    axes = _ground(points, up / max(1e-9, float(np.linalg.norm(up))))
    at = points @ axes.T
    ends = np.quantile(at, [OUTLIERS, 1 - OUTLIERS], axis=0)
    inner = at[((at >= ends[0]) & (at <= ends[1])).all(1)]
    boxes = _halve(inner, np.full(2, -np.inf), np.full(2, np.inf), count)
    return Cells(axes, np.array([low for low, _ in boxes]), np.array([high for _, high in boxes]))


def _points(scene: Scene) -> Floats:
    if scene.points is None:
        fail(scene.layout.root, "no points", "SfM points: they tell where the scene is", "run `lpm-prepare` or COLMAP")
    return scene.points.xyz


def _ground(points: Floats, up: Floats) -> Floats:
    """[2, 3] the directions across `up` along which `points` spread most and least."""
    flat = points - points.mean(0)
    flat = flat - np.outer(flat @ up, up)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    first = directions[0] - (directions[0] @ up) * up
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(up, first)])


def _halve(at: Floats, low: Floats, high: Floats, count: int) -> list[tuple[Floats, Floats]]:
    if count == 1:
        return [(low, high)]
    axis = int(np.ptp(at, axis=0).argmax())
    first = count // 2
    cut = float(np.quantile(at[:, axis], first / count))
    below = at[:, axis] < cut
    left, right = high.copy(), low.copy()
    left[axis] = right[axis] = cut
    return [*_halve(at[below], low, left, first), *_halve(at[~below], right, high, count - first)]


def seen_points(scene: Scene, view: int) -> NDArray[np.int64]:
    """Rows of the scene's points that the image `view` shows: inside it, and not far behind nearer ones."""
    points = _points(scene)
    pose = scene.c2w[view]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    depth = -local[:, 2]
    fx, fy, cx, cy = scene.intrinsics[view]
    width, height = scene.sizes[view]
    ahead = np.maximum(depth, 1e-9)
    x, y = cx + fx * local[:, 0] / ahead, cy - fy * local[:, 1] / ahead
    rows = ((depth > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)).nonzero()[0]
    side = max(width, height) / GRID
    place = (y[rows] / side).astype(int) * GRID + (x[rows] / side).astype(int)
    nearest = np.full(GRID * GRID, np.inf)
    np.minimum.at(nearest, place, depth[rows])
    seen: NDArray[np.int64] = rows[depth[rows] <= BEHIND * nearest[place]]
    return seen


def cameras_of(
    scene: Scene, cells: Cells, overlap: float, least: float
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Per tile the images that it is trained on, and the points that these see: rows of the scene.

    An image belongs to a tile if at least a share `least` of the points that it shows are in the tile, made larger by
    `overlap` times its own size; so it can belong to several.

    Raises:
        LpmError: a tile has fewer than four images.
    """
    points = _points(scene)
    inside = [cells.holding(points, t, overlap * _size(cells, points, t)) for t in range(len(cells))]
    shown = [seen_points(scene, v) for v in range(len(scene))]
    images, seen = [], []
    for t, mine in enumerate(inside):
        chosen = [v for v, rows in enumerate(shown) if len(rows) and mine[rows].mean() >= least]
        if len(chosen) < 4:
            fail(f"tile {t}", f"{len(chosen)} images see it", "at least 4", "fewer --tiles, or a smaller --least")
        images.append(np.array(chosen))
        seen.append(np.unique(np.concatenate([shown[v] for v in chosen] + [mine.nonzero()[0]])))
    return images, seen


def _size(cells: Cells, points: Floats, cell: int) -> float:
    """The length of the longer side of the part of `cell` that has points, world."""
    at = (points @ cells.axes.T)[cells.holding(points, cell)]
    ends = np.quantile(at, [OUTLIERS, 1 - OUTLIERS], axis=0)
    return float((ends[1] - ends[0]).max())
