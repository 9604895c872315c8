"""How far away the surface is that a camera sees of a model: the median depth of the light that reaches a pixel.

Not the mean, which rasterizers blend as they blend colours: of a surface that lets a tenth of the light through it lies
well behind the surface (docs/export.md has both measured). Half of what is seen of a pixel lies before the median. Here
the points are cut into slices of depth, each drawn as a channel; the median is the mean depth in the slice that it
falls into.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lpm.editing.cameras import Cameras
from lpm.editing.draw import drawn
from lpm.exporting.tsdf import DepthMap
from lpm.render.rasterize import MAX_CHANNELS, RasterizeMode, rasterize

ALPHA = 0.5
"""A pixel where less than this share of the light is stopped shows no surface."""
NEAR = 0.01  # world units, the rasterizer's near plane


@torch.no_grad()
def seen_surface(params: Mapping[str, Tensor], cameras: Cameras, v: int, mode: RasterizeMode) -> DepthMap:
    """What camera `v` sees of `params` (lpm.gaussians, on the device of `cameras`)."""
    width, height = cameras.sizes[v].tolist()
    viewmat, K = cameras.viewmats[v], cameras.Ks[v]
    color, alpha = drawn(params, cameras, v, torch.zeros(3, device=viewmat.device), mode)
    z = params["means"] @ viewmat[2, :3] + viewmat[2, 3]
    ahead = z[z > NEAR].sort().values
    # As many points in each slice: slices are thin where much is.
    at = torch.linspace(0, len(ahead), MAX_CHANNELS + 1)[1:-1].long()
    edges = ahead[at.to(z.device)] if len(ahead) else z.new_zeros(MAX_CHANNELS - 1)
    slices = torch.nn.functional.one_hot(torch.bucketize(z, edges), MAX_CHANNELS).to(z.dtype)

    def blended(values: Tensor) -> Tensor:
        """[H, W, 16] of values [N, 16]."""
        picture, _, _ = rasterize(
            params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).reshape(-1),
            values, viewmat[None], K[None], width, height, near_plane=NEAR, rasterize_mode=mode,
        )  # fmt: skip
        return picture.squeeze(0)

    light, depths = blended(slices), blended(slices * z[:, None])
    median = (light.cumsum(-1) >= alpha / 2).int().argmax(-1, keepdim=True)
    depth = depths.gather(-1, median) / light.gather(-1, median).clamp_min(1e-6)
    depth = torch.where(alpha > ALPHA, depth, 0.0).squeeze(-1)
    return DepthMap(depth, (color.clamp(0, 1) * 255).round().byte(), viewmat, K)
