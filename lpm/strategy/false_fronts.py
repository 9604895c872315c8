"""Which points stand in front of a surface by mistake: the votes of zones, remembered from event to event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lpm.gaussians.parameters import Parameters
from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.event import Event
from lpm.strategy.lpm4d_fields import Lpm4dFields
from lpm.strategy.lpm_fields import LpmFields
from lpm.zones.votes import Votes, zone_votes
from lpm.zones.zone import ViewZones, false_fronts

MARGIN = 0.03
"""Share of its depth by which a point stands in front of a zone."""


@dataclass
class FalseFronts:
    """Votes of still zones on still points."""

    settings: LpmFields

    def remember(self, event: Event) -> Votes:
        """Adds the votes of the event's zones to its state; gives those on points that are not nearly invisible.

        Votes "inside" are a sum that fades by a fifth an event. Votes "in front" are a bit for each view, so that a
        view that errs twice is still one view; they are forgotten after five to ten events.
        """
        state, zones = event.state, event.zones
        # Nothing in place: an event that fails for want of memory is undone by going back to the old tensors.
        state["inside"] = 0.8 * state["inside"] + self.votes(event, zones).inside
        if self.settings.event_number(event.step) % 5 == 0:
            state["front_before"], state["front"] = state["front"], torch.zeros_like(state["front"])
        for view, errs in zip(zones, false_fronts(zones), strict=True):
            if self.settings.reset and errs:
                state["front"] = state["front"] | self.votes(event, [view]).front.long() << view.view % 63
        return self.votes(event, zones, solid=True)

    def votes(self, event: Event, zones: list[ViewZones], solid: bool = False) -> Votes:
        """What `zones` say of all points, or of those only that are not nearly invisible."""
        means = event.params["means"].detach()
        if solid:
            opaque = torch.sigmoid(event.params["opacities"].detach()).flatten() > self.settings.reset_cap
            means = torch.where(opaque[:, None], means, torch.nan)  # these get no vote, and nobody waits for how many
        return zone_votes(means, zones, MARGIN)

    def mistaken(self, params: Parameters, state: dict[str, Any]) -> Tensor:
        """[N] bool: at least two views saw it in front of the surface, and none inside a zone for some events."""
        seen: Tensor = state["front"] | state["front_before"]
        inside: Tensor = state["inside"]
        return ((seen & (seen - 1)) != 0) & (inside < 0.25)


@dataclass
class FalseFrontsInTime(FalseFronts):
    """Votes on points as they are at the time of the zone; a long life must err at several times."""

    settings: Lpm4dFields
    capture: CaptureTimes = field(kw_only=True)

    def remember(self, event: Event) -> Votes:
        """As FalseFronts'; and remembers the times at which a point was seen in front of a surface."""
        state = event.state
        if self.settings.event_number(event.step) % 5 == 0:
            state["when_before"], state["when"] = state["when"], torch.zeros_like(state["when"])
        for zone, errs in zip(event.zones, false_fronts(event.zones), strict=True):
            if not errs:
                continue
            moment = self.capture.moment(zone.view)
            state["when"] = state["when"] | self.votes(event, [zone]).front.gt(0).long() << moment % 63
        return super().remember(event)

    def votes(self, event: Event, zones: list[ViewZones], solid: bool = False) -> Votes:
        """As FalseFronts', of points that are there when a zone's photo was taken, where they are then."""
        if self.settings.zones_in_time == "time-blind":
            return super().votes(event, zones, solid)
        inside, front = (torch.zeros_like(event.params["means"][:, 0]) for _ in range(2))
        counts = []
        for zone in zones:
            points = event.points.at(zone.view)
            opaque = torch.sigmoid(points["opacities"]).flatten()
            there = opaque > (self.settings.reset_cap / 2 if solid else 2e-6)  # 1e-6: not there
            # Places that are not finite get no vote, and nobody waits for how many there are.
            votes = zone_votes(torch.where(there[:, None], points["means"], torch.nan), [zone], MARGIN)
            inside += votes.inside
            front += votes.front
            counts += votes.counts
        return Votes(inside, front, counts)

    def mistaken(self, params: Parameters, state: dict[str, Any]) -> Tensor:
        """As FalseFronts'; a long-lived point must have been seen in front at several times."""
        mistaken = super().mistaken(params, state)
        if self.settings.zones_in_time != "calibrated":
            return mistaken
        bits, moments = state["when"] | state["when_before"], len(self.capture.moments)
        several = sum((bits >> k & 1 for k in range(min(63, moments))), torch.zeros_like(bits))
        return mistaken & (self._brief(params) | (several >= min(self.settings.times_to_reset, moments)))

    def too_long(self, params: Parameters, state: dict[str, Any]) -> Tensor:
        """[N] bool: short-lived points that stand in front of the surface, and whose life can be halved."""
        brief = self._brief(params)
        if not self.settings.reset or self.settings.zones_in_time != "calibrated":
            return torch.zeros_like(brief)
        return super().mistaken(params, state) & brief & (_life(params) > self.capture.frame)

    def _brief(self, params: Parameters) -> Tensor:
        """[N] bool: whether a point lives for a few frames only."""
        comes_and_goes = torch.sigmoid(params["gates"].detach()).flatten() < 0.5
        return comes_and_goes & (_life(params) < 2 * self.settings.life * self.capture.frame)


def _life(params: Parameters) -> Tensor:
    """[N] temporal standard deviations, as shares of the clip."""
    life: Tensor = params["durations"].detach().exp().flatten()
    return life
