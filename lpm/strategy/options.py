"""What each strategy has to set for itself, and all of it by group.

Nothing heavy is imported here: help texts and settings files need the options, and no strategy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Literal

Growth = Literal["share", "line"]
ZonesInTime = Literal["none", "time-blind", "same-time", "calibrated"]


@dataclass
class NoOptions:
    """Of a strategy that has no options of its own."""


@dataclass
class AdcOptions:
    """What is set of adaptive density control beside what a run says to every strategy."""

    pause_refine_after_reset: int | None = None
    """Steps without edits after a reset; None: as many as there are photos and between edits, never for long."""


@dataclass
class McmcOptions:
    """What is set of 3DGS-MCMC beside what a run says to every strategy."""

    noise_lr: float = 5e5
    """Length of the noise, times the learning rate of the means."""
    growth: Growth = "share"
    """share: an event adds 5 % of the points (the authors', who train for 30,000 steps: short runs end below the cap).
    line: along a straight line to the cap, as lpm."""
    growth_end: float = 0.9
    """Where that line ends, as a share of the steps between the first and the last event."""


@dataclass
class PaperOptions(AdcOptions):
    """Those of adaptive density control, and what is set of the paper's zones."""

    max_angle: float = 45.0
    """Largest angle, degrees, between the directions in which a view and its neighbour look; 90 is advised indoors."""


@dataclass
class IgsOptions(AdcOptions):
    """What is set of Improved-GS beside what a run says to every strategy."""

    pause_refine_after_reset: int | None = 0
    """Steps without edits after a reset."""
    edge: float = 0.25
    """A point on edges of the photos counts 1 + `edge` times as much as one that is on none."""
    views_per_event: int = 10
    """Training photos whose edges an event looks at."""
    growth_power: float = 0.5
    """The number of points grows with this power of the steps between the first edit and the last."""
    reset_share: float = 0.2
    """Steps between resets of all opacities as a share of those with edits, where that is less than the run says
    (reset_alpha_every): 3,000 of 15,000. Never less than twice `recovery`; 0: no resets."""
    recovery: int = 300
    """Steps after a reset at which the points are judged by their opacity."""
    recovered: float = 0.05
    """Opacity below which those are then removed."""
    scale_rates: tuple[float, float] = (0.02, 0.002)
    """Learning rate of the scales at the first and at the last step, in place of the run's; 0: the run's."""


@dataclass
class FastgsOptions(AdcOptions):
    """What is set of FastGS beside what a run says to every strategy."""

    views_per_event: int = 10
    """Training views, drawn alike from all, that points are judged by."""
    wrong: float = 0.1
    """Error above which a pixel counts as wrong, on the scale from a view's least to its largest."""
    wrong_pixels: float = 0.5
    """Wrong pixels, by the weight that a point has in them, which it must paint in the mean over the event's views to
    be cloned or split: about five of all that a point of opacity .5 reaches."""
    blame: float = 0.9
    """Wrong pixels times the view's error, summed over views and brought to 0..1, above which a point is removed."""


@dataclass
class SteepgsOptions(AdcOptions):
    """What is set of SteepGS beside what a run says to every strategy."""

    least_eigenvalue: float = 0.0
    """A point is split if the least eigenvalue of its splitting matrix is below this."""
    step: float = 0.5
    """How far the two go along that eigenvector, in standard deviations of the parent."""


@dataclass
class StgOptions(AdcOptions):
    """What is set of Spacetime Gaussians' guided sampling beside what a run says to every strategy."""

    guided_at: tuple[float, ...] = (0.4, 0.6, 0.8)
    """When rays are sampled, as shares of the steps between the first edit and the last."""
    guided_share: float = 0.2
    """Share of the cap that is kept for the points along those rays, all times together."""
    views_per_event: int = 12
    """Training photos, those with the largest mean error, through which rays go."""
    per_ray: int = 4
    """Points along each ray."""
    life: float = 2.5
    """Temporal standard deviation of the new points, in frames."""


@dataclass
class FreetimeOptions:
    """What is set of FreeTimeGS beside what a run says to every strategy."""

    first_moments: int = 8
    """Moments, evenly spread, whose photos give points to start from."""
    life: float = 2.5
    """Temporal standard deviation of those points, in frames."""
    opacity_weight: float = 0.01
    """Weight in the loss of the opacity at the step's moment."""
    velocity_falls: float = 0.01
    """What the learning rate of velocities falls to, over what it is at first."""


@dataclass
class ConegsOptions:
    """What is set of ConeGS beside what a run says to every strategy."""

    growth_end: float = 0.9
    """Where the growth curve ends, as a share of the steps between the first and the last event."""
    views_per_event: int = 6
    """Training views, drawn alike from all, in whose wrong pixels an event puts points."""
    pixels_per_point: float = 2.0
    """Pixels drawn for each point that there is room for: not all have a depth."""
    cone: float = 1.0
    """Standard deviation of a new point, times the width of its pixel's cone where it stands."""
    opacity: float = 0.1
    """Opacity of a new point."""
    opacity_penalty: float = 0.002
    """Weight in the loss of the mean opacity before its sigmoid."""


@dataclass
class LpmOptions:
    """What is set of localized point management beside what a run says to every strategy (lpm.strategy.base.Common)."""

    growth_end: float = 0.9
    """Where the growth curve ends, as a share of the steps between the first and the last event."""
    sparser: int = 1_000
    """Events come more and more seldom in long runs: after so many steps, times n, every n-th planned one is left. 0:
    all of them. More bring nothing at 7,000 steps, and on a GPU an event takes as long as ten steps or more."""
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
    few_photos: int = 5
    """Points whose centre at most so many training photos hold have weights in the loss on their opacity and scale
    (opacity_reg, scale_reg): so few leave it open what is opaque, and where. 0: none."""
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
class Lpm4dOptions(LpmOptions):
    """Those of `lpm`, and what is set of points in time."""

    sparser: int = 0
    """As in a static scene; not measured where things move, and so off."""
    views_per_event: int = 12
    """Twice as many as of a static scene: a moment is seen in few of them."""
    few_photos: int = 0
    """Off: the many times of one camera count as many photos, and counting cameras instead brought nothing."""
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


GROUPS: dict[str, type] = {
    "adc": AdcOptions, "lpm": LpmOptions, "mcmc": McmcOptions, "paper": PaperOptions, "igs": IgsOptions,
    "fastgs": FastgsOptions, "steepgs": SteepgsOptions, "conegs": ConegsOptions,
}  # fmt: skip
"""By the name of the group, which a strategy and its variants share (PointStrategy.group)."""
MOVING_GROUPS: dict[str, type] = GROUPS | {"lpm": Lpm4dOptions, "stg": StgOptions, "freetime": FreetimeOptions}
"""The same where the scene moves."""


def _options_class(name: str, groups: dict[str, type]) -> type:
    made = make_dataclass(name, [(group, kind, field(default_factory=kind)) for group, kind in groups.items()])
    made.__module__ = __name__  # where config.yml finds it
    made.__doc__ = "Options of each strategy that are its own, by group; those of the strategies not used say nothing."
    return made


StrategyOptions = _options_class("StrategyOptions", GROUPS)
StrategyOptions4d = _options_class("StrategyOptions4d", MOVING_GROUPS)
