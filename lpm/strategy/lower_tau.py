"""A control: half of adaptive density control's threshold everywhere, as `paper` has it inside its zones alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpm.strategy.adc import AdcStrategy


@dataclass
class LowerTauStrategy(AdcStrategy):
    """AdcStrategy with the halved threshold."""

    threshold: ClassVar[float] = 0.0001
