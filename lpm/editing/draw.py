"""What a camera shows of a model that is edited."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lpm.editing.cameras import Cameras
from lpm.render.rasterize import RasterizeMode, rasterize


def drawn(
    params: Mapping[str, Tensor], cameras: Cameras, v: int, background: Tensor, mode: RasterizeMode
) -> tuple[Tensor, Tensor]:
    """Colours [H, W, 3] over `background` [3] (not clamped) and alpha [H, W, 1] of camera `v`; differentiable."""
    width, height = cameras.sizes[v].tolist()
    color, alpha, _ = rasterize(
        params["means"],
        params["quats"],
        params["scales"].exp(),
        torch.sigmoid(params["opacities"]).reshape(-1),
        (params["features_dc"][:, None], params["features_rest"]),
        cameras.viewmats[v, None],
        cameras.Ks[v, None],
        width,
        height,
        sh_degree=math.isqrt(params["features_rest"].shape[1] + 1) - 1,
        backgrounds=background[None],
        rasterize_mode=mode,
    )
    return color.squeeze(0), alpha.squeeze(0)
