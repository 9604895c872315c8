"""Depth that a scene brings along (a LiDAR's, a depth camera's): read, laid over the photos, made points and a loss.

A prior is z-depth in the scene's unit, one number for each pixel of its photo at any resolution; 0, negative or not
finite: nothing is known there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.multiview.views import Views, unproject
from lpm.scenes.cuts import Cut

STRIDE = 4
"""Pixels of a training photo from one depth that is kept to the next: a weak hint needs no more."""


def read_depth(path: Path) -> NDArray[np.float32]:
    """[H, W] the numbers of a 16-bit (or 32-bit) image or a .npy, as they are stored; 0 where they say nothing.

    Raises:
        LpmError: it cannot be read, or is not one number a pixel; 8 bits are a picture of depths, not depths.
    """
    wanted = "one depth a pixel, as a 16-bit PNG or a .npy"
    try:
        if path.suffix == ".npy":
            depth = np.load(path, allow_pickle=False)
        else:
            depth = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError, EOFError, MemoryError, cv2.error) as error:
        fail(path, f"cannot be read ({str(error)[:100]})", wanted, "restore the file, or remove depth_file_path")
    if depth is None:
        fail(path, "missing or no image", wanted, "restore the file, or remove depth_file_path")
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[..., 0]
    if depth.ndim != 2 or depth.size == 0 or depth.dtype.kind not in "uif" or depth.dtype == np.uint8:
        fail(path, f"{list(depth.shape)} of {depth.dtype}", wanted, "export the depths again")
    known: NDArray[np.float32] = depth.astype(np.float32)
    known[~(np.isfinite(known) & (known > 0))] = 0
    return known


def laid_over(
    depth: NDArray[np.float32], given: tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]],
    K: Tensor, size: tuple[int, int], cut: Cut | None = None,
) -> Tensor:  # fmt: skip
    """[h, w] depth for every fourth pixel, both ways, of an undistorted photo of `size` (width, height), camera `K`.

    Nothing is interpolated: over an edge that would make depths that are nowhere.

    Args:
        depth: [H, W], of the photo as it is in the scene's files, at any resolution.
        given: of that photo the intrinsics [4] (fx, fy, cx, cy), the distortion [6] (k1, k2, k3, k4, p1, p2) and the
            (width, height), pixels.
        K: [3, 3], pixels, of the undistorted photo.
        cut: how that is cut out of a photo by another lens, instead of what `given` says but for its size. Depths are
            along the lens's axis; what lies 90 degrees and more away has none.
    """
    (fx, fy, cx, cy), d, (width, height) = given
    columns, rows = (max(1, side // STRIDE) for side in size)
    x, y = np.meshgrid((np.arange(columns) + 0.5) * size[0] / columns, (np.arange(rows) + 0.5) * size[1] / rows)
    k = K.double().cpu().numpy()
    local = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], -1).reshape(-1, 1, 3)
    turned = np.ones((rows, columns))
    if cut is None:
        own = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        place, _ = cv2.projectPoints(local, np.zeros(3), np.zeros(3), own, np.array([d[0], d[1], d[4], d[5], d[2]]))
    else:
        rays = cut.rays(k[[0, 1, 0, 1], [0, 1, 2, 2]], x, y)
        place, there = cut.lens.sees(rays)
        place[~there | (rays[..., 2] < 1e-3)] = -1e9
        turned = 1 / np.maximum(rays[..., 2], 1e-3)
    column, row = np.moveaxis(np.floor(place.reshape(rows, columns, 2) * depth.shape[::-1] / (width, height)), -1, 0)
    if 2 * np.count_nonzero(depth) < depth.size:  # a LiDAR's: few pixels have one
        depth = nearest_filled(depth, max(1, round(STRIDE * depth.shape[1] / size[0])))
    inside = (column >= 0) & (row >= 0) & (column < depth.shape[1]) & (row < depth.shape[0])
    column, row = (np.where(inside, index, 0).astype(np.int64) for index in (column, row))
    return torch.from_numpy(np.where(inside, depth[row, column] * turned, 0).astype(np.float32))


def nearest_filled(depth: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """`depth` with the least depth within a square of `side` pixels where it knows none: what is in front hides all."""
    known = np.where(depth > 0, depth, np.float32(np.inf))
    front = cv2.erode(known, np.ones((side, side), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return np.where(depth > 0, depth, np.where(np.isfinite(front), front, 0)).astype(np.float32)


def at_grid(image: Tensor, grid: Tensor) -> Tensor:
    """[h, w, ...] the pixels of `image` [H, W, ...] under the middles of the cells of `grid` [h, w]."""
    row, column = (
        ((torch.arange(n, device=image.device) + 0.5) * side / n).long()
        for n, side in zip(grid.shape[:2], image.shape[:2], strict=True)
    )
    return image[row][:, column]


def points_from_depth(views: Views, depths: Sequence[Tensor], most: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """At most `most` points [N, 3] (world) and colours [N, 3] (uint8), drawn alike from all that is known.

    `depths`: V tensors [h, w], world, as from laid_over.
    """
    rows = [(d > 0).nonzero() for d in depths]
    total = sum(map(len, rows))
    generator, xyz, rgb = torch.Generator().manual_seed(seed), [], []
    for v, (depth, found) in enumerate(zip(depths, rows, strict=True)):
        kept = found[torch.randperm(len(found), generator=generator)[: -(-most * len(found) // max(total, 1))]]
        size = views.sizes[v]
        pixels = (kept.flip(-1) + 0.5) * size / size.new_tensor([depth.shape[1], depth.shape[0]])
        xyz.append(unproject(pixels, depth[kept[:, 0], kept[:, 1]].to(size), views.viewmats[v], views.Ks[v]))
        rgb.append(views.colors(v, pixels))
    return torch.cat(xyz)[:most], torch.cat(rgb)[:most]


def depth_loss(depth: Tensor, alpha: Tensor, prior: Tensor) -> Tensor:
    """Mean of |prior / depth - 1|, at most 1 a pixel: free of units, in inverse depth, and blind to gross errors.

    Args:
        depth, alpha: [H, W, 1], rendered z-depth (world) and opacity; where that is below half nothing is asked.
        prior: [h, w], world; not above 0: unknown.
    """
    drawn, there = at_grid(depth[..., 0], prior), at_grid(alpha[..., 0].detach(), prior) > 0.5
    known = there & (prior > 0) & (drawn > 0)
    off = (prior / torch.where(known, drawn, 1.0) - 1).abs().clamp_max(1.0)
    return torch.where(known, off, 0.0).sum() / known.sum().clamp_min(1)
