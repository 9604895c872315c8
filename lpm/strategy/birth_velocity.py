"""How fast a point moves that is born in a dynamic zone: by the photos, else as its neighbours do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lpm.gaussians import motion
from lpm.multiview.optical_flow import Flows


def velocity(
    params: Any, flows: Flows, places: Tensor, view: int, t: Tensor, frames: Sequence[tuple[float, int]]
) -> Tensor:
    """[M, 3] the velocity (world per whole clip) at time `t` of `places` [M, 3] that `view` sees.

    By the optical flow to the photo of its camera before it or after it, whichever looks more like it: what has
    just come, or is about to go, is in one of them only. Where neither tells, that of the nearest point.

    Args:
        params: lpm.gaussians and lpm.gaussians.motion. frames: photos of the same camera, as (time since `t`, view).
    """
    best = neighbours_velocity(params, places, t)
    if len(places) == 0:
        return best
    least = torch.full((len(places),), torch.inf, device=places.device)
    for side in ([f for f in frames if f[0] < 0], [f for f in frames if f[0] > 0]):
        if side:
            gap, other = min(side, key=lambda f: abs(f[0]))
            seen, unlike = flows.velocities(view, other, gap, places)
            best = torch.where((unlike < least)[:, None], seen, best)
            least = torch.minimum(least, unlike)
    return best


def neighbours_velocity(params: Any, places: Tensor, t: Tensor) -> Tensor:
    """[M, 3] the velocity at time `t` of the point nearest to each of `places` [M, 3]."""
    there = (motion.weight_at(params, t) > 0.5).nonzero().flatten()
    if len(there) == 0 or len(places) == 0:
        return torch.zeros_like(places)
    means = motion.means_at(params, t).detach()[there]
    block = min(256, max(1, 2**24 // len(means)))  # bounds the memory
    nearest = torch.cat([torch.cdist(some, means).argmin(1) for some in places.split(block)])
    rows = there[nearest]
    dt = t - params["times"].detach()[rows]
    coefficients = params["motion"].detach()[rows]
    return sum(((k + 1) * coefficients[:, k] * dt**k for k in range(coefficients.shape[1])), torch.zeros_like(places))
