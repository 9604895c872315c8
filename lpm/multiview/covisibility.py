"""Which photos see the same things from usefully different places: the first question to the photos themselves.

Matches of features are in lpm.multiview.feature_matches, depths of single patches in lpm.multiview.plane_sweep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lpm.checks import check_shape, fail
from lpm.multiview.views import Views, angle, centres_of, in_image, project, unproject

SAMPLES = 256
"""Points of a view that are looked for in the other views: a share is known to about 3 %."""
MOST_POINTS = 8_192
"""Points that are projected at all; more say nothing new about overlap."""
FEWEST = 8
"""Shared points below which a pair of views counts as unrelated."""
HIDDEN = 1.5
"""A sparse point this many times farther than the nearest ones in its part of the image is behind a surface."""
BEHIND = 1.1
"""A point this many times farther than the rendered depth there is hidden."""
MANY = 1_000
"""Views above which each is compared with CANDIDATES that share much from where it helps, not with all; and views are
looked at in blocks, so that memory does not grow with their number."""
CANDIDATES = 96
BLOCK = 256
"""Views at a time."""
TABLE = 2**25
"""Most entries of the table that says which view sees which point."""
BEST_PARALLAX = 8.0
"""Degrees. Less makes depth uncertain, more makes patches dissimilar and occlusion likely."""


class Covisible(NamedTuple):
    """For each view those that see the same things from elsewhere, best first."""

    neighbours: Tensor
    """[V, most] int64; -1: none."""
    parallax: Tensor
    """[V, most], degrees, median over shared points; 0 where there is no neighbour."""
    overlap: Tensor
    """[V, most], share of the view's points that the neighbour sees; 0 where there is no neighbour."""


def covisible(
    views: Views,
    points: Tensor | None = None,
    tracks: Tensor | None = None,
    depths: Sequence[Tensor] | None = None,
    *,
    most: int = 4,
    min_parallax: float = 3.0,
    max_parallax: float = 40.0,
    min_overlap: float = 0.2,
) -> Covisible:
    """Finds for each view the neighbours that see the same surface under a useful parallax.

    What counts is where the points of a view fall in other views, and the angle between the rays that meet there; the
    directions that cameras look in are never compared. A point is seen if it is in front of the camera, inside the
    image, and not hidden: by the rendered depth if given, else by nearer points in the same part of the image. Pairs
    are ranked by overlap times exp(-ln(parallax / 8 deg)^2), which is 1 at 8 deg and 1/2 at 3.5 and 18 deg.

    Args:
        points: [N, 3], world, from SfM; rows that are not finite are left out.
        tracks: [T, 2] int64, (view, row of `points`): what SfM saw where. A view with tracks counts on those points.
        depths: V tensors [H, W], rendered z-depth, of any resolution; not finite or <= 0: nothing there. Views with too
            few points take theirs from here.
        most: neighbours per view.
        min_parallax, max_parallax: degrees. min_overlap: 0..1.

    Returns:
        neighbours, parallax, overlap; all -1 and 0 where there is no evidence: one view, same place, no points.

    Raises:
        LpmError: wrong shapes.
    """
    count, device = len(views), views.device
    result = Covisible(
        torch.full((count, most), -1, dtype=torch.int64, device=device),
        torch.zeros(count, most, device=device),
        torch.zeros(count, most, device=device),
    )
    scene = _Visibility(views, points, tracks, depths)
    centres, everyone = centres_of(views.viewmats), torch.arange(count, device=device)
    candidates = scene.candidates(centres) if count > MANY else None
    for v in range(count if count > 1 else 0):
        own = scene.seen_by(v)
        if len(own) < FEWEST:
            continue
        among = everyone if candidates is None else candidates[v]
        seen = scene.sees(own, None if candidates is None else among)
        seen[among == v] = False
        if views.capture_times is not None:
            seen[views.capture_times[among] != views.capture_times[v]] = False
        parallax = angle(centres[v] - own, centres[among, None] - own)
        middle = torch.where(seen, parallax, torch.nan).nanmedian(1).values
        overlap = seen.float().mean(1)
        good = (seen.sum(1) >= FEWEST) & (overlap >= min_overlap)
        good &= (middle >= min_parallax) & (middle <= max_parallax)
        worth = overlap * torch.exp(-(middle / BEST_PARALLAX).log().square())
        order = torch.where(good, worth, -1.0).argsort(descending=True, stable=True)[:most]
        keep = good[order]
        n = len(order)
        result.neighbours[v, :n] = torch.where(keep, among[order], -1)
        result.parallax[v, :n] = torch.where(keep, middle[order], 0.0)
        result.overlap[v, :n] = torch.where(keep, overlap[order], 0.0)
    return result


