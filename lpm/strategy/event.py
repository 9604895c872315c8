"""One event of localized point management: what it looks at, what it finds, and the edit that comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lpm.gaussians import edits
from lpm.gaussians.optim_state import apply
from lpm.gaussians.parameters import Optimizers, TrainedParameters
from lpm.records import Changes, EditRecord
from lpm.strategy.points_at_views import PointsAtViews
from lpm.strategy.requests import Region
from lpm.zones.point_errors import Evidence
from lpm.zones.votes import Votes
from lpm.zones.zone import ViewZones, records_of


@dataclass
class Event:
    """Made when an event begins, handed from one part of it to the next, and gone when it ends."""

    step: int
    params: TrainedParameters
    """Parameters [N, ...] before the event (lpm.gaussians)."""
    points: PointsAtViews
    """The same as each view sees them."""
    state: dict[str, Any]
    """The strategy's, see LpmStrategy.initialize_state."""
    untouched: Tensor
    """[N] bool: points to leave alone, since they are in a frozen region."""
    frozen: list[Region]
    """Where nothing is added either."""
    budget: int
    """Points that there may be after the event."""
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

    def changes(self) -> Changes:
        """The places of what the edit changes; to ask for before it is made."""
        assert self.edit is not None
        return self.edit.changes(self.step, self.params["means"].detach())

    def finish(self, optimizers: Optimizers) -> None:
        """Makes the edit, in parameters, optimizers and state."""
        assert self.edit is not None
        edit = self.edit
        apply(edit, self.params, optimizers, self.state)
        self.state["gradient"].zero_()
        self.state["touched"].masked_fill_(edit.fresh | edit.cleared, self.step)
        for name in ("front", "front_before"):
            self.state[name].masked_fill_(edit.fresh, 0)
        for name in ("painted", "looks"):
            self.state[name].masked_fill_(edit.fresh | edit.cleared, 0)

    def record(self, seconds: float) -> EditRecord:
        """What to tell of it; `seconds`: how long it took."""
        assert self.votes is not None
        zones = records_of(self.zones, self.errors, self.votes.counts)
        return EditRecord(
            step=self.step, seconds=seconds, views=self.views, zones=zones, cloned=0, relocated=0,
            points=len(self.params["means"]), budget=self.budget, **self.counts,
        )  # fmt: skip
