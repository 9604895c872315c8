"""Which rows of a file are Gaussians, and values that are infinite by right.

Programs that keep opacities in bytes write the logit of 1 as +inf and that of 0 as -inf, and a flat Gaussian's size of
0 as the logarithm -inf. They mean something, and become the largest and least values that are of use here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lpm.gaussians.parameters import NAMES

OPAQUE = 20.0
"""Logit of an opacity that float32 cannot tell from 1; its negative stands for 0."""
FLAT = -30.0
"""Logarithm of a size that stands for 0."""
SHORTEST = 1e-6
"""Quaternions shorter than this stand for no rotation: padding, or what was removed."""


def bounded(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`params` with infinite opacities, and scales of -inf, at the ends of our range; the rest as it is."""
    opacities, scales = params["opacities"], params["scales"]
    ends = torch.where(opacities.isinf(), opacities.sign() * OPAQUE, opacities)
    return {**params, "opacities": ends, "scales": torch.where(scales == -torch.inf, FLAT, scales)}


def finite_rows(params: Mapping[str, Tensor]) -> Tensor:
    """[N] bool: every parameter of the Gaussian is a finite number."""
    n = len(params["means"])
    return torch.stack([torch.isfinite(params[name].detach()).reshape(n, -1).all(1) for name in NAMES]).all(0)


def sound_rows(params: Mapping[str, Tensor]) -> Tensor:
    """[N] bool: the Gaussian can be drawn and written: finite, and with a rotation."""
    turned: Tensor = params["quats"].detach().norm(dim=1) >= SHORTEST
    return finite_rows(params) & turned
