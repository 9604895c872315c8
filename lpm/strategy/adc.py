"""3DGS's adaptive density control, with a cap on the number of points; the same whatever the version of gsplat.

Semantics and bits are those of gsplat 1.4's DefaultStrategy, which later versions changed: 1.5 never resets opacities,
1.6 calls the parts of a step otherwise. Written from the paper, in this project's edits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from lpm.gaussians.edits import Edit, prune, shared_opacity
from lpm.gaussians.optim_state import apply
from lpm.gaussians.parameters import Optimizers, TrainedParameters, rotations
from lpm.strategy.base import PointStrategy
from lpm.strategy.options import AdcOptions
from lpm.strategy.schedule import Common


@dataclass
class AdcStrategy(PointStrategy):
    """3DGS's adaptive density control (Kerbl 2023, section 5.2; AbsGS with `absgrad`), capped.

    Where more points ask to be cloned or split than `max_points` allows, those with the highest gradient get their
    turn; each clone and each split adds exactly one point.
    """

    prune_opa: float = 0.005
    """Points of a lower opacity (0..1) are removed; resets lower all to twice this."""
    grow_grad2d: float = 0.0002
    """Points with a larger mean gradient of means2d (in units of half the image) are cloned or split."""
    grow_scale3d: float = 0.01
    """Points up to this size, relative to the scene's, are cloned, larger ones split."""
    prune_scale3d: float = 0.1
    """Larger points are removed, after the first reset."""
    refine_start_iter: int = 500
    refine_stop_iter: int = 15_000
    refine_every: int = 100
    reset_every: int = 3000
    """Steps between resets of all opacities."""
    pause_refine_after_reset: int = 0
    """Steps without edits after a reset."""
    revised_opacity: bool = False
    """The two halves of a split point together are as opaque as it was (Rota Bulo 2024)."""
    key_for_gradient: str = "means2d"

    Options: ClassVar[type] = AdcOptions
    group: ClassVar[str] = "adc"
    stop_share: ClassVar[tuple[int, int]] = (1, 2)
    gathered: ClassVar[tuple[str, ...]] = ("grad2d", "count")
    """What of the state is gathered from step to step, and begins anew after an event."""
    threshold: ClassVar[float] = 0.0002
    """Published threshold on the mean gradient of means2d (in units of half the image): 3DGS's."""

    @classmethod
    def make(cls, common: Common, options: Any) -> AdcStrategy:
        """See PointStrategy."""
        return cls(**cls.arguments(common, options))

    @classmethod
    def arguments(cls, common: Common, options: Any) -> dict[str, Any]:
        """The fields of the strategy for a run."""
        plan, pause = common.schedule, options.pause_refine_after_reset
        return dict(
            prune_opa=common.prune_opacity,
            grow_grad2d=cls.threshold if common.grad_threshold is None else common.grad_threshold,
            grow_scale3d=common.split_scale, prune_scale3d=common.prune_scale, refine_start_iter=plan.start,
            refine_stop_iter=plan.stop, refine_every=plan.every, reset_every=plan.reset_every,
            pause_refine_after_reset=plan.pause_after_reset if pause is None else pause,
            revised_opacity=common.revised_opacity, max_points=plan.max_points,
        )  # fmt: skip

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """Running state: per point the sum of gradients and how often it was seen."""
        return {"grad2d": None, "count": None, "scene_scale": scene_scale}

    def check_sanity(self, params: TrainedParameters, optimizers: Optimizers) -> None:
        """Beside gsplat's own check: the parameters that edits are made on are there."""
        super().check_sanity(params, optimizers)
        for key in ("means", "scales", "quats", "opacities"):
            assert key in params, f"params: no {key}"

    def step_pre_backward(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int, info: dict[str, Any]
    ) -> None:
        """Asks for the gradient that is read after the backward pass."""
        if not self.absgrad:  # else nobody reads it, and keeping it is a copy in every step
            info[self.key_for_gradient].retain_grad()

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
        """Gathers the step's gradients; edits and resets where it is time to. `packed` and `lr` are not used."""
        if step >= self.refine_stop_iter:
            return
        self._update_state(params, state, info)
        if step == 0:  # a multiple of everything
            return
        due = step > self.refine_start_iter and step % self.refine_every == 0
        if due and step % self.reset_every >= self.pause_refine_after_reset:
            self._grow_gs(params, optimizers, state, step)
            self._prune_gs(params, optimizers, state, step)
            for name in self.gathered:
                state[name].zero_()
        if self._resets(step):
            self._reset_opacities(params, optimizers)

    def _resets(self, step: int) -> bool:
        """Whether all opacities are reset after `step`."""
        return step % self.reset_every == 0

    @torch.no_grad()
    def _update_state(self, params: TrainedParameters, state: dict[str, Any], info: dict[str, Any]) -> None:
        """Gathers each point's gradient of means2d (in units of half the image) and how often it was seen.

        gsplat's own gathers the visible rows by index; where all rows are at hand their sum is the same (a point that
        was not drawn has no gradient) and takes a tenth of the time. It also reads `radii` in the shape that
        rasterize() gives whatever the version of gsplat. Sizes on the screen are not gathered: they are not used.
        """
        n = len(params["means"])
        means2d: Tensor = info[self.key_for_gradient]
        gradient = cast(Tensor, means2d.absgrad if self.absgrad else means2d.grad)  # type: ignore[attr-defined]
        half = info["n_cameras"] / 2.0
        if state["grad2d"] is None:
            state["grad2d"], state["count"] = gradient.new_zeros(n), gradient.new_zeros(n)
        x, y = gradient.unbind(-1)
        # hypot takes a fifth of the time of norm()
        state["grad2d"] += torch.hypot(x * (info["width"] * half), y * (info["height"] * half)).sum(0)
        state["count"] += (info["radii"][..., 0] > 0).sum(0)

    @torch.no_grad()
    def _grow_gs(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int
    ) -> tuple[int, int]:
        """Clones small points and splits large ones of a high gradient; how many of each."""
        gradient = self.mean_gradient(state)
        wanted = self._wanted(params, state, gradient)
        if self.max_points is not None:
            room = max(self.max_points - len(params["means"]), 0)
            if int(wanted.sum()) > room:
                mask = torch.zeros_like(wanted)
                mask[torch.topk(gradient, room).indices] = True
                wanted &= mask
        small = torch.exp(params["scales"]).max(dim=-1).values <= self.grow_scale3d * state["scene_scale"]
        cloned, split = (wanted & small).nonzero().flatten(), (wanted & ~small).nonzero().flatten()
        if len(cloned) or len(split):
            rest = (~(wanted & ~small)).nonzero().flatten()
            apply(self._grown(params, rest, cloned, split), params, optimizers, state)
        return len(cloned), len(split)

    def mean_gradient(self, state: dict[str, Any]) -> Tensor:
        """[N] of each point since the last event; how much it asks for more points."""
        mean: Tensor = state["grad2d"] / state["count"].clamp_min(1)
        return mean

    def _wanted(self, params: TrainedParameters, state: dict[str, Any], gradient: Tensor) -> Tensor:
        """[N] bool: the points that ask to be cloned or split, by their mean `gradient` [N] since the last event."""
        return gradient > self.grow_grad2d

    def _grown(self, params: TrainedParameters, rest: Tensor, cloned: Tensor, split: Tensor) -> Edit:
        """The points `rest`, copies of those `cloned`, and two smaller ones for each of `split`, drawn from it."""
        source = torch.cat([rest, cloned, split, split])
        fresh = torch.arange(len(source), device=source.device) >= len(rest)
        halves = slice(len(rest) + len(cloned), None)
        p = {name: params[name].detach()[source] for name in ("means", "scales", "quats", "opacities")}
        if len(split):
            scales = params["scales"].detach()[split].exp()
            rotation = rotations(params["quats"].detach()[split])
            normal = torch.randn(2, len(split), 3, device=scales.device)
            p["means"][halves] += torch.einsum("nij,nj,bnj->bni", rotation, scales, normal).reshape(-1, 3)
            p["scales"][halves] = torch.log(scales / 1.6).repeat(2, 1)
            if self.revised_opacity:
                p["opacities"][halves] = shared_opacity(p["opacities"][halves])
        return Edit(p, source, fresh, torch.zeros_like(fresh))

    @torch.no_grad()
    def _prune_gs(self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int) -> int:
        """Removes the useless points; how many."""
        gone = self._useless(params, state, step)
        before = len(gone)
        edit = prune({"means": params["means"].detach()}, gone)
        if len(edit) < before:
            apply(edit, params, optimizers, state)
        return before - len(edit)

    def _useless(self, params: TrainedParameters, state: dict[str, Any], step: int) -> Tensor:
        """[N] bool: faint points and, after the first reset, large ones."""
        gone = torch.sigmoid(params["opacities"].flatten()) < self.prune_opa
        if step > self.reset_every:
            gone |= torch.exp(params["scales"]).max(dim=-1).values > self.prune_scale3d * state["scene_scale"]
        return gone

    @torch.no_grad()
    def _reset_opacities(self, params: TrainedParameters, optimizers: Optimizers) -> None:
        """Lowers all opacities to twice what is pruned; their moments begin anew."""
        limit = torch.logit(torch.tensor(2.0 * self.prune_opa)).item()
        opacities = params["opacities"]
        opacities.clamp_(max=limit)
        for key, moment in optimizers["opacities"].state.get(opacities, {}).items():
            if key != "step":
                moment.zero_()
