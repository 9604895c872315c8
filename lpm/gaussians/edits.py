"""Edits of a set of Gaussians: pure functions, parameters and masks in, parameters and a map from old to new out.

`params` is a dictionary name -> tensor [N, ...] in the units of lpm.gaussians (scales log, opacities logit). No
function changes what it is given. The Edit that comes back says for every new row which old row it came from, so that
optimizer moments and per-point statistics can follow (lpm.gaussians.optim_state).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lpm import distributed
from lpm.checks import check_shape, fail
from lpm.gaussians.parameters import rotations
from lpm.records import Changes

Params = dict[str, Tensor]
MAX_RATIO = 51
"""Copies of a row that relocated() tells apart; gsplat's table of binomials ends there, too."""


@dataclass
class Edit:
    """New parameters [M, ...] and where each row came from."""

    params: Params
    source: Tensor
    """[M] int64: the old row that a new row was made from; -1 for a row made from nothing."""
    fresh: Tensor
    """[M] bool: rows whose optimizer moments start at zero."""
    cleared: Tensor
    """[M] bool: rows whose moments of `opacities` start at zero (targeted reset)."""

    def __len__(self) -> int:
        return len(self.source)

    def changes(self, step: int, means: Tensor) -> Changes:
        """Where rows were added, removed and reset; `means` [N, 3] are those before the edit."""
        gone = torch.ones(len(means) + 1, dtype=torch.bool, device=means.device)
        gone = gone.index_fill_(0, self.source.where(self.source >= 0, len(means)), False)[:-1]
        new = self.params["means"]
        return Changes(step, added=new[self.fresh], removed=means[gone], reset=new[self.cleared & ~self.fresh])


def from_first(edit: Edit) -> Edit:
    """The edit of the first process (lpm.distributed), on this process's device."""
    take = distributed.tensor_from_first
    params = {name: take(value) for name, value in edit.params.items()}
    return replace(edit, params=params, source=take(edit.source), fresh=take(edit.fresh), cleared=take(edit.cleared))


def identity(params: Params) -> Edit:
    """The edit that changes nothing."""
    n, device = len(params["means"]), params["means"].device
    none = torch.zeros(n, dtype=torch.bool, device=device)
    return Edit(dict(params), torch.arange(n, device=device), none, none.clone())


def then(first: Edit, second: Edit) -> Edit:
    """One edit for `first` followed by `second`, which was made from first.params."""
    made = second.source < 0
    row = second.source.clamp_min(0)
    source = torch.where(made, -1, first.source[row])
    return Edit(second.params, source, second.fresh | first.fresh[row], second.cleared | (first.cleared[row] & ~made))


def _taken(params: Params, source: Tensor, fresh: Tensor) -> Edit:
    return Edit({k: v[source] for k, v in params.items()}, source, fresh, torch.zeros_like(fresh))


def _mask(name: str, mask: Tensor, params: Params) -> Tensor:
    """`mask`, which is [N] bool, or else an LpmError."""
    check_shape(name, mask, [len(params["means"])])
    if mask.dtype != torch.bool:
        fail(name, str(mask.dtype), "torch.bool")
    return mask


def clone(params: Params, mask: Tensor) -> Edit:
    """Appends a copy of each row in `mask` [N] (3DGS, section 5.2: under-reconstruction)."""
    chosen = _mask("mask", mask, params).nonzero().flatten()
    n = len(mask)
    source = torch.cat([torch.arange(n, device=mask.device), chosen])
    return _taken(params, source, torch.arange(len(source), device=mask.device) >= n)


def shared_opacity(logit: Tensor) -> Tensor:
    """Logits of two points that together are as opaque as one of `logit` (Rota Bulo 2024, arXiv 2404.06109, eq. 9)."""
    return torch.logit(1 - torch.sqrt(1 - torch.sigmoid(logit)), eps=1e-6)


def times_opacity(logit: Tensor, factor: float) -> Tensor:
    """Logits of points that are `factor` times as opaque as those of `logit`."""
    return torch.logit(factor * torch.sigmoid(logit), eps=1e-6)


@dataclass(frozen=True)
class Halves:
    """What long_axis_split() puts in the place of a point; lengths are multiples of the parent's."""

    offset: float = math.sqrt(0.75)
    """How far the two stand from the parent along its longest axis, in its standard deviations."""
    long: float = 0.5
    """Their length along that axis."""
    short: float = 1.0
    """Along the other axes."""
    opacity: float | None = None
    """Times the parent's; None: together they are as opaque as it was."""


