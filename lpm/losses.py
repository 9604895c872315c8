"""The photometric loss of 3DGS: (1 - lambda) L1 + lambda (1 - SSIM) (Kerbl 2023, eq. 7; SSIM: Wang 2004).

On the CPU one native kernel computes value and gradient; elsewhere, and without a compiler, its torch twin does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.cuda.native import native

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def l1_dssim(render: Tensor, truth: Tensor, ssim_lambda: float) -> Tensor:
    """Scalar loss of `render` against `truth`, both [H, W, C] in 0..1.

    SSIM has an 11x11 Gaussian window of sigma 1.5, applied without padding; images smaller than that are compared by
    L1 alone. Not differentiable in `truth`, and once only in `render`.
    """
    if ssim_lambda == 0 or min(render.shape[:2]) < WINDOW:
        return (render - truth).abs().mean()
    if render.device.type == "cpu" and native() is not None:
        return _L1Dssim.apply(render, truth, ssim_lambda)
    return l1_dssim_torch(render, truth, ssim_lambda)


def l1_dssim_torch(render: Tensor, truth: Tensor, ssim_lambda: float) -> Tensor:
    """The torch twin of the native kernel; see l1_dssim."""
    offset = torch.arange(WINDOW, device=render.device, dtype=torch.float64) - WINDOW // 2
    taps = torch.exp(-(offset**2) / (2 * SIGMA**2))
    taps = (taps / taps.sum()).to(render.dtype)
    x, y = (image.permute(2, 0, 1) for image in (render, truth))
    channels = len(x)
    moments = torch.cat([x, y, x * x, y * y, x * y])[None]
    for shape in ((1, 1, WINDOW, 1), (1, 1, 1, WINDOW)):
        weight = taps.reshape(shape).expand(5 * channels, *shape[1:])
        moments = F.conv2d(moments, weight, groups=5 * channels)
    a, b, aa, bb, ab = moments[0].split(channels)
    luminance = (2 * a * b + C1) / (a * a + b * b + C1)
    contrast = (2 * (ab - a * b) + C2) / (aa - a * a + bb - b * b + C2)
    return (1 - ssim_lambda) * (render - truth).abs().mean() + ssim_lambda * (1 - (luminance * contrast).mean())


class _L1Dssim(torch.autograd.Function):
    """The native kernel. The gradient is made in the forward pass, which has the blurred moments at hand."""

    @staticmethod
    def forward(ctx: Any, render: Tensor, truth: Tensor, ssim_lambda: float) -> Tensor:
        kernels = native()
        assert kernels is not None
        render, truth = render.contiguous(), truth.to(render.dtype).contiguous()
        height, width, channels = render.shape
        maps = gradient = None
        if ctx.needs_input_grad[0]:
            maps = render.new_empty(3 * (height - WINDOW + 1) * (width - WINDOW + 1) * channels)
            gradient = torch.empty_like(render)
        parts = render.new_empty(2)  # mean L1, mean SSIM
        kernels.call(
            "l1_ssim", render.dtype, height, width, channels, render, truth, ssim_lambda, maps, gradient, parts
        )  # fmt: skip
        ctx.gradient = gradient
        return (1 - ssim_lambda) * parts[0] + ssim_lambda * (1 - parts[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return ctx.gradient * grad, None, None
