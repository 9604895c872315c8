"""All that Lpm4dStrategy is made with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpm.strategy.lpm_fields import LpmFields
from lpm.strategy.options import Lpm4dOptions


@dataclass
class Lpm4dFields(Lpm4dOptions, LpmFields):
    """All that Lpm4dStrategy is made with."""

    Options: ClassVar[type] = Lpm4dOptions
    num_downscales: ClassVar[int] = 0
    summed: ClassVar[tuple[str, ...]] = ("gradient", "present")

    def harmonics_rate(self, steps: int) -> float:
        """As in 3DGS: not measured where things move."""
        return 1.0

    @property
    def knows_when(self) -> bool:
        """Whether zones are static or dynamic."""
        return self.zones_in_time in ("same-time", "calibrated")