class _Visibility:
    """Says which points a view sees, with whatever is known. What hides points is one map of depths per view."""

    def __init__(
        self, views: Views, points: Tensor | None, tracks: Tensor | None, depths: Sequence[Tensor] | None
    ) -> None:
        count, device = len(views), views.device
        self.views, self.sizes = views, views.sizes
        points = (torch.zeros(0, 3) if points is None else points).detach().to(device).float()
        check_shape("points", points, [None, 3])
        finite = torch.isfinite(points).all(1)
        self.tracked: list[Tensor] = []
        if tracks is not None:
            check_shape("tracks", tracks, [None, 2])
            view, row = tracks.to(device).unbind(1)
            view, row = view[finite[row]], row[finite[row]]
            self.tracked = [_thinned(points[row[view == v]], SAMPLES) for v in range(count)]
        self.points = _thinned(points[finite], min(MOST_POINTS, TABLE // max(count, 1)))
        self.depths: list[Tensor] = []
        if depths is not None:
            if len(depths) != count or any(d.dim() != 2 for d in depths):
                fail("depths", f"{len(depths)} tensors", f"{count} tensors [H, W]")
            self.depths = [d.detach().to(device).float() for d in depths]
            limits = [torch.where(torch.isfinite(d) & (d > 0), BEHIND * d, torch.inf) for d in self.depths]
        else:
            limits = []
            for block in self._blocks():
                pixels, z = project(self.points, views.viewmats[block], views.Ks[block])
                inside, place = in_image(pixels, z, self.sizes[block]), pixels / self.sizes[block, None]
                limits += [self._front(place[i, inside[i]], z[i, inside[i]]) for i in range(len(z))]
        # One flat buffer, looked up for all views at once.
        shapes = torch.tensor([limit.shape for limit in limits]).reshape(-1, 2)
        self.start = (shapes.prod(1).cumsum(0) - shapes.prod(1)).to(device)[:, None]
        self.width, self.height = shapes[:, 1, None].to(device), shapes[:, 0, None].to(device)
        self.limit = torch.cat([limit.reshape(-1) for limit in limits]) if limits else torch.zeros(0)
        table = [self.sees(self.points, block) for block in self._blocks()]
        self.seen = torch.cat(table) if table else torch.zeros(0, len(self.points), dtype=torch.bool, device=device)

    def _blocks(self) -> list[Tensor]:
        """All views, those at a time that are few enough; up to MANY all at once."""
        count = len(self.views)
        if count == 0:
            return []
        return list(torch.arange(count, device=self.views.device).split(BLOCK if count > MANY else count))

    def candidates(self, centres: Tensor) -> Tensor:
        """[V, CANDIDATES] int64, ascending: views that share many points with each, about where parallax is best.

        What is estimated is what `covisible` ranks by, from the table of who sees what and the cameras' distances.
        """
        found = []
        seen = self.seen.float()
        number = seen.sum(1)
        for block in self._blocks():
            _, z = project(self.points, self.views.viewmats[block], self.views.Ks[block])
            depth = torch.where(self.seen[block], z, torch.nan).nanmedian(1).values.nan_to_num(1.0).clamp_min(1e-9)
            shared = seen[block] @ seen.T / number[block, None].clamp_min(1)
            apart = torch.cdist(centres[block], centres, compute_mode="donot_use_mm_for_euclid_dist")
            parallax = torch.rad2deg(2 * torch.atan(apart / (2 * depth[:, None])))
            worth = shared * torch.exp(-(parallax.clamp_min(1e-6) / BEST_PARALLAX).log().square())
            found.append(worth.topk(min(CANDIDATES, len(centres)), dim=1).indices.sort(1).values)
        return torch.cat(found)

    def _front(self, place: Tensor, z: Tensor) -> Tensor:
        """[side, side] depth from which on sparse points are hidden, from those at `place` [N, 2] in 0..1, `z` [N]."""
        # A near surface may have few of the points in front of and behind it, hence many per cell; its third nearest
        # point counts, since single points float in the air.
        side = min(24, max(4, int(math.sqrt(len(z) / 40))))
        cell = (place * side).long().clamp(0, side - 1)
        cell = cell[:, 1] * side + cell[:, 0]
        order = z.argsort(stable=True)
        order = order[cell[order].argsort(stable=True)]
        cell, z = cell[order], z[order]
        place_in_cell = torch.arange(len(cell), device=z.device) - torch.searchsorted(cell, cell)
        limit = z.new_full((side * side,), torch.inf)
        third = place_in_cell == 2  # one per cell at most
        limit[cell[third]] = HIDDEN * z[third]
        return limit.reshape(side, side)

    def _unhidden(self, pixels: Tensor, z: Tensor, among: Tensor) -> Tensor:
        """[C, N] whether nothing nearer is known at `pixels` [C, N, 2] of each of the views `among` [C]."""
        place, width, height = pixels / self.sizes[among, None], self.width[among], self.height[among]
        x = (place[..., 0].clamp(0, 1) * width).long().clamp_max(width - 1)
        y = (place[..., 1].clamp(0, 1) * height).long().clamp_max(height - 1)
        return z <= self.limit[self.start[among] + y * width + x]

    def seen_by(self, v: int) -> Tensor:
        """At most SAMPLES points [S, 3] that view `v` sees."""
        if self.tracked and len(self.tracked[v]) >= FEWEST:
            return self.tracked[v]
        own = self.points[self.seen[v]]
        if len(own) < 2 * FEWEST and self.depths:
            own = self._from_depth(v)
        return _thinned(own, SAMPLES)

    def _from_depth(self, v: int) -> Tensor:
        """The surface [S, 3] that rendered depth shows in view `v`."""
        depth = self.depths[v]
        height, width = depth.shape
        step = max(1, int(math.sqrt(height * width / SAMPLES)))
        rows, columns = (torch.arange(step // 2, n, step, device=depth.device) for n in (height, width))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        z = depth[y, x].reshape(-1)
        pixels = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * self.sizes[v] / depth.new_tensor([width, height])
        ok = torch.isfinite(z) & (z > 0)
        return unproject(pixels[ok], z[ok], self.views.viewmats[v], self.views.Ks[v])

    def sees(self, points: Tensor, among: Tensor | None = None) -> Tensor:
        """[C, S] whether each of the views `among` [C] (None: all) sees each of `points` [S, 3]."""
        among = torch.arange(len(self.views), device=points.device) if among is None else among
        pixels, z = project(points, self.views.viewmats[among], self.views.Ks[among])
        return in_image(pixels, z, self.sizes[among]) & self._unhidden(pixels, z, among)


def _thinned(points: Tensor, most: int) -> Tensor:
    """At most `most` rows of `points`, evenly spread over them."""
    if len(points) <= most:
        return points
    return points[torch.linspace(0, len(points) - 1, most, device=points.device, dtype=torch.float64).long()]
