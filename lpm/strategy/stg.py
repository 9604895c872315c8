"""Spacetime Gaussians' density control and guided sampling (Li et al., CVPR 2024, arXiv 2312.16812), from their paper.

Adaptive density control early on; late in it, a few times, new points along the rays of the patches with the largest
errors: what starts without points, far away or seen by few, clones and splits cannot reach. Along each ray several
points are put, within the depths that the render shows, a little beside the ray; what does not help fades and is
removed.

The authors' are the rays of the worst patches, the points all along them, the jitter, and at most three times. Ours:
the worst tiles of the views with the largest mean error; depths from the nearest to the farthest that the view's render
shows, evenly in inverse depth; when (.4, .6 and .8 of the steps with edits); a fifth of the cap that adaptive density
control must leave to it, since with a cap there would be no room; a life of a few frames around the photo's time.
Their temporal features are not here: colours are those of the trainer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.gaussians import edits, motion
from lpm.gaussians.optim_state import apply
from lpm.gaussians.parameters import Optimizers, TrainedParameters
from lpm.multiview.views import Views, unproject
from lpm.render.losses import TileRequest
from lpm.sending import sent
from lpm.strategy.adc_with_photos import AdcWithPhotos
from lpm.strategy.capture_times import CaptureTimes
from lpm.strategy.options import StgOptions
from lpm.strategy.selection import new_points
from lpm.strategy.timed_points import timed
from lpm.zones.error_maps import ErrorMaps
from lpm.zones.point_errors import depth_ranges

JITTER = 0.25
"""How far a point stands beside its place on the ray, as a share of a tile there."""


@dataclass
class StgStrategy(StgOptions, AdcWithPhotos):
    """See the module. Parameters are those of lpm.gaussians and lpm.gaussians.motion."""

    pause_refine_after_reset: int = 0
    maps: ErrorMaps = field(default_factory=lambda: ErrorMaps(tile=8), repr=False)

    Options: ClassVar[type] = StgOptions
    group: ClassVar[str] = "stg"

    def attach(self, views: Views, points: Tensor | None = None, cache: Path | None = None) -> None:
        """See PointStrategy; `views.capture_times` [V] says when each photo was taken."""
        super().attach(views, points, cache)
        if views.capture_times is None:
            fail("views.capture_times", "none", "when each photo was taken, 0..1", "stg is for scenes that move")
        self.capture = CaptureTimes(views.capture_times)

    def tile_request(self, view: int, size: tuple[int, int], mask: Tensor | None = None) -> TileRequest | None:
        """The next error map of the view, while points are edited."""
        return self.maps.request(view, size, mask)

    @torch.no_grad()
    def step_post_backward(
        self,
        params: TrainedParameters,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
        lr: float | None = None,
    ) -> None:
        """As AdcStrategy's; remembers the step's error, too."""
        if step < self.refine_stop_iter:
            self.maps.update(info["view"], step, info["render"], info["truth"], info.get("mask"), info.get("error_map"))
        super().step_post_backward(params, optimizers, state, step, info, packed, lr)

    def guided(self, step: int) -> int:
        """How many times rays were to be sampled up to the event at `step`; 0 outside of them."""
        done = (step - self.refine_start_iter) / (self.refine_stop_iter - self.refine_start_iter)
        before = done - self.refine_every / (self.refine_stop_iter - self.refine_start_iter)
        return next((i + 1 for i, share in enumerate(self.guided_at) if before < share <= done), 0)

    def grow(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int
    ) -> tuple[int, int]:
        """Adaptive density control in what guided sampling leaves of the cap; guided sampling where it is due."""
        whole, times = self.max_points, self.guided(step)
        done = max(state.get("guided", 0), times)
        state["guided"] = done
        if whole is not None:
            left = round(self.guided_share * whole) * (len(self.guided_at) - done) // max(1, len(self.guided_at))
            self.max_points = whole - left
        self.budget = self.max_points
        if times:
            room = round(self.guided_share * (whole or 10 * len(params["means"]))) // len(self.guided_at)
            if self.max_points is not None:
                room = min(room, self.max_points - len(params["means"]))
            for rows in self.along_rays(params, room):
                old = {name: params[name].detach() for name in rows}
                apply(edits.insert(old, rows), params, optimizers, state)
                self.inserted += len(rows["means"])
        grown = super().grow(params, optimizers, state, step)
        self.max_points = whole
        return grown

    def along_rays(self, params: TrainedParameters, most: int) -> list[dict[str, Tensor]]:
        """At most so many rows of new points along the rays of the worst tiles of the worst views, by view."""
        maps = self.maps.maps
        worst = sorted(maps, key=lambda v: -float(maps[v].mean()))[: self.views_per_event]
        self.looked = worst
        rays = max(0, most) // (self.per_ray * max(1, len(worst)))
        return [self._through(params, v, rays) for v in worst if rays]

    def _through(self, params: TrainedParameters, v: int, rays: int) -> dict[str, Tensor]:
        """Points along so many rays through the worst tiles of view `v`, there around its time."""
        photos, n = self.views, self.per_ray
        t, error = self.capture.by_view[v], self.maps.maps[v].cpu()
        height, width = photos.images[v].shape[:2]
        tile = self.maps.tile * max(1, round(height / (self.maps.tile * error.shape[0])))  # coarse to fine: larger
        tiles = error.flatten().topk(min(error.numel(), rays)).indices
        middle = torch.stack([tiles % error.shape[1], tiles // error.shape[1]], 1) * tile + tile / 2
        middle = torch.minimum(middle, torch.tensor([width, height]) - 0.5)
        seen = self.seen_from(motion.frozen_at(params, t), v, photos.viewmats.new_zeros(height, width))
        near, far = depth_ranges([seen])
        share = (torch.arange(n) + torch.rand(len(middle), n, generator=self.generator)) / n
        depth = 1 / torch.lerp(1 / near, 1 / far, sent(share, photos.device)).flatten()
        places = middle.repeat_interleave(n, 0)
        places = places + JITTER * tile * torch.randn(places.shape, generator=self.generator)
        xyz = unproject(sent(places, photos.device), depth, photos.viewmats[v], photos.Ks[v])
        rgb = photos.colors(v, middle).float().repeat_interleave(n, 0) / 255
        size = (0.25 * tile * depth / photos.Ks[v, 0, 0])[:, None].expand(-1, 3)
        new = new_points(xyz, sent(rgb, photos.device), size, params["features_rest"].shape[1] > 0)
        return timed(new, params, t, self.life * self.capture.frame)

    def extra_state(self) -> dict[str, Any]:
        """See PointStrategy."""
        return super().extra_state() | {"photos": len(self.views), "maps": self.maps.state()}

    def load_extra_state(self, saved: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what extra_state() gave; if it was made with other photos, errors are gathered anew."""
        super().load_extra_state(saved, device)
        if saved["photos"] == len(self.views):
            self.maps.load(saved["maps"], device)
