"""The points as a photo shows them: those of a still scene are always the same, moving ones depend on the time."""

from __future__ import annotations

from typing import Protocol

from lpm.gaussians import motion
from lpm.gaussians.parameters import Parameters

SLICES = 16
"""Moments of which an event keeps the points as they are then."""


class PointsAtViews(Protocol):
    """The points of one event; made when it begins, and gone when it ends."""

    def at(self, view: int) -> Parameters:
        """The parameters [N, ...] (lpm.gaussians) as the training view `view` sees them."""


class StillPoints:
    """The same points for every view."""

    def __init__(self, params: Parameters) -> None:
        self.params = params

    def at(self, view: int) -> Parameters:
        """The parameters themselves."""
        return self.params


class MovingPoints:
    """Where the points are, and how much of them is there, when a photo was taken."""

    def __init__(self, params: Parameters, clock: list[float]) -> None:
        """`params`: lpm.gaussians and lpm.gaussians.motion. `clock`: when each photo was taken, 0..1."""
        self.params, self.clock = params, clock
        self._slices: dict[float, Parameters] = {}

    def at(self, view: int) -> Parameters:
        """lpm.gaussians.motion.frozen_at the view's time; an event asks many times for the same few moments."""
        t = self.clock[view]
        if t not in self._slices:
            if len(self._slices) >= SLICES:
                self._slices.pop(next(iter(self._slices)))
            self._slices[t] = motion.frozen_at(self.params, t)
        return self._slices[t]
