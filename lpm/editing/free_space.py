"""Gaussians that stand where the cameras of a scene looked through: before surfaces that its points lie on.

Between a camera and a point that SfM found in its photo there is nothing. A Gaussian whose centre a camera sees nearer
than all the points around it in the picture stands in front there; where it is about as near, it may be the surface;
where it is farther, or no point is around, the photo says nothing. Photos vote.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from lpm.multiview.views import Views, in_image, project
from lpm.multiview.visibility import Visibility

AROUND = 4
"""Points around a pixel that tell how near a surface may be there."""
REACH = 0.1
"""How far around: share of the picture's diagonal."""
MARGIN = 0.1
"""Share of its depth by which a Gaussian stands before all of them."""
AGREE = 0.75
"""Share of the photos that can tell by which it must do so."""


def before_surfaces(means: Tensor, views: Views, points: Tensor, photos: int) -> Tensor:
    """[N] bool: at least `photos` photos, and AGREE of those that can tell, see it stand before a surface.

    Args:
        means: [N, 3], world. views: cameras; photos are not read. points: [P, 3], world, on surfaces (SfM).
    """
    front, there = votes(means, views, points)
    return (front >= photos) & (front >= AGREE * (front + there))


def votes(means: Tensor, views: Views, points: Tensor) -> tuple[Tensor, Tensor]:
    """How many photos see each of `means` [N, 3] in front of the surface, and how many where it may be: [N], [N]."""
    front, there = (torch.zeros(len(means), dtype=torch.int64) for _ in range(2))
    if len(points) == 0:
        return front, there
    known = Visibility(views, points, None, None)
    pixels, z = project(known.points, views.viewmats, views.Ks)
    for v in range(len(views)):
        rows = known.seen[v]
        if int(rows.sum()) < AROUND:
            continue
        at, depth = project(means, views.viewmats[v], views.Ks[v])
        inside = in_image(at, depth, views.sizes[v]).nonzero().flatten()
        reach = REACH * float(views.sizes[v].norm())
        tree = cKDTree(pixels[v, rows].numpy())
        apart, near = tree.query(at[inside].numpy(), AROUND)
        around = z[v, rows].numpy()[near]
        tells = apart[:, -1] <= reach
        own = depth[inside].numpy()
        before = tells & (own < (1 - MARGIN) * around.min(1))
        surface = tells & ~before & (own < (1 + MARGIN) * around.max(1))
        front[inside] += torch.from_numpy(before.astype(np.int64))
        there[inside] += torch.from_numpy(surface.astype(np.int64))
    return front, there
