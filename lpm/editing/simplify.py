"""Fewer Gaussians that look much the same: neighbours are put together, two by two, where it shows least.

What two become has the mean and the covariance of both (their first two moments, each weighted by the light it stops:
its opacity times the area of its two longer axes), their mean colour and harmonics, and the opacity that stops as
much light on its own area. Pairs are chosen by what they change: how much larger the area becomes than both, and how
far their colours are apart, times the light that they stop, or what cameras see of them where that is told. Photos are
not needed; training afterwards brings more (lpm.editing.refit).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from lpm.checks import fail
from lpm.gaussians.parameters import rotations
from lpm.gaussians.spherical_harmonics import SH_C0

NEIGHBOURS = 6
COLOR = 4.0
"""What a squared distance of colours (0..1 each) costs, beside a relative growth of area."""
MOST_OPAQUE = 0.999
CHUNK = 1 << 18  # pairs at a time
Params = dict[str, Tensor]


def simplify(params: Params, points: int, worth: Tensor | None = None) -> Params:
    """`params` (lpm.gaussians, finite) as at most `points` Gaussians.

    Args:
        worth: [N], 0 or more, what a change of each costs; of two that were put together, the sum. None: its light.

    Raises:
        LpmError: fewer than 1, or more than there are.
    """
    n = len(params["means"])
    if not 1 <= points <= n:
        fail("--points", f"{points:,}", f"1 to {n:,}, as many as there are")
    params = {name: value.detach().float() for name, value in params.items()}
    while len(params["means"]) > points:
        costs = _light(params) if worth is None else worth.double().clamp_min(1e-6)
        a, b = _pairs(params, costs, len(params["means"]) - points)
        if len(a) == 0:
            break
        params, keep = _merged(params, a, b)
        worth = None if worth is None else worth.index_add(0, a, worth[b])[keep]
    return params


def _areas(scales: Tensor) -> Tensor:
    """[N] products of the two longer of [N, 3] standard deviations."""
    ordered: Tensor = scales.sort(1).values
    return ordered[:, 1] * ordered[:, 2]


def _covariances(params: Params) -> Tensor:
    """[N, 3, 3] float64."""
    turned = rotations(params["quats"].double()) * params["scales"].double().exp()[:, None]
    return turned @ turned.transpose(1, 2)


def _light(params: Params) -> Tensor:
    """[N] float64: opacity times area."""
    area: Tensor = _areas(params["scales"].double().exp()) * torch.sigmoid(params["opacities"].double()).reshape(-1)
    return area.clamp_min(1e-30)


def _joint(params: Params, a: Tensor, b: Tensor, cov: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [P, 3] and covariance [P, 3, 3] of both of each pair of rows `a`, `b` [P]."""
    share = (light[a] / (light[a] + light[b]))[:, None]
    means = params["means"].double()
    apart = means[a] - means[b]
    mean = share * means[a] + (1 - share) * means[b]
    outer = (share * (1 - share))[..., None] * apart[:, :, None] * apart[:, None, :]
    return mean, share[..., None] * cov[a] + (1 - share[..., None]) * cov[b] + outer


def _quaternions(axes: Tensor) -> Tensor:
    """wxyz [P, 4] of rotations [P, 3, 3]."""
    return torch.from_numpy(Rotation.from_matrix(axes.numpy()).as_quat()[:, [3, 0, 1, 2]])


def _pairs(params: Params, worth: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Rows of at most `most` pairs [P], [P], none twice: those that are each other's cheapest, cheapest first."""
    n = len(params["means"])
    k = min(NEIGHBOURS, n - 1)
    near = cKDTree(params["means"].numpy()).query(params["means"].numpy(), k + 1)[1]
    a = torch.arange(n).repeat_interleave(k + 1)
    b = torch.from_numpy(near.astype(np.int64)).reshape(-1)
    a, b = torch.stack([a, b])[:, a != b]
    cov, light, own = _covariances(params), _light(params), _areas(params["scales"].double().exp())
    color = params["features_dc"].double() * SH_C0

    def change(a: Tensor, b: Tensor) -> Tensor:
        sizes = torch.linalg.eigvalsh(_joint(params, a, b, cov, light)[1]).clamp_min(0).sqrt()
        growth = (sizes[:, 1] * sizes[:, 2] / (own[a] + own[b])).clamp_min(0.5) - 0.5  # .5: one lies on the other
        cost: Tensor = (worth[a] + worth[b]) * (growth + COLOR * (color[a] - color[b]).square().sum(1))
        return cost

    cost = torch.cat([change(*part) for part in zip(a.split(CHUNK), b.split(CHUNK), strict=True)])
    # Both ways, so that the cheapest pair of all is each other's cheapest: every round takes some.
    a, b, cost = torch.cat([a, b]), torch.cat([b, a]), cost.repeat(2)
    best = torch.full((n,), torch.inf, dtype=torch.float64).scatter_reduce(0, a, cost, "amin")
    cheapest = cost == best[a]
    choice = torch.full((n,), -1).scatter(0, a[cheapest], b[cheapest])
    rows = torch.arange(n)
    mutual = (choice >= 0) & (choice[choice.clamp_min(0)] == rows) & (rows < choice)
    chosen = rows[mutual]
    chosen = chosen[best[chosen].argsort()[:most]]
    return chosen, choice[chosen]


def _merged(params: Params, a: Tensor, b: Tensor) -> tuple[Params, Tensor]:
    """`params` with each pair of rows `a`, `b` as one, where `a` was; and [N] bool, which rows are left."""
    cov, light = _covariances(params), _light(params)
    mean, joint = _joint(params, a, b, cov, light)
    values, axes = torch.linalg.eigh(joint)
    axes = axes * torch.where(torch.linalg.det(axes) < 0, -1.0, 1.0)[:, None, None].expand_as(axes)
    scales = values.clamp_min(1e-24).sqrt()
    opacity = ((light[a] + light[b]) / _areas(scales)).clamp(1e-6, MOST_OPAQUE)
    share = (light[a] / (light[a] + light[b])).float()
    new = {
        "means": mean, "scales": scales.log(), "quats": _quaternions(axes), "opacities": opacity.logit()[:, None],
    }  # fmt: skip
    for name in ("features_dc", "features_rest"):
        weight = share.reshape(-1, *[1] * (params[name].dim() - 1))
        new[name] = weight * params[name][a] + (1 - weight) * params[name][b]
    out = {name: params[name].clone() for name in new}
    for name, value in new.items():
        out[name][a] = value.float()
    keep = torch.ones(len(out["means"]), dtype=torch.bool)
    keep[b] = False
    return {name: value[keep] for name, value in out.items()}, keep
