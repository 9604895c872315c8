"""One event of localized point management: what it looks at, what it finds, and the edit that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lpm.gaussians import edits, motion
from lpm.gaussians.optim_state import apply
from lpm.records import Changes, EditRecord
from lpm.strategy.requests import Region
from lpm.zones.point_errors import Evidence
from lpm.zones.votes import Votes
from lpm.zones.zone import ViewZones, records_of

SLICES = 16
"""Moments of which an event keeps the points as they are then."""


@dataclass
class Event:
    """Made when an event begins, handed from one part of it to the next, and gone when it ends."""

    step: int
    params: Any
    """Parameters [N, ...] before the event (lpm.gaussians)."""
    state: dict[str, Any]
    """The strategy's, see LpmStrategy.initialize_state."""
    untouched: Tensor
    """[N] bool: points to leave alone, since they are in a frozen region."""
    frozen: list[Region]
    """Where nothing is added either."""
    views: list[int] = field(default_factory=list)
    """Training views that are looked at."""
    evidence: list[Evidence] = field(default_factory=list)
    """What each of them says."""
    threshold: float = torch.inf
    """Error above which a tile is bad."""
    zones: list[ViewZones] = field(default_factory=list)
    errors: list[Tensor] = field(default_factory=list)
    """Per view of `zones` [rows, columns], the residual of its tiles."""
    votes: Votes | None = None
    """What the zones say of the points that are not nearly invisible."""
    score: Tensor | None = None
    """[N] how much a point asks to be split."""
    edit: edits.Edit | None = None
    """What has come of it so far."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("split", "inserted", "pruned", "reset"), 0))
    """Rows that each part of the edit touched."""

    def at(self, view: int) -> Any:
        """The parameters as `view` sees them."""
        return self.params

    def finish(self, optimizers: dict[str, torch.optim.Optimizer]) -> Changes:
        """Makes the edit, in parameters, optimizers and state; the places of what was changed."""
        assert self.edit is not None
        edit = edits.from_first(self.edit)  # a rounding apart, and processes would part for good
        changes = edit.changes(self.step, self.params["means"].detach())
        apply(edit, self.params, optimizers, self.state)
        self.state["gradient"].zero_()
        self.state["touched"].masked_fill_(edit.fresh | edit.cleared, self.step)
        for name in ("front", "front_before"):
            self.state[name].masked_fill_(edit.fresh, 0)
        for name in ("painted", "looks"):
            self.state[name].masked_fill_(edit.fresh | edit.cleared, 0)
        return changes

    def record(self, seconds: float, budget: int) -> EditRecord:
        """What to tell of it; `budget`: points that the growth curve allows."""
        assert self.votes is not None
        zones = records_of(self.zones, self.errors, self.votes.counts)
        return EditRecord(
            step=self.step, seconds=seconds, views=self.views, zones=zones, cloned=0, relocated=0,
            points=len(self.params["means"]), budget=budget, **self.counts,
        )  # fmt: skip


@dataclass
class EventInTime(Event):
    """An event where points have a time: they are looked at as they are when a photo was taken."""

    times: Tensor | None = None
    """[V] when each photo was taken, 0..1, on the device."""
    clock: list[float] = field(default_factory=list)
    """The same for the host."""
    first: bool = False
    """Whether it is the first, which looks at photos of all times."""
    there: list[Tensor] = field(default_factory=list)
    """Of each look [N], how much of a point was there."""
    static: dict[int, Tensor] = field(default_factory=dict)
    """Of each camera that was asked for [rows, columns] bool, by its first view: tiles that are bad at most times."""
    depths: dict[int, Tensor] = field(default_factory=dict)
    """Of each camera that was asked for [h, w] rendered z-depth, by its first view."""
    slices: dict[float, Any] = field(default_factory=dict)

    def at(self, view: int) -> Any:
        """As `view` sees them; an event asks many times for the same few moments."""
        t = self.clock[view]
        if t not in self.slices:
            if len(self.slices) >= SLICES:
                self.slices.pop(next(iter(self.slices)))
            self.slices[t] = motion.frozen_at(self.params, t)
        return self.slices[t]
