"""What a training view says of the points at an event: which are to blame for its errors, and what depth is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lpm.multiview.views import Views
from lpm.strategy.event import Event
from lpm.strategy.lpm_fields import LpmFields
from lpm.strategy.static_cameras import Cameras
from lpm.zones.error_maps import ErrorMaps, spread
from lpm.zones.point_errors import Evidence, look

GREY_LEVEL = 1 / 255


@dataclass
class ViewEvidence:
    """Draws the points as a view sees them."""

    settings: LpmFields
    views: Views
    maps: ErrorMaps

    def of(self, event: Event, view: int, shrink: int = 2) -> Evidence:
        """What `view` says, from an image `shrink` times smaller: an error is known for tiles of pixels only."""
        views, settings = self.views, self.settings
        height, width = views.images[view].shape[:2]
        error = self.maps.maps.get(view, views.viewmats.new_zeros(1, 1))
        # Less than a grey level is no error.
        error = spread((error - GREY_LEVEL).clamp_min(0), (width, height), self.maps.tile)
        camera = (views.viewmats[view], views.Ks[view], (width, height))
        return look(event.points.at(view), *camera, error, settings.rasterize_mode, settings.flat, shrink)

    def depths(self, event: Event) -> Callable[[int], Tensor]:
        """view -> [h, w] z-depth of the rendered surface, world; NaN where there is none."""

        def depth(view: int) -> Tensor:
            seen = self.of(event, view, shrink=4)  # it tells who sees what: coarse will do
            return torch.where(seen.alpha > 0.5, seen.depth, torch.nan)

        return depth


@dataclass
class ViewEvidenceInTime(ViewEvidence):
    """Where things move the depths of a camera that stands still are drawn once: they hardly depend on the time."""

    cameras: Cameras = field(kw_only=True)

    def depths(self, event: Event) -> Callable[[int], Tensor]:
        """As ViewEvidence's, at one of the times of a camera."""
        depth, drawn = super().depths(event), dict[int, Tensor]()

        def depth_of_camera(view: int) -> Tensor:
            camera = self.cameras.same[view][0]
            if camera not in drawn:
                drawn[camera] = depth(view)
            return drawn[camera]

        return depth_of_camera
