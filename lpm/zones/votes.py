"""Votes of many views' zones on all points at once: how often a point is inside of a zone, how often in front of one.

One native kernel looks at every point once, for all views; without a compiler its torch twin asks
lpm.zones.membership view by view.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lpm.cuda.device import DeviceLibrary, device_kernels
from lpm.cuda.native import NativeLibrary, native
from lpm.sending import sent
from lpm.zones.zone import FALSE_FRONT, ViewZones, membership


class Votes(NamedTuple):
    """What zone_votes() gives."""

    inside: Tensor
    """[N] views in which the point is between the two depths of its tile, in the dtype of the means."""
    front: Tensor
    """[N] views in which the point is in front of a tile of kind FALSE_FRONT, in the dtype of the means."""
    counts: list[Tensor]
    """Per view [rows, columns] int64, points inside of each tile."""


def zone_votes(means: Tensor, zones: list[ViewZones], margin: float) -> Votes:
    """Where `means` [N, 3] (world) stand with respect to the zones of several views, as lpm.zones.membership says.

    Args:
        zones: of each view, on the device and in the dtype of `means`.
        margin: share of a tile's near depth by which a point in front must be nearer.

    Points with a NaN or infinity, behind a camera or outside of its image get no vote of it. No gradients.
    """
    means = means.detach()
    on_cpu = means.device.type == "cpu"
    kernels = (native() if on_cpu else device_kernels(means.device)) if zones else None
    if kernels is None:
        return zone_votes_torch(means, zones, margin)
    return zone_votes_native(kernels, means, zones, margin)


def zone_votes_torch(means: Tensor, zones: list[ViewZones], margin: float) -> Votes:
    """The torch twin of the native kernel, without a host sync; see zone_votes."""
    inside, front = means.new_zeros(len(means)), means.new_zeros(len(means))
    counts = []
    for view in zones:
        is_inside, is_front, cell = membership(means, view, margin)
        inside += is_inside
        front += is_front & (view.kind.flatten()[cell] == FALSE_FRONT)
        points = torch.zeros(view.near.numel(), dtype=torch.int64, device=means.device)
        counts.append(points.index_add_(0, cell, is_inside.long()).reshape(view.near.shape))
    return Votes(inside, front, counts)


def zone_votes_native(
    kernels: NativeLibrary | DeviceLibrary, means: Tensor, zones: list[ViewZones], margin: float
) -> Votes:
    """The native kernel, of the CPU or of CUDA; see zone_votes."""
    cameras = _cameras(zones).to(means.dtype)
    grids = sent([view.near.shape for view in zones], means.device)
    near, far = (torch.cat([getattr(v, name).flatten() for v in zones]).to(means.dtype) for name in ("near", "far"))
    false_front = torch.cat([view.kind.flatten() for view in zones]) == FALSE_FRONT
    limit = torch.where(false_front & near.isfinite(), near * (1 - margin), -torch.inf)
    inside, front = means.new_empty(len(means)), means.new_empty(len(means))
    counts = torch.zeros(len(near), dtype=torch.int64, device=means.device)
    kernels.call(
        "zone_votes", means.dtype, len(means), len(zones),
        means.contiguous(), cameras, grids, near, far, limit, inside, front, counts,
    )  # fmt: skip
    parts = counts.split([view.near.numel() for view in zones])
    return Votes(inside, front, [part.reshape(view.near.shape) for part, view in zip(parts, zones, strict=True)])


def _cameras(zones: list[ViewZones]) -> Tensor:
    """[V, 18]: rows of [R t], fx, fy, cx, cy, width, height; all but the first twelve in tiles."""
    viewmats, Ks = torch.stack([view.viewmat for view in zones]), torch.stack([view.K for view in zones])
    told = sent([(*view.size, view.tile) for view in zones], Ks.device, Ks.dtype)
    lens = torch.stack([Ks[:, 0, 0], Ks[:, 1, 1], Ks[:, 0, 2], Ks[:, 1, 2]], 1)
    return torch.cat([viewmats[:, :3].flatten(1), torch.cat([lens, told[:, :2]], 1) / told[:, 2:]], 1)
