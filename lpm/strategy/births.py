"""New points where the photos see a surface and there is none: their parameters, and room for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lpm.gaussians import motion
from lpm.gaussians.parameters import Parameters
from lpm.multiview.optical_flow import Flows
from lpm.multiview.views import Views
from lpm.sending import sent
from lpm.strategy.birth_velocity import velocity
from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.event import Event
from lpm.strategy.lpm4d_fields import Lpm4dFields
from lpm.strategy.lpm_fields import LpmFields
from lpm.strategy.requests import inside_any
from lpm.strategy.seen_through import seen_through
from lpm.strategy.selection import PER_TILE, lowest, sparse_tiles, surface_points
from lpm.strategy.static_cameras import Cameras
from lpm.strategy.static_zones import StaticZones
from lpm.strategy.view_choice import ViewChoiceInTime

EDITED = ("means", "scales", "quats", "opacities", "features_dc")
"""What edits read and change. All other parameters follow the map of rows, and are copied once."""


@dataclass
class Births:
    """Points that stand still."""

    settings: LpmFields
    views: Views

    def names(self, params: Parameters) -> tuple[str, ...]:
        """The parameters that a new point has values of its own for."""
        return EDITED

    def rows(self, event: Event, most: int) -> dict[str, Tensor]:
        """At most so many new points [M, ...] of all names(), on the surfaces that the event's zones lack."""
        harmonics = event.params["features_rest"].shape[1] > 0
        rows, seen = surface_points(self.views, event.zones, event.errors, self.lacking(event), most, harmonics)
        if event.frozen:
            outside = ~inside_any(event.frozen, rows["means"], self.views.viewmats, self.views.Ks)
            rows, seen = {name: value[outside] for name, value in rows.items()}, seen[outside]
        return self.completed(event, rows, seen)

    def lacking(self, event: Event) -> list[Tensor]:
        """Per view of event.zones [rows, columns] bool: tiles whose surface the photos know, and hardly any point."""
        assert event.votes is not None
        counts = zip(event.zones, event.votes.counts, strict=True)
        return [sparse_tiles(zone, inside, self.settings.sparse) for zone, inside in counts]

    def completed(self, event: Event, rows: dict[str, Tensor], seen: Tensor) -> dict[str, Tensor]:
        """`rows` of EDITED with all names(); `seen` [M]: the view that each was found in."""
        return rows

    def give_way(self, event: Event, worth: Tensor, may_go: Tensor, room: int) -> Tensor:
        """[N] bool: which of the points `may_go` make way for births, of which `room` have room: none, they are few.

        Args:
            worth: [N], what is lost without a point. may_go: [N] bool.
        """
        return torch.zeros_like(may_go)


@dataclass
class BirthsInTime(Births):
    """Points that stand still in static zones, and in dynamic ones live around the zone's time, and move."""

    settings: Lpm4dFields
    capture: CaptureTimes = field(kw_only=True)
    cameras: Cameras = field(kw_only=True)
    static: StaticZones = field(kw_only=True)
    choice: ViewChoiceInTime = field(kw_only=True)

    def __post_init__(self) -> None:
        self.flows = Flows(self.views)

    def names(self, params: Parameters) -> tuple[str, ...]:
        """As Births', and those of time."""
        return (*EDITED, *motion.NAMES, *([motion.SPINS] if motion.SPINS in params else []))

    def lacking(self, event: Event) -> list[Tensor]:
        """As Births', without what other photos look through."""
        found = super().lacking(event)
        if self.settings.zones_in_time == "time-blind":
            return found
        static = [self.static.tiles(event, zone.view) for zone in event.zones]
        air = seen_through(event, self.capture.by_view, static)
        return [tiles & ~open_air for tiles, open_air in zip(found, air, strict=True)]

    def completed(self, event: Event, rows: dict[str, Tensor], seen: Tensor) -> dict[str, Tensor]:
        """With a time, a life and a velocity for those found in dynamic zones."""
        params, capture = event.params, self.capture
        n, degree, device = len(seen), params["motion"].shape[1], params["means"].device
        rows = rows | {name: sent(value, device) for name, value in motion.still(n, degree).items()}
        if motion.SPINS in params:
            rows[motion.SPINS] = torch.zeros(n, 4, device=device)
        if self.settings.zones_in_time == "time-blind":
            return rows
        for v in seen.unique().tolist():
            mine = (seen == v).nonzero().flatten()
            mine = mine[~self.static.contain(event, rows["means"][mine], v)]
            t = capture.by_view[v]
            rows["times"][mine] = t
            rows["durations"][mine] = math.log(self.settings.life * capture.frame)
            rows["gates"][mine] = math.log(motion.MOVING_GATE / (1 - motion.MOVING_GATE))
            frames = [(float(capture.clock[other] - capture.clock[v]), other) for other in self.cameras.same[v]]
            rows["motion"][mine, 0] = velocity(params, self.flows, rows["means"][mine], v, t, frames)
        return rows

    def give_way(self, event: Event, worth: Tensor, may_go: Tensor, room: int) -> Tensor:
        """At the first event what paints least where something moves makes way for as many births as the dynamic zones
        of all times ask for: what a scene starts from stands still, and is wrong there."""
        if not (self.settings.insert and self.choice.first_views(event.step)):
            return super().give_way(event, worth, may_go, room)
        asking = [
            (lacks & ~self.static.tiles(event, zone.view)).sum()
            for zone, lacks in zip(event.zones, self.lacking(event), strict=True)
        ]
        tiles = int(torch.stack(asking).sum()) if asking else 0
        births = min(PER_TILE * tiles, round(self.settings.first_births * len(worth)))
        return lowest(worth, may_go & ~event.state["calm"], births - room)
