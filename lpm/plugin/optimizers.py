"""nerfstudio's optimizers, with steps that a value that is not finite cannot spoil, and our Adam among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers

from lpm import distributed
from lpm.plugin.model import LpmModel
from lpm.train import bad_steps
from lpm.train.adam import Adam


class LpmOptimizers(Optimizers):
    """nerfstudio's; a step whose loss or gradient is not finite changes nothing, and on a GPU nobody waits for that."""

    def __init__(self, config: dict[str, Any], model: LpmModel, groups: dict[str, list[torch.nn.Parameter]]) -> None:
        super().__init__(config, groups)
        self.model = model
        self.flag = torch.zeros(())
        """[]: 1 where the last step was left out, else 0."""

    def optimizer_scaler_step_some(self, grad_scaler: Any, param_groups: list[str]) -> None:
        """A step of all of `param_groups`, or of none; by the mean gradient of all processes."""
        groups = [group for name in param_groups for group in self.optimizers[name].param_groups]
        if distributed.size() > 1:
            for parameter in (p for group in groups for p in group["params"] if p.grad is None):
                parameter.grad = torch.zeros_like(parameter)  # another process's view may have seen it
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        distributed.average(gradients)
        self.flag = bad_steps.not_finite(self.model.losses + gradients)
        distributed.most(self.flag)
        if self.flag.is_cuda:
            self.model.spoilt = self.flag
            for name in param_groups:
                self.optimizers[name].found_inf = self.flag
        elif self.flag.numpy() > 0:
            self.model.spoilt = True
            return
        super().optimizer_scaler_step_some(grad_scaler, param_groups)


@dataclass
class AdamConfig(AdamOptimizerConfig):
    """Adam, straight to torch's fused kernel."""

    _target: type = field(default_factory=lambda: Adam)
