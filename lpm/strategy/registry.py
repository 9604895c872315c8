"""The strategies by name: one line each. A new one is a module beside this and a line here."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from lpm.checks import fail
from lpm.strategy.absgrad import AbsgradStrategy
from lpm.strategy.adc import AdcStrategy
from lpm.strategy.base import PROTOCOL, GsplatProtocol, PointStrategy, adopted
from lpm.strategy.conegs import ConegsStrategy
from lpm.strategy.fastgs import FastgsStrategy
from lpm.strategy.fourdgs import FourdgsStrategy
from lpm.strategy.freetime import FreetimeStrategy
from lpm.strategy.igs import IgsStrategy
from lpm.strategy.lower_tau import LowerTauStrategy
from lpm.strategy.lpm import LpmStrategy
from lpm.strategy.lpm4d import Lpm4dStrategy
from lpm.strategy.mcmc import McmcStrategy
from lpm.strategy.paper import PaperStrategy
from lpm.strategy.random_zones import RandomZones4dStrategy, RandomZonesStrategy
from lpm.strategy.schedule import Common, Schedule
from lpm.strategy.steepgs import SteepgsStrategy
from lpm.strategy.stg import StgStrategy

STRATEGIES: dict[str, type[PointStrategy]] = {
    "adc": AdcStrategy,
    "absgrad": AbsgradStrategy,
    "mcmc": McmcStrategy,
    "lpm": LpmStrategy,
    "lower-tau": LowerTauStrategy,
    "random-zones": RandomZonesStrategy,
    "paper": PaperStrategy,
    "igs": IgsStrategy,
    "fastgs": FastgsStrategy,
    "steepgs": SteepgsStrategy,
    "conegs": ConegsStrategy,
}
MOVING: dict[str, type[PointStrategy]] = STRATEGIES | {
    "lpm": Lpm4dStrategy,
    "random-zones": RandomZones4dStrategy,
    "4dgs": FourdgsStrategy,
    "stg": StgStrategy,
    "freetime": FreetimeStrategy,
}
"""Those of a scene that moves. Some manage points in time, under the same names or for such scenes alone; the others
know nothing of time."""


def strategy_class(name: str, moving: bool = False) -> type[PointStrategy]:
    """The class of the strategy `name` (of one of your own, MODULE:CLASS, that of all). Raises LpmError."""
    if ":" in name:
        return PointStrategy
    there = MOVING if moving else STRATEGIES
    if name not in there:
        of = f"{name}, which is for scenes that move" if name in MOVING else name
        fail("strategy", of, f"one of {', '.join(there)}, or MODULE:CLASS of your own")
    return there[name]


def own_strategy(name: str, schedule: Schedule) -> PointStrategy:
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
    if not isinstance(made, GsplatProtocol):
        missing = [method for method in PROTOCOL if method not in dir(made)]
        fail("strategy", f"{name} has no {', '.join(missing)}", wanted, remedy)
    if not isinstance(made, PointStrategy) and "attach" in dir(made):
        fail("strategy", f"{name} has attach() and is no PointStrategy", "one that derives from it", remedy)
    return adopted(made)


def make_strategy(name: str, common: Common, options: Any = None, moving: bool = False) -> PointStrategy:
    """The strategy `name`, or one of your own (MODULE:CLASS).

    Args:
        common: what the run says to all strategies.
        options: StrategyOptions (StrategyOptions4d where `moving`); None: the defaults.
        moving: whether points have a time (lpm.gaussians.motion).

    Raises:
        LpmError: there is no such strategy.
    """
    if ":" in name:
        return own_strategy(name, common.schedule)
    kind = strategy_class(name, moving)
    return kind.make(common, kind.Options() if options is None else vars(options)[kind.group])
