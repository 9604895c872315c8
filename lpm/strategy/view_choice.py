"""Which training views an event looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch

from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.lpm4d_fields import Lpm4dFields
from lpm.strategy.lpm_fields import LpmFields
from lpm.strategy.static_cameras import Cameras
from lpm.zones.error_maps import ErrorMaps


@dataclass
class ViewChoice:
    """Half of an event's views at random by their mean error, half those that were looked at longest ago."""

    settings: LpmFields
    maps: ErrorMaps
    generator: torch.Generator
    visited: dict[int, int] = field(default_factory=dict)
    """View -> step of the last event that looked at it."""

    def choose(self, step: int) -> list[int]:
        """The views for the event at `step`: of those with an error map, `views_per_event` at most."""
        known = sorted(self.maps.maps)
        n = min(self.settings.views_per_event, len(known))
        oldest = sorted(known, key=lambda v: (self.visited.get(v, -1), v))[: n - n // 2]
        rest = [v for v in known if v not in oldest]
        weights = torch.tensor([mean + 1e-8 for mean in self.maps.means(rest)])
        drawn = torch.multinomial(weights, n // 2, generator=self.generator).tolist() if n // 2 else []
        return oldest + [rest[i] for i in drawn]


@dataclass
class ViewChoiceInTime(ViewChoice):
    """Where things move the first event looks at photos of all times; later ones are as in a still scene."""

    settings: Lpm4dFields
    capture: CaptureTimes = field(kw_only=True)
    cameras: Cameras = field(kw_only=True)

    def choose(self, step: int) -> list[int]:
        """At the first event photos of cameras that stand still, evenly over the clip, since each may show what no
        other does; then as ViewChoice."""
        known = self.first_views(step)
        if not known:
            return super().choose(step)
        clock = self.capture.clock
        known.sort(key=lambda v: (float(clock[v]), v))
        n = min(self.settings.first_views, len(known))
        edges = [i * len(known) // n for i in range(n + 1)]
        drawn = torch.rand(n, generator=self.generator).tolist()
        return [known[a + int(u * (b - a))] for (a, b), u in zip(pairwise(edges), drawn, strict=True)]

    def first_views(self, step: int) -> list[int]:
        """The views that the first event chooses from; none at later ones.

        None either where no camera stands still: nobody knows what moves there, and the first event is like the others.
        """
        first = self.settings.knows_when and step <= self.settings.refine_start_iter + self.settings.refine_every
        return [v for v in self.maps.maps if first and self.cameras.stands(v)]
