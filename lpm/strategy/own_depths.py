"""The depth of a new point by the photos at its own pixel: its tile's may be another surface's.

A quarter of the tiles with large errors lie across the edge of something. A point that is born there at the tile's one
depth stands in the air beside a near thing, or shows through from behind it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lpm.multiview.plane_sweep import plane_sweep
from lpm.multiview.views import Views
from lpm.strategy.selection import Places

NEAREST, FARTHEST = 0.5, 4.0
"""Where it is looked for, in depths of the tile: what is behind the edge of a thing may be far behind."""
MATCHES = 0.7
"""ZNCC of its patch with those of the better half of the neighbours from which on a depth is taken."""


def own_depths(views: Views, neighbours: Tensor, places: Places) -> Tensor:
    """[M] z-depths, world units: where other photos show the same patch; NaN where they do not.

    Args:
        neighbours: [V, k] int64, the photos that each can be compared with; -1: none. A photo that has none has its
            depths from something else, and they stay.
    """
    sweep = plane_sweep(views, places.views, places.pixels, neighbours, NEAREST * places.depth, FARTHEST * places.depth)
    own = torch.where(sweep.score >= MATCHES, sweep.depth, torch.nan)
    return torch.where((neighbours[places.views] >= 0).any(1), own, places.depth)