HALVES = Halves()


def split(
    params: Params, mask: Tensor, generator: torch.Generator | None = None, revised_opacity: bool = False
) -> Edit:
    """Replaces each row in `mask` [N] by two, drawn from its own distribution and 1.6 times smaller (3DGS, 5.2)."""
    chosen = _mask("mask", mask, params).nonzero().flatten()
    scales = params["scales"][chosen].exp()
    normal = torch.randn(2, *scales.shape, generator=generator, device=scales.device, dtype=scales.dtype)
    offset = torch.einsum("nij,bnj->bni", rotations(params["quats"][chosen]), normal * scales)
    return _split(params, mask, chosen, offset, (scales / 1.6).log(), shared_opacity if revised_opacity else None)


def long_axis_split(
    params: Params, mask: Tensor, revised_opacity: bool = True, axes: int = 3, halves: Halves = HALVES
) -> Edit:
    """Replaces each row in `mask` [N] by two halves of itself, end to end along the longest of its first `axes` axes.

    Unless `halves` says otherwise: half as long, they stand at +-.866 standard deviations s of it, so that their sum
    keeps its second moment along that axis, (.866 s)^2 + (s/2)^2 = s^2. Halves that overlap more change the picture
    less, and learn less of what is finer than the parent. Nothing is drawn at random.
    """
    chosen = _mask("mask", mask, params).nonzero().flatten()
    scales = params["scales"][chosen]
    longest = scales[:, :axes].argmax(-1, keepdim=True)
    axis = rotations(params["quats"][chosen]).gather(2, longest[:, None].expand(-1, 3, 1)).squeeze(-1)
    step = halves.offset * scales.gather(1, longest).exp() * axis
    if halves.short != 1:
        scales = scales + math.log(halves.short)
    halved = scales.scatter_add(1, longest, torch.full_like(scales[:, :1], math.log(halves.long / halves.short)))
    opacity = shared_opacity if revised_opacity else None
    if halves.opacity is not None:
        opacity = partial(times_opacity, factor=halves.opacity)
    return _split(params, mask, chosen, torch.stack([step, -step]), halved, opacity)


def split_along(params: Params, mask: Tensor, offset: Tensor, opacity: float) -> Edit:
    """Replaces each row in `mask` [N], of which there are K, by two at +-`offset` [K, 3] (world) from it.

    Their shape is the parent's, their opacity `opacity` times its own.
    """
    chosen = _mask("mask", mask, params).nonzero().flatten()
    check_shape("offset", offset, [len(chosen), 3])
    faint = partial(times_opacity, factor=opacity)
    return _split(params, mask, chosen, torch.stack([offset, -offset]), params["scales"][chosen], faint)


def _split(
    params: Params, mask: Tensor, chosen: Tensor, offset: Tensor, scales: Tensor,
    opacity: Callable[[Tensor], Tensor] | None,
) -> Edit:  # fmt: skip
    """Two for each row of `chosen` [K], moved by `offset` [2, K, 3]; `opacity`: their logits by those of the row."""
    rest = (~mask).nonzero().flatten()
    source = torch.cat([rest, chosen, chosen])
    edit = _taken(params, source, torch.arange(len(source), device=mask.device) >= len(rest))
    new = edit.params
    new["means"][len(rest) :] += offset.reshape(-1, 3)
    new["scales"][len(rest) :] = scales.repeat(2, 1)
    if opacity is not None:
        new["opacities"][len(rest) :] = opacity(new["opacities"][len(rest) :])
    return edit


def insert(params: Params, rows: Params) -> Edit:
    """Appends `rows`, which have the names and units of `params`."""
    if rows.keys() != params.keys():
        fail("rows", f"names {sorted(rows)}", f"{sorted(params)}")
    n, more, device = len(params["means"]), len(rows["means"]), params["means"].device
    source = torch.cat([torch.arange(n, device=device), torch.full((more,), -1, device=device)])
    new = {k: torch.cat([v, rows[k].to(v)]) for k, v in params.items()}
    return Edit(new, source, source < 0, torch.zeros_like(source, dtype=torch.bool))


def prune(params: Params, mask: Tensor) -> Edit:
    """Removes the rows in `mask` [N]."""
    source = (~_mask("mask", mask, params)).nonzero().flatten()
    return _taken(params, source, torch.zeros(len(source), dtype=torch.bool, device=mask.device))


