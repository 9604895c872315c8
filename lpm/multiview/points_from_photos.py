"""Points to start from where a scene has none: surfaces that the photos see, found by comparing them.

Cameras are known, depths are not. Neighbours are first guessed from the cameras alone, for surfaces at several
distances; a few patches compared with those tell roughly where the scene is, and so who really sees the same; then
patches all over the photos get a depth (lpm.multiview.plane_sweep), and the sure ones become points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lpm.multiview.covisibility import covisible
from lpm.multiview.plane_sweep import plane_sweep
from lpm.multiview.views import Views, angle, centres_of, in_image, project, unproject
from lpm.multiview.visibility import BEST_PARALLAX, FEWEST

DISTANCES = (0.4, 0.65, 1.0, 1.6, 2.5)
"""Where a surface may be, times the distance to what the cameras look at."""
NEAREST = 0.2
"""Nearer than this share of the distance to what the cameras look at no point is looked for."""
CANDIDATES = 64
"""Photos of the same time, the nearest, that a photo may be compared with."""
WORTH = 0.05
"""Mean over DISTANCES of overlap times suitable parallax, below which two photos are not compared."""
FIRST_TRY, PATCHES = 4_000, 20_000
"""Patches by which the scene is found, and those that may become points."""


def points_from_photos(views: Views, patches: int = PATCHES) -> tuple[Tensor, Tensor]:
    """Points [N, 3] (world) and colours [N, 3] (uint8) where at least three photos agree on a depth.

    About `patches` places, evenly spread over the photos, are tried; N is a tenth (plain walls) to two thirds of it.
    Takes .2 ms a patch, and some ms a photo, on a CPU core. The same points for any number of threads.
    """
    distance = looked_at(views.viewmats)
    neighbours, nowhere = guess_neighbours(views, distance), torch.full_like(distance, torch.inf)
    xyz, _ = _sure(views, *_places(views, min(FIRST_TRY, patches)), neighbours, NEAREST * distance, nowhere)
    known = covisible(views, xyz).neighbours
    neighbours = torch.where((known >= 0).any(1, keepdim=True), known, neighbours)
    return _sure(views, *_places(views, patches), neighbours, *_range(views, xyz, NEAREST * distance, nowhere))


def looked_at(viewmats: Tensor) -> Tensor:
    """[V] distance (world) from each camera [V, 4, 4] to the point nearest to all their axes (least squares).

    Where there is no such point, or it is behind or next to the camera: the largest distance between cameras.
    """
    origins, axes = centres_of(viewmats).double(), viewmats[:, 2, :3].double()
    across = torch.eye(3, dtype=torch.float64, device=viewmats.device) - axes[:, :, None] * axes[:, None, :]
    spread = (origins - origins.mean(0)).norm(dim=1).max().mul(2).clamp_min(1e-3).expand(len(axes))
    total = across.sum(0)
    if len(axes) < 2 or float(torch.linalg.cond(total)) > 1e6:
        distances: Tensor = spread.to(viewmats)
        return distances
    point = torch.linalg.solve(total, (across @ origins[:, :, None]).sum(0)[:, 0])
    depth = ((point - origins) * axes).sum(1)
    return torch.where(depth > 0.1 * spread, depth, spread).to(viewmats)


def guess_neighbours(views: Views, distance: Tensor, most: int = 4) -> Tensor:
    """[V, most] int64, photos to compare each with, best first (-1: none), while nothing is known of the scene.

    Ranked as covisible() does, for surfaces at DISTANCES times `distance` [V] (world) in place of points: by the mean.
    """
    count, centres = len(views), centres_of(views.viewmats)
    result = torch.full((count, most), -1, dtype=torch.int64, device=views.device)
    side = torch.linspace(0.1, 0.9, 9, device=views.device)
    grid = torch.cartesian_prod(side, side)
    sizes = views.sizes
    for v in range(count):
        apart = (centres - centres[v]).norm(dim=1)
        if views.capture_times is not None:
            apart = torch.where(views.capture_times == views.capture_times[v], apart, torch.inf)
        apart[v] = torch.inf
        near = apart.argsort(stable=True)[:CANDIDATES]
        near = near[torch.isfinite(apart[near])]
        worth = torch.zeros(len(near), device=views.device)
        for share in DISTANCES if len(near) else ():
            z = (share * distance[v]).expand(len(grid))
            own = unproject(grid * sizes[v], z, views.viewmats[v], views.Ks[v])
            parallax = angle(centres[v] - own, centres[near, None] - own).median(1).values.clamp_min(1e-3)
            inside = in_image(*project(own, views.viewmats[near], views.Ks[near]), sizes[near])
            worth += inside.float().mean(1) * torch.exp(-(parallax / BEST_PARALLAX).log().square())
        order = worth.argsort(descending=True, stable=True)[:most]
        result[v, : len(order)] = torch.where(worth[order] > WORTH * len(DISTANCES), near[order], -1)
    return result


def _sure(
    views: Views, view: Tensor, pixels: Tensor, neighbours: Tensor, near: Tensor, far: Tensor
) -> tuple[Tensor, Tensor]:
    """Points and colours of the patches whose depth, between `near` and `far` [V], is sure."""
    found = plane_sweep(views, view, pixels, neighbours, near[view], far[view])
    view, pixels, depth = view[found.confident], pixels[found.confident], found.depth[found.confident]
    rgb = torch.zeros(len(view), 3, dtype=torch.uint8)
    for v in view.unique().tolist():
        rgb[(view == v).cpu()] = views.colors(v, pixels[view == v])
    return unproject(pixels, depth, views.viewmats[view], views.Ks[view]), rgb


def _range(views: Views, xyz: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """[V] depths between which to look: around those of `xyz` [N, 3] that a view may see, else `near` and `far`."""
    near, far = near.clone(), far.clone()
    pixels, z = project(xyz, views.viewmats, views.Ks)
    inside = in_image(pixels, z, views.sizes)
    for v in range(len(views)):
        seen = z[v, inside[v]]
        if len(seen) >= FEWEST:
            near[v], far[v] = 0.5 * seen.quantile(0.02), 3.0 * seen.quantile(0.98)
    return near, far


def _places(views: Views, most: int) -> tuple[Tensor, Tensor]:
    """About `most` places on a grid over all photos: view [P] int64 and pixels [P, 2]."""
    step = max(4.0, (float(views.sizes.prod(1).sum()) / most) ** 0.5)
    view, pixels = [], []
    for v, size in enumerate(views.sizes.tolist()):
        x, y = ((torch.arange(n := max(1, round(side / step))) + 0.5) * side / n for side in size)
        pixels.append(torch.cartesian_prod(x, y))
        view.append(torch.full((len(pixels[-1]),), v))
    return torch.cat(view).to(views.device), torch.cat(pixels).to(views.device)
