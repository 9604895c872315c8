"""Where in space an event's errors come from: the ways to find its zones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from lpm.multiview.photo_graph import PhotoGraph
from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.event import Event
from lpm.strategy.evidence import ViewEvidence
from lpm.strategy.lpm_fields import LpmFields
from lpm.strategy.messages import Messages
from lpm.strategy.static_zones import StaticZones
from lpm.zones.error_hull import error_hull
from lpm.zones.error_maps import TILE, ErrorMaps, coarse
from lpm.zones.find import PAIRS, find_zones
from lpm.zones.zone import ViewZones


class ZoneSearch(Protocol):
    """Finds the zones of an event."""

    def find(self, event: Event) -> list[ViewZones]:
        """Those of the views that the event looks at, from event.evidence; may set event.threshold."""


@dataclass
class PhotoZones:
    """Zones whose depths come from comparing photos."""

    settings: LpmFields
    photo_graph: PhotoGraph
    maps: ErrorMaps
    evidence: ViewEvidence
    messages: Messages
    hull: SameTimeHull | None = None
    """Depths where photos cannot be compared."""

    def find(self, event: Event) -> list[ViewZones]:
        """See ZoneSearch; none, and why is said once, where the photos can tell no depth."""
        settings = self.settings
        neighbours = self.photo_graph.neighbours(self.evidence.depths(event))
        reason = self.photo_graph.why_no_zones()
        if reason is not None and self.hull is None:
            self.messages.once("zones", f"lpm: no zones, since {reason}: points are added by error alone.")
            return []
        if self.hull is None and self.photo_graph.events == 1 and int((neighbours >= 0).sum(1).max()) < PAIRS:
            self.messages.once("pairs", f"lpm: no photo can be compared with {PAIRS} others: only matches tell depths.")
        first, last = settings.bad_share
        length = settings.refine_stop_iter - settings.refine_start_iter
        done = (event.step - settings.refine_start_iter) / max(1, length)
        event.threshold = self.maps.bad_threshold(first + (last - first) * done, settings.error_floor)
        most = settings.tiles_per_view * len(event.views)
        hull = None if self.hull is None else partial(self.hull.depths, event)
        return find_zones(
            self.photo_graph, neighbours, event.views, self.maps, event.evidence, event.threshold, most, hull
        )


class NoZones:
    """Points are added by error alone."""

    def find(self, event: Event) -> list[ViewZones]:
        """None."""
        return []


@dataclass
class ShiftedZones:
    """A placebo: the zones of another search, moved to a random place of their view."""

    inner: ZoneSearch
    generator: torch.Generator

    def find(self, event: Event) -> list[ViewZones]:
        """As many, as large, elsewhere."""
        zones = self.inner.find(event)
        for i, view in enumerate(zones):
            rows, columns = (int(torch.randint(n, (1,), generator=self.generator)) for n in view.near.shape)
            zones[i] = view.shifted(rows, columns)
        return zones


@dataclass
class SameTimeHull:
    """Depths by the errors of the other cameras of the same time (lpm.zones.error_hull), of what moves: wherever a
    still surface is drawn badly its errors meet in the air before it, too."""

    photo_graph: PhotoGraph
    maps: ErrorMaps
    capture: CaptureTimes
    static: StaticZones

    def depths(
        self, event: Event, view: int, threshold: float, pixels: Tensor, near: Tensor, far: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `hull` of lpm.zones.find.find_zones; NaN in static zones."""
        views = self.photo_graph.views
        others = [v for v in self.capture.same[view] if v != view and v in self.maps.maps]
        sizes = [(views.images[v].shape[1], views.images[v].shape[0]) for v in others]
        maps = [coarse(self.maps.maps[v], size, TILE, self.maps.tile) for v, size in zip(others, sizes, strict=True)]
        found = error_hull(views, view, others, maps, TILE, threshold, pixels, near, far)
        column, row = (pixels / TILE).long().unbind(-1)
        still = self.static.tiles(event, view)[row, column]
        low, high, middle = (torch.where(still, torch.nan, depth) for depth in found)
        return low, high, middle
