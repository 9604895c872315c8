"""SteepGS (Wang et al., CVPR 2025, arXiv 2505.05587): a point is split where that lowers the loss, along its best axis.

To second order, putting offspring of weights w_j at theta + delta_j in the place of a point changes the loss by what
its mean displacement does, and by 1/2 sum_j w_j delta_j^T S delta_j. S is the splitting matrix of the point: the sum
over pixels p of dL/d alpha_p times the Hessian of alpha_p in the point's mean. A point whose gradient has come to
rest, and whose S has a negative eigenvalue, is at a saddle that splitting alone leaves. Best are two offspring of
weight 1/2 at +-delta along the eigenvector of the least eigenvalue.

On the screen alpha = o exp(-d^T C d / 2), d from the mean to the pixel, C the inverse covariance. Its Hessian is
alpha (C d d^T C - C), so S needs two sums over pixels of what a backward pass has anyway: of dL/d alpha alpha d d^T,
which is -2 dL/dC, and of dL/d alpha alpha, which is o dL/do. S2 = -2 C (dL/dC) C - (o dL/do) C, and in space S = J^T
S2 J with the Jacobian J of the projection, summed over the views since the last event.

The authors' are the condition, the direction, the number of offspring and half the opacity. ADC's condition on the
gradient stays (--model.densify-grad-thresh 0 takes it away): the matrix decides in the place of the size, there is no
cloning. How far the two go the theory leaves open (it says: a little); here half of the parent's standard deviation
in that direction, and their shape is the parent's. Where there is no room for all, the most negative eigenvalues come
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lpm.gaussians import edits
from lpm.gaussians.optim_state import apply
from lpm.gaussians.parameters import Optimizers, TrainedParameters, rotations
from lpm.strategy.adc_with_photos import AdcWithPhotos, shapes_of
from lpm.strategy.options import SteepgsOptions
from lpm.strategy.selection import lowest


def screen_jacobian(means: Tensor, viewmat: Tensor, K: Tensor) -> Tensor:
    """How pixels move with world points `means` [N, 3] of a camera [4, 4], [3, 3]: [N, 2, 3], 0 behind it."""
    viewmat, K = viewmat.to(means), K.to(means)
    x, y, z = (means @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(-1)
    near = torch.where(z > 0, 1 / z.clamp_min(1e-6), 0.0)[:, None]
    right, down, forward = viewmat[:3, :3]
    u = K[0, 0] * near * (right - x[:, None] * near * forward)
    v = K[1, 1] * near * (down - y[:, None] * near * forward)
    return torch.stack([u, v], 1)


def splitting_matrix(conics: Tensor, grad_conics: Tensor, weight: Tensor, jacobian: Tensor) -> Tensor:
    """S [N, 3, 3] of one view, in units of the loss over squared world units; see the module.

    Args:
        conics: [N, 3] the entries xx, xy, yy of C, per squared pixel. grad_conics: [N, 3], of the loss, as a backward
            pass gives it: that of xy stands for both off-diagonal entries.
        weight: [N] sum over pixels of dL/d alpha alpha. jacobian: [N, 2, 3] of the projection.
    """
    a, b, c = conics.unbind(-1)
    C = torch.stack([a, b, b, c], -1).reshape(-1, 2, 2)
    gx, gy, gz = grad_conics.unbind(-1)
    half = 0.5 * gy
    moment = -2 * torch.stack([gx, half, half, gz], -1).reshape(-1, 2, 2)
    flat = C @ moment @ C - weight[:, None, None] * C
    return jacobian.transpose(1, 2) @ flat @ jacobian


@dataclass
class SteepgsStrategy(SteepgsOptions, AdcWithPhotos):
    """See the module."""

    pause_refine_after_reset: int = 0

    Options: ClassVar[type] = SteepgsOptions
    group: ClassVar[str] = "steepgs"

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """As AdcStrategy's, and per point the sum of its splitting matrices since the last event [N, 3, 3]."""
        return super().initialize_state(scene_scale) | {"splitting": None}

    def step_pre_backward(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int, info: dict[str, Any]
    ) -> None:
        """Asks for the gradients that are read after the backward pass."""
        super().step_pre_backward(params, optimizers, state, step, info)
        info["conics"].retain_grad()

    @torch.no_grad()
    def _update_state(self, params: TrainedParameters, state: dict[str, Any], info: dict[str, Any]) -> None:
        super()._update_state(params, state, info)
        if state["splitting"] is None:
            state["splitting"] = params["means"].new_zeros(len(params["means"]), 3, 3)
        conics, grad, logit = info["conics"], info["conics"].grad, params["opacities"].grad
        if grad is None or logit is None:
            return
        # The gradient of a logit is o (1 - o) dL/do.
        weight = (logit / torch.sigmoid(-params["opacities"]).clamp_min(1e-6)).flatten()
        view, views = info["view"], self.views
        shrink = info["width"] / views.sizes[view, 0]  # training may be at a smaller size than the photo
        jacobian = screen_jacobian(params["means"], views.viewmats[view], views.Ks[view] * shrink)
        new = splitting_matrix(conics.detach()[0], grad[0], weight, jacobian)
        drawn = (info["radii"][0, :, 0] > 0)[:, None, None]  # the conics of the others are anything
        state["splitting"] += torch.where(drawn, new, 0.0)

    def grow(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int
    ) -> tuple[int, int]:
        """Splits the points at saddles."""
        count = state["count"].clamp_min(1)
        asking = self._wanted(params, state, state["grad2d"] / count).nonzero().flatten()
        least, axis = least_eigenvectors(state["splitting"][asking] / count[asking, None, None])
        now = len(count)
        room = now if self.max_points is None else self.max_points - now
        chosen = lowest(least, least < self.least_eigenvalue, room).nonzero().flatten()
        rows = asking[chosen]
        mask = torch.zeros(now, dtype=torch.bool, device=rows.device).index_fill_(0, rows, True)
        local = (rotations(params["quats"].detach()[rows]) * axis[chosen][:, :, None]).sum(1)
        length = (local * params["scales"].detach()[rows].exp()).norm(dim=-1, keepdim=True)
        offset = self.step * length * axis[chosen]
        apply(edits.split_along(shapes_of(params), mask, offset, opacity=0.5), params, optimizers, state)
        state["splitting"].zero_()
        return 0, len(rows)


def least_eigenvectors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Least eigenvalues [M] of symmetric `matrices` [M, 3, 3], and their eigenvectors [M, 3], of length 1."""
    values, vectors = torch.linalg.eigh(matrices)
    return values[:, 0], vectors[:, :, 0]
