"""Lets optimizers and per-point statistics follow an edit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from lpm.cuda.device import DeviceLibrary, device_kernels
from lpm.gaussians.edits import Edit
from lpm.gaussians.parameters import Optimizers, TrainedParameters


@torch.no_grad()
def apply(
    edit: Edit,
    params: TrainedParameters,
    optimizers: Optimizers,
    state: dict[str, Any],
) -> None:
    """Puts the edit's parameters in place, in `params` and in each optimizer, with their moments.

    Args:
        edit: made from `params` as they are, or from some of them: the others follow its map (0 for rows made from
            nothing), so that nothing large need be copied from edit to edit.
        params: name -> Parameter [N, ...]; replaced by new Parameters [M, ...].
        optimizers: one for each name, with that one parameter (gsplat's convention).
        state: per-point statistics; every tensor with N rows becomes one with M (0 for rows made from nothing), all
            else stays.

    Moments of fresh rows are 0, those of `opacities` also for cleared rows; Adam's step count stays.
    """
    n = len(params["means"])
    made = edit.source < 0
    row = edit.source.clamp_min(0)

    kernels = device_kernels(row.device)

    def follow(old: Tensor, zero: Tensor) -> Tensor:
        if kernels is not None and old.is_floating_point():
            return follow_rows(kernels, old, edit.source, zero)
        new = old[row]  # not by a mask as an index, which a device would be waited for
        return new.masked_fill_(zero.reshape(-1, *[1] * (new.dim() - 1)), 0)

    for name in list(params.keys()):
        old = params[name]
        old.grad = None  # of no use after an edit, and memory
        value = edit.params.get(name)
        value = follow(old.detach(), made) if value is None else value
        new = Parameter(value, requires_grad=old.requires_grad)
        optimizer = optimizers[name]
        (group,) = optimizer.param_groups
        (old,) = group["params"]
        moments = optimizer.state.pop(old, {})
        zero = edit.fresh | made
        if name == "opacities":
            zero = zero | edit.cleared
        for key, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == old.shape:
                moments[key] = follow(moment, zero)
        group["params"] = [new]
        if moments:
            optimizer.state[new] = moments
        params[name] = new
    for key, value in state.items():
        if isinstance(value, Tensor) and value.dim() > 0 and len(value) == n:
            state[key] = follow(value, made)


def rate_of(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of a step of `optimizer`, which has one group (lpm.train.adam has a share beside it)."""
    rate: float = optimizer.param_groups[0]["lr"] * getattr(optimizer, "share", 1.0)
    return rate


def follow_rows(kernels: DeviceLibrary, old: Tensor, source: Tensor, zero: Tensor) -> Tensor:
    """Row i of the result [M, ...] is `old`[source[i]], or 0 where `source` [M] is below 0 or `zero` [M] is set.

    One pass of a kernel; indexing and zeroing by a mask would be two, and wait for the mask on the host.
    """
    old, new = old.contiguous(), old.new_empty(len(source), *old.shape[1:])
    width = new[:1].numel() if len(source) else 0
    kernels.call("follow_rows", old.dtype, len(source), width, old, new, source.contiguous(), zero.contiguous())
    return new
