"""Options of the strategy `lpm` (localized point management)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lpm.strategy.base import Common, PointStrategy


@dataclass
class LpmOptions:
    """What is set of localized point management beside what a run says to every strategy (lpm.strategy.base.Common)."""

    growth_end: float = 0.9
    """Where the growth curve ends, as a share of the steps between the first and the last event."""
    views_per_event: int = 6
    """Training views that an event looks at."""
    tiles_per_view: int = 27
    """Tiles, the worst ones, that are given a depth, in the mean over an event's views; it bounds the event's time."""
    sparse: int = 8
    """Tiles of a zone with fewer points inside get new ones."""
    recycle: float = 0.02
    """Share of the points, those that paint least, that each event removes to make room where the error is."""
    reset_cap: float = 0.05
    """Opacity of points after a targeted reset. Well above 1/255, below which a point never comes back."""
    clearance: float = 2.0
    """Points that a training camera stands inside of, within so many standard deviations, are removed. 0: none."""
    widest: float = 0.25
    """Largest standard deviation of a point along any axis, over its distance to the nearest training camera, or over
    the radius of the cameras around their mean if that is longer. Wider points are made smaller, in every step to the
    end of training. 0: no limit."""
    cooldown: int = 500
    """Steps in which a point is not reset again, nor removed for being transparent."""
    bad_share: tuple[float, float] = (0.15, 0.05)
    """Share of all tiles that count as bad, at the first and at the last event."""
    error_floor: float = 0.02
    """Mean residual below which a tile is never bad."""
    random_zones: bool = False
    """Placebo for comparisons: the zones that were found are moved to a random place of their view."""
    random_places: bool = False
    """Placebo: the points to split are drawn alike from all that have any error, as many as ever."""
    absgrad: bool = True
    """Read its `absgrad` (AbsGS), not its `grad`."""
    gradient_power: float = 0.5
    """How much the screen gradient counts beside the error when points are chosen: 0 not at all, 1 alone."""


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
    rasterize_mode: str = "classic"
    """As the model is drawn: classic or antialiased."""
    flat: bool = False
    """The points are disks (2DGS): their third scale means nothing."""
    key_for_gradient: Literal["means2d", "gradient_2dgs"] = "means2d"
    """Tensor of `info` whose gradient is read, as in gsplat's strategies."""

    Options: ClassVar[type] = LpmOptions
    group: ClassVar[str] = "lpm"
    several_processes: ClassVar[bool] = True
    summed: ClassVar[tuple[str, ...]] = ("gradient",)

    @classmethod
    def make(cls, common: Common, options: Any) -> LpmFields:
        """See PointStrategy."""
        plan = common.schedule
        return cls(
            max_points=plan.max_points, refine_start_iter=plan.start, refine_stop_iter=plan.stop,
            refine_every=plan.every, prune_opacity=common.prune_opacity, rasterize_mode=common.rasterize_mode,
            **common.parts(), **vars(options),
        )  # fmt: skip
