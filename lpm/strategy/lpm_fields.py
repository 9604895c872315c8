"""All that LpmStrategy is made with: its options, and what a run says to every strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lpm.strategy.base import PointStrategy
from lpm.strategy.options import LpmOptions
from lpm.strategy.schedule import Common


@dataclass
class LpmFields(LpmOptions, PointStrategy):
    """All that LpmStrategy is made with."""

    max_points: int | None = 1_000_000
    """Points at the end of the growth curve; never exceeded. None: ten times those at the start."""
    refine_start_iter: int = 500
    """First step with an event."""
    refine_stop_iter: int = 15_000
    """Step after which there are no events."""
    refine_every: int = 100
    """Steps between events."""
    prune_opacity: float = 0.005
    """Points below this opacity are removed."""
    densify: bool = True
    """Add points by E_i."""
    insert: bool = True
    """Add points where the photos see a surface and there is none."""
    reset: bool = True
    """Lower the opacity of points that stand in front of the surface."""
    prune: bool = True
    """Remove points that are transparent, paint next to nothing, or reach around a camera."""
    opacity_reg: float = 0.01
    """Weight in the loss of the opacity of points that few photos look at."""
    scale_reg: float = 0.01
    """Weight of their scale (world)."""
    rasterize_mode: str = "classic"
    """As the model is drawn: classic or antialiased."""
    flat: bool = False
    """The points are disks (2DGS): their third scale means nothing."""
    key_for_gradient: Literal["means2d", "gradient_2dgs"] = "means2d"
    """Tensor of `info` whose gradient is read, as in gsplat's strategies."""

    Options: ClassVar[type] = LpmOptions
    group: ClassVar[str] = "lpm"
    num_downscales: ClassVar[int] = 1
    settles: ClassVar[bool] = True
    several_processes: ClassVar[bool] = True
    summed: ClassVar[tuple[str, ...]] = ("gradient",)

    @classmethod
    def make(cls, common: Common, options: Any) -> LpmFields:
        """See PointStrategy."""
        plan = common.schedule
        return cls(
            max_points=plan.max_points, refine_start_iter=plan.start, refine_stop_iter=plan.stop,
            refine_every=plan.every, prune_opacity=common.prune_opacity, rasterize_mode=common.rasterize_mode,
            opacity_reg=common.opacity_reg, scale_reg=common.scale_reg, **common.parts(), **vars(options),
        )  # fmt: skip

    def harmonics_rate(self, steps: int) -> float:
        """Harmonics go as far in a long run as in one of 3,000 steps, and not on and on (docs/long_runs.md); at least a
        fifth as fast, the slowest that was measured on all kinds of scenes."""
        return max(0.2, min(1.0, 3000 / steps))

    def has_event(self, step: int) -> bool:
        """Whether points are edited after `step`."""
        planned = self.refine_start_iter < step < self.refine_stop_iter and step % self.refine_every == 0
        return planned and step // self.refine_every % self._one_in(step) == 0

    def event_number(self, step: int) -> int:
        """Grows by one from event to event, but for where they get sparser."""
        return step // self.refine_every // self._one_in(step)

    def _one_in(self, step: int) -> int:
        """Of how many planned events around `step` one is left."""
        return max(1, step // self.sparser) if self.sparser > 0 else 1
