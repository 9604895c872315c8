"""Where points are added and removed. Every strategy keeps gsplat's Strategy protocol."""

from lpm.strategy.registry import STRATEGIES, Schedule, make_strategy

__all__ = ["STRATEGIES", "Schedule", "make_strategy"]
