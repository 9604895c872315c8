"""Moving Gaussians for formats that hold still ones, and for .splatv, which moves in its own way."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lpm.formats.splatv import ALWAYS
from lpm.gaussians import motion

NOTICED = 0.01
"""Share of the scene's size that a point must move to count as moving."""
LEAST_OPACITY = 1 / 255
"""Fainter points are not drawn by any renderer, and left out."""


def moves(params: Mapping[str, Tensor]) -> bool:
    """Whether `params` have a motion: lpm.gaussians.motion's, or that of a .splatv."""
    return "motion" in params


def moving_rows(params: Mapping[str, Tensor]) -> Tensor:
    """[N] bool: points that come and go, or move farther than a hundredth of the scene (the middle 98 % of it)."""
    means = params["means"]
    if not moves(params):
        return torch.zeros(len(means), dtype=torch.bool)
    ordered = means.sort(dim=0).values
    edge = len(means) // 100
    step = NOTICED * float((ordered[-1 - edge] - ordered[edge]).norm())
    if "times" in params:
        return motion.is_moving(params, step)
    path = params["motion"].reshape(-1, 3, 3).norm(dim=-1).sum(1) * params["time_width"].flatten().clamp_max(1.0)
    moving: Tensor = (params["time_width"].flatten() < 1.0) | (path > step)
    return moving


def at_time(params: Mapping[str, Tensor], t: float) -> dict[str, Tensor]:
    """The parameters of lpm.gaussians at time `t` (0..1), without points that are not there. Still ones stay as they
    are.

    Rendered, they give what the moving ones give at `t`.
    """
    if not moves(params):
        return dict(params)
    with torch.no_grad():
        if "times" in params:
            weight = motion.weight_at(params, t)
            means, quats = motion.means_at(params, t), motion.quats_at(params, t)
        else:  # of a .splatv
            dt = t - params["time_center"]
            powers = torch.cat([dt, dt**2, dt**3], 1)
            means = params["means"] + (params["motion"].reshape(-1, 3, 3) * powers[..., None]).sum(1)
            quats = params["quats"] + params["omega"] * dt
            weight = torch.exp(-((dt / params["time_width"]) ** 2)).flatten()
        quats = torch.where(quats.norm(dim=1, keepdim=True) > 0, quats, params["quats"])
        opacity = torch.sigmoid(params["opacities"]).flatten() * weight
        keep = opacity >= LEAST_OPACITY
        still = {name: params[name][keep] for name in ("scales", "features_dc", "features_rest")}
        logit = torch.logit(opacity[keep].double(), eps=1e-9).float()[:, None]
        return {"means": means[keep], "quats": quats[keep], "opacities": logit, **still}


def for_splatv(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`params` of lpm.gaussians.motion with write_splatv's names of what moves.

    A .splatv has no share of the opacity that stays: points that keep more than half of it stay whole, and the others
    fade away.
    """
    if "times" not in params:
        return dict(params)
    n, degree = params["motion"].shape[:2]
    coefficients = torch.zeros(n, 3, 3)
    coefficients[:, :degree] = params["motion"]
    stays = torch.sigmoid(params["gates"]) > 0.5
    moving = {
        "motion": coefficients.reshape(n, 9),
        "omega": params.get(motion.SPINS, torch.zeros(n, 4)),
        "time_center": params["times"],
        "time_width": torch.where(stays, ALWAYS, math.sqrt(2) * params["durations"].exp()),
    }
    own = {*motion.NAMES, motion.SPINS}
    return {name: value for name, value in params.items() if name not in own} | moving
