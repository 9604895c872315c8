"""New points that are there for a while: what they need beside the parameters of points that stand still."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lpm.gaussians import motion
from lpm.gaussians.parameters import TrainedParameters


def timed(
    rows: dict[str, Tensor], params: TrainedParameters, t: Tensor | float, life: float, velocity: Tensor | None = None
) -> dict[str, Tensor]:
    """`rows` of M points (lpm.strategy.selection.new_points) with those of lpm.gaussians.motion that `params` have.

    Args:
        t: when they are there, 0..1, of all or [M]. life: temporal standard deviation, as a share of the clip.
        velocity: [M, 3], world per clip; None: they stand still.
    """
    m, device = len(rows["means"]), rows["means"].device
    turning = torch.zeros(m, *params["motion"].shape[1:], device=device)
    if velocity is not None:
        turning[:, 0] = velocity
    more = {
        "times": torch.as_tensor(t, device=device, dtype=turning.dtype).expand(m)[:, None].clone(),
        "durations": torch.full((m, 1), math.log(life), device=device),
        "motion": turning,
        "gates": torch.full((m, 1), math.log(motion.MOVING_GATE / (1 - motion.MOVING_GATE)), device=device),
    }
    if motion.SPINS in params:
        more[motion.SPINS] = torch.zeros(m, 4, device=device)
    return rows | more
