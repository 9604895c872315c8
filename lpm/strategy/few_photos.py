"""Points that few photos look at: weights in the loss keep them from being opaque and large.

Few photos leave it open how far away what they show is, and how opaque. They are drawn as well by opaque points that
stand in wrong places along their rays as by many that let light through; views between the photos, and past the edge of
what they show, get worse while training views get better (docs/long_runs.md). So these points have a weight on opacity
and scale in the loss, as all have in 3DGS-MCMC (arXiv 2404.09591, section 4.3). Where many photos look they say what is
opaque, and the weight would only cost sharpness.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lpm.cuda.device import DeviceLibrary, device_kernels, on_host
from lpm.multiview.views import MANY_CENTRES, NEAREST, Views, in_image, project
from lpm.sending import sent

GOLDEN = 0.6180339887
"""Share of the photos from one that is asked to the next: no two neighbours soon after one another."""


def seen_by_few(means: Tensor, views: Views, few: int) -> Tensor:
    """[N] bool: at most `few` photos hold the centre of a point [N, 3] (world), whatever stands before it.

    Most points are held by more than `few` of the first photos that are asked, and the others are asked about the rest.
    """
    order = (torch.arange(len(views)) * GOLDEN).frac().argsort()
    kernels = device_kernels(means.device)
    if means.device.type == "cpu" and len(views) > MANY_CENTRES:  # one photo after the other takes seconds
        kernels = on_host()
    if kernels is not None:
        return seen_by_few_native(kernels, means, views, few, sent(order, means.device))
    return seen_by_few_torch(means, views, few, order.tolist())


def seen_by_few_torch(means: Tensor, views: Views, few: int, order: list[int]) -> Tensor:
    """The torch twin of the kernel; the photos are asked in `order`."""
    count = torch.zeros(len(means), dtype=torch.int64, device=means.device)
    rest = torch.arange(len(means), device=means.device)
    for v in order:
        pixels, z = project(means[rest], views.viewmats[v], views.Ks[v])
        count[rest] += in_image(pixels, z, views.sizes[v])
        if means.device.type == "cpu":  # a GPU would have to be waited for
            rest = rest[count[rest] <= few]
    return count <= few


def seen_by_few_native(kernels: DeviceLibrary, means: Tensor, views: Views, few: int, order: Tensor) -> Tensor:
    """The kernel: one look at each point, which ends with the photo that decides; see seen_by_few."""
    cameras = (views.Ks @ views.viewmats[:, :3])[order].to(means.dtype).contiguous()
    sizes = views.sizes[order].to(means.dtype).contiguous()
    held = torch.empty(len(means), dtype=torch.bool, device=means.device)
    kernels.call(
        "seen_by_few", means.dtype, len(means), len(order), few, NEAREST, means.contiguous(), cameras, sizes, held
    )
    return held


def weights(params: Any, rows: Tensor, opacity_reg: float, scale_reg: float) -> dict[str, Tensor]:
    """Terms of the loss, by name: the opacities of `rows` [N] bool and their scales (world), over all N, weighted."""
    terms = {}
    if opacity_reg > 0:
        terms["opacity_reg"] = opacity_reg * (torch.sigmoid(params["opacities"]).flatten() * rows).mean()
    if scale_reg > 0:
        terms["scale_reg"] = scale_reg * (params["scales"].exp() * rows[:, None]).mean()
    return terms
