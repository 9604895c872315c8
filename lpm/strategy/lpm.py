"""Localized point management (after Yang et al., CVPR 2025, arXiv 2406.04251): points are edited where the error is.

Every `refine_every` steps an event looks at a few training views, chosen by their error and by how long ago they were
looked at. Points are added where the views' residuals are splatted onto points (E_i) and removed where they are
transparent, along a growth curve that ends at the cap.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from gsplat.strategy.base import Strategy
from torch import Tensor

from lpm import edits
from lpm.error_maps import ErrorMaps
from lpm.evidence import Evidence, look
from lpm.optim_state import apply
from lpm.records import EditRecord


@dataclass
class LpmStrategy(Strategy):
    """See the module. `info` of each step must hold `view` (index), `render` and `truth` ([H, W, 3], 0..1)."""

    max_points: int = 1_000_000
    """Points at the end of the growth curve; never exceeded."""
    refine_start_iter: int = 500
    """First step with an event."""
    refine_stop_iter: int = 15_000
    """Step after which there are no events."""
    refine_every: int = 100
    """Steps between events."""
    views_per_event: int = 6
    """Training views that an event looks at."""
    prune_opacity: float = 0.005
    """Points below this opacity are removed."""
    densify: bool = True
    """Add points by E_i."""
    prune: bool = True
    """Remove transparent points."""
    seed: int = 0
    """Of everything that is drawn at random."""
    rasterize_mode: str = "classic"
    absgrad: bool = False
    on_event: Callable[[EditRecord], None] | None = None
    """Called with each event's record."""

    Ks: Tensor | None = field(default=None, repr=False)
    viewmats: Tensor | None = field(default=None, repr=False)
    sizes: list[tuple[int, int]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.maps = ErrorMaps(tile=8)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.visited: dict[int, int] = {}
        self.first_points: int | None = None

    def attach(self, viewmats: Tensor, Ks: Tensor, sizes: list[tuple[int, int]]) -> None:
        """Tells the cameras of the training views: [V, 4, 4], [V, 3, 3] (pixels), and width, height of each."""
        self.viewmats, self.Ks, self.sizes = viewmats, Ks, sizes

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """Running state: `born` [N] is the step at which a point was made."""
        return {"scene_scale": scene_scale, "born": None}

    def step_pre_backward(self, params, optimizers, state, step, info) -> None:
        """Nothing is read from the backward pass."""

    @torch.no_grad()
    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None) -> None:
        """Remembers the step's residual; at an event, edits."""
        if step >= self.refine_stop_iter:
            return
        if state["born"] is None:
            state["born"] = torch.full((len(params["means"]),), -(10**6), device=params["means"].device)
            self.first_points = len(params["means"]) if self.first_points is None else self.first_points
        self.maps.update(info["view"], step, info["render"], info["truth"], info.get("mask"))
        if step > self.refine_start_iter and step % self.refine_every == 0:
            self._event(params, optimizers, state, step)

    def budget(self, step: int) -> int:
        """Points allowed at `step`: a straight line from the first event to 90 % of the way, then the cap."""
        assert self.first_points is not None
        length = 0.9 * (self.refine_stop_iter - self.refine_start_iter)
        done = min(1.0, max(0.0, (step - self.refine_start_iter) / length))
        return min(self.max_points, self.first_points + round(done * (self.max_points - self.first_points)))

    def _choose_views(self) -> list[int]:
        """Half of an event's views at random by their mean error, half those that were looked at longest ago."""
        known = sorted(self.maps.maps)
        n = min(self.views_per_event, len(known))
        oldest = sorted(known, key=lambda v: (self.visited.get(v, -1), v))[: n - n // 2]
        rest = [v for v in known if v not in oldest]
        weights = torch.tensor([self.maps.mean(v) + 1e-8 for v in rest])
        drawn = torch.multinomial(weights, n // 2, generator=self.generator).tolist() if n // 2 else []
        return oldest + [rest[i] for i in drawn]

    def _event(self, params, optimizers, state, step: int) -> None:
        start = time.perf_counter()
        views = self._choose_views()
        evidence = [self._look(params, view) for view in views]
        self.visited.update({view: step for view in views})
        edit = edits.identity({name: p.detach() for name, p in params.items()})
        before, pruned = len(edit), 0
        born = state["born"]
        if self.prune:
            faint = torch.sigmoid(params["opacities"].detach()).flatten() < self.prune_opacity
            faint &= born < step - 2 * self.refine_every  # newborns get their time to become visible
            pruned = int(faint.sum())
            edit = edits.then(edit, edits.prune(edit.params, faint))
        room = max(0, self.budget(step) - len(edit))
        added = 0
        if self.densify and room:
            score = torch.stack([e.point_error for e in evidence]).sum(0)[edit.source]
            mask = self._draw(score, room)
            added = int(mask.sum())
            edit = edits.then(edit, edits.long_axis_split(edit.params, mask))
        if pruned or added:
            apply(edit, params, optimizers, state)
            state["born"][edit.fresh] = step
        record = EditRecord(
            step=step, seconds=time.perf_counter() - start, views=views, zones=[], cloned=0, split=added, inserted=0,
            pruned=pruned, reset=0, relocated=0, points=len(params["means"]), budget=self.budget(step),
        )  # fmt: skip
        assert record.points == before - pruned + added
        if self.on_event is not None:
            self.on_event(record)

    def _look(self, params, view: int) -> Evidence:
        assert self.viewmats is not None
        assert self.Ks is not None
        return look(
            params, self.viewmats[view], self.Ks[view], self.sizes[view], self.maps.maps[view], self.rasterize_mode
        )

    def _draw(self, score: Tensor, n: int) -> Tensor:
        """Mask of at most n rows, drawn without replacement with probability by `score` [N]."""
        mask = torch.zeros_like(score, dtype=torch.bool)
        possible = int((score > 0).sum())
        if min(n, possible) == 0:
            return mask
        # Gumbel's trick (Efraimidis 2006): the n largest of score^(1/u) are such a sample; one sort, no host loop.
        uniform = torch.rand(len(score), generator=self.generator).to(score.device)
        key = torch.log(score.clamp_min(0)) - torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-7)))
        mask[key.topk(min(n, possible)).indices] = True
        return mask

    def extra_state(self) -> dict[str, Any]:
        """What is not per point, for a checkpoint."""
        return {
            "maps": self.maps.state(), "visited": dict(self.visited), "first_points": self.first_points,
            "generator": self.generator.get_state(),
        }  # fmt: skip

    def load_extra_state(self, saved: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what extra_state() gave."""
        self.maps.load(saved["maps"], device)
        self.visited, self.first_points = dict(saved["visited"]), saved["first_points"]
        self.generator.set_state(saved["generator"])
