"""Zones: the pieces of space that errors come from, and which points are inside or in front of them.

A zone is a group of neighbouring bad tiles of one view together with a depth interval for each tile. The interval comes
from the photos (plane_sweep), not from the render: a point that wrongly stands in front *is* the rendered depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from lpm.records import ZoneKind, ZoneRecord
from lpm.sending import brought

KINDS: tuple[ZoneKind, ...] = get_args(ZoneKind)
FALSE_FRONT, UNDER_RESOLVED, MISSING, NO_EVIDENCE = range(4)
OPAQUE = 0.5
"""Accumulated alpha below which a tile counts as seen through: what should be there is missing."""


def regions(error: Tensor, threshold: float, piece: int = 4) -> NDArray[np.int64]:
    """Labels [rows, columns] of groups of tiles whose `error` is above `threshold`; 0 is none, then 1, 2, ...

    Groups are connected (8 neighbours) and cut along a grid of `piece` tiles, so that none spans much more than one
    surface. The order of labels is that of rows and columns: the same every time.
    """
    bad = (error > threshold).cpu().numpy()
    joined, _ = ndimage.label(bad, structure=np.ones((3, 3)))
    rows, columns = np.indices(bad.shape)
    cells = (joined * (bad.shape[0] + 1) + rows // piece) * (bad.shape[1] + 1) + columns // piece
    labels = np.zeros(bad.shape, np.int64)
    _, labels[bad] = np.unique(cells[bad], return_inverse=True)
    labels[bad] += 1
    return labels


def classify(interval: Tensor, confident: Tensor, rendered: Tensor, alpha: Tensor, tolerance: float = 0.03) -> Tensor:
    """Kind of each of P tiles (index into KINDS), from where the photos and where the render see the surface.

    Args:
        interval: [P, 2] nearest and farthest z-depth by the photos, world. confident: [P] bool.
        rendered: [P] expected z-depth of the render, world. alpha: [P] its accumulated opacity.
        tolerance: relative difference of depth that still counts as the same surface.
    """
    near, far = interval.unbind(-1)
    # Not by masks as indices, which a device would be waited for.
    kind = torch.full_like(rendered, UNDER_RESOLVED, dtype=torch.int64)
    kind = kind.masked_fill_((rendered > far * (1 + tolerance)) | (alpha < OPAQUE), MISSING)
    kind = kind.masked_fill_((rendered < near * (1 - tolerance)) & (alpha >= OPAQUE), FALSE_FRONT)
    return kind.masked_fill_(~confident, NO_EVIDENCE)


@dataclass
class ViewZones:
    """The zones of one view: per tile a label, a depth interval and a kind."""

    view: int
    viewmat: Tensor
    """[4, 4], world to camera."""
    K: Tensor
    """[3, 3], pixels."""
    size: tuple[int, int]
    """Width and height, pixels."""
    tile: int
    """Side of a tile, pixels."""
    near: Tensor
    """[rows, columns] z-depth, world; +inf where there is no zone."""
    far: Tensor
    """[rows, columns] z-depth, world; -inf where there is no zone."""
    depth: Tensor
    """[rows, columns] z-depth of the surface by the photos, world; NaN where there is no zone."""
    labels: NDArray[np.int64]
    """[rows, columns], 0 for none; from regions()."""
    kind: Tensor
    """[rows, columns] index into KINDS; -1 where there is no zone."""

    def shifted(self, rows: int, columns: int) -> ViewZones:
        """The same zones moved around the image, cyclically, by so many tiles: as many, as large, elsewhere."""
        by = (rows, columns)

        def moved(value: Tensor) -> Tensor:
            return value.roll(by, (0, 1))

        labels = np.roll(self.labels, by, (0, 1))
        near, far, depth, kind = (moved(value) for value in (self.near, self.far, self.depth, self.kind))
        return replace(self, near=near, far=far, depth=depth, kind=kind, labels=labels)

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.viewmat, self.K, self.near, self.far, self.depth, self.kind

    def corners(self, boxes: NDArray[np.int64], intervals: NDArray[np.float64]) -> NDArray[np.float64]:
        """World positions [Z, 8, 3] of the frustum cells over pixels `boxes` [Z, 4] (x0, y0, x1, y1), on the host.

        `intervals` [Z, 2]: between which z-depths; the four corners at the first come first.
        """
        corner = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(np.float64)  # [Z, 4, 2]
        pixels = np.concatenate([corner, np.ones_like(corner[..., :1])], 2)
        viewmat, K = (value.cpu().numpy().astype(np.float64) for value in (self.viewmat, self.K))
        rays = pixels @ np.linalg.inv(K).T
        camera = (rays[:, None] * intervals[:, :, None, None]).reshape(len(boxes), 8, 3)
        corners: NDArray[np.float64] = (camera - viewmat[:3, 3]) @ viewmat[:3, :3]
        return corners

    def records(self, error: Tensor, points: Tensor) -> list[ZoneRecord]:
        """One record for each label. `error`, `points`: [rows, columns], residual and points inside of each tile."""
        found, boxes, intervals = [], [], []
        near, far, kind = (value.cpu().numpy() for value in (self.near, self.far, self.kind))
        errors, counts = error.cpu().numpy(), points.cpu().numpy()
        for i, where in enumerate(ndimage.find_objects(self.labels), start=1):
            inside = self.labels[where] == i
            rows, columns = where
            most = np.bincount(kind[where][inside] + 1, minlength=len(KINDS) + 1)[1:].argmax()
            box = (columns.start * self.tile, rows.start * self.tile,
                   min(columns.stop * self.tile, self.size[0]), min(rows.stop * self.tile, self.size[1]))  # fmt: skip
            known = inside & np.isfinite(near[where])
            interval = (0.0, 0.0)  # no evidence of any depth: a region, but no piece of space
            if known.any():
                interval = (float(near[where][known].min()), float(far[where][known].max()))
            boxes.append(box)
            intervals.append(interval)
            mean = float(errors[where][inside].mean())
            inside_points = int(counts[where][inside].sum())
            found.append(ZoneRecord(KINDS[most], self.view, box, interval, mean, inside_points))
        if found:
            for record, corners in zip(found, self.corners(np.array(boxes), np.array(intervals)), strict=True):
                if record.interval[1] > 0:
                    record.corners = corners.tolist()
        return found


def records_of(zones: list[ViewZones], errors: list[Tensor], points: list[Tensor]) -> list[ZoneRecord]:
    """ViewZones.records() of several views, brought to the host at once. `errors`, `points`: a [rows, columns] each."""
    tensors = [t for z, e, p in zip(zones, errors, points, strict=True) for t in (*z._tensors(), e, p)]
    here, found = iter(brought(tensors)), []
    for zone in zones:
        viewmat, K, near, far, depth, kind, error, count = (next(here) for _ in range(8))
        found += replace(zone, viewmat=viewmat, K=K, near=near, far=far, depth=depth, kind=kind).records(error, count)
    return found


def false_fronts(zones: list[ViewZones]) -> list[bool]:
    """Of each view whether it has a false front; one wait for all."""
    return torch.stack([(z.kind == FALSE_FRONT).any() for z in zones]).tolist() if zones else []


def membership(means: Tensor, zones: ViewZones, margin: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Where each of `means` [N, 3] (world) stands with respect to the zones of one view, in O(N), without a host sync.

    Returns:
        inside [N] bool: between a tile's two depths. front [N] bool: in a tile's cone, nearer than its near depth by
        more than the share `margin`. cell [N] int64: row-major index of the tile a point projects to; points outside
        the image get that of the nearest tile and are neither inside nor in front.
    """
    rotation, translation = zones.viewmat[:3, :3], zones.viewmat[:3, 3]
    x, y, z = (means @ rotation.T + translation).unbind(-1)
    scale = z.clamp_min(1e-6).reciprocal() / zones.tile
    column = x * scale * zones.K[0, 0] + zones.K[0, 2] / zones.tile
    row = y * scale * zones.K[1, 1] + zones.K[1, 2] / zones.tile
    rows, columns = zones.near.shape
    width, height = zones.size[0] / zones.tile, zones.size[1] / zones.tile
    seen = (z > 0) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
    # NaN and far-away points: the clamp comes before the cast, which is undefined for them.
    column = column.nan_to_num(0.0).clamp(0, columns - 1).long()
    row = row.nan_to_num(0.0).clamp(0, rows - 1).long()
    cell = row * columns + column
    near, far = zones.near.flatten()[cell], zones.far.flatten()[cell]
    inside = seen & (z >= near) & (z <= far)
    front = seen & (z < near * (1 - margin)) & torch.isfinite(near)
    return inside, front, cell
