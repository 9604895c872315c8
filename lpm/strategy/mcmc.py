"""3DGS-MCMC (Kheradmand et al. 2024, arXiv 2404.09591): points wander, and what has faded is put where others are.

On a GPU, too, by our own edits: gsplat fills a table of binomials value by value, and waits for each of 1,326.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lpm.gaussians import edits
from lpm.gaussians.optim_state import apply, rate_of
from lpm.gaussians.parameters import Optimizers, TrainedParameters, rotations
from lpm.strategy.base import PointStrategy
from lpm.strategy.growth import points_allowed
from lpm.strategy.options import McmcOptions
from lpm.strategy.schedule import Common

MOST_CATEGORIES = 2**24
"""torch.multinomial takes no more."""


def position_noise(quats: Tensor, scales: Tensor, opacities: Tensor, scaler: float) -> Tensor:
    """Noise [N, 3] (world) shaped by each point's covariance, near zero for opaque points (3DGS-MCMC, eq. 8).

    Args:
        quats: [N, 4]. scales: [N, 3] world. opacities: [N] in 0..1. scaler: learning rate x noise rate.
    """
    weight = torch.sigmoid(-100 * (opacities - 0.005))  # gsplat's op_sigmoid(1 - o; k=100, x0=.995)
    noise = torch.randn_like(scales) * (weight * scaler)[:, None]
    rotation = rotations(quats)
    local = torch.einsum("nji,nj->ni", rotation, noise) * scales**2
    return torch.einsum("nij,nj->ni", rotation, local)


@dataclass
class McmcStrategy(McmcOptions, PointStrategy):
    """The schedule and the numbers are those of gsplat's MCMCStrategy, which are the authors'."""

    max_points: int | None = 1_000_000
    """Cap on the number of points."""
    refine_start_iter: int = 500
    """First step that may add or move points."""
    refine_stop_iter: int = 25_000
    """From this step on none is added or moved; the noise goes on."""
    refine_every: int = 100
    """Steps between edits."""
    min_opacity: float = 0.005
    """Points of lower opacity are dead: they are moved onto living ones."""
    opacity_reg: float = 0.01
    """Weight in the loss of the mean opacity: what nobody needs fades."""
    scale_reg: float = 0.01
    """Weight in the loss of the mean scale (world)."""

    Options: ClassVar[type] = McmcOptions
    group: ClassVar[str] = "mcmc"

    @classmethod
    def make(cls, common: Common, options: Any) -> McmcStrategy:
        """See PointStrategy."""
        return cls(**cls.arguments(common, options))

    @classmethod
    def arguments(cls, common: Common, options: Any) -> dict[str, Any]:
        """The fields of the strategy for a run."""
        plan = common.schedule
        return dict(
            max_points=plan.max_points or 1_000_000, refine_start_iter=plan.start, refine_stop_iter=plan.stop,
            refine_every=plan.every, min_opacity=common.prune_opacity, opacity_reg=common.opacity_reg,
            scale_reg=common.scale_reg, **vars(options),
        )  # fmt: skip

    def regularization(self, params: Any, state: dict[str, Any]) -> dict[str, Tensor]:
        """The weights on opacity and scale (3DGS-MCMC, section 4.3)."""
        opacity, scale = torch.sigmoid(params["opacities"]).mean(), params["scales"].exp().mean()
        return {"opacity_reg": self.opacity_reg * opacity, "scale_reg": self.scale_reg * scale}

    @torch.no_grad()
    def step_post_backward(
        self,
        params: TrainedParameters,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
        lr: float | None = None,
    ) -> None:
        """Moves the dead, adds points, then noise. `lr`: that of the means; None takes it from their optimizer."""
        lr = rate_of(optimizers["means"]) if lr is None else lr
        if self.refine_start_iter < step < self.refine_stop_iter and step % self.refine_every == 0:
            dead = torch.sigmoid(params["opacities"].flatten()) <= self.min_opacity
            gone, alive = dead.nonzero().flatten(), (~dead).nonzero().flatten()
            if len(gone) and len(alive):
                chosen = self._draw(params, alive, len(gone))
                apply(edits.relocate(_shared(params), gone, chosen, self.min_opacity), params, optimizers, state)
            now = len(params["means"])
            room = min(self.max_points or 2**31, self._allowed(state, step, now)) - now
            if room > 0:
                chosen = self._draw(params, torch.arange(now, device=params["means"].device), room)
                apply(edits.duplicate(_shared(params), chosen, self.min_opacity), params, optimizers, state)
        opacities = torch.sigmoid(params["opacities"].flatten())
        params["means"].add_(position_noise(params["quats"], params["scales"].exp(), opacities, lr * self.noise_lr))

    def _allowed(self, state: dict[str, Any], step: int, now: int) -> int:
        """Points there may be after an event that begins with `now`."""
        if self.growth == "share":
            return math.floor(1.05 * now)
        first = state.setdefault("first_points", now)  # no event before this one has changed their number
        return points_allowed(
            step, first, self.max_points, self.refine_start_iter, self.refine_stop_iter, self.growth_end
        )

    def _draw(self, params: TrainedParameters, candidates: Tensor, n: int) -> Tensor:
        """Rows [n] of `candidates`, drawn with replacement by their opacity."""
        if len(candidates) > MOST_CATEGORIES:
            candidates = candidates[torch.randperm(len(candidates), device=candidates.device)[:MOST_CATEGORIES]]
        weights = torch.sigmoid(params["opacities"].flatten())[candidates]
        return candidates[torch.multinomial(weights, n, replacement=True)]


def _shared(params: TrainedParameters) -> edits.Params:
    """All parameters: rows that are moved take every one of them along."""
    return {name: parameter.detach() for name, parameter in params.items()}
