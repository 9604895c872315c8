"""Adaptive density control: gsplat's DefaultStrategy on both devices, with a cap on the number of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from gsplat.strategy import DefaultStrategy
from torch import Tensor


@dataclass
class AdcStrategy(DefaultStrategy):
    """3DGS's adaptive density control (Kerbl 2023, section 5.2; AbsGS with `absgrad`), capped.

    Where more points ask to be cloned or split than `max_points` allows, those with the highest gradient get their
    turn; each clone and each split adds exactly one point.
    """

    max_points: int | None = None

    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None):
        """See gsplat; `lr` is taken so that all strategies can be called alike, and is not used."""
        if step == 0:  # gsplat 1.4 resets all opacities at step 0, 0 being a multiple of everything
            self._update_state(params, state, info, packed=packed)
            return
        super().step_post_backward(params, optimizers, state, step, info, packed=packed)

    @torch.no_grad()
    def _update_state(self, params, state: dict[str, Any], info: dict[str, Any], packed: bool = False) -> None:
        """Gathers each point's gradient of means2d (in units of half the image) and how often it was seen.

        gsplat's own gathers the visible rows by index; where all rows are at hand their sum is the same (a point that
        was not drawn has no gradient) and takes a tenth of the time. It also reads `radii` in the shape that
        lpm.rasterize gives whatever the version of gsplat. Sizes on the screen are not gathered: they are not used.
        """
        n = len(params["means"])
        means2d: Tensor = info[self.key_for_gradient]
        gradient = cast(Tensor, means2d.absgrad if self.absgrad else means2d.grad)  # type: ignore[attr-defined]
        half = info["n_cameras"] / 2.0
        if state["grad2d"] is None:
            state["grad2d"], state["count"] = gradient.new_zeros(n), gradient.new_zeros(n)
        x, y = gradient.unbind(-1)
        state["grad2d"] += torch.hypot(x * (info["width"] * half), y * (info["height"] * half)).sum(
            0
        )  # a fifth of the time of norm()
        state["count"] += (info["radii"][..., 0] > 0).sum(0)

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
