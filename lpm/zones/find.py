"""From the error maps of a few views to their zones: bad tiles, depth by the photos, kind of each tile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lpm.multiview.photo_graph import PhotoGraph
from lpm.multiview.plane_sweep import plane_sweep
from lpm.sending import brought, sent
from lpm.zones.error_maps import TILE, ErrorMaps, coarse
from lpm.zones.point_errors import Evidence, depth_ranges
from lpm.zones.zone import FALSE_FRONT, NO_EVIDENCE, UNDER_RESOLVED, ViewZones, classify, regions

Hull = Callable[[int, float, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
AGREE = 1.1
"""Features of one tile whose depths are within this ratio lie on one surface."""


def feature_depths(pixels: Tensor, depth: Tensor, grid: tuple[int, int], tile: int = TILE) -> tuple[Tensor, Tensor]:
    """Nearest and farthest z-depth [rows * columns] of each tile's features where they lie on one surface, else NaN.

    Args:
        pixels: [M, 2]. depth: [M], z, world. grid: rows, columns.
    """
    rows, columns = grid
    column, row = (pixels / tile).long().unbind(-1)
    cell = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
    near = depth.new_full((rows * columns,), torch.inf).scatter_reduce_(0, cell, depth, "amin")
    far = depth.new_full((rows * columns,), -torch.inf).scatter_reduce_(0, cell, depth, "amax")
    count = torch.zeros_like(near).index_add_(0, cell, torch.ones_like(depth))
    one_surface = (count >= 2) & (far <= AGREE * near)  # a single match may be a false one
    return torch.where(one_surface, near, torch.nan), torch.where(one_surface, far, torch.nan)


def find_zones(
    photo_graph: PhotoGraph,
    neighbours: Tensor,
    chosen: list[int],
    errors: ErrorMaps,
    evidence: list[Evidence],
    threshold: float,
    most_tiles: int,
    hull: Hull | None = None,
) -> list[ViewZones]:
    """Zones of the `chosen` views.

    A tile's depth is that of the plane sweep where it is confident, else that of at least two matched features in it.

    Args:
        neighbours: [V, k]. errors: of all views. evidence: of each chosen view.
        threshold: error above which a tile is bad.
        most_tiles: at most so many tiles are given a depth, the worst ones; it bounds the time of an event.
        hull: (view, threshold, pixels, near, far) -> error_hull()'s depths of tiles that have none by the photos.
            Nothing is taken for a false front by them.

    Returns:
        One ViewZones for each chosen view, in their order; a view without a bad tile has labels of 0 only.
    """
    views = photo_graph.views
    sizes = [(int(views.images[v].shape[1]), int(views.images[v].shape[0])) for v in chosen]
    maps = [coarse(errors.maps[v], size, TILE, errors.tile) for v, size in zip(chosen, sizes, strict=True)]
    here = brought(maps)  # which tiles are bad, the host finds out, so that it knows how many without a wait
    worst = torch.cat([m.flatten() for m in here])
    threshold = max(threshold, float(worst.topk(min(most_tiles, len(worst))).values[-1]))
    found, places = [], []
    for i, (v, size, error) in enumerate(zip(chosen, sizes, here, strict=True)):
        at = (error > threshold).nonzero()
        x = (at[:, 1] * TILE + TILE / 2).clamp(max=size[0] - 1)
        y = (at[:, 0] * TILE + TILE / 2).clamp(max=size[1] - 1)
        places.append(torch.stack([torch.full((len(at),), i), x, y], 1))
        empty = torch.full_like(maps[i], torch.inf)
        kind = torch.full_like(maps[i], -1, dtype=torch.int64)
        labels = regions(error, threshold)
        unknown = torch.full_like(empty, torch.nan)
        found.append(ViewZones(v, views.viewmats[v], views.Ks[v], size, TILE, empty, -empty, unknown, labels, kind))
    count = [len(p) for p in places]
    if sum(count) == 0:
        return found
    near, far = depth_ranges(evidence)
    place = sent(torch.cat(places), views.device)
    which, pixels = place[:, 0].long(), place[:, 1:].float()
    near, far = near[which], far[which]
    view = sent(torch.tensor(chosen).repeat_interleave(torch.tensor(count)), views.device)
    sweep = plane_sweep(views, view, pixels, neighbours, near, far)
    start = 0
    for zones, seen, place in zip(found, evidence, pixels.split(count), strict=True):
        mine = slice(start, start + len(place))
        start += len(place)
        column, row = place[:, 0].long(), place[:, 1].long()
        cell = (row // TILE, column // TILE)
        grid = (zones.near.shape[0], zones.near.shape[1])
        by_feature = [d.reshape(grid)[cell] for d in feature_depths(*photo_graph.features(zones.view), grid)]
        swept = sweep.confident[mine]
        # The interval is where the photos agree; a little more keeps points on a slanted surface inside.
        low = torch.where(swept, sweep.interval[mine, 0], by_feature[0]) * 0.99
        high = torch.where(swept, sweep.interval[mine, 1], by_feature[1]) * 1.01
        known = torch.isfinite(low) & torch.isfinite(high)
        middle = torch.where(swept, sweep.depth[mine], (low + high) / 2)
        by_hull = torch.zeros_like(known)
        if hull is not None:
            depths = hull(zones.view, threshold, place, near[mine], far[mine])
            by_hull = ~known & torch.isfinite(depths[0])
            low, high, middle = (torch.where(by_hull, a, b) for a, b in zip(depths, (low, high, middle), strict=True))
            known = known | by_hull
        width, height = zones.size
        drawn = (row * seen.depth.shape[0] // height, column * seen.depth.shape[1] // width)
        kind = classify(torch.stack([low, high], 1), known, seen.depth[drawn], seen.alpha[drawn])
        kind = kind.masked_fill(by_hull & (kind == FALSE_FRONT), UNDER_RESOLVED)
        zones.kind[cell] = kind
        known = kind != NO_EVIDENCE
        zones.depth[cell] = torch.where(known, middle, torch.nan)
        zones.near[cell] = torch.where(known, low, torch.inf)
        zones.far[cell] = torch.where(known, high, -torch.inf)
    return found
