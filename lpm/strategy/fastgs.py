"""FastGS (Ren et al. 2025, arXiv 2511.04283): what several views agree on decides where points are added and removed.

Adaptive density control, to which each event adds what K training views, drawn at random, say of every point i. The
error of view j (L1, brought to 0..1 by its least and its largest value) marks the wrong pixels, those above a
threshold; s_ij is how many of them the point paints.

- Densification (VCD): s_i+ = 1/K sum_j s_ij. Of the points whose gradient asks for it, those are cloned or split that
  paint enough wrong pixels in the mean: what one view only finds wrong seldom does.
- Pruning (VCP): s_i- = sum_j s_ij E_j, brought to 0..1, where E_j is the view's error. The points above a threshold
  are removed, since they paint what is wrong in many badly drawn views.

The authors' are the two scores and K = 10. Thresholds on a pixel's error and on s- are ours: the paper's figures were
not at hand. Here, beside it: errors are those of the step that saw the view last, in tiles of 4 x 4 pixels, since the
trainer has them anyway; pixels are counted with the weight that the point has in them, not all alike within its
footprint, so that points behind others are not blamed; points that an event adds to are not removed by it; pruning
goes on while points are added, and ends with that; the run's interval between events (the authors add points every
500 steps). As weights go five pixels of a footprint are about half of one, our threshold. Their compact bounding box
speeds a rasterizer, and changes no points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lpm.gaussians.parameters import TrainedParameters
from lpm.render.losses import TileRequest
from lpm.strategy.adc_with_photos import AdcWithPhotos
from lpm.strategy.options import FastgsOptions
from lpm.zones.error_maps import ErrorMaps, pixel_errors, spread


@dataclass
class FastgsStrategy(FastgsOptions, AdcWithPhotos):
    """See the module. `info` of each step must hold `view` (index), `render` and `truth` ([H, W, 3], 0..1)."""

    pause_refine_after_reset: int = 0

    Options: ClassVar[type] = FastgsOptions
    group: ClassVar[str] = "fastgs"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.maps: ErrorMaps = pixel_errors()

    def tile_request(self, view: int, size: tuple[int, int], mask: Tensor | None = None) -> TileRequest | None:
        """The error of the view."""
        return self.maps.request(view, size, mask)

    def _update_state(self, params: TrainedParameters, state: dict[str, Any], info: dict[str, Any]) -> None:
        super()._update_state(params, state, info)
        made = info.get("error_map")
        self.maps.update(info["view"], 0, info["render"], info["truth"], info.get("mask"), made)

    def _wanted(self, params: TrainedParameters, state: dict[str, Any], gradient: Tensor) -> Tensor:
        """Of those whose gradient asks for it, the points that several views find wrong."""
        paints, blame = self.scores(params)
        wanted = super()._wanted(params, state, gradient) & (paints > self.wrong_pixels)
        state["blame"] = blame.masked_fill(wanted, 0)  # follows the points through the edit
        return wanted

    def scores(self, params: TrainedParameters) -> tuple[Tensor, Tensor]:
        """s+ [N], wrong pixels that a point paints in the mean of some views, and s- [N], 0..1."""
        views = self.views
        chosen = self.drawn_views(sorted(self.maps.maps), self.views_per_event)
        paints, blame = torch.zeros(2, len(params["means"]), device=params["means"].device)
        for view in chosen:
            error = self.maps.maps[view]
            low, high = error.min(), error.max()
            wrong = (error - low) / (high - low + 1e-8) > self.wrong
            height, width = views.images[view].shape[:2]
            wrong = spread(wrong.to(error), (width, height), self.maps.tile)
            pixels = self.seen_from(params, view, wrong).point_error
            paints += pixels / len(chosen)
            blame += pixels * error.mean(-1).mean()  # row by row: the same bits for any number of threads
        low = blame.min()
        return paints, (blame - low) / (blame.max() - low).clamp_min(1e-8)

    def _useless(self, params: TrainedParameters, state: dict[str, Any], step: int) -> Tensor:
        """As in adaptive density control, and those that many views blame."""
        blamed: Tensor = state.pop("blame") > self.blame
        return super()._useless(params, state, step) | blamed

    def extra_state(self) -> dict[str, Any]:
        """See PointStrategy."""
        return super().extra_state() | {"photos": len(self.views), "maps": self.maps.state()}

    def load_extra_state(self, saved: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what extra_state() gave; if it was made with other photos, errors are gathered anew."""
        super().load_extra_state(saved, device)
        if saved["photos"] == len(self.views):
            self.maps.load(saved["maps"], device)
