"""4D Gaussian Splatting's density control (Yang et al., ICLR 2024, arXiv 2310.10642), from its paper.

Adaptive density control that asks about time as well: the gradient of a point's temporal centre is a second sign that
it lacks detail, beside that of its place on the screen, and what is split is drawn anew from the point's distribution
in space and time together.

The authors' are the two signs and the joint draw. They give no threshold for the second one: here as many points ask
by time as ask by space. Their Gaussians are four-dimensional; here they are those of lpm.gaussians.motion, as with
every strategy: a line through space, a life, a share that is always there. Their batches of several moments are not
here: the trainer steps after each photo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lpm.gaussians import motion
from lpm.gaussians.edits import Edit
from lpm.gaussians.parameters import TrainedParameters
from lpm.strategy.adc import AdcStrategy

SMALLER = 1.6
"""What is split is so many times smaller, as in 3DGS, and so many times shorter."""


@dataclass
class FourdgsStrategy(AdcStrategy):
    """See the module. Parameters are those of lpm.gaussians and lpm.gaussians.motion."""

    gathered: ClassVar[tuple[str, ...]] = ("grad2d", "count", "grad_time")

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """As AdcStrategy's, with the sum of the gradients of the temporal centre."""
        return super().initialize_state(scene_scale) | {"grad_time": None}

    @torch.no_grad()
    def _update_state(self, params: TrainedParameters, state: dict[str, Any], info: dict[str, Any]) -> None:
        super()._update_state(params, state, info)
        if state["grad_time"] is None:
            state["grad_time"] = torch.zeros_like(state["grad2d"])
        if params["times"].grad is not None:
            state["grad_time"] += params["times"].grad.abs().flatten()

    def mean_gradient(self, state: dict[str, Any]) -> Tensor:
        """[N] that of the screen, or that of time, scaled so that as many are above the threshold, if it is larger."""
        gradient = super().mean_gradient(state)
        in_time = state["grad_time"] / state["count"].clamp_min(1)
        asking = int((gradient > self.grow_grad2d).sum())
        if asking == 0:
            return gradient
        least = in_time.topk(asking).values[-1].clamp_min(1e-30)
        return torch.maximum(gradient, in_time * (self.grow_grad2d / least))

    def _grown(self, params: TrainedParameters, rest: Tensor, cloned: Tensor, split: Tensor) -> Edit:
        edit = super()._grown(params, rest, cloned, split)
        halves = torch.arange(len(edit) - 2 * len(split), len(edit), device=edit.source.device)
        names = [name for name in ("times", "durations", "motion", motion.SPINS) if name in params]
        edit.params.update({name: params[name].detach()[edit.source] for name in names})
        old = {name: value[halves] for name, value in edit.params.items()}
        life = old["durations"].exp()
        new = motion.recentred(old, torch.randn_like(life) * life)
        new["durations"] = old["durations"] - math.log(SMALLER)
        for name, value in new.items():
            edit.params[name][halves] = value
        return edit
