"""Localized point management (after Yang et al., CVPR 2025, arXiv 2406.04251): points are edited where the error is.

Every `refine_every` steps, and in long runs more and more seldom, an event looks at a few training views, chosen by
their error and by how long ago they were looked at. Their worst tiles are given a depth by comparing the photos
themselves. Where the render's surface stands in front of that depth, the points in front lose their opacity (targeted
reset); where nothing is there, points are inserted; everywhere else points are added where the residuals are splatted
onto (E_i), and points that paint next to nothing make room for them. The number of points follows a growth curve that
ends at the cap.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpm import distributed
from lpm.checks import fail
from lpm.gaussians import edits
from lpm.gaussians.parameters import Optimizers, TrainedParameters
from lpm.multiview.photo_graph import PhotoGraph
from lpm.multiview.views import Views
from lpm.render.losses import TileRequest
from lpm.strategy import few_photos, width
from lpm.strategy.base import Live
from lpm.strategy.births import EDITED
from lpm.strategy.event import Event
from lpm.strategy.event_parts import EventParts, still_parts
from lpm.strategy.growth import points_allowed
from lpm.strategy.lpm_fields import LpmFields
from lpm.strategy.requests import Requests, inside_any
from lpm.zones.error_maps import MAP_TILE, ErrorMaps, coarse

FIRST = 1e9
"""Weight of points whose edit was asked for, over the largest of the others: drawn before all of them."""


@dataclass
class LpmStrategy(LpmFields):
    """See the module. `info` of each step must hold `view` (index), `render` and `truth` ([H, W, 3], 0..1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.maps = ErrorMaps(tile=MAP_TILE)
        self.generator = torch.Generator()
        self.first_points: int | None = None
        self.requests = Requests()
        self.asked: dict[str, Any] = {}
        self.photo_graph: PhotoGraph = None  # type: ignore[assignment]  # until attach()
        self.parts: EventParts = None  # type: ignore[assignment]  # until attach()
        self.exchanged = -1

    def attach(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        """See PointStrategy. Photos are compared whenever they were taken: what is managed here stands still."""
        self.generator.manual_seed(self.seed)
        self.photo_graph = PhotoGraph(replace(views, capture_times=None), points, cache)
        self.parts = still_parts(self, self.photo_graph, self.maps, self.generator, self.messages)

    def tile_request(self, view: int, size: tuple[int, int], mask: Tensor | None = None) -> TileRequest | None:
        """The next error map of the view, while points are edited."""
        return self.maps.request(view, size, mask)

    def live(self) -> Live:
        """All that a viewer can show and ask."""
        return Live(self.photo_graph.views, self.maps, self.requests, lambda name: vars(self)[name], self.flat)

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """Running state: per point the step it was made or reset at, its votes, gradients, and pixels painted."""
        names = ("touched", "front", "front_before", "inside", "gradient", "painted", "looks")
        return {"scene_scale": scene_scale, **dict.fromkeys(names)}

    def check_sanity(self, params: TrainedParameters, optimizers: Optimizers) -> None:
        """Beside gsplat's own check: the parameters that edits are made on are there."""
        super().check_sanity(params, optimizers)
        missing = [name for name in (*EDITED, "features_rest") if name not in params]
        assert not missing, f"params: no {', '.join(missing)}; wanted the names of lpm.gaussians"

    def regularization(self, params: Any, state: dict[str, Any]) -> dict[str, Tensor]:
        """Weights on the opacity and scale of points that few photos look at."""
        if self.few_photos < 1 or self.photo_graph is None:
            return {}
        if state.get("few") is None:
            self._find_few(params, state)
        return few_photos.weights(params, state["few"], self.opacity_reg, self.scale_reg)

    def _find_few(self, params: Any, state: dict[str, Any]) -> None:
        state["few"] = few_photos.seen_by_few(params["means"].detach(), self.photo_graph.views, self.few_photos)

    def step_pre_backward(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int, info: dict[str, Any]
    ) -> None:
        """Asks for the gradient that is read after the backward pass."""
        if not self.absgrad:
            info[self.key_for_gradient].retain_grad()

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
        """Remembers the step's residual; at an event, edits. What holds points holds to the very end."""
        if step < self.refine_stop_iter:
            self.gather(params, state, step, info)
            if self.has_event(step):
                self._event(params, optimizers, state, step)
        if self.photo_graph is None:
            return
        anew = step % self.refine_every == 0
        if self.widest > 0:
            width.hold(params, state, self.photo_graph.views.viewmats, self.widest, anew)
        if self.few_photos > 0 and anew:
            self._find_few(params, state)

    @torch.no_grad()
    def gather(self, params: TrainedParameters, state: dict[str, Any], step: int, info: dict[str, Any]) -> None:
        """Remembers the residual of a view, and how it moved the points."""
        if info.get("view") is None:
            fail("info['view']", "None", "the index of the training view", "hand it to the strategy in every step")
        if state["touched"] is None:
            means = params["means"]
            state["touched"] = torch.full((len(means),), -(10**6), device=means.device)
            for name in ("inside", "gradient", "painted", "looks"):
                state[name] = means.new_zeros(len(means))
            for name in ("front", "front_before"):
                state[name] = torch.zeros(len(means), dtype=torch.int64, device=means.device)
            self.first_points = len(params["means"]) if self.first_points is None else self.first_points
        means2d = info[self.key_for_gradient]
        gradient = means2d.absgrad if self.absgrad else means2d.grad
        if gradient is not None:
            x, y = gradient.reshape(-1, len(state["gradient"]), 2).unbind(-1)
            state["gradient"] += torch.hypot(x * info["width"], y * info["height"]).sum(0)
        self.maps.update(info["view"], step, info["render"], info["truth"], info.get("mask"), info.get("error_map"))

    def budget(self, step: int) -> int:
        """Points allowed at `step`: a straight line that ends at the cap at `growth_end` of the way."""
        assert self.first_points is not None
        start, stop = self.refine_start_iter, self.refine_stop_iter
        return points_allowed(step, self.first_points, self.max_points, start, stop, self.growth_end)

    def _event(self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int) -> None:
        start = time.perf_counter()
        if self.photo_graph is None:
            fail("views", "none", "the training photos and cameras", "call attach(views, points) before the first step")
        parts, views, means = self.parts, self.photo_graph.views, params["means"].detach()
        self._exchange(state)
        settings, forced, frozen = self.requests.take()
        for name, value in settings.items():
            setattr(self, name, value)
        self.asked |= settings
        wanted, untouched = (inside_any(regions, means, views.viewmats, views.Ks) for regions in (forced, frozen))
        for parameter in params.values():
            parameter.grad = None  # of no use after the edit: an event then needs no more memory than a step
        event = Event(step, params, parts.points(params), state, untouched, frozen, self.budget(step))
        event.views = parts.choice.choose(step)
        self.photo_graph.ahead(event.views)
        event.evidence = [parts.evidence.of(event, view) for view in event.views]
        parts.choice.visited.update({view: step for view in event.views})
        event.zones = parts.zones.find(event)
        event.errors = [coarse(self.maps.maps[z.view], z.size, z.tile, self.maps.tile) for z in event.zones]
        event.votes = parts.fronts.remember(event)
        seen = event.evidence
        for name, new in (("painted", [e.contribution for e in seen]), ("looks", [e.visible for e in seen])):
            state[name] = 0.8 * state[name] + torch.stack(new).sum(0)
        score = parts.scores.split(event).masked_fill(untouched, 0)
        event.score = torch.where(wanted & ~untouched, FIRST * (1 + score.max()), score)
        event.edit = edits.from_first(parts.edit.make(event))  # a rounding apart, and processes would part for good
        changes = None if self.on_event is None else event.changes()
        event.finish(optimizers)
        if self.on_event is not None:
            self.on_event(event.record(time.perf_counter() - start), changes)

    def _exchange(self, state: dict[str, Any]) -> None:
        """What each process has seen since the last event, to all."""
        distributed.add([state[name] for name in self.summed])
        for seen, maps in distributed.gather(self.maps.since(self.exchanged)) if distributed.size() > 1 else []:
            self.maps.take(seen, maps)
        self.exchanged = max(self.maps.seen.values(), default=-1)

    def extra_state(self) -> dict[str, Any]:
        """What is not per point, for a checkpoint."""
        return {
            "photos": len(self.photo_graph.views),
            "maps": self.maps.state(), "visited": dict(self.parts.choice.visited), "first_points": self.first_points,
            "generator": self.generator.get_state(),
            "surroundings": self.photo_graph.state(), "asked": dict(self.asked), "frozen": self.requests.state(),
        }  # fmt: skip

    def load_extra_state(self, saved: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what extra_state() gave; if it was made with other photos, only what does not speak of them."""
        self.first_points = saved["first_points"]
        self.generator.set_state(saved["generator"])
        self.asked = dict(saved.get("asked", {}))
        for name, value in self.asked.items():
            setattr(self, name, value)
        if saved["photos"] != len(self.photo_graph.views):
            self.messages.once("photos", "lpm: the checkpoint was made with other photos: errors are gathered anew.")
            return
        self.maps.load(saved["maps"], device)
        self.parts.choice.visited = dict(saved["visited"])
        self.photo_graph.load(saved["surroundings"])
        self.requests.load(saved.get("frozen", []))
