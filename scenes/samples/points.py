"""The starting points of a sample scene: as SfM would find them on rendered views, with a hole and false points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lpm.scenes.lenses import Lens
from lpm.scenes.samples.trace import Shot
from lpm.scenes.samples.worlds import Sample, Triple
from lpm.scenes.scene import Floats

COUNT = 8000
NOISE_PX = 0.5
"""Standard deviation of a point's position, in pixels of the view that it was found in, along each axis."""
AGREE = 0.01
"""A view sees a point if the depth there differs by less than this share."""
FLAT = 0.02
"""Weight of pixels without texture, next to a mean gradient of 1: SfM finds few points there, but some."""


@dataclass
class SamplePoints:
    """The points as written, false ones mixed in."""

    xyz: Floats
    rgb: NDArray[np.uint8]
    false: NDArray[np.int64]
    """Rows of the false points, ascending."""


def project(points: Floats, c2w: Floats, intrinsics: Floats | Lens) -> tuple[Floats, Floats]:
    """Pixel positions [N, 2] (x, y) and z-depths [N] of `points` [N, 3]; depth <= 0 is behind the camera.

    Of a lens: distances, -1 where it does not see the point.
    """
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    if isinstance(intrinsics, Lens):
        pixels, there = intrinsics.sees(local * (1, -1, -1))
        return pixels, np.where(there, np.linalg.norm(local, axis=1), -1)
    z = -local[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = intrinsics[0] * local[:, 0] / z + intrinsics[2]
        y = -intrinsics[1] * local[:, 1] / z + intrinsics[3]
    return np.stack([x, y], axis=1), z


def unproject(pixels: Floats, depth: Floats, c2w: Floats, intrinsics: Floats | Lens) -> Floats:
    """World positions [N, 3] of `pixels` [N, 2] (x, y) at z-`depth` [N]; of a lens, at that distance."""
    if isinstance(intrinsics, Lens):
        local = intrinsics.rays(pixels) * (1, -1, -1) * depth[:, None]
        there: Floats = local @ c2w[:3, :3].T + c2w[:3, 3]
        return there
    x = (pixels[:, 0] - intrinsics[2]) / intrinsics[0] * depth
    y = -(pixels[:, 1] - intrinsics[3]) / intrinsics[1] * depth
    world: Floats = np.stack([x, y, -depth], axis=1) @ c2w[:3, :3].T + c2w[:3, 3]
    return world


def inside(points: Floats, box: tuple[Triple, Triple]) -> NDArray[np.bool_]:
    """[N] whether `points` [N, 3] lie in `box` (lower and upper corner)."""
    mask: NDArray[np.bool_] = ((points >= np.array(box[0])) & (points <= np.array(box[1]))).all(1)
    return mask


def in_view(
    points: Floats, c2w: Floats, intrinsics: Floats | Lens, depth: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Rows of the `points` whose projection falls on the image, their pixels as (row, column), and all z-depths."""
    pixels, z = project(points, c2w, intrinsics)
    ok = (z > 0.05) & (pixels >= 0).all(1) & (pixels[:, 0] < depth.shape[1]) & (pixels[:, 1] < depth.shape[0])
    rows = np.flatnonzero(ok)
    at = pixels[rows].astype(np.int64)
    return rows, at[:, ::-1], z


def candidates(
    shots: list[Shot], poses: Floats, intrinsics: Floats | Lens, rng: np.random.Generator, count: int = COUNT
) -> tuple[Floats, Floats]:
    """Surface points [N, 3] at pixels drawn by texture, four times `count`, and the world size [N] of those pixels."""
    xyz, size = [], []
    each = int(np.ceil(4 * count / len(shots)))
    for shot, pose in zip(shots, poses, strict=True):
        grey = shot.rgb.mean(2)
        strength = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
        weight = strength / strength.mean() + FLAT
        # Corners of foreground objects against what is behind them move with the view: SfM drops those.
        jump = ndimage.maximum_filter(shot.depth, 3) / ndimage.minimum_filter(shot.depth, 3) > 1.05
        # Depth grows with distance much faster than parallax tells it: few far points survive.
        weight = np.where(jump, 0.0, weight / (1 + (shot.depth / 12) ** 2)).ravel()
        pick = rng.choice(weight.size, min(each, int((weight > 0).sum())), replace=False, p=weight / weight.sum())
        row, column = np.divmod(pick, grey.shape[1])
        depth = shot.depth.ravel()[pick].astype(np.float64)
        xyz.append(unproject(np.stack([column, row], axis=1) + 0.5, depth, pose, intrinsics))
        size.append(depth / (intrinsics.focal()[0] if isinstance(intrinsics, Lens) else intrinsics[0]))
    return np.concatenate(xyz), np.concatenate(size)


def find_points(
    sample: Sample, shots: list[Shot], poses: Floats, intrinsics: Floats | Lens, rng: np.random.Generator
) -> SamplePoints:
    """Draws the points of `sample` from its `shots` at `poses` [V, 4, 4], which share `intrinsics` [4], or a lens."""
    wanted = COUNT if sample.drawn is None else sample.drawn.points
    xyz, size = candidates(shots, poses, intrinsics, rng, wanted)
    total, color = np.zeros(len(xyz)), np.zeros((len(xyz), 3))
    for shot, pose in zip(shots, poses, strict=True):
        rows, at, z = in_view(xyz, pose, intrinsics, shot.depth)
        there = shot.depth[at[:, 0], at[:, 1]]
        good = np.abs(there - z[rows]) < AGREE * there
        rows, at = rows[good], at[good]
        total[rows] += 1
        color[rows] += shot.rgb[at[:, 0], at[:, 1]]
    noisy = xyz + rng.standard_normal(xyz.shape) * (NOISE_PX * size)[:, None]
    keep = np.flatnonzero((total >= 2) & ~inside(xyz, sample.hole) & ~inside(noisy, sample.hole))
    keep = np.sort(rng.permutation(keep)[:wanted])
    xyz, color = noisy[keep], color[keep] / total[keep, None]

    centre, spread, count, _ = sample.floaters
    ghosts = np.array(centre) + rng.standard_normal((count, 3)) * spread
    ghost_color = color[rng.integers(len(color), size=count)]
    order = rng.permutation(len(xyz) + count)
    xyz, color = np.concatenate([xyz, ghosts])[order], np.concatenate([color, ghost_color])[order]
    rgb = (np.clip(color, 0, 1) * 255 + 0.5).astype(np.uint8)
    return SamplePoints(xyz, rgb, np.flatnonzero(order >= len(order) - count))
