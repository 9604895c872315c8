"""The parameters of a set of Gaussians and their start from points.

Parameters carry splatfacto's names, so that nerfstudio's tools find them:
means [N, 3] (world), scales [N, 3] (log of world), quats [N, 4] (wxyz, any length), features_dc [N, 3] and
features_rest [N, K-1, 3] (SH coefficients), opacities [N, 1] (logit).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import Parameter, ParameterDict
from torch.optim import Optimizer

from lpm.checks import check_finite, check_shape, fail
from lpm.gaussians.spherical_harmonics import rgb_to_sh0

NAMES = ("means", "scales", "quats", "features_dc", "features_rest", "opacities")
Parameters: TypeAlias = Mapping[str, Tensor] | ParameterDict
"""Name -> tensor [N, ...], as plain tensors or while they are trained."""
TrainedParameters: TypeAlias = dict[str, Parameter] | ParameterDict
"""The same while they are trained; edits put others in their place."""
Optimizers: TypeAlias = dict[str, Optimizer]
"""One of each parameter's own, by its name (gsplat's convention)."""


def start_colors(rgb: Tensor, harmonics: bool) -> Tensor:
    """features_dc [..., 3] of colours in 0..1; without harmonics they are kept as logits, as splatfacto does."""
    return rgb_to_sh0(rgb) if harmonics else rgb.logit(eps=1e-4)


def rotations(quats: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4] (wxyz, any length)."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, -1).reshape(*quats.shape[:-1], 3, 3)


def random_subset(points: Tensor, most: int, seed: int = 0) -> Tensor:
    """Indices (sorted, [min(N, most)]) of a random subset of `points` [N, ...], the same for the same seed."""
    if len(points) <= most:
        return torch.arange(len(points))
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(len(points), generator=generator)[:most].sort().values


def neighbour_distance(points: Tensor, k: int = 3) -> Tensor:
    """Mean distance [N] (world) of each of `points` [N, 3] to its k nearest others; 3DGS starts scales from it."""
    if len(points) < 2:
        return torch.ones(len(points))
    tree = cKDTree(points.numpy())
    distance, _ = tree.query(points.numpy(), k=min(k + 1, len(points)), workers=-1)
    # Points at the very same place would start with no size at all, and stay invisible for good.
    positive = np.maximum(distance[:, 1:].mean(1), 1e-6 * max(float(distance.max()), 1e-6))
    return torch.from_numpy(positive).float()


def from_points(
    xyz: Tensor, rgb: Tensor | None, sh_degree: int, opacity: float = 0.1, scale_factor: float = 1.0
) -> ParameterDict:
    """Starting Gaussians (3DGS, Kerbl 2023, section 5.1): isotropic, sized by the distance to the neighbours.

    Args:
        xyz: [N, 3] world. rgb: [N, 3] in 0..255, or None for grey.
        opacity: starting opacity in 0..1. scale_factor: times the neighbour distance.

    Raises:
        LpmError: no points, or a point that is not finite.
    """
    check_shape("points", xyz, (None, 3))
    if len(xyz) == 0:
        fail("points", "none", "at least one starting point", "give a scene with SfM points, or use random_init")
    xyz = xyz.detach().float().cpu()
    check_finite("points", xyz)
    n = len(xyz)
    colors = torch.full((n, 3), 0.5) if rgb is None else rgb.detach().float().cpu() / 255.0
    size = torch.log(neighbour_distance(xyz) * scale_factor)
    quats = F.normalize(torch.randn(n, 4), dim=-1)
    values = {
        "means": xyz.clone(),
        "scales": size[:, None].repeat(1, 3),
        "quats": quats,
        "features_dc": start_colors(colors, sh_degree > 0),
        "features_rest": torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3),
        "opacities": torch.full((n, 1), opacity).logit(),
    }
    return ParameterDict({name: Parameter(values[name]) for name in NAMES})
