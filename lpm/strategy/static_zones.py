"""Which zones of a moving scene are static ones: where something is wrong most of the time."""

from __future__ import annotations

import torch
from torch import Tensor

from lpm.multiview.views import project
from lpm.strategy.event import Event
from lpm.strategy.lpm4d_fields import Lpm4dFields
from lpm.strategy.static_cameras import Cameras
from lpm.zones.error_maps import TILE, ErrorMaps, coarse


class StaticZones:
    """Tells static tiles from dynamic ones, for one event after the other."""

    def __init__(self, settings: Lpm4dFields, cameras: Cameras, maps: ErrorMaps) -> None:
        self.settings, self.cameras, self.maps = settings, cameras, maps
        self._step = -1
        self._found: dict[int, Tensor] = {}

    def tiles(self, event: Event, view: int) -> Tensor:
        """[rows, columns] bool: tiles that are bad at most times of the camera of `view`; found once an event."""
        if self._step != event.step:
            self._step, self._found = event.step, {}
        camera = self.cameras.same[view][0]
        if camera not in self._found:
            self._found[camera] = self._find(view, event.threshold)
        return self._found[camera]

    def contain(self, event: Event, means: Tensor, view: int) -> Tensor:
        """[M] bool: whether the tile that `view` sees each of `means` [M, 3] (world) in is a static zone."""
        views, static = self.cameras.views, self.tiles(event, view)
        pixels, _ = project(means, views.viewmats[view], views.Ks[view])
        column, row = (pixels / TILE).long().unbind(-1)
        return static[row.clamp(0, static.shape[0] - 1), column.clamp(0, static.shape[1] - 1)]

    def _find(self, view: int, threshold: float) -> Tensor:
        images = self.cameras.views.images
        height, width = images[view].shape[:2]
        maps = [coarse(self.maps.maps[v], (width, height), TILE, self.maps.tile)
                for v in self.cameras.same[view] if v in self.maps.maps]  # fmt: skip
        share = (torch.stack(maps) > threshold).float().mean(0)
        # A camera that moves, or was there once, cannot tell.
        static = (share >= self.settings.static_share) & (len(maps) > 1)
        return static | ~self.cameras.changing(view) if self.cameras.stands(view) else static