def reset_opacity(params: Params, mask: Tensor, cap: float) -> Edit:
    """Lowers the opacity of the rows in `mask` [N] to `cap` (0..1) where it is higher; never raises one."""
    _mask("mask", mask, params)
    if not 1 / 255 < cap < 1:
        # Below 1/255 nothing of a point is drawn, so no gradient would ever bring it back.
        fail("cap", str(cap), "an opacity above 1/255 and below 1")
    edit = identity(params)
    old = params["opacities"]
    limit = torch.logit(torch.tensor(cap, dtype=old.dtype)).item()
    there = mask.reshape(-1, *[1] * (old.dim() - 1))
    edit.params["opacities"] = torch.where(there, old.clamp_max(limit), old)
    edit.cleared = mask.clone()
    return edit


def relocated(opacities: Tensor, scales: Tensor, ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Opacities and scales of points that were each replaced by `ratios` copies (3DGS-MCMC, Kheradmand 2024, eq. 9).

    Args:
        opacities: [N] in 0..1. scales: [N, 3] world. ratios: [N] integers >= 1, copies per point, itself included.

    Returns:
        New opacities [N] and scales [N, 3]: together the copies render what the one point did.
    """
    n = ratios.clamp(1, MAX_RATIO).double()
    new = 1 - (1 - opacities.double()).pow(1 / n)
    # The paper's double sum over binomials: summing C(i-1, k) over i = 1..N gives C(N, k+1).
    k = torch.arange(MAX_RATIO, dtype=torch.float64, device=opacities.device)
    log_binomial = torch.lgamma(n + 1)[:, None] - torch.lgamma(k + 2) - torch.lgamma((n[:, None] - k).clamp_min(1))
    terms = (-1.0) ** k * torch.exp(log_binomial) * new[:, None] ** (k + 1) / torch.sqrt(k + 1)
    denominator = torch.where(k < n[:, None], terms, 0.0).sum(1)
    factor = opacities.double() / denominator.clamp_min(1e-12)
    return new.to(opacities.dtype), (factor[:, None] * scales.double()).to(scales.dtype)


def relocate(params: Params, dead: Tensor, chosen: Tensor, min_opacity: float = 0.005) -> Edit:
    """Moves each row of `dead` [K] onto the row of `chosen` [K] (indices); together they render what the one did.

    Opacities and scales follow 3DGS-MCMC (Kheradmand 2024, eq. 9). Moments of `chosen` start at zero; those of `dead`
    stay as they are, as in gsplat: each row remains itself and is only moved.
    """
    source = torch.arange(len(params["means"]), device=dead.device)
    fresh = torch.zeros_like(source, dtype=torch.bool)
    fresh[chosen] = True
    changed = _shared_by_copies(params, chosen, min_opacity)
    moved = source.clone()
    moved[dead] = chosen
    return Edit({k: v[moved] for k, v in changed.items()}, source, fresh, torch.zeros_like(fresh))


def duplicate(params: Params, chosen: Tensor, min_opacity: float = 0.005) -> Edit:
    """Appends a copy of each row of `chosen` [K] (indices, which may repeat); together they render what the one did.

    Opacities and scales follow 3DGS-MCMC (Kheradmand 2024, eq. 9). Moments of the copies start at zero.
    """
    n = len(params["means"])
    changed = _shared_by_copies(params, chosen, min_opacity)
    source = torch.cat([torch.arange(n, device=chosen.device), chosen])
    return _taken(changed, source, torch.arange(len(source), device=chosen.device) >= n)


def _shared_by_copies(params: Params, chosen: Tensor, min_opacity: float) -> Params:
    """`params` in which each row of `chosen` [K] has the opacity and scale of one of its copies, itself included."""
    count = torch.zeros(len(params["means"]), dtype=torch.int64, device=chosen.device)
    copies = count.index_add_(0, chosen, torch.ones_like(chosen))[chosen] + 1  # bincount would wait for the device
    opacities = torch.sigmoid(params["opacities"].flatten())[chosen]
    opacity, scale = relocated(opacities, params["scales"][chosen].exp(), copies)
    opacity = opacity.clamp(min_opacity, 1 - torch.finfo(torch.float32).eps)
    changed = dict(params, opacities=params["opacities"].clone(), scales=params["scales"].clone())
    changed["opacities"][chosen] = opacity.logit().reshape(-1, *params["opacities"].shape[1:]).to(opacity.dtype)
    changed["scales"][chosen] = scale.log()
    return changed
