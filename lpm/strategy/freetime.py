"""FreeTimeGS (Wang et al., CVPR 2025, arXiv 2506.05348): points of every moment that fly straight, from their paper.

- Points to start from: of each of some moments the surfaces that its photos show, each with the velocity to the nearest
  point of the next moment, there for a few frames.
- Relocation, every 100 steps: points that have faded are put where the score .5 gradient + .5 opacity is high.
- 4D regularization: a weight on opacity times the temporal opacity of the step's moment, which gets no gradient of it,
  so that what is opaque at a moment does not hide there what is behind (their equation 9).
- The rate of the velocities falls exponentially over the run.

The authors' are these four, .5 and .5, 100 and the weight of .01. Their points come from matches by RoMa; ours from the
plane sweep over the photos of one moment (lpm.multiview.points_from_photos), beside the run's, which every strategy
starts from, and at most as many as half of the cap's room. The gradient and the opacity are each brought to a mean of
1, which they do not say. They start with all points; here the rest comes by copies of points of a high score, along a
straight line to the cap. What the velocities' rate falls to is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from lpm.checks import fail
from lpm.gaussians import edits, motion
from lpm.gaussians.optim_state import apply
from lpm.gaussians.parameters import Optimizers, TrainedParameters
from lpm.multiview.points_from_photos import points_from_photos
from lpm.multiview.views import Views
from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.mcmc import McmcStrategy
from lpm.strategy.options import FreetimeOptions
from lpm.strategy.schedule import Common
from lpm.strategy.selection import new_points
from lpm.strategy.timed_points import timed

PATCHES = 3_000
"""Places that are tried for points, of each moment."""


def views_at(views: Views, chosen: Sequence[int]) -> Views:
    """The photos `chosen` of `views`, as if they had one moment."""
    rows = torch.tensor(list(chosen), device=views.device)
    masks = None if views.masks is None else [views.masks[v] for v in chosen]
    return Views([views.images[v] for v in chosen], views.Ks[rows], views.viewmats[rows], masks)


def velocities(points: Tensor, after: Tensor, gap: float) -> Tensor:
    """[N, 3], world per clip: from `points` [N, 3] to the nearest of `after` [M, 3], `gap` (of the clip) later."""
    if len(after) == 0 or len(points) == 0:
        return torch.zeros_like(points)
    nearest = cKDTree(after.cpu().numpy()).query(points.cpu().numpy())[1]
    moved: Tensor = after[torch.from_numpy(nearest).to(after.device)] - points
    return moved / gap


@dataclass
class FreetimeStrategy(FreetimeOptions, McmcStrategy):
    """See the module. Parameters are those of lpm.gaussians and lpm.gaussians.motion."""

    steps: int = 30_000
    """Of the whole run."""

    Options: ClassVar[type] = FreetimeOptions
    group: ClassVar[str] = "freetime"

    @classmethod
    def arguments(cls, common: Common, options: Any) -> dict[str, Any]:
        """The fields of the strategy for a run."""
        own = dict(steps=common.schedule.steps, growth="line", noise_lr=0.0)
        return super().arguments(common, options) | own

    def __post_init__(self) -> None:
        super().__post_init__()
        self.moment: Tensor | float = 0.0

    def attach(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        """See PointStrategy; `views.capture_times` [V] says when each photo was taken."""
        if views.capture_times is None:
            fail("views.capture_times", "none", "when each photo was taken, 0..1", "freetime is for scenes that move")
        self.views = views
        self.capture = CaptureTimes(views.capture_times)

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """Per point the sum of gradients and how often it was seen."""
        return super().initialize_state(scene_scale) | {"grad2d": None, "count": None}

    def regularization(self, params: Any, state: dict[str, Any]) -> dict[str, Tensor]:
        """The weight on what is opaque at the moment of the step."""
        there = motion.weight_at(params, self.moment).detach()
        return {"opacity_in_time": self.opacity_weight * (torch.sigmoid(params["opacities"]).flatten() * there).mean()}

    def step_pre_backward(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int, info: dict[str, Any]
    ) -> None:
        """Asks for the gradient, remembers the moment, and sets the rate that velocities move with."""
        info["means2d"].retain_grad()
        self.moment = self.capture.by_view[info["view"]]
        (group,) = optimizers["motion"].param_groups
        group["lr"] = state.setdefault("motion_rate", group["lr"]) * self.velocity_falls ** min(1.0, step / self.steps)

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
        """Gathers gradients; moves the faded and adds points; after the first step, points of every moment."""
        if step < self.refine_stop_iter:
            gradient = info["means2d"].grad
            if state["grad2d"] is None:
                n = len(params["means"])
                state["grad2d"], state["count"] = gradient.new_zeros(n), gradient.new_zeros(n)
            x, y = gradient.reshape(-1, len(state["grad2d"]), 2).unbind(-1)
            state["grad2d"] += torch.hypot(x * info["width"], y * info["height"]).sum(0)
            state["count"] += (info["radii"].reshape(-1, len(state["grad2d"]), 2)[..., 0] > 0).sum(0)
            if step % self.refine_every == 0:  # what an event of this step draws by
                mean = state["grad2d"] / state["count"].clamp_min(1)
                self._score = mean / mean.mean().clamp_min(1e-30)
        if step == 0:
            self._start(params, optimizers, state)
        super().step_post_backward(params, optimizers, state, step, info, packed, lr)
        if step < self.refine_stop_iter and step % self.refine_every == 0:
            state["grad2d"].zero_()
            state["count"].zero_()

    def _start(self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any]) -> None:
        """Adds the surfaces that the photos of some moments show, each for a few frames."""
        room = ((self.max_points or 2 * len(params["means"])) - len(params["means"])) // 2
        found = self.surfaces()
        keep = min(1.0, room / max(1, sum(len(xyz) for xyz, *_ in found)))
        rows = []
        for xyz, rgb, size, velocity, t in found:
            some = torch.linspace(0, len(xyz) - 1, int(keep * len(xyz)), device=xyz.device).round().long()
            new = new_points(xyz[some], rgb[some], size[some, None].expand(-1, 3), params["features_rest"].shape[1] > 0)
            rows.append(timed(new, params, t, self.life * self.capture.frame, velocity[some]))
        if rows:
            joined = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
            old = {name: params[name].detach() for name in joined}
            apply(edits.insert(old, joined), params, optimizers, state)

    def surfaces(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor, float]]:
        """Of each of `first_moments` moments, points [N, 3] (world), colours [N, 3] (0..1), sizes [N] (world),
        velocities [N, 3] (world per clip), and when."""
        clock = self.capture.clock
        moments = clock.unique().tolist()
        chosen = [moments[i] for i in torch.linspace(0, len(moments) - 1, self.first_moments).round().long().unique()]
        seen: dict[float, tuple[Tensor, Tensor]] = {}

        def of(t: float) -> tuple[Tensor, Tensor]:
            if t not in seen:
                views = views_at(self.views, (clock == t).nonzero().flatten().tolist())
                none = views.viewmats.new_zeros(0, 3)
                seen[t] = points_from_photos(views, PATCHES) if len(views) > 2 else (none, none)
            return seen[t]

        result = []
        for t in chosen:
            at = moments.index(t)
            other = moments[at + 1] if at + 1 < len(moments) else moments[max(0, at - 1)]
            (xyz, rgb), gap = of(t), other - t
            if len(xyz) < 2:
                continue
            apart = cKDTree(xyz.cpu().numpy()).query(xyz.cpu().numpy(), k=2)[0][:, 1]
            speed = velocities(xyz, of(other)[0], gap) if gap else torch.zeros_like(xyz)
            result.append((xyz, rgb.to(xyz) / 255, torch.from_numpy(apart).to(xyz), speed, t))
        return result

    def _draw(self, params: TrainedParameters, candidates: Tensor, n: int) -> Tensor:
        """Rows [n] of `candidates`, drawn with replacement by their gradient and opacity."""
        opacity = torch.sigmoid(params["opacities"].flatten())[candidates]
        return candidates[torch.multinomial(self._score[candidates] + opacity / opacity.mean(), n, replacement=True)]
