"""Adam without torch's bookkeeping around it, which on two cores is a good part of a step's time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """torch.optim.Adam whose steps go straight to torch's fused kernel (one pass over the memory, CPU and CUDA).

    State, checkpoints and results are those of `torch.optim.Adam(fused=True)`. What torch offers beside that would be
    left out: closures, AMSGrad, hooks of steps.
    """

    share: float = 1.0
    """What rates are multiplied by (lpm.train.optimizers.settling)."""
    found_inf: Tensor | None = None
    """[] on a GPU: where it is 1, step() changes nothing (lpm.train.bad_steps.not_finite). The CPU ignores it."""

    def __init__(self, params: Any, lr: float = 1e-3, eps: float = 1e-8, weight_decay: float = 0.0):
        super().__init__(params, lr=lr, eps=eps, weight_decay=weight_decay, fused=True)
        self._step_supports_amp_scaling = False  # a GradScaler then scales the gradients back itself

    # Without the wrapper around them, which at its first call imports torch's compiler (1.7 s, much of a start) to say
    # that they are not for it.
    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step on all parameters that have a gradient."""
        assert closure is None, "a closure: not offered"
        for group in self.param_groups:
            rows: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    first = torch.zeros((), dtype=torch.float32, device=parameter.device)
                    # Into the state at once: if there is no memory for one of them, there must be no half of it.
                    moments = torch.zeros_like(parameter), torch.zeros_like(parameter)
                    state.update(step=first, exp_avg=moments[0], exp_avg_sq=moments[1])
                rows.append((parameter, parameter.grad, state))
            if not rows:
                continue
            parameters, gradients, states = (list(column) for column in zip(*rows, strict=True))
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            beta1, beta2 = group["betas"]
            torch._fused_adam_(
                parameters, gradients, [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states], [], steps,
                lr=self.share * group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"],
                eps=group["eps"], amsgrad=False, maximize=False, found_inf=self.found_inf,
            )  # fmt: skip
            if self.found_inf is not None:
                torch._foreach_sub_(steps, [self.found_inf] * len(steps))

    step.hooked = True  # type: ignore[attr-defined]  # torch wraps a step in its profiler and hooks where this is unset

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
