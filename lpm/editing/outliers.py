"""Gaussians that are no part of what is around them, by statistics of all of them alone. Photos are not needed.

Rules compare with what is near, or at the same distance from the middle of the scene: what is far away is large and
sparse by right, since cameras see it small.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

NEIGHBOURS = 8
"""Of a Gaussian that its surroundings are told by."""
LONG = 3.0
"""A needle is also longer than so many times the median length of what is around it: thin things have short ones."""
SPARSE = 3.0
"""Something lonely is so many times as far from its neighbours as others are."""
CORE = 0.9
"""Share of the centres that tells the scene's radius."""


def faint(params: Mapping[str, Tensor], below: float) -> Tensor:
    """[N] bool: opacity is below `below` (0..1). Under 1/255 nothing is drawn at all."""
    return torch.lt(torch.sigmoid(params["opacities"].detach().reshape(-1)), below)


def needles(params: Mapping[str, Tensor], ratio: float) -> Tensor:
    """[N] bool: more than `ratio` times as long as the middle axis, and longer than LONG times its neighbours."""
    scales = params["scales"].detach().double().sort(1).values
    thin: Tensor = torch.gt(scales[:, 2] - scales[:, 1], float(np.log(ratio)))
    if len(scales) <= NEIGHBOURS or not bool(thin.any()):
        return thin
    xyz = params["means"].detach().double().numpy()
    rows = thin.nonzero().flatten()
    near = cKDTree(xyz).query(xyz[rows.numpy()], NEIGHBOURS + 1)[1][:, 1:]
    usual = scales[:, 2][torch.from_numpy(near)].median(1).values
    thin[rows] = scales[rows, 2] - usual > np.log(LONG)
    return thin


def giants(params: Mapping[str, Tensor], share: float) -> Tensor:
    """[N] bool: a standard deviation is above `share` times the distance from the scene's middle, or times its radius.

    The middle is the median of the centres, the radius that of the ball around it with CORE of them; whichever of
    distance and radius is longer counts.
    """
    xyz = params["means"].detach().double()
    away = (xyz - xyz.median(0).values).norm(dim=1)
    radius = away.kthvalue(max(1, int(CORE * len(away)))).values
    return params["scales"].detach().double().amax(1).exp() > share * torch.maximum(away, radius)


def lonely(params: Mapping[str, Tensor], times: float) -> Tensor:
    """[N] bool: NEIGHBOURS others are on average above `times` its own longest standard deviation away, and above
    SPARSE times what is usual (the median).

    What shows a surface is as large as the gaps between it and its neighbours, however sparse these are: else there
    would be holes.
    """
    xyz = params["means"].detach().double().numpy()
    if len(xyz) <= NEIGHBOURS:
        return torch.zeros(len(xyz), dtype=torch.bool)
    mean = torch.from_numpy(cKDTree(xyz).query(xyz, NEIGHBOURS + 1)[0][:, 1:].mean(1))
    return (mean > times * params["scales"].detach().double().amax(1).exp()) & (mean > SPARSE * mean.median())
