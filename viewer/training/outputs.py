"""Pictures beside rgb for the viewer of a run: where the error is, where the zones are, how old points are.

They are made only for whoever looks at them, under the lock that training holds, and change nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lpm.multiview.views import Views, centres_of
from lpm.records import EditRecord
from lpm.render.rasterize import RasterizeMode, rasterize
from lpm.strategy.requests import Region
from lpm.viewer.boxes import ZONE_COLORS
from lpm.zones.error_maps import ErrorMaps, spread
from lpm.zones.point_errors import look

SAME_PLACE = 0.05
"""Distance between cameras, over the extent of all of them, within which one looks from where the other does."""
NAMES = ("error", "zones", "age")


class Outputs:
    """Makes the pictures `error`, `zones` and `age` of a camera."""

    def __init__(self, views: Views, maps: ErrorMaps, rasterize_mode: RasterizeMode, flat: bool = False) -> None:
        self.views, self.maps, self.rasterize_mode, self.flat = views, maps, rasterize_mode, flat
        self.record: EditRecord | None = None
        """The last event."""
        self._errors: dict[int, tuple[tuple[int, int], Tensor, Tensor]] = {}

    def nearest(self, viewmat: Tensor, count: int = 3) -> list[int]:
        """The `count` training views with an error map that look most like `viewmat` [4, 4] from most nearby."""
        known = sorted(self.maps.maps)
        if not known:
            return []
        others = self.views.viewmats[known]
        away = self._away(viewmat, others)
        return [known[i] for i in away.argsort(stable=True)[:count].tolist()]

    def _away(self, viewmat: Tensor, others: Tensor) -> Tensor:
        centres = centres_of(self.views.viewmats)
        extent = (centres - centres.mean(0)).norm(dim=1).amax().clamp_min(1e-6)
        apart = (centres_of(others) - centres_of(viewmat)).norm(dim=1) / extent
        away: Tensor = apart + (1 - (others[:, 2, :3] * viewmat[2, :3]).sum(1))
        return away

    def error(self, params: Any, viewmat: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
        """[H, W, 1] mean residual, 0 to 1 where that of the worst tile of all views is 1.

        From where a training view looks, its own map; from elsewhere the residuals of the nearest three, splatted onto
        the points (E_i over the pixels that a point paints) and drawn again.
        """
        width, height = size
        views = self.nearest(viewmat)
        if not views:
            return viewmat.new_zeros(height, width, 1)
        worst = max(self.maps.worst(), 1e-6)
        if float(self._away(viewmat, self.views.viewmats[views[:1]])) < SAME_PLACE:
            image = self.views.images[views[0]]
            full = spread(self.maps.maps[views[0]], (image.shape[1], image.shape[0]), self.maps.tile)
            shown = torch.nn.functional.interpolate(full[None, None], (height, width), mode="nearest")
            return shown[0, 0, :, :, None] / worst
        parts = [self._of_points(params, view) for view in views]
        painted = torch.stack([p for _, p in parts]).sum(0)
        value = torch.stack([e for e, _ in parts]).sum(0) / painted.clamp_min(0.1)
        return self._draw(params, value / worst, viewmat, K, size)

    def _of_points(self, params: Any, view: int) -> tuple[Tensor, Tensor]:
        """E_i [N] and pixels painted [N] by one view's map; kept until the map or the points change."""
        key = (len(params["means"]), self.maps.seen[view])
        if view not in self._errors or self._errors[view][0] != key:
            image = self.views.images[view]
            size = (int(image.shape[1]), int(image.shape[0]))
            error = spread(self.maps.maps[view], size, self.maps.tile)
            camera = (self.views.viewmats[view], self.views.Ks[view], size)
            seen = look(params, *camera, error, self.rasterize_mode, self.flat, shrink=2)
            while len(self._errors) > 8:
                self._errors.pop(next(iter(self._errors)))
            self._errors[view] = (key, seen.point_error, seen.contribution)
        return self._errors[view][1:]

    def age(self, params: Any, touched: Tensor | None, step: int, viewmat: Tensor, K: Tensor, size: Any) -> Tensor:
        """[H, W, 1] steps since a point was made or reset, 0: just now, 1: never."""
        if touched is None:
            return viewmat.new_ones(size[1], size[0], 1)
        return self._draw(params, ((step - touched) / max(1, step)).clamp(0, 1), viewmat, K, size)

    def _draw(self, params: Any, value: Tensor, viewmat: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
        """[H, W, 1] of one number [N] a point."""
        with torch.no_grad():
            image, _, _ = rasterize(
                params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
                value.to(params["means"])[:, None], viewmat[None], K[None], *size, rasterize_mode=self.rasterize_mode,
            )  # fmt: skip
        return image[0].clamp(0, 1)

    def zones(self, rgb: Tensor, depth: Tensor, viewmat: Tensor, K: Tensor) -> Tensor:
        """[H, W, 3]: `rgb` [H, W, 3] dimmed, and coloured where its surface at `depth` [H, W, 1] is in a zone."""
        out = 0.5 * rgb.mean(-1, keepdim=True).expand_as(rgb).clone()
        if self.record is None:
            return out
        height, width = depth.shape[:2]
        y, x = torch.meshgrid(*(torch.arange(n, device=depth.device) + 0.5 for n in (height, width)), indexing="ij")
        z = depth[..., 0]
        local = torch.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z], -1).reshape(-1, 3)
        world = (local - viewmat[:3, 3]) @ viewmat[:3, :3]
        for zone in self.record.zones:
            # As much beyond as still counts as the same surface when zones are classified.
            region = Region(zone.view, zone.box, (0.97 * zone.interval[0], 1.03 * zone.interval[1]))
            inside = region.contains(world, self.views.viewmats[zone.view], self.views.Ks[zone.view])
            color = out.new_tensor(ZONE_COLORS[zone.kind]) / 255
            out = torch.where(inside.reshape(height, width, 1), 0.35 * out + 0.65 * color, out)
        return out
