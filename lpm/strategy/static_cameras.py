"""Where nothing moves: what photos of cameras that stand still say of it, and points that are held to that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.multiview.views import Views, in_image, project

ALWAYS = 8.0
"""Logit of a gate that holding does not go beyond: far above it there is no gradient, and a point could not leave."""
BLOCK = 4
"""Side in pixels of what is compared over time: the mean over it hardly knows the noise of single pixels."""


def changing_tiles(views: Views, same: list[int], tile: int, least: float) -> Tensor:
    """[rows, columns] bool: tiles, of `tile` pixels squared, with a block whose grey (0..1) differs by more than
    `least` between any two of the photos `same`, which one camera took from one place."""
    low = high = views.gray(same[0], BLOCK)
    for v in same[1:]:
        grey = views.gray(v, BLOCK)
        low, high = torch.fmin(low, grey), torch.fmax(high, grey)  # what is masked in one is known from the others
    height, width = views.images[same[0]].shape[:2]
    changed = ((high - low).nan_to_num(0) > least).float()
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    changed = F.pad(changed, (0, columns - changed.shape[1], 0, rows - changed.shape[0]))
    return F.max_pool2d(changed[None], tile // BLOCK, ceil_mode=True)[0] > 0


def calm_points(views: Views, means: Tensor, changing: Mapping[int, Tensor], tile: int) -> Tensor:
    """[N] bool: points that fall on tiles without change in most of the photos that they are in.

    Most, not all: what moves may pass between a camera and a point that stands still.

    Args:
        means: [N, 3], world. changing: of each camera that stands still, by one of its views, its changing_tiles.
    """
    seen, still = (torch.zeros(len(means), device=means.device) for _ in range(2))
    for view, tiles in changing.items():
        pixels, z = project(means, views.viewmats[view], views.Ks[view])
        inside = in_image(pixels, z, views.sizes[view])
        column, row = torch.where(inside[:, None], pixels / tile, 0.0).long().unbind(1)
        seen += inside
        still += inside & ~tiles[row, column]
    return still > 0.5 * seen


def hold_still(params: Any, motion: Tensor, gates: Tensor) -> None:
    """Shortens each point's motion by `motion` [N] (world per time), to none at the least, and raises its gate by
    `gates` [N] (logit), to ALWAYS at the most: proximal steps of a group lasso (Yuan and Lin 2006) on what makes a
    point move or fade."""
    length = params["motion"].flatten(1).norm(dim=1)
    params["motion"].data.mul_((1 - motion / length.clamp_min(1e-12)).clamp_min(0)[:, None, None])
    gate = params["gates"].data
    gate.copy_(torch.maximum(gate, (gate + gates[:, None]).clamp_max(ALWAYS)))


@dataclass
class Cameras:
    """Which of the photos one camera took from one place, and where those change."""

    views: Views
    moments: int
    """Number of different times at which photos were taken."""
    tile: int
    """Side in pixels of the tiles that change or do not."""
    least: float
    """See changing_tiles."""
    _changing: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        views = self.views
        camera = torch.cat([views.viewmats.flatten(1), views.Ks.flatten(1), views.sizes], 1)
        which = camera.unique(dim=0, return_inverse=True)[
            1
        ].tolist()  # V x V comparisons would be a GiB at 6,000 photos
        groups: dict[int, list[int]] = {}
        for v, group in enumerate(which):
            groups.setdefault(group, []).append(v)
        self.same = [groups[group] for group in which]

    def stands(self, view: int) -> bool:
        """Whether the camera of a view stands still: its photos are of half of the times. A pause tells nothing."""
        return len(self.same[view]) >= max(2, self.moments // 2)

    def changing(self, view: int) -> Tensor:
        """[rows, columns] bool: changing_tiles of the camera of a view; found once."""
        same = self.same[view]
        if same[0] not in self._changing:
            self._changing[same[0]] = changing_tiles(self.views, same, self.tile, self.least)
        return self._changing[same[0]]

    def calm(self, means: Tensor) -> Tensor:
        """[N] bool: calm_points of `means` [N, 3], by all cameras that stand still."""
        changing = {same[0]: self.changing(same[0]) for same in self.same if self.stands(same[0])}
        return calm_points(self.views, means, changing, self.tile)
