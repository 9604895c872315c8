"""Where points are added and removed. Every strategy keeps gsplat's Strategy protocol."""

from lpm.strategy.base import Common, PointStrategy, Schedule
from lpm.strategy.registry import STRATEGIES, make_strategy

__all__ = ["STRATEGIES", "Common", "PointStrategy", "Schedule", "make_strategy"]
