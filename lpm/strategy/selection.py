"""Which points to edit, from what was found: masks and new rows, as pure functions. lpm.gaussians.edits edits."""

from __future__ import annotations

from typing import NamedTuple

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


class Places(NamedTuple):
    """Where new points are seen."""

    views: Tensor
    """[M] int64, the photo that each was found in."""
    pixels: Tensor
    """[M, 2], x and y in it."""
    depth: Tensor
    """[M], z-depth, world units."""

    def where(self, keep: Tensor) -> Places:
        """Those of them that `keep` [M] holds."""
        return Places(*(of_all[keep] for of_all in self))


def places_of(zones: list[ViewZones], errors: list[Tensor], lacking: list[Tensor], most: int) -> Places:
    """PER_TILE places in each tile that lacks points, the middles of its quarters, at the tile's depth.

    Args:
        errors, lacking: per view [rows, columns], residual of each tile, and (bool) whether it gets new points.
        most: at most so many places; tiles of the largest error come first, and those of one view together.
    """
    found = [torch.zeros(0, 4)]  # which view, row, column, error
    here = brought(lacking + errors)
    for i, (lacks, error) in enumerate(zip(here[: len(zones)], here[len(zones) :], strict=True)):
        at = lacks.nonzero()
        place = torch.cat([torch.full_like(at[:, :1], i), at], 1)
        found.append(torch.cat([place.to(error), error[at[:, 0], at[:, 1], None]], 1))
    tiles = torch.cat(found)
    tiles = tiles[tiles[:, 3].argsort(descending=True, stable=True)[: -(-most // PER_TILE)]]
    device = zones[0].depth.device if zones else torch.device("cpu")
    nowhere = torch.zeros(0, device=device)
    places = [Places(nowhere.long(), nowhere.reshape(0, 2), nowhere)]
    for i in tiles[:, 0].long().unique().tolist():
        view, at = zones[i], tiles[tiles[:, 0] == i, 1:3].long()
        corner = at.new_tensor([(0, 0), (0, 1), (1, 0), (1, 1)])
        pixels = (at[:, None] + 0.25 + 0.5 * corner).flip(-1).reshape(-1, 2) * view.tile
        pixels = torch.minimum(pixels, pixels.new_tensor([view.size[0] - 0.5, view.size[1] - 0.5]))
        at, pixels = sent(at, device), sent(pixels, device)
        depth = view.depth[at[:, 0], at[:, 1]].repeat_interleave(PER_TILE)
        places.append(Places(torch.full_like(depth, view.view, dtype=torch.int64), pixels, depth))
    return Places(*(torch.cat(parts)[:most] for parts in zip(*places, strict=True)))


def surface_points(views: Views, places: Places, side: int, harmonics: bool = True) -> dict[str, Tensor]:
    """Rows of new points at `places`, as large as a quarter of a tile of `side` pixels, coloured by the photos.

    Args:
        harmonics: whether the model has any, see lpm.gaussians.start_colors.

    Returns:
        means (world), scales (log), quats, features_dc, opacities (logit), each [M, ...].
    """
    view, pixels, depth = places
    Ks = views.Ks[view]
    colors = views.viewmats.new_zeros(len(depth), 3)
    for v in view.unique().tolist():
        mine = (view == v).nonzero().flatten()
        column, row = pixels[mine].long().unbind(1)
        image = views.images[v]
        rgb = image[row.to(image.device), column.to(image.device), :3]
        colors[mine] = (rgb if rgb.is_floating_point() else rgb / 255).to(colors)
    size = (0.25 * side * depth / Ks[:, 0, 0])[:, None].expand(-1, 3)
    return new_points(unproject(pixels, depth, views.viewmats[view], Ks), colors, size, harmonics)
