"""Localized point management where things move: evidence, zones, births and resets know when as well as where.

What the published method has no mechanism for. Photos are compared only with photos of the same time. A tile that is
bad at four fifths of its camera's times or more is a static zone, any other a dynamic one, at its time. Points are
where they are at that time, and count only if they are there. A point that is born in a dynamic zone lives for a few
frames, and the first event makes many such births; points that stand in front of a surface are reset only if that was
seen at several times, and short lives are shortened first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpm import distributed
from lpm.checks import fail
from lpm.gaussians import motion
from lpm.gaussians.optim_state import rate_of
from lpm.gaussians.parameters import Optimizers, TrainedParameters
from lpm.multiview.photo_graph import PhotoGraph
from lpm.multiview.views import Views
from lpm.strategy import motion_correction
from lpm.strategy.base import Live
from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.event_parts import moving_parts
from lpm.strategy.lpm import LpmStrategy
from lpm.strategy.lpm4d_fields import Lpm4dFields
from lpm.strategy.static_cameras import Cameras, hold_still
from lpm.zones.error_maps import TILE


@dataclass
class Lpm4dStrategy(Lpm4dFields, LpmStrategy):
    """See the module. Parameters are those of lpm.gaussians and lpm.gaussians.motion.

    Its photos must have capture times.
    """

    def attach(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        """See LpmStrategy; `views.capture_times` [V] says when each photo was taken."""
        if views.capture_times is None:
            fail("views.capture_times", "none", "when each photo was taken, 0..1", "use the static method, lpm-splat")
        self.capture = CaptureTimes(views.capture_times)
        if self.zones_in_time == "time-blind":
            views = replace(views, capture_times=None)
        self.cameras = Cameras(views, len(self.capture.moments), TILE, self.change)
        self.generator.manual_seed(self.seed)
        self.photo_graph = PhotoGraph(views, points, cache)
        self.parts = moving_parts(
            self, self.photo_graph, self.maps, self.generator, self.messages, self.capture, self.cameras
        )

    def live(self) -> Live:
        """As LpmStrategy's, with the times of the photos."""
        return replace(super().live(), capture_times=self.capture.by_view)

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """As LpmStrategy's, with the times of votes and how much of a point was there."""
        more = ("present", "when", "when_before", "calm")
        return super().initialize_state(scene_scale) | dict.fromkeys(more)

    def step_pre_backward(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int, info: dict[str, Any]
    ) -> None:
        """Remembers, too, when points are there and how they move."""
        super().step_pre_backward(params, optimizers, state, step, info)
        self.before = motion_correction.before(params)

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
        """After the optimizer's step. Remembers, too, how much of every point was there at the step's time."""
        motion_correction.correct(params, self.before)
        n, device = len(params["means"]), params["means"].device
        params["durations"].data.clamp_(min=math.log(self.shortest * self.capture.frame))
        if info.get("view") is not None:
            if state["present"] is None:
                state["present"] = torch.zeros(n, device=device)
                for name in ("when", "when_before"):
                    state[name] = torch.zeros(n, dtype=torch.int64, device=device)
            if state.get("calm") is None:
                state["calm"] = self._calm(params)
            there = motion.weight_at(params, self.capture.by_view[info["view"]]).detach()
            state["present"] += there
            distributed.average([there])  # each process sees another time, and all are to stay the same
            share = torch.where(state["calm"], self.calm_hold, self.hold) * there
            rates = {name: rate_of(optimizers[name]) for name in ("motion", "gates")}
            hold_still(params, rates["motion"] * share, rates["gates"] * share * state["calm"])
        super().step_post_backward(params, optimizers, state, step, info, packed, lr)
        if self.has_event(step):
            state["present"].zero_()
            state["calm"] = self._calm(params)

    def _calm(self, params: TrainedParameters) -> Tensor:
        """[N] bool: points where the photos never change; none where zones know nothing of time."""
        if not self.knows_when:
            return torch.zeros(len(params["means"]), dtype=torch.bool, device=params["means"].device)
        return self.cameras.calm(params["means"].detach())
