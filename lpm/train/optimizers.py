"""One Adam for each group of parameters, rates that fall over the run, and steps that a bad value cannot spoil."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lpm import distributed
from lpm.checks import fail
from lpm.train import bad_steps
from lpm.train.adam import Adam
from lpm.train.model import GaussianModel

EPS = 1e-15
LENGTHS = ("means", "motion")
"""Groups whose rates are lengths: times the extent of the cameras, as in 3DGS."""
HARMONICS = "features_rest"
"""The group whose rate may depend on the length of the run, and with it on how many steps a resumed one is to have."""


@dataclass(frozen=True)
class Rate:
    """A learning rate, and where it falls to exponentially by the run's last step (None: it stays)."""

    first: float
    last: float | None = None


Rates = dict[str, Rate]
SETTLING, SETTLED = 0.05, 0.1
"""In the last share of a run the rates of all groups fall to this share of what they would be."""
# As in 3DGS (Kerbl 2023).
STILL: Rates = {
    "means": Rate(1.6e-4, 1.6e-6),
    "features_dc": Rate(2.5e-3),
    "features_rest": Rate(2.5e-3 / 20),
    "opacities": Rate(5e-2),
    "scales": Rate(5e-3),
    "quats": Rate(1e-3),
    "sky": Rate(1e-2),
    "camera_opt": Rate(1e-4, 5e-7),
    "bilateral_grid": Rate(2e-3, 1e-4),
}
# As in Spacetime Gaussians (Li 2024), but for the times, which would stay where they are in a short run. When a point
# is there settles towards the end, and where it is stays free to the end: 2 dB where p2s_multi moves.
MOVING: Rates = STILL | {
    "means": Rate(1.6e-4, 0.5e-4),
    "times": Rate(2e-3, 2e-4),
    "durations": Rate(3e-2, 3e-3),
    "motion": Rate(1.75 * 1.6e-4),
    "gates": Rate(5e-2, 5e-3),
    "spins": Rate(1e-4),
}


def share_of_rate(rate: Rate, steps: int, step: int) -> float:
    """The rate at `step`, over the first one."""
    if rate.last is None:
        return 1.0
    t = min(max(step / steps, 0.0), 1.0)
    return float(np.exp(np.log(rate.first) * (1 - t) + np.log(rate.last) * t) / rate.first)


def settling(step: int, steps: int) -> float:
    """What all rates are multiplied by at `step` where a run ends by settling.

    Rates that stay leave every parameter as its last few photos wanted it; Adam's steps on opacities are the longest.
    """
    late = (step / steps - 1 + SETTLING) / SETTLING
    return float(SETTLED ** min(max(late, 0.0), 1.0))


def with_rates(rates: Rates, changed: dict[str, float]) -> Rates:
    """`rates` with some first rates changed; the last ones keep their ratio to them. Raises LpmError."""
    result = dict(rates)
    for name, first in changed.items():
        if name not in rates:
            fail("rates", name, f"one of {', '.join(rates)}")
        if not (math.isfinite(first) and first > 0):
            fail(f"rates.{name}", f"{first}", "a positive number")
        old = rates[name]
        result[name] = Rate(first, None if old.last is None else old.last * first / old.first)
    return result


def rate_scale(model: GaussianModel, name: str, rate: float) -> float:
    """What the first `rate` of a group is multiplied by in this run; one of harmonics that a person asked for by 1."""
    if name in LENGTHS:
        return float(model.scene_extent)
    if name == HARMONICS and rate == STILL[name].first:
        return model.strategy.harmonics_rate(model.schedule.steps)
    return 1.0


@contextmanager
def own_rate_of_harmonics(optimizers: dict[str, torch.optim.Optimizer]) -> Iterator[None]:
    """Keeps it while a checkpoint is loaded, whose run may have been meant to be shorter or longer than this one."""
    rate = optimizers[HARMONICS].param_groups[0]["lr"]
    yield
    optimizers[HARMONICS].param_groups[0]["lr"] = rate


class Falling(LambdaLR):
    """LambdaLR of one group without its bookkeeping, which no rate here needs."""

    def step(self, epoch: int | None = None) -> None:
        """Sets the rate of the next step."""
        self.last_epoch += 1
        self._step_count += 1
        rate = self.base_lrs[0] * self.lr_lambdas[0](self.last_epoch)
        self.optimizer.param_groups[0]["lr"], self._last_lr = rate, [rate]


class Optimizers:
    """The optimizers of a model's groups, by name; see the module."""

    def __init__(self, model: GaussianModel, rates: Rates) -> None:
        self.model = model
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedulers: dict[str, LRScheduler] = {}
        steps = model.schedule.steps
        for name, parameters in model.param_groups().items():
            rate, by = rates[name], rate_scale(model, name, rates[name].first)
            rate = Rate(rate.first * by, None if rate.last is None else rate.last * by)
            optimizer = self.optimizers[name] = Adam(parameters, lr=rate.first, eps=EPS)
            if rate.last is not None:
                self.schedulers[name] = Falling(optimizer, functools.partial(share_of_rate, rate, steps))
        self.flag = torch.zeros(())
        """[]: 1 where the last step was left out, else 0."""

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()

    def step(self) -> None:
        """A step of all groups, or of none where the loss or a gradient is not finite."""
        self.flag, step = checked_step(self.model, list(self.optimizers.values()))
        if step:
            for optimizer in self.optimizers.values():
                if any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
                    optimizer.step()

    def step_schedules(self) -> None:
        """The rates of the next step."""
        for scheduler in self.schedulers.values():
            scheduler.step()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, under nerfstudio's names."""
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
        }

    def put_back(self, state: dict[str, Any]) -> None:
        """Puts back what state() gave."""
        with own_rate_of_harmonics(self.optimizers):
            for name, saved in state["optimizers"].items():
                self.optimizers[name].load_state_dict(saved)
        for name, saved in state["schedulers"].items():
            self.schedulers[name].load_state_dict(saved)


def checked_step(model: GaussianModel, optimizers: list[torch.optim.Optimizer]) -> tuple[Tensor, bool]:
    """Averages the gradients over all processes and looks whether they and the loss are finite.

    Nobody waits for the answer on a GPU: there the optimizers' own kernels ask it.

    Returns:
        [] 1 where the step must change nothing, else 0; and whether the optimizers are to be called.
    """
    share = settling(model.step, model.schedule.steps) if model.settles else 1.0
    for optimizer in optimizers:
        optimizer.share = share  # type: ignore[attr-defined]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    if distributed.size() > 1:
        for parameter in (p for group in groups for p in group["params"] if p.grad is None):
            parameter.grad = torch.zeros_like(parameter)  # another process's view may have seen it
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    distributed.average(gradients)
    flag = bad_steps.not_finite(model.losses + gradients)
    distributed.most(flag)
    if flag.is_cuda:
        model.spoilt = flag
        for optimizer in optimizers:
            optimizer.found_inf = flag  # type: ignore[attr-defined]
    elif flag.numpy() > 0:
        model.spoilt = True
        return flag, False
    return flag, True
