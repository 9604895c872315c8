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
PAIRS = 2
"""Other photos that must confirm a depth: by one alone two to three of ten are wrong, whatever its score."""


def feature_depths(cell: Tensor, depth: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Nearest and farthest z-depth [cells] of each tile's features where they lie on one surface, else NaN.

    Args:
        cell: [M] int64, the tile that a feature is in. depth: [M], z, world.
    """
    near = depth.new_full((cells,), torch.inf).scatter_reduce_(0, cell, depth, "amin")
    far = depth.new_full((cells,), -torch.inf).scatter_reduce_(0, cell, depth, "amax")
    count = torch.zeros_like(near).index_add_(0, cell, torch.ones_like(depth))
    one_surface = (count >= 2) & (far <= AGREE * near)  # a single match may be a false one
    return torch.where(one_surface, near, torch.nan), torch.where(one_surface, far, torch.nan)


def _features(photo_graph: PhotoGraph, chosen: list[int], grids: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """feature_depths() of the tiles of all `chosen` views, one view after the other, whose tiles are `grids`."""
    found = [photo_graph.features(v) for v in chosen]
    bounds = [(columns, rows, first) for (rows, columns), first in zip(grids, _starts(grids), strict=True)]
    device = photo_graph.views.device
    told = sent(bounds, device).repeat_interleave(  # a number for each feature, without a wait
        sent([len(d) for _, d in found], device), 0, output_size=sum(len(d) for _, d in found)
    )
    columns, rows, first = told.unbind(1)
    column, row = (torch.cat([pixels for pixels, _ in found]) / TILE).long().unbind(-1)
    column, row = column.clamp_min(0).minimum(columns - 1), row.clamp_min(0).minimum(rows - 1)
    depth = torch.cat([d for _, d in found])
    return feature_depths(first + row * columns + column, depth, sum(r * c for r, c in grids))


def _starts(shapes: list[tuple[int, int]]) -> list[int]:
    """Where maps of `shapes` begin when they lie one after the other."""
    sizes = [rows * columns for rows, columns in shapes]
    return [sum(sizes[:i]) for i in range(len(sizes))]


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

    A tile's depth is that of the plane sweep where it is confident, and not by one other photo alone, else that of at
    least two matched features in it.

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
    grids = [(m.shape[0], m.shape[1]) for m in here]
    places = _bad_tiles(here, sizes, threshold, [(e.depth.shape[0], e.depth.shape[1]) for e in evidence])
    cells = sum(rows * columns for rows, columns in grids)
    kind = torch.full((cells,), -1, dtype=torch.int64, device=views.device)
    depth, near, far = (maps[0].new_full((cells,), value) for value in (torch.nan, torch.inf, -torch.inf))
    count = [len(p) for p in places]
    if sum(count) > 0:
        place = sent(torch.cat(places), views.device)
        which, pixels, cell, drawn = place[:, 0].long(), place[:, 1:3].float(), place[:, 3].long(), place[:, 4].long()
        nearest, farthest = (ends[which] for ends in depth_ranges(evidence))
        view = sent(torch.tensor(chosen).repeat_interleave(torch.tensor(count)), views.device)
        sweep = plane_sweep(views, view, pixels, neighbours, nearest, farthest)
        by_feature = [ends[cell] for ends in _features(photo_graph, chosen, grids)]
        swept = sweep.confident & (sweep.support >= PAIRS)
        # The interval is where the photos agree; a little more keeps points on a slanted surface inside.
        low = torch.where(swept, sweep.interval[:, 0], by_feature[0]) * 0.99
        high = torch.where(swept, sweep.interval[:, 1], by_feature[1]) * 1.01
        known = torch.isfinite(low) & torch.isfinite(high)
        middle = torch.where(swept, sweep.depth, (low + high) / 2)
        by_hull = torch.zeros_like(known)
        if hull is not None:
            parts = zip(chosen, *(t.split(count) for t in (pixels, nearest, farthest)), strict=True)
            depths = [torch.cat(d) for d in zip(*(hull(v, threshold, *part) for v, *part in parts), strict=True)]
            by_hull = ~known & torch.isfinite(depths[0])
            low, high, middle = (torch.where(by_hull, a, b) for a, b in zip(depths, (low, high, middle), strict=True))
            known = known | by_hull
        rendered, alpha = (
            torch.cat([getattr(e, name).flatten() for e in evidence])[drawn] for name in ("depth", "alpha")
        )
        kinds = classify(torch.stack([low, high], 1), known, rendered, alpha)
        kinds = kinds.masked_fill(by_hull & (kinds == FALSE_FRONT), UNDER_RESOLVED)
        known = kinds != NO_EVIDENCE
        kind[cell] = kinds
        depth[cell] = torch.where(known, middle, torch.nan)
        near[cell] = torch.where(known, low, torch.inf)
        far[cell] = torch.where(known, high, -torch.inf)
    found = []
    for v, size, error, grid, start in zip(chosen, sizes, here, grids, _starts(grids), strict=True):
        mine = slice(start, start + grid[0] * grid[1])
        low, high, middle, kinds = (values[mine].reshape(grid) for values in (near, far, depth, kind))
        labels = regions(error, threshold)
        found.append(ViewZones(v, views.viewmats[v], views.Ks[v], size, TILE, low, high, middle, labels, kinds))
    return found


def _bad_tiles(
    errors: list[Tensor], sizes: list[tuple[int, int]], threshold: float, drawn: list[tuple[int, int]]
) -> list[Tensor]:
    """Of each view [T, 5] float64, a row a tile above `threshold`, on the host: the view's place in the lists, the
    tile's middle (x, y) in pixels, its place among the tiles of all views, and that of its middle among their renders.

    Args:
        errors: [rows, columns]. sizes: width, height of the photos, pixels. drawn: height, width of the renders.
    """
    grids = [(e.shape[0], e.shape[1]) for e in errors]
    found = []
    for i, (error, (width, height), (h, w)) in enumerate(zip(errors, sizes, drawn, strict=True)):
        row, column = (error > threshold).nonzero().unbind(1)
        x, y = ((n * TILE + TILE / 2).clamp(max=end - 1) for n, end in ((column, width), (row, height)))
        cell = _starts(grids)[i] + y.long() // TILE * error.shape[1] + x.long() // TILE
        pixel = _starts(drawn)[i] + y.long() * h // height * w + x.long() * w // width
        found.append(torch.stack([torch.full_like(x, i), x, y, cell, pixel], 1).double())
    return found
