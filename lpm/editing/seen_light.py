"""What cameras see of each Gaussian: the light that it stops, in pixels, and whether they draw it at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lpm.multiview.views import Views
from lpm.render.rasterize import RasterizeMode, rasterize


def stopped_light(params: Mapping[str, Tensor], views: Views, mode: RasterizeMode) -> Iterator[Tensor]:
    """For each of `views` [N]: sums over its pixels of the weights with which Gaussians are blended, on the CPU.

    They are gradients: of the sum of a picture with respect to the Gaussians' values, since a pixel is a weighted sum
    of these. What is hidden gets nothing.
    """
    device = views.device
    means, quats, scales = (params[name].detach().float().to(device) for name in ("means", "quats", "scales"))
    alpha = torch.sigmoid(params["opacities"].detach().float().to(device)).reshape(-1)
    for v, (width, height) in enumerate(views.sizes.long().tolist()):
        value = torch.zeros(len(means), 3, device=device, requires_grad=True)
        picture, _, _ = rasterize(
            means, quats, scales.exp(), alpha, value, views.viewmats[v, None], views.Ks[v, None], width, height,
            rasterize_mode=mode,
        )  # fmt: skip
        gone = torch.zeros(len(means))
        if picture.requires_grad:
            picture[..., 0].sum().backward()
            gone = gone if value.grad is None else value.grad[:, 0].cpu()
        yield gone


@torch.no_grad()
def drawn_by_fewer(params: Mapping[str, Tensor], views: Views, photos: int, mode: RasterizeMode) -> Tensor:
    """[N] bool: fewer than `photos` of `views` have a pixel that it reaches, whatever stands before it.

    Not the light that is seen: where floaters hide what is behind them, that is what is to be kept.
    """
    device = views.device
    means, quats, scales = (params[name].detach().float().to(device) for name in ("means", "quats", "scales"))
    alpha = torch.sigmoid(params["opacities"].detach().float().to(device)).reshape(-1)
    count, value = torch.zeros(len(means), dtype=torch.int64, device=device), torch.zeros(len(means), 1, device=device)
    for v, (width, height) in enumerate(views.sizes.long().tolist()):
        info = rasterize(
            means, quats, scales.exp(), alpha, value, views.viewmats[v, None], views.Ks[v, None], width, height,
            rasterize_mode=mode,
        )[2]  # fmt: skip
        count += (info["radii"][0] > 0).all(-1)
    return (count < photos).cpu()
