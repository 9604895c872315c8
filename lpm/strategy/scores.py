"""How much a point asks to be split, and what would be lost without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lpm.gaussians import motion
from lpm.gaussians.parameters import Parameters
from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.event import Event
from lpm.strategy.lpm_fields import LpmFields
from lpm.zones.error_maps import ErrorMaps


@dataclass
class Scores:
    """By the errors that a point is to blame for, its gradient on the screen, and the pixels that it paints."""

    settings: LpmFields
    maps: ErrorMaps

    def split(self, event: Event) -> Tensor:
        """[N] how much a point asks to be split: by its error and its gradient."""
        settings, gradient = self.settings, event.state["gradient"]
        if not settings.densify or self.maps.worst() <= settings.error_floor:  # nothing is bad: nothing asks for points
            return torch.zeros_like(gradient)
        error = torch.stack([e.point_error for e in event.evidence]).sum(0)
        if settings.random_places:
            return (error > 0).to(error)
        power = settings.gradient_power
        scores: Tensor = error ** (1 - power) * gradient**power
        return scores

    def worth(self, params: Parameters, state: dict[str, Any]) -> Tensor:
        """[N] what is lost without a point: the pixels that it paints, a view."""
        pixels: Tensor = state["painted"] / state["looks"].clamp_min(1e-6)
        return pixels


@dataclass
class ScoresInTime(Scores):
    """The same of points that come and go: for the time that they are there."""

    capture: CaptureTimes = field(kw_only=True)

    def split(self, event: Event) -> Tensor:
        """As Scores', of a point's error and gradient for the time that it is there."""
        taken = self.capture.by_view
        there = torch.stack([motion.weight_at(event.params, taken[view]).detach() for view in event.views])
        there = there.mean(0).clamp_min(0.05)
        present = event.state["present"]
        present = present.clamp_min(0.05 * float(present.max()) + 1e-6)
        power = self.settings.gradient_power
        shown: Tensor = there ** (1 - power) * present**power
        return super().split(event) / shown

    def worth(self, params: Parameters, state: dict[str, Any]) -> Tensor:
        """What a point paints in a view times how long it is there, as its place (0..1) within its class.

        Static and moving points are compared with their own kind: a point that lives for a few frames paints little
        over the whole clip, and would always be the first to go.
        """
        gate = torch.sigmoid(params["gates"].detach()).flatten()
        life = (2.5 * params["durations"].detach().exp().flatten()).clamp_max(1.0)
        worth = super().worth(params, state) * (gate + (1 - gate) * life)
        place = torch.empty_like(worth)
        for group in (gate > 0.5, gate <= 0.5):
            rows = group.nonzero().flatten()
            order = worth[rows].argsort(stable=True)
            place[rows[order]] = torch.linspace(0, 1, len(rows), device=worth.device)
        return place
