"""AbsGS (Ye et al. 2024, arXiv 2404.10484): adaptive density control by absolute gradients, which do not cancel out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lpm.strategy.adc import AdcStrategy


@dataclass
class AbsgradStrategy(AdcStrategy):
    """AdcStrategy on sums of |d loss / d mean| over pixels, with the threshold of that paper."""

    absgrad: bool = True
    threshold: ClassVar[float] = 0.0008
