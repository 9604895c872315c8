"""Settings of the model and of how its points are managed, and the schedule that they say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from lpm.checks import fail
from lpm.strategy.options import StrategyOptions, StrategyOptions4d, ZonesInTime
from lpm.strategy.schedule import Common, Schedule


@dataclass
class PoseRefinementSettings:
    """Whether cameras move while training, and what holds them back."""

    mode: Literal["off", "SO3xR3", "SE3"] = "off"
    """off, SO3xR3 (rotation and shift apart: for calibration errors), or SE3 (together)."""
    trans_l2_penalty: float = 1e-2
    """Weight in the loss of how far cameras have been shifted."""
    rot_l2_penalty: float = 1e-3
    """Weight in the loss of how far cameras have been turned."""


@dataclass
class ModelOptions:
    """Lengths and scales are relative to the extent of the cameras; None means "automatic"."""

    densify: bool = True
    """Add points where the error is (lpm, paper, random-zones; so the next three)."""
    insert: bool = True
    """Put points where the photos see a surface and there is none."""
    reset: bool = True
    """Lower the opacity of points that stand in front of the surface."""
    prune: bool = True
    """Remove points that the strategy finds useless."""
    warmup_length: int | None = None
    """First step that may add or remove points. None: 500, less in short runs."""
    refine_every: int = 100
    """Steps from one edit of points to the next."""
    stop_split_at: int | None = None
    """Step at which editing of points ends. None: half of the run (mcmc: 5/6)."""
    reset_alpha_every: int = 30
    """Every this many refinements all opacities are reset (adc, absgrad)."""
    densify_grad_thresh: float | None = None
    """Gradient above which a point is cloned or split. None: the published one (adc .0002, absgrad .0008)."""
    cull_alpha_thresh: float = 0.005
    """Points of lower opacity are removed."""
    cull_scale_thresh: float = 0.1
    """Points larger than this are removed after the first reset of opacities."""
    densify_size_thresh: float = 0.01
    """Smaller points are cloned, larger ones split."""
    revised_opacity: bool = False
    """Split points share the opacity of their parent (arXiv 2404.06109)."""
    sh_degree: int = 3
    """Highest degree of the spherical harmonics of colours; 0: one colour a point, seen from everywhere."""
    sh_degree_interval: int | None = None
    """Steps between turning on SH degrees. None: 1,000, less in short runs."""
    num_downscales: int | None = None
    """Training starts at 1/2^this of the resolution. None: 0, but with `lpm` 1, where photos stay large enough."""
    resolution_schedule: int | None = None
    """Steps until the resolution doubles. None: a tenth of the run; where num_downscales is None, three tenths."""
    background_color: Literal["random", "black", "white"] = "random"
    """random (in training), black or white."""
    init_from: Path | None = None
    """Start from the Gaussians in this run, checkpoint, PLY (compressed too), splat, spz, glTF or USD, not points."""
    init_frame: Literal["auto", "world", "train"] = "auto"
    """Frame of that file: world (the scene's own), train (a run's); auto: what comes with it says, else world."""
    init_opacity: float = 0.1
    """Opacity that points start with."""
    init_scale: float = 1.0
    """Size that points start with, times the distance to their neighbours."""
    random_init: bool = False
    """Start from random points, whatever the scene has."""
    num_random: int = 50_000
    """How many points a scene without points starts from."""
    random_scale: float = 10.0
    """Side of the cube in which those are drawn, times the extent of the cameras."""
    ssim_lambda: float = 0.2
    """Weight of 1 - SSIM in the loss; that of the absolute difference is 1 minus this."""
    opacity_reg: float = 0.01
    """Weight of the mean opacity in the loss (mcmc: of all points; lpm: of those that few photos look at)."""
    scale_reg: float = 0.01
    """Weight of the mean scale in the loss (the same)."""
    use_scale_regularization: bool = False
    """Weigh down needles: Gaussians longer than max_gauss_ratio times their thickness (PhysGaussian)."""
    max_gauss_ratio: float = 10.0
    """Longest over shortest axis, above which that begins."""
    rasterize_mode: Literal["classic", "antialiased"] = "classic"
    """antialiased: a tiny Gaussian loses opacity where it is blurred to a pixel. Viewers made for classic show it
    too bright."""
    output_depth_during_training: bool = False
    """Render depth at every step."""
    depth_weight: float = 0.1
    """Weight in the loss of the scene's depths (depth_file_path in transforms.json), where it has them: at first,
    falling to a hundredth by the last step."""
    sky: Literal["none", "constant", "sphere"] = "none"
    """What is seen where no Gaussian is: none (background_color), constant (a learnt colour), or sphere (learnt
    spherical harmonics over directions: the sky, what is far away). Exports show it by a dome of large Gaussians."""
    camera_optimizer: PoseRefinementSettings = field(default_factory=PoseRefinementSettings)
    """Refinement of the cameras' poses."""
    use_bilateral_grid: bool = False
    """Learn for each photo how its camera changed brightness and colour (Wang 2024)."""
    grid_shape: tuple[int, int, int] = (16, 16, 8)
    """Cells of those grids across the picture, down, and along brightness."""
    color_corrected_metrics: bool = False
    """Report held-out quality after matching colours, too."""
    with_lpips: bool = True
    """Report LPIPS where its weights are at hand or can be downloaded."""
    settings: Annotated[StrategyOptions, tyro.conf.arg(name="")] = field(default_factory=StrategyOptions)  # type: ignore[valid-type]
    """What else each strategy has to set."""


