"""Adaptive density control: gsplat's DefaultStrategy on both devices, with a cap on the number of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gsplat
import torch
from gsplat.strategy import DefaultStrategy
from torch import Tensor

# Up to 1.4 the radii of gsplat's own strategies are [C, N], from 1.5 on [C, N, 2]; lpm.rasterize gives the latter.
_TWO_RADII = tuple(int(part) for part in gsplat.__version__.split(".")[:2]) >= (1, 5)


def gsplat_info(info: dict[str, Any]) -> dict[str, Any]:
    """`info` of lpm.rasterize with `radii` in the shape that the installed gsplat's strategies read."""
    radii: Tensor = info["radii"]
    return info if _TWO_RADII or radii.dim() == 2 else {**info, "radii": radii.amax(-1)}


@dataclass
class AdcStrategy(DefaultStrategy):
    """3DGS's adaptive density control (Kerbl 2023, section 5.2; AbsGS with `absgrad`), capped.

    Where more points ask to be cloned or split than `max_points` allows, those with the highest gradient get their
    turn; each clone and each split adds exactly one point.
    """

    max_points: int | None = None

    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None):
        """See gsplat; `lr` is taken so that all strategies can be called alike, and is not used."""
        info = gsplat_info(info)
        if step == 0:  # gsplat 1.4 resets all opacities at step 0, 0 being a multiple of everything
            self._update_state(params, state, info, packed=packed)
            return
        super().step_post_backward(params, optimizers, state, step, info, packed=packed)

    @torch.no_grad()
    def _grow_gs(self, params, optimizers, state, step) -> tuple[int, int]:
        if self.max_points is not None:
            room = max(self.max_points - len(params["means"]), 0)
            gradient = state["grad2d"] / state["count"].clamp_min(1)
            wanted = gradient > self.grow_grad2d
            if int(wanted.sum()) > room:
                keep = torch.topk(gradient, room).indices
                mask = torch.zeros_like(wanted)
                mask[keep] = True
                state["grad2d"] = torch.where(mask, state["grad2d"], 0.0)
        return super()._grow_gs(params, optimizers, state, step)
