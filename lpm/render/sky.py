"""What is seen where no Gaussian is: a learnt colour, or learnt spherical harmonics over directions (a sky).

coefficients [K, 3], of SH degree 0 to 3 (K = 1, 4, 9, 16), in the convention of the Gaussians' colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.gaussians.spherical_harmonics import rgb_to_sh0, sh_colors
from lpm.multiview.views import rays

KINDS = {"constant": 1, "sphere": 16}
"""Kinds of sky, and how many SH coefficients each has."""
STEP, FEWEST = 8, 33
"""Pixels between directions that are evaluated, and at least so many along a side: harmonics of degree 3 are smooth."""
DOME = 3_000
"""Gaussians that stand for the sky in programs that know of none."""
FAR = 20.0
"""Radius of the dome, times the distance within which nearly all points are; from far away it stands still."""


def sky_colors(coefficients: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int) -> Tensor:
    """[height, width, 3] colours, at least 0, that a camera [4, 4], [3, 3] sees behind everything.

    Evaluated at about every eighth pixel and interpolated; differentiable with respect to the coefficients.
    """
    if len(coefficients) == 1:
        return sh_colors(0, viewmat.new_ones(1, 3), coefficients[None])[0].expand(height, width, 3)
    columns, rows = (max(2, min(side, max(FEWEST, math.ceil(side / STEP) + 1))) for side in (width, height))
    x, y = (torch.linspace(0.5, side - 0.5, n, device=viewmat.device) for side, n in ((width, columns), (height, rows)))
    y, x = torch.meshgrid(y, x, indexing="ij")
    local = rays(torch.stack([x, y], -1).reshape(-1, 2).to(viewmat), K)
    directions = (viewmat[:3, :3] * local[:, :, None]).sum(1)  # to the world: the transpose of a rotation
    degree = math.isqrt(len(coefficients)) - 1
    colors = sh_colors(degree, directions, coefficients[None].expand(len(directions), -1, -1))
    grid = colors.T.reshape(1, 3, rows, columns)
    return F.interpolate(grid, (height, width), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)


def dome(coefficients: Tensor, params: Mapping[str, Tensor], count: int = DOME) -> dict[str, Tensor]:
    """Rows like those of `params` (lpm.gaussians) that show the sky: large Gaussians on a far sphere."""
    means = params["means"].detach().float()
    means = means[torch.isfinite(means).all(1)]
    if len(means) == 0:  # what is to be drawn or written says so
        return {name: value[:0] for name, value in params.items()}
    centre = means.median(0).values
    radius = FAR * float((means - centre).norm(dim=1).kthvalue(max(1, round(0.99 * len(means)))).values)
    turn = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * turn + 1) / count  # Fibonacci's sphere: every point has the same share of the area
    ring, angle = (1 - z * z).sqrt(), turn * math.pi * (3 - math.sqrt(5))
    directions = torch.stack([ring * angle.cos(), ring * angle.sin(), z], 1).float()
    degree = math.isqrt(len(coefficients)) - 1
    colors = sh_colors(degree, directions, coefficients.detach().float().cpu()[None].expand(count, -1, -1))
    size = math.log(0.7 * radius * math.sqrt(4 * math.pi / count))
    rows = {
        "means": centre.cpu() + radius * directions,
        "scales": torch.full((count, 3), size),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        "features_dc": rgb_to_sh0(colors),
        "opacities": torch.full((count, 1), 6.0),
        "gates": torch.full((count, 1), 9.0),  # of points that move: it is always there
    }
    zero = {name: torch.zeros(count, *value.shape[1:]) for name, value in params.items()}
    return {name: rows.get(name, zero[name]).to(value) for name, value in params.items()}
