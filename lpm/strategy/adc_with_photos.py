"""Adaptive density control that looks at photos in its events, and tells of them: what its published variants share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.gaussians.edits import Params
from lpm.gaussians.parameters import Optimizers, Parameters, TrainedParameters
from lpm.multiview.views import Views
from lpm.records import EditRecord
from lpm.strategy.adc import AdcStrategy
from lpm.strategy.schedule import Common
from lpm.zones.point_errors import Evidence, look


@dataclass
class AdcWithPhotos(AdcStrategy):
    """AdcStrategy with the training photos at hand. `info` of each step must hold `view` (index)."""

    pause_refine_after_reset: int = 0
    rasterize_mode: str = "classic"
    """As the model is drawn: classic or antialiased."""

    @classmethod
    def make(cls, common: Common, options: Any) -> AdcWithPhotos:
        """See PointStrategy."""
        return cls(**(vars(options) | cls.arguments(common, options)), rasterize_mode=common.rasterize_mode)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.photos: Views | None = None
        self.generator = torch.Generator()
        self.looked: list[int] = []
        self.inserted = 0
        self.budget: int | None = None

    def attach(self, views: Views, points: Tensor | None = None, cache: Path | None = None) -> None:
        """See PointStrategy; SfM points are not used."""
        self.photos = views
        self.generator.manual_seed(self.seed)

    @property
    def views(self) -> Views:
        """The training photos. Raises LpmError before attach()."""
        if self.photos is None:
            fail("views", "none", "the training photos and cameras", "call attach(views, points) before the first step")
        return self.photos

    def drawn_views(self, known: list[int], n: int) -> list[int]:
        """At most `n` of the views `known`, drawn alike from all; what the event's record says."""
        order = torch.randperm(len(known), generator=self.generator)[:n].tolist()
        self.looked = [known[i] for i in order]
        return self.looked

    def seen_from(self, params: Parameters, view: int, error: Tensor) -> Evidence:
        """Which points paint the `error` [H, W] of a photo; at half of its resolution, which is enough for a sum."""
        views = self.views
        size = (error.shape[1], error.shape[0])
        return look(params, views.viewmats[view], views.Ks[view], size, error, self.rasterize_mode, shrink=2)

    @torch.no_grad()
    def _grow_gs(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int
    ) -> tuple[int, int]:
        self._start = time.perf_counter()
        self.looked, self.inserted, self.budget = [], 0, self.max_points
        self._grew = self.grow(params, optimizers, state, step)
        return self._grew

    def grow(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int
    ) -> tuple[int, int]:
        """Adds points; how many were cloned, and how many split."""
        return super()._grow_gs(params, optimizers, state, step)

    @torch.no_grad()
    def _prune_gs(self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int) -> int:
        pruned = super()._prune_gs(params, optimizers, state, step)
        cloned, split = self._grew
        if self.on_event is not None:
            record = EditRecord(
                step=step, seconds=time.perf_counter() - self._start, views=list(self.looked), zones=[], cloned=cloned,
                split=split, inserted=self.inserted, pruned=pruned, reset=0, relocated=0, points=len(params["means"]),
                budget=self.budget,
            )  # fmt: skip
            self.on_event(record, None)
        return pruned

    def extra_state(self) -> dict[str, Any]:
        """See PointStrategy."""
        return {"generator": self.generator.get_state()}

    def load_extra_state(self, saved: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what extra_state() gave."""
        self.generator.set_state(saved["generator"])


def shapes_of(params: TrainedParameters) -> Params:
    """What a split changes of the parameters, as lpm.gaussians.edits takes it; the others follow, copied once."""
    return {name: params[name].detach() for name in ("means", "scales", "quats", "opacities")}
