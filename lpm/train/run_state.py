"""A run's checkpoint: what is in it, written by one face and read by the other."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from lpm.runs import checkpoint
from lpm.strategy.registry import strategy_class
from lpm.train.model import GaussianModel


def options_of(model: GaussianModel) -> dict[str, Any]:
    """The options that are the strategy's own, by name; none of one that a user wrote."""
    group = strategy_class(model.config.strategy, model.config.moving).group
    return asdict(vars(model.config.settings)[group]) if group else {}


def changed_options(own: dict[str, Any], model: GaussianModel) -> list[str]:
    """Options of the strategy that were others when what own_state() gave was saved, as "name (then, now)"."""
    then, now = own.get("strategy_options", {}), options_of(model)
    return [f"{name} ({then[name]}, now {now[name]})" for name in now if name in then and then[name] != now[name]]


def own_state(model: GaussianModel, sampling: dict[str, Any]) -> dict[str, Any]:
    """The state of strategy, order of photos (`sampling`) and random numbers."""
    return {
        "strategy": model.config.strategy,
        "strategy_options": options_of(model),
        "strategy_state": model.strategy_state,
        "strategy_extra": model.strategy.extra_state(),
        "sampling": sampling,
        "random": checkpoint.random_state(),
        "lowered_cap": model.lowered_cap,
    }


def put_back(own: dict[str, Any], model: GaussianModel) -> None:
    """Puts back what own_state() gave, but for the order of photos, of a model with the same strategy."""
    for key, value in own["strategy_state"].items():
        model.strategy_state[key] = value.to(model.device) if isinstance(value, Tensor) else value
    model.strategy.load_extra_state(own["strategy_extra"] or {}, model.device)
    if own.get("lowered_cap") is not None:
        model.lowered_cap = model.strategy.lower_cap(own["lowered_cap"])
    checkpoint.set_random_state(own["random"])
