"""Depth where cameras stand too far apart to compare photos: the error itself must be in the same place for all.

Every camera of one time sees the errors of that time as tiles. What causes an error stands where the cones of such
tiles meet, as a visual hull is where silhouettes meet (Laurentini 1994). Two cameras under a wide angle bound it well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lpm.multiview.views import Views, in_image, project, unproject

STEPS = 48
"""Depths that are tried along a ray."""
ALONE = 0.1
"""Difference of colour (0..1) by which a place that one camera looks at must fit better than one of many."""


def error_hull(
    views: Views,
    view: int,
    others: list[int],
    maps: list[Tensor],
    tile: int,
    threshold: float,
    pixels: Tensor,
    near: Tensor,
    far: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest, farthest and most likely z-depth [P] (world) of what causes the errors at `pixels`; NaN: not known.

    A depth is possible if all of the `others` that look there have a bad tile there: two of them at least, or one where
    no more look at any depth. The interval is the longest run of such depths; the most likely one is that at which the
    photos differ least in colour.

    Args:
        view: of the pixels. others: views of the same time. maps: their tile errors [rows, columns].
        tile: side in pixels. threshold: error from which a tile is bad.
        pixels: [P, 2]. near, far: [P] range of depths, world.
    """
    unknown = torch.full_like(near, torch.nan)
    if not others or len(pixels) == 0:
        return unknown, unknown, unknown
    share = torch.linspace(0, 1, STEPS, device=pixels.device)
    far = torch.minimum(far, 1e4 * near)
    depth = 1 / (1 / near + (1 / far - 1 / near) * share[:, None])  # [S, P], evenly spaced in 1 / depth
    points = unproject(pixels.repeat(STEPS, 1), depth.flatten(), views.viewmats[view], views.Ks[view])
    own = _color(views, view, pixels)
    looks, bad, difference = (torch.zeros_like(depth) for _ in range(3))
    for v, error in zip(others, maps, strict=True):
        place, z = project(points, views.viewmats[v], views.Ks[v])
        inside = in_image(place, z, views.sizes[v])
        at = torch.where(inside[:, None], place, 0.0)
        column, row = (at / tile).long().unbind(-1)
        is_bad = error[row.clamp_max(error.shape[0] - 1), column.clamp_max(error.shape[1] - 1)] > threshold
        looks += inside.reshape(depth.shape)
        bad += (inside & is_bad).reshape(depth.shape)
        other = (_color(views, v, at).reshape(*depth.shape, 3) - own).abs().mean(-1)
        difference += torch.where(inside.reshape(depth.shape), other, 0.0)
    # A camera from the other side looks along the same ray: alone it bounds nothing.
    enough = looks.amax(0).clamp(1, 2)
    possible = (looks >= enough) & (bad == looks)
    length = torch.zeros_like(depth)  # of the run of possible depths that ends here
    run = torch.zeros_like(near)
    for s in range(STEPS):
        run = torch.where(possible[s], run + 1, 0.0)
        length[s] = run
    longest, end = length.max(0)
    start = end - longest.long() + 1
    found = longest > 0
    step = torch.arange(STEPS, device=pixels.device)[:, None]
    mine = (step >= start) & (step <= end)
    # The more cameras look at a place the more it means that they agree.
    best = torch.where(mine, (difference + ALONE) / looks.clamp_min(1), torch.inf).argmin(0)
    columns = torch.arange(len(near), device=pixels.device)
    # Half a step to both sides: what lies between two depths that were tried belongs to one of them.
    low, high = (start - 1).clamp_min(0), (end + 1).clamp_max(STEPS - 1)
    return tuple(  # type: ignore[return-value]
        torch.where(found, depth[index, columns], torch.nan) for index in (low, high, best)
    )


def _color(views: Views, view: int, pixels: Tensor) -> Tensor:
    """[P, 3] colours of a photo, 0..1."""
    image = views.images[view]
    height, width = image.shape[:2]
    column, row = pixels.long().to(image.device).unbind(-1)
    rgb = image[row.clamp(0, height - 1), column.clamp(0, width - 1), :3].to(pixels.device)
    return rgb if rgb.is_floating_point() else rgb / 255
