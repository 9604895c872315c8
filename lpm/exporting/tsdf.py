"""Depth maps of many cameras become one surface: a truncated signed distance function (TSDF), fused on a grid.

Each camera says of each grid point how far before (+) or behind (-) the surface that it sees the point is, along its
axis, cut at a few voxels; behind that it says nothing. The weighted mean of what all say is 0 on the surface (Curless
and Levoy 1996), which marching cubes finds (Lewiner 2003, by scikit-image). Only blocks of the grid that some depth
lies in are computed: elsewhere there is no surface.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail, need
from lpm.files import Progress, quiet

BLOCK = 8  # grid points a side
CHUNK = 1 << 16  # grid points at a time
SAMPLES = 1 << 20  # depths at a time


@dataclass
class DepthMap:
    """What one pinhole camera sees."""

    depth: Tensor
    """[H, W] along the camera's axis, world units; 0: nothing is known."""
    color: Tensor
    """[H, W, 3] uint8."""
    viewmat: Tensor
    """[4, 4] world to camera (OpenCV axes)."""
    K: Tensor
    """[3, 3] pixels."""

    def points(self, every: int = 1) -> Tensor:
        """[P, 3] in the world, of each pixel that has a depth; `every`: of each so many rows and columns only."""
        depth = self.depth[::every, ::every]
        v, u = depth.nonzero().unbind(1)
        z = depth[v, u]
        x = (u * every + 0.5 - self.K[0, 2]) / self.K[0, 0] * z
        y = (v * every + 0.5 - self.K[1, 2]) / self.K[1, 1] * z
        return (torch.stack([x, y, z], 1) - self.viewmat[:3, 3]) @ self.viewmat[:3, :3]


@dataclass
class Mesh:
    """Triangles with a colour at each corner."""

    vertices: NDArray[np.float64]
    """[V, 3]."""
    faces: NDArray[np.int64]
    """[F, 3] rows of `vertices`, counter-clockwise seen from outside."""
    colors: NDArray[np.uint8]
    """[V, 3], sRGB."""


@dataclass
class Grid:
    """Where grid points are: `low` + index * `voxel`, [X, Y, Z] of them, a multiple of BLOCK each."""

    low: Tensor
    """[3] world units."""
    voxel: float
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, low: Tensor, high: Tensor, resolution: int) -> Grid:
        """That of the box `low` [3] to `high` [3] with `resolution` voxels along its longest side."""
        voxel = float((high - low).amax()) / resolution
        blocks = ((high - low) / (voxel * BLOCK)).ceil().long().clamp_min(1).tolist()
        x, y, z = (BLOCK * b for b in blocks)
        return cls(low, voxel, (x, y, z))


@dataclass
class Fused:
    """Values at grid points `index`, of those that were computed."""

    grid: Grid
    index: Tensor
    """[M] flat indices, rising."""
    distance: Tensor
    """[M] -1 to 1, in truncations; positive before the surface."""
    weight: Tensor
    """[M] how many cameras said something."""
    color: Tensor
    """[M, 3] 0..255, mean of what cameras see within the truncation."""


