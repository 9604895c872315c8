"""What a checkpoint of ours holds beside nerfstudio's: all that an exact resume needs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lpm.plugin.datamanager import LpmDatamanager
from lpm.plugin.model import LpmModel
from lpm.runs import checkpoint
from lpm.train.out_of_memory import lower_cap


def own_state(model: LpmModel, data: LpmDatamanager) -> dict[str, Any]:
    """The state of strategy, order of views and random numbers."""
    strategy: Any = model.strategy
    return {
        "strategy": model.config.strategy,
        "strategy_state": model.strategy_state,
        "strategy_extra": strategy.extra_state() if hasattr(strategy, "extra_state") else None,
        "sampling": data.sampling_state(),
        "random": checkpoint.random_state(),
        "lowered_cap": model.lowered_cap,
    }


def put_back(own: dict[str, Any], model: LpmModel, data: LpmDatamanager) -> None:
    """Puts back what own_state() gave, of a model with the same strategy."""
    strategy: Any = model.strategy
    for key, value in own["strategy_state"].items():
        model.strategy_state[key] = value.to(model.device) if isinstance(value, Tensor) else value
    if hasattr(strategy, "load_extra_state"):
        strategy.load_extra_state(own["strategy_extra"], model.device)
    if own.get("lowered_cap") is not None:
        model.lowered_cap = lower_cap(strategy, own["lowered_cap"])
    data.set_sampling_state(own["sampling"])
    checkpoint.set_random_state(own["random"])
