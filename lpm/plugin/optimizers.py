"""nerfstudio's optimizers, with steps that a value that is not finite cannot spoil, and our Adam among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig

from lpm.plugin.model import LpmModel
from lpm.train.adam import Adam
from lpm.train.optimizers import EPS, Rates, checked_step, own_rate_of_harmonics


class LpmOptimizers(Optimizers):
    """nerfstudio's; a step whose loss or gradient is not finite changes nothing, and on a GPU nobody waits for that."""

    def __init__(self, config: dict[str, Any], model: LpmModel, groups: dict[str, list[torch.nn.Parameter]]) -> None:
        super().__init__(config, groups)
        self.model = model
        self.flag = torch.zeros(())
        """[]: 1 where the last step was left out, else 0."""

    def load_optimizers(self, loaded_state: dict[str, Any]) -> None:
        """nerfstudio's, but for the rate of harmonics, which is that of this run's length."""
        with own_rate_of_harmonics(self.optimizers):
            super().load_optimizers(loaded_state)

    def optimizer_scaler_step_some(self, grad_scaler: Any, param_groups: list[str]) -> None:
        """A step of all of `param_groups`, or of none; by the mean gradient of all processes."""
        self.flag, step = checked_step(self.model, [self.optimizers[name] for name in param_groups])
        if step:
            super().optimizer_scaler_step_some(grad_scaler, param_groups)


@dataclass
class AdamConfig(AdamOptimizerConfig):
    """Adam, straight to torch's fused kernel."""

    _target: type = field(default_factory=lambda: Adam)


def optimizer_configs(rates: Rates) -> dict[str, dict[str, Any]]:
    """`rates` as nerfstudio's options."""
    return {
        name: {
            "optimizer": AdamConfig(lr=rate.first, eps=EPS),
            "scheduler": None if rate.last is None else ExponentialDecaySchedulerConfig(lr_final=rate.last),
        }
        for name, rate in rates.items()
    }