@dataclass
class ModelSettings(ModelOptions):
    """All of the model: those that a person chooses first, and the options."""

    strategy: str = "lpm"
    """How points are managed: lpm (localized point management), paper (the same as published), adc (3DGS), absgrad
    (AbsGS), mcmc (3DGS-MCMC), igs (Improved-GS), fastgs, steepgs, conegs, the controls lower-tau and random-zones, or
    MODULE:CLASS, one of your own."""
    max_points: int | None = None
    """Cap on the number of points. None: 60,000 on a CPU, 1,000,000 on a GPU. 0: no cap."""
    max_steps: int | None = None
    """Steps of the whole run, which the schedules follow. None: the trainer's number."""

    moving: ClassVar[bool] = False
    """Whether points have a time."""

    def schedule(self, photos: int) -> Schedule:
        """When points are managed in a run on so many training photos."""
        from lpm.strategy.registry import strategy_class  # torch takes a second to import

        steps = self.max_steps or 30_000
        if self.refine_every < 1:
            fail("refine_every", str(self.refine_every), "at least one step between edits")
        share = strategy_class(self.strategy, self.moving).stop_share
        stop = steps * share[0] // share[1] if self.stop_split_at is None else self.stop_split_at
        reset_every = self.reset_alpha_every * self.refine_every
        return Schedule(
            steps=steps,
            start=min(500, steps // 12) if self.warmup_length is None else self.warmup_length,
            stop=stop,
            every=self.refine_every,
            reset_every=reset_every,
            # gsplat pauses at the start too: in a run without a reset nothing must pause, and never for long.
            pause_after_reset=0 if reset_every >= stop else min(photos + self.refine_every, reset_every // 2),
            max_points=self.max_points or None,
        )

    def common(self, photos: int) -> Common:
        """What these settings say to whichever strategy there is, in a run on so many training photos."""
        return Common(
            schedule=self.schedule(photos), grad_threshold=self.densify_grad_thresh,
            prune_opacity=self.cull_alpha_thresh, split_scale=self.densify_size_thresh,
            prune_scale=self.cull_scale_thresh, revised_opacity=self.revised_opacity,
            rasterize_mode=self.rasterize_mode, opacity_reg=self.opacity_reg, scale_reg=self.scale_reg,
            densify=self.densify, insert=self.insert, reset=self.reset, prune=self.prune,
        )  # fmt: skip


@dataclass
class MovingModelOptions(ModelOptions):
    """Of scenes that move. Lengths and scales are relative to the extent of the cameras; None means "automatic"."""

    preset: Literal["linear", "stg-lite"] = "linear"
    """linear: points move straight and keep their harmonics. stg-lite: cubic motion, turning, one colour a point
    (the lite model of Spacetime Gaussians)."""
    settings: Annotated[StrategyOptions4d, tyro.conf.arg(name="")] = field(default_factory=StrategyOptions4d)  # type: ignore[valid-type]
    """What else each strategy has to set."""
    zones_in_time: ZonesInTime | None = None
    """A shorter name of lpm.zones-in-time, which it overrides."""


@dataclass
class MovingModelSettings(MovingModelOptions, ModelSettings):
    """All of the model of a scene that moves."""

    moving: ClassVar[bool] = True
