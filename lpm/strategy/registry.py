"""Names of the strategies, and what each is made of."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from gsplat.strategy.base import Strategy

from lpm.checks import fail
from lpm.strategy.adc import AdcStrategy
from lpm.strategy.lpm import LpmStrategy
from lpm.strategy.lpm4d import Lpm4dStrategy, ZonesInTime
from lpm.strategy.mcmc import McmcStrategy
from lpm.strategy.paper import PaperStrategy

StrategyName = Literal["adc", "absgrad", "mcmc", "lpm", "lower-tau", "random-zones", "paper"]
STRATEGIES: tuple[str, ...] = get_args(StrategyName)

# Published thresholds on the mean gradient of means2d (in units of half the image): 3DGS and AbsGS.
# `lower-tau` is a control: half of adc's threshold everywhere, as the paper's densification has it inside its zones.
GRADIENT_THRESHOLD = {"adc": 0.0002, "absgrad": 0.0008, "lower-tau": 0.0001, "paper": 0.0002}


@dataclass
class Schedule:
    """When points are edited, in training steps, and how many there may be."""

    steps: int
    """Steps of the whole run."""
    start: int
    """First step that may edit."""
    stop: int
    """From this step on nothing is edited."""
    every: int
    """Steps between edits."""
    reset_every: int
    """Steps between resets of all opacities; more than `steps` for none (adc and absgrad)."""
    pause_after_reset: int
    """Steps without edits after a reset."""
    max_points: int | None
    """Cap on the number of points; None for no cap."""


def own_strategy(name: str, schedule: Schedule) -> Strategy:
    """The class that `MODULE:CLASS` names, called with the schedule; the module may lie in the current folder.

    Raises:
        LpmError: there is no such module or class, or it does not speak gsplat's Strategy protocol.
    """
    module, _, kind = name.partition(":")
    wanted, remedy = "MODULE:CLASS of a gsplat Strategy", "see docs/extending.md"
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        made = getattr(importlib.import_module(module), kind)(schedule)
    except (ImportError, AttributeError) as error:
        fail("strategy", f"{name} ({error})", wanted, remedy)
    missing = [m for m in ("initialize_state", "step_pre_backward", "step_post_backward") if not hasattr(made, m)]
    if missing:
        fail("strategy", f"{name} has no {', '.join(missing)}", wanted, remedy)
    return made


def make_strategy(
    name: str, schedule: Schedule, *, grad_threshold: float | None, prune_opacity: float, split_scale: float,
    prune_scale: float, revised_opacity: bool, rasterize_mode: str = "classic",
    switches: dict[str, bool] | None = None, zones_in_time: ZonesInTime | None = None,
) -> Strategy:  # fmt: skip
    """The strategy `name`, or one of your own (MODULE:CLASS).

    Scales are relative to the scene's extent; `grad_threshold` None takes the published one.

    `switches`: densify, insert, reset, prune on or off, for those strategies that have them (all on if not given).
    `zones_in_time`: for points that move, see Lpm4dStrategy; None: they do not.
    """
    if ":" in name:
        return own_strategy(name, schedule)
    on: dict[str, Any] = dict(switches or {})
    if name in ("lpm", "random-zones"):
        kind_of_lpm = LpmStrategy if zones_in_time is None else partial(Lpm4dStrategy, zones_in_time=zones_in_time)
        return kind_of_lpm(
            max_points=schedule.max_points,
            refine_start_iter=schedule.start,
            refine_stop_iter=schedule.stop,
            refine_every=schedule.every,
            prune_opacity=prune_opacity,
            rasterize_mode=rasterize_mode,
            random_zones=name == "random-zones",
            **on,
        )
    if name == "mcmc":
        return McmcStrategy(
            cap_max=schedule.max_points or 1_000_000,
            refine_start_iter=schedule.start,
            refine_stop_iter=schedule.stop,
            refine_every=schedule.every,
            min_opacity=prune_opacity,
        )
    kind = partial(PaperStrategy, **on) if name == "paper" else AdcStrategy
    return kind(
        prune_opa=prune_opacity,
        grow_grad2d=GRADIENT_THRESHOLD[name] if grad_threshold is None else grad_threshold,
        grow_scale3d=split_scale,
        prune_scale3d=prune_scale,
        refine_start_iter=schedule.start,
        refine_stop_iter=schedule.stop,
        refine_every=schedule.every,
        reset_every=schedule.reset_every,
        pause_refine_after_reset=schedule.pause_after_reset,
        absgrad=name == "absgrad",
        revised_opacity=revised_opacity,
        max_points=schedule.max_points,
    )
