"""Where each training view is wrong: residuals pooled into tiles, remembered as a moving average with its age.

The residual is the one that the training step has anyway; nothing is rendered for this.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 16  # pixels; the size of the rasterizer's own tiles


def gain_free_residual(render: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference over channels, [H, W], after the view's exposure is taken out.

    One gain per channel, fitted by least squares of `render` to `truth` [H, W, 3] (both in 0..1) and kept within a
    factor of two: a photo that is merely darker than its neighbours is no error of geometry.
    """
    cross = (render * truth).sum((0, 1))
    gain = (cross / render.square().sum((0, 1)).clamp_min(1e-12)).clamp(0.5, 2.0)
    residual = (render * gain - truth).abs().mean(-1)
    return torch.nan_to_num(residual, nan=0.0, posinf=0.0, neginf=0.0)  # broken pixels are no evidence


def pool(residual: Tensor, tile: int = TILE, mask: Tensor | None = None) -> Tensor:
    """Mean of `residual` [H, W] over tiles: [ceil(H / tile), ceil(W / tile)]; edge tiles average what they have.

    `mask` [H, W] (bool): only pixels in it count; a tile without any is 0.
    """
    weight = torch.ones_like(residual) if mask is None else mask.to(residual.dtype)
    both = torch.stack([residual * weight, weight])
    height, width = residual.shape
    both = F.pad(both, (0, -width % tile, 0, -height % tile))
    total, count = F.avg_pool2d(both, tile) * tile * tile
    return total / count.clamp_min(1e-6)


class ErrorMaps:
    """Pooled residuals E[v] of all training views, as an exponential moving average.

    Attributes:
        maps: view -> [rows, columns] on the device.
        seen: view -> step of the last update.
    """

    def __init__(self, tile: int = TILE, keep: float = 0.7, stride: int = 2) -> None:
        self.tile = tile
        self.stride = stride
        """Every this many pixels one is looked at: a tile's mean needs no more, and this is done at every step."""
        self.keep = keep
        """Share of the old value in an update; a view is seen once in an epoch, so this spans about three."""
        self.maps: dict[int, Tensor] = {}
        self.seen: dict[int, int] = {}

    @torch.no_grad()
    def update(self, view: int, step: int, render: Tensor, truth: Tensor, mask: Tensor | None = None) -> None:
        """Takes in one training step: `render` and `truth` [H, W, 3] in 0..1, mask [H, W] or None."""
        thin = slice(None, None, self.stride)
        residual = gain_free_residual(render.detach()[thin, thin], truth[thin, thin])
        pooled = pool(residual, self.tile // self.stride, None if mask is None else mask[thin, thin].squeeze(-1))
        old = self.maps.get(view)  # of another shape at another resolution (coarse to fine), and then of no use
        if old is not None and old.shape == pooled.shape:
            pooled = torch.lerp(pooled, old, self.keep)
        self.maps[view] = pooled
        self.seen[view] = step

    def mean(self, view: int) -> float:
        """Mean error of a view; 0 for one that was not seen yet."""
        return float(self.maps[view].mean()) if view in self.maps else 0.0

    def bad_threshold(self, share: float, floor: float) -> float:
        """Error above which a tile is bad: at least `floor`, and `share` of all the scene's tiles are above it."""
        if not self.maps:
            return float("inf")
        everything = torch.cat([m.flatten() for m in self.maps.values()])
        rank = max(1, round(share * len(everything)))
        return max(floor, float(everything.topk(rank).values[-1]))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"maps": dict(self.maps), "seen": dict(self.seen)}

    def load(self, state: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what state() gave."""
        self.maps = {int(view): value.to(device) for view, value in state["maps"].items()}
        self.seen = {int(view): int(step) for view, step in state["seen"].items()}
