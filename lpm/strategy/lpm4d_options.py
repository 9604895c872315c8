"""Options of the strategy `lpm` where things move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lpm.strategy.lpm_options import LpmFields, LpmOptions

ZonesInTime = Literal["none", "time-blind", "same-time", "calibrated"]


@dataclass
class Lpm4dOptions(LpmOptions):
    """Those of `lpm`, and what is set of points in time."""

    views_per_event: int = 12
    """Twice as many as of a static scene: a moment is seen in few of them."""
    widest: float = 0.0
    """As in a static scene; not measured where things move, and so off."""
    zones_in_time: ZonesInTime = "calibrated"
    """none: points are added by error alone. time-blind: zones as in a static scene, whatever the time. same-time: of
    photos of one time. calibrated: and resets need several times."""
    life: float = 2.5
    """Temporal standard deviation of points that are born in a dynamic zone, in frames."""
    shortest: float = 1.0
    """No point lives shorter than this temporal standard deviation, in frames: no photo could tell."""
    static_share: float = 0.8
    """A tile that is bad at this share of its camera's times is a static zone."""
    change: float = 0.06
    """Grey levels (0..1) by which photos of one camera must differ somewhere in a tile for it to be a dynamic zone."""
    hold: float = 0.1
    """Pull of a point's motion towards none in a step, as a share of its learning rate: what photos do not ask for
    again and again stands still."""
    calm_hold: float = 1.0
    """The same of points where the photos never change, and of their gates towards being there all the time."""
    split_time: float = 0.5
    """How far in time, in its standard deviations, the halves of a split point go that comes and goes."""
    times_to_reset: int = 3
    """Times at which a long-lived point was seen in front of the surface before it is reset."""
    first_views: int = 96
    """Photos that the first event looks at, evenly spread over the clip."""
    first_births: float = 0.25
    """Share of the points that make room at the first event for births where something moves."""


@dataclass
class Lpm4dFields(Lpm4dOptions, LpmFields):
    """All that Lpm4dStrategy is made with."""

    Options: ClassVar[type] = Lpm4dOptions
    summed: ClassVar[tuple[str, ...]] = ("gradient", "present")

    @property
    def knows_when(self) -> bool:
        """Whether zones are static or dynamic."""
        return self.zones_in_time in ("same-time", "calibrated")
