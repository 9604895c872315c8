"""Which points to edit, from what was found: masks and new rows, as pure functions. lpm.gaussians.edits edits."""

from __future__ import annotations

import torch
from torch import Tensor

from lpm.gaussians.parameters import rotations, start_colors
from lpm.multiview.views import Views, nearest_centre, unproject
from lpm.sending import brought, sent
from lpm.zones.zone import NO_EVIDENCE, ViewZones

BIRTH_OPACITY = 0.1
PER_TILE = 4
"""Rows that are made for a tile: one in each quarter."""

PAIRS = 1 << 18
"""Points times cameras that are looked at in one go: some ten megabytes."""


def weighted_sample(score: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Mask [N] of n rows (fewer if fewer are above 0), drawn without replacement with probability by `score` [N]."""
    mask = torch.zeros_like(score, dtype=torch.bool)
    possible = int((score > 0).sum())
    if min(n, possible) <= 0:
        return mask
    # Gumbel's trick (Efraimidis 2006): the n largest of score^(1/u) are such a sample; one sort, no host loop.
    uniform = uniform_numbers(len(score), score.device, generator)
    key = torch.log(score.clamp_min(0)) - torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-7)))
    mask[key.topk(min(n, possible)).indices] = True
    return mask


def uniform_numbers(n: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """[n] in 0..1 by `generator`, which is the host's: a device that has its own is only given a seed by it.

    A million numbers take a host milliseconds, and then the way to the device.
    """
    if device.type == "cpu":
        return torch.rand(n, generator=generator)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.rand(n, generator=torch.Generator(device).manual_seed(seed), device=device)


def lowest(value: Tensor, allowed: Tensor, k: int) -> Tensor:
    """Mask [N] of exactly k rows of `allowed` [N] (all, if it has fewer) with the lowest `value` [N]; ties by row."""
    mask = torch.zeros_like(allowed)
    rows = allowed.nonzero().flatten()
    mask[rows[value[rows].argsort(stable=True)[: max(0, k)]]] = True
    return mask


def around_cameras(means: Tensor, quats: Tensor, scales: Tensor, centres: Tensor, within: float) -> Tensor:
    """Mask [N] of the points that reach around one of the camera `centres` [V, 3], world: no surface does.

    Such a point is drawn over everything by the cameras that look along it, and by those that look away not at all.

    Args:
        means: [N, 3], world. quats: [N, 4]. scales: [N, 3], log of world units.
        within: standard deviations of the point, at its centre 0.
    """
    reach = within * scales.amax(1).exp()
    mask = torch.zeros_like(reach, dtype=torch.bool)
    if len(centres) == 0:
        return mask
    near = (nearest_centre(means, centres) < reach).nonzero().flatten()
    for rows in near.split(max(1, PAIRS // len(centres))):
        offset = centres - means[rows, None]  # [R, V, 3]
        local = (offset[..., None] * rotations(quats[rows])[:, None]).sum(2) / scales[rows, None].exp()
        mask[rows] = (local.square().sum(-1) < within * within).any(1)
    return mask


def sparse_tiles(zones: ViewZones, inside: Tensor, sparse: int) -> Tensor:
    """[rows, columns] bool: tiles whose depth the photos know, with fewer than `sparse` of the points `inside`."""
    return (zones.kind >= 0) & (zones.kind != NO_EVIDENCE) & (inside < sparse)


def new_points(
    xyz: Tensor, rgb: Tensor, size: Tensor, harmonics: bool, opacity: float = BIRTH_OPACITY
) -> dict[str, Tensor]:
    """Rows of points at `xyz` [M, 3] (world): means, scales, quats, features_dc, opacities (lpm.gaussians).

    Args:
        rgb: [M, 3] in 0..1; NaN: grey. size: [M, 3] standard deviations, world. opacity: of all, 0..1.
        harmonics: whether the model has any, see lpm.gaussians.start_colors.
    """
    quats = xyz.new_zeros(len(xyz), 4)
    quats[:, 0] = 1
    return {
        "means": xyz,
        "scales": size.clamp_min(1e-9).log(),
        "quats": quats,
        "features_dc": start_colors(rgb.nan_to_num(0.5), harmonics),
        "opacities": xyz.new_full((len(xyz), 1), opacity).logit(),
    }


def surface_points(
    views: Views,
    zones: list[ViewZones],
    errors: list[Tensor],
    lacking: list[Tensor],
    most: int,
    harmonics: bool = True,
) -> tuple[dict[str, Tensor], Tensor]:
    """Rows of new points on the surface of tiles that lack some: PER_TILE a tile, as large as a quarter of it.

    Args:
        errors, lacking: per view [rows, columns], residual of each tile, and (bool) whether it gets new points.
        most: at most so many rows; tiles of the largest error come first.
        harmonics: whether the model has any, see lpm.gaussians.start_colors.

    Returns:
        means (world), scales (log), quats, features_dc, opacities (logit), each [M, ...]; colours from the photo. And
        [M] the view that each was found in.
    """
    found = [torch.zeros(0, 4)]  # view, row, column, error
    here = brought(lacking + errors)
    for view, lacks, error in zip(zones, here[: len(zones)], here[len(zones) :], strict=True):
        at = lacks.nonzero()
        place = torch.cat([torch.full_like(at[:, :1], view.view), at], 1)
        found.append(torch.cat([place.to(error), error[at[:, 0], at[:, 1], None]], 1))
    tiles = torch.cat(found)
    tiles = tiles[tiles[:, 3].argsort(descending=True, stable=True)[: -(-most // PER_TILE)]]
    by_view = {view.view: view for view in zones}
    means, colors, sizes, seen = [], [], [], []
    for v in tiles[:, 0].long().unique().tolist():
        view, image = by_view[v], views.images[v]
        at = tiles[tiles[:, 0] == v, 1:3].long()
        corner = at.new_tensor([(0, 0), (0, 1), (1, 0), (1, 1)])
        pixels = (at[:, None] + 0.25 + 0.5 * corner).flip(-1).reshape(-1, 2) * view.tile
        pixels = torch.minimum(pixels, pixels.new_tensor([view.size[0] - 0.5, view.size[1] - 0.5]))
        at, pixels = sent(at, views.device), sent(pixels, views.device)
        depth = view.depth[at[:, 0], at[:, 1]].repeat_interleave(PER_TILE)
        means.append(unproject(pixels, depth, view.viewmat, view.K))
        rgb = image[pixels[:, 1].long().to(image.device), pixels[:, 0].long().to(image.device), :3]
        colors.append((rgb if rgb.is_floating_point() else rgb / 255).to(depth))
        seen.append(torch.full_like(depth, v, dtype=torch.int64))
        sizes.append(0.25 * view.tile * depth / view.K[0, 0])
    none = views.viewmats.new_zeros(0, 3)
    xyz, rgb, size = (torch.cat([none, *m])[:most] for m in (means, colors, [s[:, None].expand(-1, 3) for s in sizes]))
    rows = new_points(xyz, rgb, size, harmonics)
    return rows, torch.cat([none.new_zeros(0, dtype=torch.int64), *seen])[:most]
