"""Tiny scenes that show at a glance whether a viewer reads a file right: one question each, one pixel to look at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lpm.gaussians.spherical_harmonics import rgb_to_sh0


def _scene(n: int, scale: float, opacity: float, rest: int = 15) -> dict[str, Tensor]:
    """`n` grey, round Gaussians at the origin; `scale` in world units, `opacity` 0..1."""
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1
    return {
        "means": torch.zeros(n, 3),
        "scales": torch.full((n, 3), math.log(scale)),
        "quats": quats,
        "features_dc": torch.zeros(n, 3),
        "features_rest": torch.zeros(n, rest, 3),
        "opacities": torch.full((n, 1), opacity).logit(),
    }


def sh_canary() -> dict[str, Tensor]:
    """40 stacked Gaussians whose only coefficient is red's third of l = 1 (minus x), of value 1.

    Seen from +X (looking along -x) red is 0.5 + 0.4886 = 252 of 255, from -X 3, and green and blue are 127 from both.
    A file whose coefficients go colour by colour inside each coefficient shows grey.
    """
    params = _scene(40, 0.3, 0.9)
    params["features_rest"][:, 2, 0] = 1.0
    return params


def quaternion_canary() -> dict[str, Tensor]:
    """One needle along x, turned by 90 degrees about z, white: it stands along y. Read as xyzw it lies along x.

    Taken as xyzw the same numbers turn by 90 degrees about x, which leaves a needle along x where it is.
    """
    params = _scene(40, 0.03, 0.9, rest=0)
    params["scales"][:, 0] = math.log(0.5)
    params["quats"][:] = torch.tensor([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)])
    params["features_dc"][:] = rgb_to_sh0(torch.ones(3))
    return params


def opacity_canary(opacity: float = 0.25) -> dict[str, Tensor]:
    """One big white Gaussian of `opacity`; before black its centre shows 255 times that. Logits not undone: more."""
    params = _scene(1, 0.5, opacity, rest=0)
    params["features_dc"][:] = rgb_to_sh0(torch.ones(3))
    return params


def scale_canary(scale: float = 0.2, opacity: float = 0.8) -> dict[str, Tensor]:
    """One white round Gaussian of standard deviation `scale`: at that distance from the centre alpha is exp(-1/2)."""
    params = _scene(1, scale, opacity, rest=0)
    params["features_dc"][:] = rgb_to_sh0(torch.ones(3))
    return params


def corner_canary() -> dict[str, Tensor]:
    """Four round Gaussians: red along +x, green along +y, blue along +z, white opposite."""
    params = _scene(4, 0.12, 0.999, rest=0)
    params["means"] = torch.tensor([[0.8, 0.1, 0.0], [0.0, 0.7, 0.2], [-0.1, 0.0, 0.9], [-0.5, -0.6, -0.3]])
    params["features_dc"] = rgb_to_sh0(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]))
    return params
