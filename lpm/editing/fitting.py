"""Steps of Adam, as in training, of a model that is edited: towards photos, or towards renders of another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lpm.files import Progress, quiet
from lpm.train.adam import Adam
from lpm.train.optimizers import EPS, Rate, share_of_rate
from lpm.train.photos import PhotoOrder

SSIM_LAMBDA = 0.2
"""As in training (Kerbl 2023)."""
FALL = 0.1
"""Rates that stay in training fall to this share here: so few steps must also settle."""


def fit(
    learnt: Mapping[str, torch.nn.Parameter], rates: Mapping[str, Rate], pictures: int, steps: int,
    loss_of: Callable[[int, Tensor], Tensor], seed: int = 0, progress: Progress = quiet, label: str = "fitting",
) -> None:  # fmt: skip
    """Changes `learnt` in place by `steps` steps, each towards one of `pictures`. The same bits for a seed on a CPU.

    Backgrounds are random, as in training: over one colour, what is seen through would be learnt as it. A picture that
    shows nothing, or that no finite step can be taken from, is passed over.

    Args:
        rates: of each of `learnt`, by name.
        loss_of: (number of a picture, background [3]) -> the loss, a scalar.
    """
    optimizers = {name: Adam([value], lr=rates[name].first, eps=EPS) for name, value in learnt.items()}
    order, generator = PhotoOrder(pictures, seed), torch.Generator().manual_seed(seed)
    device = next(iter(learnt.values())).device
    for step in progress(range(steps), label):
        loss = loss_of(order.next(), torch.rand(3, generator=generator).to(device))
        if not loss.requires_grad or not bool(torch.isfinite(loss)):
            continue
        loss.backward()
        gradients = [value.grad.isfinite().all() for value in learnt.values() if value.grad is not None]
        finite = bool(torch.stack(gradients).all())  # one wait for the device
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name].first * share_of_rate(rates[name], steps, step)
            if finite:
                optimizer.step()
            optimizer.zero_grad()
