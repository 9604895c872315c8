"""Which points a view sees, with whatever is known: SfM points, and what hides them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from torch import Tensor

from lpm.checks import check_shape, fail
from lpm.multiview.views import Views, centres_of, in_image, project, unproject

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
BEST_PARALLAX = 8.0
"""Degrees. Less makes depth uncertain, more makes patches dissimilar and occlusion likely."""
PER_VIEW, NEARBY = 64, 4_096
"""Of many views: points that are kept for each, and those around a camera that it is asked about."""
COMPARED = 4
"""Of many views: one in so many points is what views are compared by, the same ones for all."""
CANDIDATES = 96
"""Of many views: those that each is compared with."""
BLOCK = 64
"""Views at a time."""


class Visibility:
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
            self.tracked = [thinned(points[row[view == v]], SAMPLES) for v in range(count)]
        self.depths: list[Tensor] = []
        self._look(points[finite], depths)

    def _look(self, points: Tensor, depths: Sequence[Tensor] | None) -> None:
        """Sets `points` [N, 3], `seen` [V, N] and what hides them, from finite `points`."""
        views, count, device = self.views, len(self.views), self.views.device
        self.points = thinned(points, MOST_POINTS)
        pixels, z = project(self.points, views.viewmats, views.Ks)
        inside = in_image(pixels, z, self.sizes)
        if depths is not None:
            if len(depths) != count or any(d.dim() != 2 for d in depths):
                fail("depths", f"{len(depths)} tensors", f"{count} tensors [H, W]")
            self.depths = [d.detach().to(device).float() for d in depths]
            limits = [torch.where(torch.isfinite(d) & (d > 0), BEHIND * d, torch.inf) for d in self.depths]
        else:
            place = pixels / self.sizes[:, None]
            limits = [self._front(place[v, inside[v]], z[v, inside[v]]) for v in range(count)]
        self._hide(limits)
        self.seen = inside & self._unhidden(pixels, z, torch.arange(count, device=device)) if count else inside

    def _hide(self, limits: list[Tensor]) -> None:
        """Takes V maps [H, W] of depths from which on points are hidden: one flat buffer, looked up for all at once."""
        device = self.views.device
        shapes = torch.tensor([limit.shape for limit in limits]).reshape(-1, 2)
        self.start = (shapes.prod(1).cumsum(0) - shapes.prod(1)).to(device)[:, None]
        self.width, self.height = shapes[:, 1, None].to(device), shapes[:, 0, None].to(device)
        self.limit = torch.cat([limit.reshape(-1) for limit in limits]) if limits else torch.zeros(0)

    def candidates(self) -> Tensor | None:
        """[V, C] int64, ascending: views that each is worth comparing with; None: all."""
        return None

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

    def _unhidden(self, pixels: Tensor, z: Tensor, among: Tensor, sizes: Tensor | None = None) -> Tensor:
        """[C, N] whether nothing nearer is known at `pixels` [C, N, 2] of each of the views `among` [C].

        `sizes` [C, 2] of their images, where `among` does not count all views.
        """
        place = pixels / (self.sizes[among] if sizes is None else sizes)[:, None]
        width, height = self.width[among], self.height[among]
        x = (place[..., 0].clamp(0, 1) * width).long().clamp_max(width - 1)
        y = (place[..., 1].clamp(0, 1) * height).long().clamp_max(height - 1)
        return z <= self.limit[self.start[among] + y * width + x]

    def seen_by(self, v: int) -> Tensor:
        """At most SAMPLES points [S, 3] that view `v` sees."""
        if self.tracked and len(self.tracked[v]) >= FEWEST:
            return self.tracked[v]
        own = self._own(v)
        if len(own) < 2 * FEWEST and self.depths:
            own = self._from_depth(v)
        return thinned(own, SAMPLES)

    def _own(self, v: int) -> Tensor:
        return self.points[self.seen[v]]

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


class NearbyVisibility(Visibility):
    """Of many views: each is asked about the points around it, and compared with those that share the most of them.

    What all with all would take grows with the square of their number; this takes milliseconds and kilobytes a view.
    """

    def _look(self, points: Tensor, depths: Sequence[Tensor] | None) -> None:
        views, count, device = self.views, len(self.views), self.views.device
        self.points = thinned(points, PER_VIEW * count)
        self._centres = centres_of(views.viewmats)
        tree, most = cKDTree(self.points.cpu().numpy()), min(NEARBY, len(self.points))
        limits: list[Tensor] = []
        self._rows: list[Tensor] = []  # of at most SAMPLES points that a view sees; 32 bits, since views are many
        self._compared: list[Tensor] = []
        self._depth = torch.ones(count, device=device)
        for block in torch.arange(count, device=device).split(BLOCK):
            near = tree.query(self._centres[block].cpu().numpy(), most, workers=-1)[1].reshape(len(block), most)
            rows = torch.from_numpy(np.sort(near, 1)).to(device)
            pixels, z = project(self.points[rows], views.viewmats[block], views.Ks[block])
            inside, place = in_image(pixels, z, self.sizes[block]), pixels / self.sizes[block, None]
            fronts = [self._front(place[i, inside[i]], z[i, inside[i]]) for i in range(len(block))]
            limits += fronts
            self._hide(fronts)
            seen = inside & self._unhidden(pixels, z, torch.arange(len(block), device=device), self.sizes[block])
            of_view = [rows[i, seen[i]].int() for i in range(len(block))]
            self._rows += _together([thinned(of_one, SAMPLES) for of_one in of_view])
            self._compared += _together([of_one[of_one % COMPARED == 0] for of_one in of_view])
            middle = torch.where(seen, z, torch.nan).nanmedian(1).values
            self._depth[block] = middle.nan_to_num(1.0).clamp_min(1e-9)
        self._hide(limits)

    def _own(self, v: int) -> Tensor:
        return self.points[self._rows[v].long()]

    def candidates(self) -> Tensor:
        """The CANDIDATES that share much, about where parallax is best: what `covisible` ranks by, estimated."""
        number = torch.tensor([len(rows) for rows in self._compared])
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), number.cumsum(0)]).numpy()
        columns = torch.cat(self._compared).cpu().numpy()
        table = csr_matrix((np.ones(len(columns), np.int16), columns, ends), (len(number), len(self.points)))
        turned, centres, found = table.T.tocsr(), self._centres.cpu(), []
        depth = self._depth.cpu()
        for block in torch.arange(len(number)).split(BLOCK):
            shared = torch.from_numpy((table[block.numpy()] @ turned).toarray()) / number[block, None].clamp_min(1)
            apart = torch.cdist(centres[block], centres, compute_mode="donot_use_mm_for_euclid_dist")
            parallax = torch.rad2deg(2 * torch.atan(apart / (2 * depth[block, None])))
            worth = shared * torch.exp(-(parallax.clamp_min(1e-6) / BEST_PARALLAX).log().square())
            found.append(worth.topk(min(CANDIDATES, len(centres)), dim=1).indices.sort(1).values)
        return torch.cat(found).to(self.views.device)


def _together(rows: list[Tensor]) -> tuple[Tensor, ...]:
    """The same in one piece of memory: many small ones leave holes between them when they are freed."""
    parts: tuple[Tensor, ...] = torch.cat(rows).split([len(row) for row in rows])
    return parts


def thinned(points: Tensor, most: int) -> Tensor:
    """At most `most` rows of `points`, evenly spread over them."""
    if len(points) <= most:
        return points
    return points[torch.linspace(0, len(points) - 1, most, device=points.device, dtype=torch.float64).long()]
