"""A control: localized point management whose zones are moved to a random place of their view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lpm.strategy.lpm import LpmStrategy
from lpm.strategy.lpm4d import Lpm4dStrategy
from lpm.strategy.lpm_fields import LpmFields
from lpm.strategy.schedule import Common


@dataclass
class RandomZonesStrategy(LpmStrategy):
    """LpmStrategy with its placebo."""

    @classmethod
    def make(cls, common: Common, options: Any) -> LpmFields:
        """See PointStrategy."""
        return super().make(common, replace(options, random_zones=True))


@dataclass
class RandomZones4dStrategy(Lpm4dStrategy):
    """Lpm4dStrategy with the same."""

    @classmethod
    def make(cls, common: Common, options: Any) -> LpmFields:
        """See PointStrategy."""
        return super().make(common, replace(options, random_zones=True))
