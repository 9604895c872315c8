"""3DGS-MCMC: gsplat's strategy, with its three kernels in torch, on every device.

On CUDA too: gsplat's relocation fills a table of binomials value by value, and the host waits for each of 1,326.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from gsplat.strategy import MCMCStrategy
from gsplat.strategy.ops import _multinomial_sample, _update_param_with_optimizer
from gsplat.utils import normalized_quat_to_rotmat
from torch import Tensor

from lpm.relocation import relocated


def position_noise(quats: Tensor, scales: Tensor, opacities: Tensor, scaler: float) -> Tensor:
    """Noise [N, 3] (world) shaped by each point's covariance, near zero for opaque points (3DGS-MCMC, eq. 8).

    Args:
        quats: [N, 4]. scales: [N, 3] world. opacities: [N] in 0..1. scaler: learning rate x noise rate.
    """
    weight = torch.sigmoid(-100 * (opacities - 0.005))  # gsplat's op_sigmoid(1 - o; k=100, x0=.995)
    noise = torch.randn_like(scales) * (weight * scaler)[:, None]
    rotation = normalized_quat_to_rotmat(F.normalize(quats, dim=-1))
    local = torch.einsum("nji,nj->ni", rotation, noise) * scales**2
    return torch.einsum("nij,nj->ni", rotation, local)


@dataclass
class McmcStrategy(MCMCStrategy):
    """gsplat's MCMCStrategy on both devices; `cap_max` is the cap on the number of points."""

    absgrad: bool = False

    def step_pre_backward(self, params, optimizers, state, step, info):
        """Nothing is read from the backward pass."""

    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None):
        """See gsplat. `lr`: learning rate of the means; None takes it from their optimizer."""
        lr = optimizers["means"].param_groups[0]["lr"] if lr is None else lr
        if self.refine_start_iter < step < self.refine_stop_iter and step % self.refine_every == 0:
            dead = torch.sigmoid(params["opacities"].detach().flatten()) <= self.min_opacity
            self._relocate(params, optimizers, dead)
            self._add(params, optimizers)
        with torch.no_grad():
            opacities = torch.sigmoid(params["opacities"].flatten())
            scaler = lr * self.noise_lr
            params["means"].add_(position_noise(params["quats"], params["scales"].exp(), opacities, scaler))

    @torch.no_grad()
    def _sample(self, params, candidates: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """n of `candidates` by opacity, and the (logit, log scale) that each gets when its copies share its work."""
        opacities = torch.sigmoid(params["opacities"].flatten())
        chosen = candidates[_multinomial_sample(opacities[candidates], n, replacement=True)]
        copies = torch.ones_like(chosen)  # the point itself; bincount would wait for the device
        copies = torch.zeros_like(opacities, dtype=torch.int64).index_add_(0, chosen, copies)[chosen] + 1
        opacity, scale = relocated(opacities[chosen], params["scales"][chosen].exp(), copies)
        opacity = opacity.clamp(self.min_opacity, 1 - torch.finfo(torch.float32).eps)
        return chosen, opacity.logit().reshape(n, *params["opacities"].shape[1:]), scale.log()

    @torch.no_grad()
    def _relocate(self, params, optimizers, dead: Tensor) -> int:
        gone = dead.nonzero().flatten()
        alive = (~dead).nonzero().flatten()
        if len(gone) == 0 or len(alive) == 0:
            return 0
        chosen, logit, log_scale = self._sample(params, alive, len(gone))

        def moved(name, p):
            p = p.detach().clone()
            if name == "opacities":
                p[chosen] = logit
            elif name == "scales":
                p[chosen] = log_scale
            p[gone] = p[chosen]
            return torch.nn.Parameter(p)

        def cleared(key, v):
            v[chosen] = 0
            return v

        _update_param_with_optimizer(moved, cleared, params, optimizers)
        return len(gone)

    @torch.no_grad()
    def _add(self, params, optimizers) -> int:
        now = len(params["means"])
        n = min(self.cap_max, math.floor(1.05 * now)) - now
        if n <= 0:
            return 0
        chosen, logit, log_scale = self._sample(params, torch.arange(now, device=params["means"].device), n)

        def grown(name, p):
            p = p.detach().clone()
            if name == "opacities":
                p[chosen] = logit
            elif name == "scales":
                p[chosen] = log_scale
            return torch.nn.Parameter(torch.cat([p, p[chosen]]))

        def longer(key, v):
            return torch.cat([v, v.new_zeros(n, *v.shape[1:])])

        _update_param_with_optimizer(grown, longer, params, optimizers)
        return n
