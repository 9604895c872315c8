"""Which photos see the same things from usefully different places: the first question to the photos themselves.

Matches of features are in lpm.multiview.feature_matches, depths of single patches in lpm.multiview.plane_sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lpm.multiview.views import Views, angle, centres_of
from lpm.multiview.visibility import BEST_PARALLAX, FEWEST, NearbyVisibility, Visibility

MANY = 1_000
"""Views above which each is compared with some that seem worth it, not with all."""


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
    few = count <= MANY or depths is not None or points is None or not bool(points.isfinite().all(-1).any())
    scene = (Visibility if few else NearbyVisibility)(views, points, tracks, depths)
    centres, everyone = centres_of(views.viewmats), torch.arange(count, device=device)
    now = _of_one_time(views.capture_times)
    # Candidates are chosen by what they see, whenever they were taken: in a long clip hardly one is of the right time.
    candidates = scene.candidates() if now is None or max(map(len, now), default=0) > MANY else None
    for v in range(count if count > 1 else 0):
        own = scene.seen_by(v)
        if len(own) < FEWEST:
            continue
        among = everyone if candidates is None else candidates[v]
        if now is not None:
            among = now[v] if len(now[v]) <= MANY else among[torch.isin(among, now[v])]
        seen = scene.sees(own, None if among is everyone else among)
        seen[among == v] = False
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


def _of_one_time(times: Tensor | None) -> list[Tensor] | None:
    """Of each view those of its time, itself among them: int64, ascending. None: what they show stands still."""
    if times is None:
        return None
    moment = times.unique(return_inverse=True)[1]
    groups = moment.argsort(stable=True).split(moment.bincount().tolist())
    return [groups[m] for m in moment.tolist()]