def touched(grid: Grid, maps: Sequence[DepthMap], truncation: float) -> Tensor:
    """[M] flat indices of the grid points of all blocks with a depth in them, or nearer than `truncation`."""
    blocks = torch.tensor([n // BLOCK for n in grid.shape])
    device = grid.low.device
    seen = torch.zeros(int(blocks.prod()), dtype=torch.bool, device=device)
    corners = torch.tensor(list(itertools.product((-truncation, truncation), repeat=3)), device=device)
    top = (blocks - 1).to(device)
    for each in maps:
        for xyz in each.points().split(SAMPLES):
            at = (xyz - grid.low) / (grid.voxel * BLOCK)
            inside = ((at > -1) & (at < top + 2)).all(1)
            for corner in corners / (grid.voxel * BLOCK):
                block = (at[inside] + corner).floor().long()
                block = block[((block >= 0) & (block <= top)).all(1)]
                seen[(block[:, 0] * blocks[1] + block[:, 1]) * blocks[2] + block[:, 2]] = True
    b = seen.nonzero().flatten()
    first = torch.stack([b // (blocks[1] * blocks[2]), b // blocks[2] % blocks[1], b % blocks[2]], 1) * BLOCK
    step = torch.arange(BLOCK, device=device)
    inner = torch.cartesian_prod(step, step, step)
    ijk = (first[:, None] + inner).reshape(-1, 3)
    index: Tensor = (ijk[:, 0] * grid.shape[1] + ijk[:, 1]) * grid.shape[2] + ijk[:, 2]
    return index.sort().values


def fuse(grid: Grid, maps: Sequence[DepthMap], truncation: float, progress: Progress = quiet) -> Fused:
    """The TSDF of `maps` on `grid`; `truncation` in world units, a few voxels."""
    index = touched(grid, maps, truncation)
    _, ny, nz = grid.shape
    parts = []
    for i in progress(range(0, len(index), CHUNK), "fusing"):
        flat = index[i : i + CHUNK]
        ijk = torch.stack([flat // (ny * nz), flat // nz % ny, flat % nz], 1)
        xyz = grid.low + ijk * grid.voxel
        total, weight = xyz.new_zeros(len(flat)), xyz.new_zeros(len(flat))
        color, near = xyz.new_zeros(len(flat), 3), xyz.new_zeros(len(flat))
        for each in maps:
            rows, distance, seen = _told(each, xyz, truncation)
            total[rows] += distance
            weight[rows] += 1
            close = distance < 1
            color[rows[close]] += seen[close]
            near[rows[close]] += 1
        parts.append((total / weight.clamp_min(1), weight, color / near.clamp_min(1)[:, None]))
    if not parts:
        _nothing()
    distance, weight, color = (torch.cat(column) for column in zip(*parts, strict=True))
    return Fused(grid, index, distance, weight, color)


def _nothing() -> NoReturn:
    fail("--crop", "no surface in the box that enough cameras see", "surfaces", "try --views 1, or a larger box")


def _told(each: DepthMap, xyz: Tensor, truncation: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [R] of `xyz` [N, 3] that a camera says something of, distances [R] in truncations, and colours [R, 3]."""
    height, width = each.depth.shape
    x, y, z = (xyz @ each.viewmat[:3, :3].T + each.viewmat[:3, 3]).unbind(1)
    behind = z <= 1e-6
    z = z.clamp_min(1e-6)
    u = (x / z * each.K[0, 0] + each.K[0, 2]).floor().clamp(-1, width).long()
    v = (y / z * each.K[1, 1] + each.K[1, 2]).floor().clamp(-1, height).long()
    rows = ((u >= 0) & (u < width) & (v >= 0) & (v < height) & ~behind).nonzero().flatten()
    u, v = u[rows], v[rows]
    depth = each.depth[v, u]
    distance = (depth - z[rows]) / truncation
    told = (depth > 0) & (distance > -1)
    return rows[told], distance[told].clamp_max(1), each.color[v[told], u[told]].float()


def surface(fused: Fused, views: int = 1, smallest: float = 0.0) -> Mesh:
    """The mesh where the distance is 0, of parts with at least the share `smallest` of all triangles.

    Args:
        views: so many cameras must have told of a grid point.

    Raises:
        LpmError: scikit-image is missing, or there is no surface.
    """
    need("skimage", "mesh")
    from skimage.measure import marching_cubes

    grid, index = fused.grid, fused.index.cpu().numpy()
    told = (fused.weight >= views).cpu().numpy()
    seen = np.zeros(grid.shape, bool)
    seen.reshape(-1)[index] = told
    volume = np.ones(grid.shape, np.float32)  # not seen: free; what surface that makes is cut off below
    volume.reshape(-1)[index] = np.where(told, fused.distance.cpu().numpy(), 1)
    if not volume.min() < 0 < volume.max():
        _nothing()
    vertices, faces, _, _ = marching_cubes(volume, 0.0)
    # A vertex lies between two grid points; both must have been seen.
    ends = (np.floor(vertices).astype(np.int64), np.ceil(vertices).astype(np.int64))
    sound = seen[tuple(ends[0].T)] & seen[tuple(ends[1].T)]
    faces = faces[sound[faces].all(1)].astype(np.int64)
    faces = large_parts(faces, len(vertices), smallest)
    if len(faces) == 0:
        _nothing()
    used, faces = np.unique(faces, return_inverse=True)
    vertices, values = vertices[used], fused.color.cpu().numpy()
    first, last = (values[np.searchsorted(index, np.ravel_multi_index(tuple(end[used].T), grid.shape))] for end in ends)
    share = np.abs(vertices - ends[0][used]).sum(1)[:, None]
    colors = np.round((1 - share) * first + share * last).clip(0, 255).astype(np.uint8)
    return Mesh(grid.low.cpu().double().numpy() + vertices * grid.voxel, faces.reshape(-1, 3), colors)


def large_parts(faces: NDArray[np.int64], vertices: int, smallest: float) -> NDArray[np.int64]:
    """Those of `faces` [F, 3] whose connected part has at least the share `smallest` of them all."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), (vertices, vertices))
    part = connected_components(graph, directed=False)[1][faces[:, 0]]
    counts = np.bincount(part, minlength=1)
    kept: NDArray[np.int64] = faces[counts[part] >= smallest * len(faces)]
    return kept
