"""Values as the small formats keep them: colours and opacities in eight bits, quaternions without one component."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.gaussians.spherical_harmonics import SH_C0

Numbers = NDArray[np.floating[Any]]
"""Of any width."""


def to_bytes(values: Tensor) -> NDArray[np.uint8]:
    """0..1 -> 0..255, rounded; what lies outside is clamped."""
    return (values.clamp(0, 1) * 255).round().byte().numpy()


def rgba(features_dc: Tensor, opacities: Tensor) -> NDArray[np.uint8]:
    """[N, 4] bytes of the view-independent colour [N, 3] (SH coefficients) and the opacity [N, 1] (logits)."""
    colors = features_dc.detach().float().cpu() * SH_C0 + 0.5
    return to_bytes(torch.cat([colors, torch.sigmoid(opacities.detach().float().cpu())], 1))


def logit(opacity: Numbers) -> NDArray[np.float32]:
    """Logits of opacities 0..1 kept in eight bits. The ends become finite, a quarter of a step from where they are."""
    inside = np.clip(opacity.astype(np.float64), 0.25 / 255, 1 - 0.25 / 255)
    return np.log(inside / (1 - inside)).astype(np.float32)


OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""Places of a quaternion's other components, by that of the one left out."""


def smallest_three(three: Numbers, largest: NDArray[np.int64]) -> NDArray[np.float32]:
    """Unit quaternions [N, 4] from their three smaller components [N, 3] and the place [N] of the one left out."""
    n = len(three)
    out = np.empty((n, 4), np.float32)
    missing = np.sqrt(np.maximum(0, 1 - (three.astype(np.float64) ** 2).sum(1)))
    others = OTHERS[largest]
    rows = np.arange(n)
    out[rows[:, None], others] = three
    out[rows, largest] = missing
    return out


def sh0_params(
    means: Numbers, scales: Numbers, quats: Numbers, features_dc: Numbers, opacities: Numbers,
    features_rest: Numbers | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Arrays [N, ...] of a reader as parameters of lpm.gaussians, float32; opacities [N] are logits."""
    rest = np.zeros((len(means), 0, 3), np.float32) if features_rest is None else features_rest
    arrays = {
        "means": means, "scales": scales, "quats": quats, "features_dc": features_dc, "features_rest": rest,
        "opacities": opacities.reshape(-1, 1),
    }  # fmt: skip
    return {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in arrays.items()}
