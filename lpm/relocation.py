"""What becomes of a point that is replaced by several copies of itself."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_RATIO = 51  # gsplat's table of binomials ends there


def relocated(opacities: Tensor, scales: Tensor, ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Opacities and scales of points that were each replaced by `ratios` copies (3DGS-MCMC, Kheradmand 2024, eq. 9).

    Args:
        opacities: [N] in 0..1. scales: [N, 3] world. ratios: [N] integers >= 1, copies per point, itself included.

    Returns:
        New opacities [N] and scales [N, 3]: together the copies render what the one point did.
    """
    n = ratios.clamp(1, MAX_RATIO).double()
    new = 1 - (1 - opacities.double()).pow(1 / n)
    # The paper's double sum over binomials: summing C(i-1, k) over i = 1..N gives C(N, k+1).
    k = torch.arange(MAX_RATIO, dtype=torch.float64, device=opacities.device)
    log_binomial = torch.lgamma(n + 1)[:, None] - torch.lgamma(k + 2) - torch.lgamma((n[:, None] - k).clamp_min(1))
    terms = (-1.0) ** k * torch.exp(log_binomial) * new[:, None] ** (k + 1) / torch.sqrt(k + 1)
    denominator = torch.where(k < n[:, None], terms, 0.0).sum(1)
    factor = opacities.double() / denominator.clamp_min(1e-12)
    return new.to(opacities.dtype), (factor[:, None] * scales.double()).to(scales.dtype)
