"""The photometric loss of 3DGS: (1 - lambda) L1 + lambda (1 - SSIM) (Kerbl 2023, eq. 7; SSIM: Wang 2004).

One native kernel computes value and gradient, on CUDA the pooled residuals of the step too; without a compiler its
torch twin serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.cuda.device import DeviceLibrary, device_kernels
from lpm.cuda.native import native

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class TileRequest:
    """Asks the loss for the step's residuals as lpm.zones.error_maps.tile_errors has them, from the same pass."""

    tile: int
    """Pixels, a multiple of `stride`."""
    stride: int
    dssim: float
    keep: float
    """Share of `old` in the moving average."""
    mask: Tensor | None = None
    """[H, W] bool."""
    old: Tensor | None = None
    """[rows, columns], the map so far."""


def l1_dssim(render: Tensor, truth: Tensor, ssim_lambda: float) -> Tensor:
    """Scalar loss of `render` against `truth`, both [H, W, C] in 0..1.

    SSIM has an 11x11 Gaussian window of sigma 1.5, applied without padding; images smaller than that are compared by
    L1 alone. Not differentiable in `truth`, and once only in `render`.
    """
    return l1_dssim_and_tiles(render, truth, ssim_lambda, None)[0]


def l1_dssim_and_tiles(
    render: Tensor, truth: Tensor, ssim_lambda: float, tiles: TileRequest | None
) -> tuple[Tensor, Tensor | None]:
    """l1_dssim, and what `tiles` asks for: the next error map [rows, columns], without a gradient.

    It is None where nothing is asked, images have not three channels, and everywhere but on CUDA: elsewhere it would
    not save a pass over both images.
    """
    if ssim_lambda == 0 or min(render.shape[:2]) < WINDOW:
        return (render - truth).abs().mean(), None
    on_device = device_kernels(render.device)
    if on_device is not None:
        return l1_dssim_device(on_device, render, truth, ssim_lambda, tiles)
    if render.device.type == "cpu" and native() is not None:
        loss: Tensor = _L1Dssim.apply(render, truth, ssim_lambda)  # type: ignore[no-untyped-call]  # of torch
        return loss, None
    return l1_dssim_torch(render, truth, ssim_lambda), None


def l1_dssim_device(
    kernels: DeviceLibrary, render: Tensor, truth: Tensor, ssim_lambda: float, tiles: TileRequest | None = None
) -> tuple[Tensor, Tensor | None]:
    """The CUDA kernel, or in tests the same loops on the host; see l1_dssim_and_tiles."""
    loss: Tensor
    error_map: Tensor | None
    loss, error_map = _DeviceL1Dssim.apply(render, truth, ssim_lambda, tiles, kernels)  # type: ignore[no-untyped-call]
    return loss, error_map


def l1_dssim_torch(render: Tensor, truth: Tensor, ssim_lambda: float) -> Tensor:
    """The torch twin of the native kernel; see l1_dssim."""
    ssim = ssim_map(render, truth).mean()
    loss: Tensor = (1 - ssim_lambda) * (render - truth).abs().mean() + ssim_lambda * (1 - ssim)
    return loss


def ssim_map(render: Tensor, truth: Tensor, pad: bool = False) -> Tensor:
    """[C, H, W] SSIM around each pixel of two images [H, W, C]; without `pad` only where the window lies inside."""
    x, y = (image.permute(2, 0, 1) for image in (render, truth))
    a, b, aa, bb, ab = window_means(torch.cat([x, y, x * x, y * y, x * y]), pad).split(len(x))
    luminance = (2 * a * b + C1) / (a * a + b * b + C1)
    contrast = (2 * (ab - a * b) + C2) / (aa - a * a + bb - b * b + C2)
    ssim: Tensor = luminance * contrast
    return ssim


def window_means(images: Tensor, pad: bool = False) -> Tensor:
    """[N, H, W] under the window of SSIM; without `pad`, by zeros, only where it lies inside."""
    offset = torch.arange(WINDOW, device=images.device, dtype=torch.float64) - WINDOW // 2
    taps = torch.exp(-(offset**2) / (2 * SIGMA**2))
    taps = (taps / taps.sum()).to(images.dtype)
    means, count = images[None], len(images)  # channels, not a batch: on a CPU 25 times as fast
    for shape in ((WINDOW, 1), (1, WINDOW)):
        padding = (shape[0] // 2, shape[1] // 2) if pad else (0, 0)
        means = F.conv2d(means, taps.reshape(1, 1, *shape).expand(count, 1, *shape), padding=padding, groups=count)
    return means[0]


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
        loss = render.new_empty(())
        kernels.call("l1_ssim", render.dtype, height, width, channels, render, truth, ssim_lambda, maps, gradient, loss)
        ctx.gradient = gradient
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # Nearly always a sum's one: the gradient need not be written anew then.
        return ctx.gradient if float(grad.detach().numpy()) == 1 else ctx.gradient * grad, None, None


class _DeviceL1Dssim(torch.autograd.Function):
    """The CUDA kernel; here, too, the forward pass makes the gradient."""

    @staticmethod
    def forward(
        ctx: Any, render: Tensor, truth: Tensor, ssim_lambda: float, tiles: TileRequest | None, kernels: DeviceLibrary
    ) -> tuple[Tensor, Tensor | None]:
        render, truth = render.contiguous(), truth.to(render.dtype).contiguous()
        height, width, channels = render.shape
        gradient = torch.empty_like(render) if ctx.needs_input_grad[0] else None
        parts = render.new_empty(2)  # mean L1, mean SSIM
        scratch = kernels.loss_scratch(height, width, channels, render)
        pooled: list[Any] = [1, 1, None, None, 0.0, 0.0, None]
        error_map = None
        if tiles is not None and channels == 3:
            error_map = render.new_empty(-(-height // tiles.tile), -(-width // tiles.tile))
            mask = None if tiles.mask is None else tiles.mask.contiguous()
            old = None if tiles.old is None else tiles.old.to(render.dtype).contiguous()
            pooled = [tiles.stride, tiles.tile // tiles.stride, mask, old, tiles.dssim, tiles.keep, error_map]
        kernels.call(
            "loss", render.dtype, height, width, channels, render, truth, ssim_lambda, *pooled, scratch, gradient, parts
        )  # fmt: skip
        ctx.gradient = gradient
        ctx.set_materialize_grads(False)  # of the map: zeros that nobody reads
        if error_map is not None:
            ctx.mark_non_differentiable(error_map)
        return (1 - ssim_lambda) * parts[0] + ssim_lambda * (1 - parts[1]), error_map

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, None, None, None, None]:
        return None if grad is None else ctx.gradient * grad, None, None, None, None
