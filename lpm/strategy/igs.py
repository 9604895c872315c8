"""Improved-GS (Deng et al. 2025, arXiv 2508.12313; Improved-GS+, Vicente 2026, arXiv 2603.08661), from their papers.

- Edge-aware score: the absolute screen gradient (AbsGS) of a point, times 1 + .25 of the share of edges of the photos
  (Laplacian, thinned to its ridges) in what it paints, over ten training views.
- Long-axis split in the place of cloning and splitting: two halves at +-1.35 standard deviations along the longest
  axis, .55 as long and .893 as wide, .6 as opaque. They end, at three standard deviations, where the parent ended:
  1.35 + 3 x .55 = 3.
- Growth control: the number of points grows along a square root to the cap; those of the highest score are split.
- Recovery-aware pruning: points that 300 steps after a reset of all opacities are still fainter than .05 fit a few
  views against others, and are removed.
- The rate of the scales falls exponentially, from .02 to .002.

The authors' settings are the shape of the halves, .25, the square root, the rates, and, of their first version (arXiv
2411.10133), 300 and .05. The threshold on the gradient is AbsGS's. Here beside it: resets come every fifth of the
editing (the authors' 3,000 of 15,000 steps), but no sooner than two recoveries after one another, and none that could
not be judged any more, so that a short run has some, too. Edges are looked at in renders of half the photo's size.
Their multi-step update, several views for one step of the optimizers late in the run, is not here: the trainer steps
after each view, and a strategy cannot make it wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.gaussians import edits
from lpm.gaussians.optim_state import apply
from lpm.gaussians.parameters import Optimizers, TrainedParameters
from lpm.strategy.absgrad import AbsgradStrategy
from lpm.strategy.adc_with_photos import AdcWithPhotos, shapes_of
from lpm.strategy.growth import points_allowed
from lpm.strategy.options import IgsOptions
from lpm.strategy.schedule import Common
from lpm.strategy.selection import lowest

HALVES = edits.Halves(offset=1.35, long=0.55, short=0.893, opacity=0.6)
"""Long-axis split as published."""


def edges(gray: Tensor) -> Tensor:
    """Strength [H, W], 0..1, of the edges of a photo `gray` [H, W] in 0..1 (NaN: no data).

    Absolute Laplacian, kept where no pixel of the 3 x 3 around is stronger (non-maximum suppression), over the largest.
    """
    image = F.pad(gray[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    around = image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]
    strength = (around - 4 * gray).abs().nan_to_num(0.0)
    ridge = F.max_pool2d(strength[None], 3, stride=1, padding=1)[0]
    kept: Tensor = torch.where(strength >= ridge, strength, 0.0) / strength.max().clamp_min(1e-6)
    return kept


@dataclass
class IgsStrategy(IgsOptions, AdcWithPhotos):
    """See the module."""

    pause_refine_after_reset: int = 0
    absgrad: bool = True
    steps: int = 30_000
    """Of the whole run."""

    Options: ClassVar[type] = IgsOptions
    group: ClassVar[str] = "igs"
    threshold: ClassVar[float] = AbsgradStrategy.threshold

    @classmethod
    def arguments(cls, common: Common, options: Any) -> dict[str, Any]:
        """The fields of the strategy for a run."""
        plan = common.schedule
        reset_every = max(round(options.reset_share * plan.stop), 2 * options.recovery)
        if options.reset_share <= 0:
            reset_every = plan.steps + 1
        changed = dict(steps=plan.steps, reset_every=min(plan.reset_every, reset_every))
        return super().arguments(common, options) | changed

    def step_pre_backward(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int, info: dict[str, Any]
    ) -> None:
        """Asks for the gradient, and sets the rate that the step's scales move with."""
        super().step_pre_backward(params, optimizers, state, step, info)
        first, last = self.scale_rates
        if first > 0 and last > 0:
            done = min(1.0, step / self.steps)
            optimizers["scales"].param_groups[0]["lr"] = first ** (1 - done) * last**done

    def grow(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int
    ) -> tuple[int, int]:
        """Splits the points of the highest score, as many as the growth curve has room for."""
        now = len(params["means"])
        first = state.setdefault("first_points", now)
        start, stop = self.refine_start_iter, self.refine_stop_iter
        self.budget = points_allowed(step, first, self.max_points, start, stop, power=self.growth_power)
        gradient = state["grad2d"] / state["count"].clamp_min(1)
        score = gradient * (1 + self.edge * self.edge_share(params))
        mask = lowest(-score, self._wanted(params, state, gradient), self.budget - now)
        apply(edits.long_axis_split(shapes_of(params), mask, halves=HALVES), params, optimizers, state)
        return 0, int(mask.sum())

    def edge_share(self, params: TrainedParameters) -> Tensor:
        """[N] edges in what a point paints, over some views, on the scale from none to those of the point with most."""
        views, n = self.views, len(params["means"])
        edge, painted = torch.zeros(2, n, device=params["means"].device)
        for view in self.drawn_views(list(range(len(views))), self.views_per_event):
            seen = self.seen_from(params, view, edges(views.gray(view)))
            edge += seen.point_error
            painted += seen.contribution
        share = edge / painted.clamp_min(1)  # less than a pixel tells nothing
        scaled: Tensor = share / share.max().clamp_min(1e-6)
        return scaled

    def _resets(self, step: int) -> bool:
        return super()._resets(step) and step + self.recovery < self.refine_stop_iter

    def _useless(self, params: TrainedParameters, state: dict[str, Any], step: int) -> Tensor:
        """Faint points; at the first event after the time for recovery those that have not."""
        opacity = torch.sigmoid(params["opacities"].flatten())
        since = step % self.reset_every
        judged = step > self.reset_every and self.recovery <= since < self.recovery + self.refine_every
        return opacity < (self.recovered if judged else self.prune_opa)
