"""Gaussians that move: parameters over time, and what they are at one time.

Beside those of lpm.gaussians, with time t from 0 (first frame) to 1 (last):
times [N, 1] (temporal centre), durations [N, 1] (log of the temporal standard deviation), motion [N, K, 3] (world per
time^k, the coefficients of t - times), gates [N, 1] (logit of the share of the opacity that is there at all times),
and where points turn spins [N, 4] (quaternion per time).

Source: Li 2024 (Spacetime Gaussians, eq. 5 to 8), with a gate between static and temporal opacity.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

NAMES = ("times", "durations", "motion", "gates")
SPINS = "spins"
STATIC_GATE, MOVING_GATE = 0.9, 0.1
"""Share of the opacity that is always there: of points at the start, of points born in a dynamic zone."""
LEAST_WEIGHT = 0.05
"""Points with less of their opacity at a time are not there."""


def start(count: int, degree: int, spins: bool) -> dict[str, Parameter]:
    """Motion of `count` points that stand still, and are there all the time.

    Args:
        degree: K of the polynomial, 1 or 3. spins: whether points turn.
    """
    values = still(count, degree)
    if spins:
        values[SPINS] = torch.zeros(count, 4)
    return {name: Parameter(value) for name, value in values.items()}


def still(count: int, degree: int) -> dict[str, Tensor]:
    """The same as plain tensors, without spins."""
    return {
        "times": torch.rand(count, 1),
        "durations": torch.zeros(count, 1),  # as long as the whole clip
        "motion": torch.zeros(count, degree, 3),
        "gates": torch.full((count, 1), STATIC_GATE).logit(),
    }


def weight_at(params: Any, t: Tensor | float) -> Tensor:
    """[N] share of a point's opacity that is there at time `t` (0..1)."""
    life = torch.exp(-0.5 * ((t - params["times"]) / params["durations"].exp()).square())
    gate = torch.sigmoid(params["gates"])
    return (gate + (1 - gate) * life).squeeze(-1)


def means_at(params: Any, t: Tensor | float) -> Tensor:
    """[N, 3] positions at time `t`, world. The temporal centre gets no gradient from here (Spacetime Gaussians)."""
    dt = (t - params["times"]).detach()
    motion = params["motion"]
    means: Tensor = params["means"]
    power = dt
    for k in range(motion.shape[1]):
        means = means + motion[:, k] * power
        power = power * dt
    return means


def quats_at(params: Any, t: Tensor | float) -> Tensor:
    """[N, 4] wxyz at time `t`, of any length."""
    quats: Tensor = params["quats"]
    if SPINS not in params:
        return quats
    turned: Tensor = quats + params[SPINS] * (t - params["times"]).detach()
    return turned


def recentred(params: Any, dt: Tensor) -> dict[str, Tensor]:
    """`times`, and what goes with them, of the same points on the same paths with their centres `dt` [N, 1] later.

    What was sum_j c_j (t - times)^j, c_0 the means, has other coefficients there (Taylor shift, by Horner's scheme).
    """
    c = [params["means"], *params["motion"].unbind(1)]
    for first in range(len(c) - 1):
        for j in range(len(c) - 2, first - 1, -1):
            c[j] = torch.addcmul(c[j], dt, c[j + 1])
    turned = {"quats": torch.addcmul(params["quats"], dt, params[SPINS])} if SPINS in params else {}
    return {"times": params["times"] + dt, "means": c[0], "motion": torch.stack(c[1:], 1), **turned}


def frozen_at(params: Any, t: Tensor | float) -> dict[str, Tensor]:
    """All parameters (lpm.gaussians) as they are at time `t`, without gradients; points that are not there stay,
    with an opacity of next to nothing."""
    with torch.no_grad():
        weight = weight_at(params, t)
        there = torch.sigmoid(params["opacities"].detach()) * torch.where(weight >= LEAST_WEIGHT, weight, 0.0)[:, None]
        return {name: value.detach() for name, value in params.items()} | {
            "means": means_at(params, t).detach(),
            "quats": quats_at(params, t).detach(),
            "opacities": torch.logit(there, eps=1e-6),
        }


def is_moving(params: Any, step: float) -> Tensor:
    """[N] bool: the point fades in or out, or moves farther than `step` (world) while it is there.

    A point is there all the time if most of its opacity is; else within two standard deviations of its centre.
    """
    gate = torch.sigmoid(params["gates"].detach()).flatten()
    always = gate > 0.5
    half = torch.where(always, 0.5, (2 * params["durations"].detach().exp()).flatten().clamp_max(0.5))
    motion = params["motion"].detach()
    powers = torch.stack([half ** (k + 1) for k in range(motion.shape[1])], 1)
    path: Tensor = (motion.norm(dim=-1) * powers).sum(1) * 2
    fades: Tensor = ~always & (params["durations"].detach().flatten() < math.log(0.5))
    return fades | (path > step)
