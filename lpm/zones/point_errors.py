"""Which points a view's errors are drawn by, and where the render sees its surface: one render of one view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lpm.render.rasterize import rasterize
from lpm.sending import sent


@dataclass
class Evidence:
    """What one view says about the points."""

    point_error: Tensor
    """[N] sum over pixels of blending weight x residual: E_i."""
    contribution: Tensor
    """[N] sum over pixels of blending weight: how many pixels a point paints, in pixels."""
    visible: Tensor
    """[N] bool: drawn in this view."""
    depth: Tensor
    """[h, w] expected z-depth, world."""
    alpha: Tensor
    """[h, w] accumulated opacity."""
    z: Tensor
    """[N] z-depths of the points in this view, world."""


def depth_ranges(evidence: list[Evidence]) -> tuple[Tensor, Tensor]:
    """Where to look for surfaces in each of V views: nearest [V] and farthest [V] z-depth, world.

    A generous range around the depths of the points that a view draws: a false front is nearer than the surface it
    hides and a hole is farther than what stands around it. The host waits twice, whatever V is.
    """
    z = torch.stack([e.z for e in evidence])
    drawn = torch.stack([e.visible for e in evidence]) & (z > 0)
    ends = sent([0.02, 0.98], z.device, z.dtype)
    ranges = []
    for of_view in z[drawn].split(drawn.sum(1).tolist()):
        some = of_view[:: max(1, len(of_view) // 4096)]  # a quantile needs no more
        if len(some):
            low, high = some.quantile(ends)
            ranges.append((0.5 * low, 3.0 * high))
        else:
            ranges.append((torch.full_like(z[0, 0], 0.1), torch.full_like(z[0, 0], torch.inf)))
    near, far = (torch.stack(side) for side in zip(*ranges, strict=True))
    return near, far


def look(
    params: Any,
    viewmat: Tensor,
    K: Tensor,
    size: tuple[int, int],
    error: Tensor,
    rasterize_mode: str = "classic",
    flat: bool = False,
    shrink: int = 1,
) -> Evidence:
    """Splats the residual of a view onto the points that made it.

    The points are drawn with two channels that are zero everywhere; the gradient of such a channel, with the residual
    (or 1) as its cotangent, is E_i = sum_p w_i(p) e(p). Any differentiable rasterizer gives this.

    Args:
        params: parameters [N, ...] (lpm.gaussians). viewmat: [4, 4]. K: [3, 3], pixels. size: width, height, pixels.
        error: [H, W] residual of each pixel.
        flat: the points are disks (2DGS) whose third scale means nothing; they are drawn with a hundredth of the
            smaller of the other two.
        shrink: the image is drawn so many times smaller, h = H // shrink. The filter of a pixel stays as large as in
            the full image, so that small points paint what they paint there, on average over their places.
    """
    shrink = min(shrink, *size)
    width, height = (n // shrink for n in size)
    K = torch.cat([K[:2] / shrink, K[2:]])
    scales = params["scales"].detach().exp()
    if flat:
        scales = torch.cat([scales[:, :2], 0.01 * scales[:, :2].amin(1, keepdim=True)], 1)
    with torch.enable_grad():
        zero = torch.zeros(len(scales), 2, device=viewmat.device, requires_grad=True)
        image, alpha, meta = rasterize(
            params["means"].detach(), params["quats"].detach(), scales,
            torch.sigmoid(params["opacities"].detach()).flatten(), zero, viewmat[None], K[None], width, height,
            render_mode="RGB+ED", rasterize_mode=rasterize_mode, eps2d=0.3 / shrink**2,  # type: ignore[arg-type]
        )  # fmt: skip
        error = error[::shrink, ::shrink][:height, :width]
        cotangent = torch.stack([error, torch.ones_like(error)], -1)
        # As a sum: given as `grad_outputs`, a cotangent makes torch import sympy to compare its shape (half a second).
        (gathered,) = torch.autograd.grad((image[0, ..., :2] * cotangent).sum(), zero)
    visible = (meta["radii"][0] > 0).all(-1)
    gathered *= shrink**2  # pixels of the full image
    depth, alpha = image[0, ..., 2].detach(), alpha[0, ..., 0].detach()
    x, y, z = params["means"].detach().unbind(-1)  # written out: the same bits for any number of threads
    z = x * viewmat[2, 0] + y * viewmat[2, 1] + z * viewmat[2, 2] + viewmat[2, 3]
    return Evidence(gathered[:, 0], gathered[:, 1], visible, depth, alpha, z)
