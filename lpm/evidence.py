"""Which points a view's errors are drawn by, and where the render sees its surface: one render of one view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.rasterize import rasterize


@dataclass
class Evidence:
    """What one view says about the points."""

    point_error: Tensor
    """[N] sum over pixels of blending weight x residual: E_i."""
    visible: Tensor
    """[N] bool: drawn in this view."""
    depth: Tensor
    """[H, W] expected z-depth, world."""
    alpha: Tensor
    """[H, W] accumulated opacity."""


def look(
    params: Any, viewmat: Tensor, K: Tensor, size: tuple[int, int], error: Tensor, rasterize_mode: str = "classic"
) -> Evidence:
    """Splats the residual of a view onto the points that made it.

    The points are drawn with one channel that is zero everywhere; the gradient of that channel, with the residual as
    its cotangent, is E_i = sum_p w_i(p) e(p). Any differentiable rasterizer gives this.

    Args:
        params: parameters [N, ...] (lpm.gaussians). viewmat: [4, 4]. K: [3, 3], pixels. size: width, height, pixels.
        error: [rows, columns] residual, spread over the whole image.
    """
    width, height = size
    with torch.enable_grad():
        zero = torch.zeros(len(params["means"]), 1, device=viewmat.device, requires_grad=True)
        image, alpha, meta = rasterize(
            params["means"].detach(), params["quats"].detach(), params["scales"].detach().exp(),
            torch.sigmoid(params["opacities"].detach()).flatten(), zero, viewmat[None], K[None], width, height,
            render_mode="RGB+ED", rasterize_mode=rasterize_mode,  # type: ignore[arg-type]
        )  # fmt: skip
        cotangent = F.interpolate(error[None, None], (height, width), mode="nearest")[0, 0]
        (point_error,) = torch.autograd.grad(image[0, ..., 0], zero, cotangent)
    visible = (meta["radii"][0] > 0).all(-1)
    return Evidence(point_error.flatten(), visible, image[0, ..., 1].detach(), alpha[0, ..., 0].detach())
