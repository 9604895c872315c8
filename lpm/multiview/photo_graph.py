"""The graph of the training photos: which of them show the same surfaces, and the features that match between them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpm.multiview.covisibility import MANY, covisible
from lpm.multiview.feature_matches import Matches, detect_features, find_matches, sift_points
from lpm.multiview.views import Views, centres_of, project
from lpm.multiview.visibility import FEWEST

RENEWED = (0, 5, 15)
"""Events before which neighbours are found anew where only rendered depths tell who sees what."""

DETECTED, KEPT = 64, 512
"""Photos whose features are remembered where they are looked for late, and those of which what matched is."""


class PhotoGraph:
    """Neighbours and feature matches of the training photos."""

    def __init__(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        """`points` [N, 3], world, from SfM or None. `cache`: folder for feature matches, None: memory only.

        Takes about .1 s a photo, most of it for the features. Of many photos, or of those that are not all in memory,
        features are looked for when features() asks: the same ones.
        """
        self.views, self.cache = views, cache
        self.events = 0
        self._neighbours: Tensor | None = None
        self._features: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()
        self._late = views.lazy or len(views) > MANY
        self._pairs: Tensor | None = None
        self._detected = lru_cache(DETECTED)(lambda v: detect_features(views, v))
        self._hopeless = _hopeless(views)
        self._by_depth = True
        if points is not None and int(torch.isfinite(points).all(-1).sum()) >= FEWEST and self._hopeless is None:
            neighbours = covisible(views, points).neighbours
            self._by_depth = not bool((neighbours >= 0).any())  # points that no camera sees tell nothing
            if not self._by_depth:
                self._set(neighbours)

    def neighbours(self, depth: Callable[[int], Tensor]) -> Tensor:
        """[V, k] int64, the photos that each photo can be compared with, best first; -1: none. Asked once an event.

        `depth`: gives the rendered z-depth [h, w] (world) of a view; called only where there are no SfM points.
        """
        if self._by_depth and self._hopeless is None and self.events in RENEWED:
            depths = [depth(v) for v in range(len(self.views))]
            self._set(covisible(self.views, depths=depths).neighbours)
        self.events += 1
        if self._neighbours is None:
            return torch.full((len(self.views), 1), -1, device=self.views.device)
        return self._neighbours

    def ahead(self, chosen: list[int]) -> None:
        """Has the photos read that an event which looks at `chosen` will ask for, where they are not in memory."""
        if not self.views.lazy or self._pairs is None:
            return
        wanted = dict.fromkeys(chosen)
        for v in chosen:
            wanted |= dict.fromkeys([*self._pairs[v].tolist(), *(self._pairs == v).any(1).nonzero()[:, 0].tolist()])
        wanted.pop(-1, None)
        self.views.ahead(list(wanted))

    def why_no_zones(self) -> str | None:
        """Why the photos can tell no depth at all; None if they can."""
        if self._hopeless is not None:
            return self._hopeless
        if self._neighbours is not None and not bool((self._neighbours >= 0).any()):
            return "no two photos see the same things under a parallax of 3 to 40 degrees"
        return None

    def features(self, view: int) -> tuple[Tensor, Tensor]:
        """Pixels [M, 2] and z-depths [M] (world) of the features of `view` that were matched with other photos."""
        none = self.views.viewmats.new_zeros(0)
        if self._late and self._pairs is not None and view not in self._features:
            matches = find_matches(self.views, pairs_with(self._pairs, view), detect=self._detected)
            self._features[view] = _of_view(matches, self.views, view)
            while len(self._features) > KEPT:
                self._features.popitem(last=False)
        return self._features.get(view, (none.reshape(0, 2), none))

    def _set(self, neighbours: Tensor) -> None:
        self._neighbours = neighbours
        self._features.clear()
        if self._late:
            self._pairs = neighbours.cpu()
            return
        try:
            matches = sift_points(self.views, neighbours, cache=self.cache)
        except OSError:  # a folder that cannot be written: they are kept in memory
            self.cache = None
            matches = sift_points(self.views, neighbours)
        self._features.update({v: _of_view(matches, self.views, v) for v in matches.views.unique().tolist()})

    def state(self) -> dict[str, Any]:
        """For a checkpoint: what cannot be made again from photos and points."""
        return {"events": self.events, "neighbours": self._neighbours if self._by_depth else None}

    def load(self, state: dict[str, Any]) -> None:
        """Puts back what state() gave."""
        self.events = state["events"]
        if state["neighbours"] is not None:
            self._set(state["neighbours"].to(self.views.device))


def pairs_with(neighbours: Tensor, view: int) -> Tensor:
    """`neighbours` [V, k] with only those left that make a pair with `view`; -1: none."""
    only = torch.where(neighbours == view, neighbours, -1)
    only[view] = neighbours[view]
    return only


def _hopeless(views: Views) -> str | None:
    """What rules out any depth from these photos, if something does."""
    if len(views) < 2:
        return f"there is {len(views)} training photo (depth takes two)"
    centres = centres_of(views.viewmats)
    if float((centres - centres[0]).abs().max()) <= 1e-6 * max(1e-3, float(centres.abs().max())):
        return "all cameras are in one place (depth takes parallax)"
    if views.masks is not None and not any(bool((mask != 0).any()) for mask in views.masks):
        return "the masks hide every pixel of every photo"
    return None


def _of_view(matches: Matches, views: Views, v: int) -> tuple[Tensor, Tensor]:
    """Pixels [M, 2] of the matched features of view `v` and their z-depths [M], world."""
    mine = matches.views.flatten() == v
    xyz = matches.xyz.repeat_interleave(2, 0)[mine]
    return matches.pixels.reshape(-1, 2)[mine], project(xyz, views.viewmats[v], views.Ks[v])[1]
