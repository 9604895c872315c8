"""ConeGS (Baranowski et al., 3DV 2026, arXiv 2511.06810): new points along the cones of wrong pixels.

Nothing is cloned or split, so that points come where they are missing and not where others happen to be. An event
draws pixels with probability by their L1 error, and puts a point into the cone of each, at the depth that a proxy of
the scene's geometry says, as large as the cone is wide there, in the photo's colour. A penalty on the opacity before
its sigmoid lets what nobody needs fade quickly, also where the sigmoid is flat; what has faded is removed, and its
place in the budget goes to the next pixels.

The authors' are the draw, the size, the penalty and the budget. Their proxy is a reconstruction by Instant-NGP; ours
is the plane sweep over the photos, and where that is not sure the depth that the render has there, since their proxy
knows a depth for every pixel. Their first points come from the proxy, too; here they are the run's, as of every
strategy. The weight of the penalty, the opacity of new points and the growth (a straight line to the cap) are ours.
Errors are those of the step that saw a view last, in tiles of 4 x 4 pixels, since the trainer has them anyway.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.gaussians import edits
from lpm.gaussians.optim_state import apply
from lpm.gaussians.parameters import Optimizers, TrainedParameters
from lpm.multiview.photo_graph import PhotoGraph
from lpm.multiview.plane_sweep import plane_sweep
from lpm.multiview.views import Views, unproject
from lpm.records import EditRecord
from lpm.render.losses import TileRequest
from lpm.sending import brought, sent
from lpm.strategy.base import PointStrategy
from lpm.strategy.births import EDITED
from lpm.strategy.growth import points_allowed
from lpm.strategy.options import ConegsOptions
from lpm.strategy.schedule import Common
from lpm.strategy.selection import new_points
from lpm.zones.error_maps import ErrorMaps, pixel_errors, spread
from lpm.zones.point_errors import Evidence, depth_ranges, look

GREY_LEVEL = 1 / 255
"""Less is no error."""


@dataclass
class ConegsStrategy(ConegsOptions, PointStrategy):
    """See the module. `info` of each step must hold `view` (index), `render` and `truth` ([H, W, 3], 0..1)."""

    refine_start_iter: int = 500
    """First step that may edit."""
    refine_stop_iter: int = 25_000
    """From this step on nothing is edited."""
    refine_every: int = 100
    """Steps between edits."""
    prune_opacity: float = 0.005
    """Points of lower opacity (0..1) are removed."""
    rasterize_mode: str = "classic"
    """As the model is drawn: classic or antialiased."""

    Options: ClassVar[type] = ConegsOptions
    group: ClassVar[str] = "conegs"

    @classmethod
    def make(cls, common: Common, options: Any) -> ConegsStrategy:
        """See PointStrategy."""
        plan = common.schedule
        return cls(
            max_points=plan.max_points, refine_start_iter=plan.start, refine_stop_iter=plan.stop,
            refine_every=plan.every, prune_opacity=common.prune_opacity, rasterize_mode=common.rasterize_mode,
            **vars(options),
        )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.maps: ErrorMaps = pixel_errors()
        self.generator = torch.Generator()
        self.photo_graph: PhotoGraph = None  # type: ignore[assignment]  # until attach()

    def attach(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        """See PointStrategy."""
        self.generator.manual_seed(self.seed)
        self.photo_graph = PhotoGraph(replace(views, capture_times=None), points, cache)

    def tile_request(self, view: int, size: tuple[int, int], mask: Tensor | None = None) -> TileRequest | None:
        """The error of the view."""
        return self.maps.request(view, size, mask)

    def regularization(self, params: Any, state: dict[str, Any]) -> dict[str, Tensor]:
        """The penalty; what is faint enough to be removed is not pressed further."""
        least = math.log(self.prune_opacity / (1 - self.prune_opacity)) - 1
        return {"opacity_penalty": self.opacity_penalty * params["opacities"].clamp_min(least).mean()}

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
        """Remembers the step's error; at an event, edits."""
        if step >= self.refine_stop_iter:
            return
        self.maps.update(info["view"], step, info["render"], info["truth"], info.get("mask"), info.get("error_map"))
        if step > self.refine_start_iter and step % self.refine_every == 0:
            self._event(params, optimizers, state, step)

    def _event(self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int) -> None:
        begun = time.perf_counter()
        if self.photo_graph is None:
            fail("views", "none", "the training photos and cameras", "call attach(views, points) before the first step")
        before = {name: params[name].detach() for name in EDITED}
        first = state.setdefault("first_points", len(before["means"]))
        faint = torch.sigmoid(before["opacities"].flatten()) < self.prune_opacity
        edit = edits.prune(before, faint)
        kept = len(edit)
        budget = points_allowed(
            step, first, self.max_points, self.refine_start_iter, self.refine_stop_iter, self.growth_end
        )
        known = sorted(self.maps.maps)
        order = torch.randperm(len(known), generator=self.generator).tolist()
        views = [known[i] for i in order[: self.views_per_event]]
        if budget > kept and kept > 0:
            harmonics = params["features_rest"].shape[1] > 0
            edit = edits.then(edit, edits.insert(edit.params, self.cones(params, views, budget - kept, harmonics)))
        changes = None if self.on_event is None else edit.changes(step, before["means"])
        apply(edit, params, optimizers, state)
        if self.on_event is not None:
            record = EditRecord(
                step=step, seconds=time.perf_counter() - begun, views=views, zones=[], cloned=0, split=0,
                inserted=len(edit) - kept, pruned=len(faint) - kept, reset=0, relocated=0, points=len(edit),
                budget=budget,
            )  # fmt: skip
            self.on_event(record, changes)

    def cones(self, params: TrainedParameters, views: list[int], most: int, harmonics: bool) -> dict[str, Tensor]:
        """At most so many new points of all EDITED names, in the cones of wrong pixels of `views`."""
        photos, device = self.photo_graph.views, self.photo_graph.views.device
        evidence = [self._seen(params, view, 2) for view in views]
        which, pixels = self.wrong_pixels(views, math.ceil(self.pixels_per_point * most))
        near, far = depth_ranges(evidence)
        at, places = sent(which, device), sent(pixels, device)
        view = sent(torch.tensor(views)[which], device)
        neighbours = self.photo_graph.neighbours(lambda v: _surface(self._seen(params, v, 4)))
        sweep = plane_sweep(photos, view, places, neighbours, near[at], far[at])
        depth, rgb = torch.full_like(sweep.depth, torch.nan), torch.zeros(len(which), 3)
        for i, (v, seen) in enumerate(zip(views, evidence, strict=True)):
            mine = (which == i).nonzero().flatten()
            here, (x, y) = sent(mine, device), sent((pixels[mine] / 2).long(), device).unbind(1)
            surface = _surface(seen)
            depth[here] = surface[y.clamp_max(surface.shape[0] - 1), x.clamp_max(surface.shape[1] - 1)]
            rgb[mine] = photos.colors(v, pixels[mine]).float() / 255
        depth = torch.where(sweep.confident, sweep.depth, depth)
        rows = (torch.isfinite(depth) & (depth > 0)).nonzero().flatten()[:most]
        depth, view, places = depth[rows], view[rows], places[rows]
        xyz = unproject(places, depth, photos.viewmats[view], photos.Ks[view])
        size = self.cone * depth / photos.Ks[view, 0, 0]
        return new_points(xyz, sent(rgb, device)[rows], size[:, None].expand(-1, 3), harmonics, self.opacity)

    def wrong_pixels(self, views: list[int], n: int) -> tuple[Tensor, Tensor]:
        """`n` pixels drawn by their error: which of `views` each is in [n], and its place [n, 2] (x, y), on the CPU.

        None where nothing is wrong.
        """
        photos, tile = self.photo_graph.views, self.maps.tile
        weights, places = [], []
        for i, (view, error) in enumerate(zip(views, brought([self.maps.maps[v] for v in views]), strict=True)):
            height, width = photos.images[view].shape[:2]
            error = spread(error, (width, height), tile)[::tile, ::tile]  # tiles of the full image
            rows, columns = error.shape
            corner = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
            places.append(torch.cat([torch.full_like(corner[:, :1], i), corner], 1))
            weights.append((error - GREY_LEVEL).clamp_min(0).flatten().double())
        weight = torch.cat(weights) if weights else torch.zeros(0, dtype=torch.float64)
        if not bool(weight.sum() > 0):
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2)
        drawn = torch.cat(places)[torch.multinomial(weight, n, replacement=True, generator=self.generator)]
        within = torch.randint(tile, (n, 2), generator=self.generator)
        pixels = (drawn[:, 1:] * tile + within).flip(-1).float() + 0.5
        last = torch.tensor([[photos.images[v].shape[1], photos.images[v].shape[0]] for v in views]) - 0.5
        return drawn[:, 0], torch.minimum(pixels, last[drawn[:, 0]])

    def _seen(self, params: TrainedParameters, view: int, shrink: int) -> Evidence:
        """What the render shows from a training view, `shrink` times smaller."""
        photos = self.photo_graph.views
        height, width = photos.images[view].shape[:2]
        nothing = photos.viewmats.new_zeros(height, width)
        camera = (photos.viewmats[view], photos.Ks[view], (width, height))
        return look(params, *camera, nothing, self.rasterize_mode, shrink=shrink)

    def extra_state(self) -> dict[str, Any]:
        """See PointStrategy."""
        return {
            "generator": self.generator.get_state(), "photos": len(self.photo_graph.views), "maps": self.maps.state(),
            "surroundings": self.photo_graph.state(),
        }  # fmt: skip

    def load_extra_state(self, saved: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what extra_state() gave; if it was made with other photos, errors are gathered anew."""
        self.generator.set_state(saved["generator"])
        if saved["photos"] == len(self.photo_graph.views):
            self.maps.load(saved["maps"], device)
            self.photo_graph.load(saved["surroundings"])


def _surface(seen: Evidence) -> Tensor:
    """[h, w] z-depth of what is drawn, world; NaN where there is none."""
    return torch.where(seen.alpha > 0.5, seen.depth, torch.nan)
