"""What every strategy is to those who call it: gsplat's Strategy protocol, and beside it what a training run needs.

A strategy of this package derives from PointStrategy and overrides what it has; whoever calls it asks for nothing that
is not here, so no caller needs to know which one it is. `adopted` makes one of any object with gsplat's protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from lpm.gaussians.parameters import Optimizers, TrainedParameters
from lpm.multiview.views import Views
from lpm.records import Changes, EditRecord
from lpm.render.losses import TileRequest
from lpm.strategy.messages import Messages
from lpm.strategy.requests import Requests
from lpm.zones.error_maps import ErrorMaps

OnEvent = Callable[[EditRecord, "Changes | None"], None]
"""on_event(record, changes): an event's record, and the places of its edits where the strategy tells them."""


@dataclass
class Schedule:
    """When points are edited, in training steps, and how many there may be."""

    steps: int
    """Steps of the whole run."""
    start: int
    """First step that may edit."""
    stop: int
    """From this step on nothing is edited."""
    every: int
    """Steps between edits."""
    reset_every: int
    """Steps between resets of all opacities; more than `steps` for none (adc and absgrad)."""
    pause_after_reset: int
    """Steps without edits after a reset."""
    max_points: int | None
    """Cap on the number of points; None for no cap."""


@dataclass
class Common:
    """What a run says to whichever strategy it has; scales are relative to the scene's extent."""

    schedule: Schedule
    prune_opacity: float = 0.005
    """Points of lower opacity (0..1) are removed."""
    grad_threshold: float | None = None
    """Gradient of means2d (in units of half the image) above which a point is cloned or split; None: the published."""
    split_scale: float = 0.01
    """Smaller points are cloned, larger ones split."""
    prune_scale: float = 0.1
    """Larger points are removed after the first reset of opacities."""
    revised_opacity: bool = False
    """The halves of a split point share its opacity (Rota Bulo 2024)."""
    rasterize_mode: str = "classic"
    """As the model is drawn: classic or antialiased."""
    opacity_reg: float = 0.01
    scale_reg: float = 0.01
    """Weights in the loss of the mean opacity and of the mean scale (mcmc)."""
    densify: bool = True
    insert: bool = True
    reset: bool = True
    prune: bool = True
    """Parts of a strategy that can be left out."""

    def parts(self) -> dict[str, Any]:
        """The four switches, by name."""
        return {name: bool(getattr(self, name)) for name in ("densify", "insert", "reset", "prune")}


@dataclass
class NoOptions:
    """Of a strategy that has no options of its own."""


@dataclass
class Live:
    """What the viewer of a run that is training shows of a strategy, and asks of it."""

    views: Views
    maps: ErrorMaps
    requests: Requests
    setting: Callable[[str], float | None]
    """The value of a field of lpm.strategy.requests.SETTINGS."""
    flat: bool = False
    """The points are disks (2DGS)."""
    capture_times: Tensor | None = None
    """[V] when each photo was taken, where the strategy manages points in time."""


@dataclass
class PointStrategy:
    """gsplat's protocol (initialize_state, check_sanity, step_pre_backward, step_post_backward), and no-op defaults."""

    max_points: int | None = None
    """Cap on the number of points; None: none."""
    absgrad: bool = False
    """Whether the backward pass is to set `absgrad` of means2d (AbsGS)."""
    seed: int = 0
    """Of all random draws of the strategy."""
    on_event: OnEvent | None = field(default=None, repr=False)
    """Called after each event."""

    Options: ClassVar[type] = NoOptions
    """Dataclass of the options that are this strategy's own."""
    group: ClassVar[str] = ""
    """Name of the group that these options stand in, shared by a strategy and its variants."""
    stop_share: ClassVar[tuple[int, int]] = (5, 6)
    """Share of the run, a fraction, after which nothing is edited unless the run says another step."""
    several_processes: ClassVar[bool] = False
    """Whether several processes can train one model with it (lpm.distributed)."""
    summed: ClassVar[tuple[str, ...]] = ()
    """What of the state is gathered in every step, and summed over the processes at an event."""

    def __post_init__(self) -> None:
        self.messages = Messages()

    @classmethod
    def make(cls, common: Common, options: Any) -> PointStrategy:
        """The strategy for a run: what the run says to all, and `options` (of type cls.Options)."""
        raise NotImplementedError

    def check_sanity(self, params: TrainedParameters, optimizers: Optimizers) -> None:
        """Raises ValueError unless each parameter has an optimizer of its own, with one group."""
        if set(params.keys()) != set(optimizers.keys()):
            raise ValueError(f"params and optimizers: got {list(params)} and {list(optimizers)}; wanted the same names")
        for name, optimizer in optimizers.items():
            if len(optimizer.param_groups) != 1:
                raise ValueError(f"optimizer {name}: got {len(optimizer.param_groups)} groups; wanted one")

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """What is gathered from step to step; tensors with a row a point follow the edits and are saved."""
        return {"scene_scale": scene_scale}

    def step_pre_backward(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int, info: dict[str, Any]
    ) -> None:
        """Called after the render, before the backward pass."""

    def step_post_backward(
        self,
        params: TrainedParameters,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
        lr: float | None = None,
    ) -> None:
        """Called after the backward pass; may edit points."""

    def attach(self, views: Views, points: Tensor | None, cache: Path | None = None) -> None:
        """Tells, before the first step, the training photos with their cameras and the SfM points [N, 3] (world).

        `cache`: folder in which what is found in the photos may be kept from run to run.
        """

    def tile_request(self, view: int, size: tuple[int, int], mask: Tensor | None = None) -> TileRequest | None:
        """What the loss shall find out of the step's residuals on the way; None: nothing.

        What comes of it, where the loss makes it, is in step_post_backward `info["error_map"]` [rows, columns].

        Args:
            view: index of the training view. size: height, width, pixels. mask: [H, W] or [H, W, 1].
        """
        return None

    def regularization(self, params: Any) -> dict[str, Tensor]:
        """Terms of the loss that the strategy needs, by name."""
        return {}

    def lower_cap(self, points: int) -> int:
        """Lets there be no more than `points` from here on; the cap that holds then."""
        self.max_points = min(self.max_points or points, points)
        return self.max_points

    def live(self) -> Live | None:
        """What a viewer can show and ask while it trains; None: nothing."""
        return None

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the state."""
        return {}

    def load_extra_state(self, saved: dict[str, Any], device: torch.device | str) -> None:
        """Puts back what extra_state() gave."""


PROTOCOL = ("initialize_state", "step_pre_backward", "step_post_backward")


@runtime_checkable
class GsplatProtocol(Protocol):
    """The methods that a strategy of any program must have."""

    def initialize_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]: ...
    def step_pre_backward(self, *args: Any, **kwargs: Any) -> None: ...
    def step_post_backward(self, *args: Any, **kwargs: Any) -> None: ...


class Adopted(PointStrategy):
    """A strategy that knows gsplat's protocol only."""

    def __init__(self, inner: GsplatProtocol) -> None:
        super().__init__(absgrad=bool(vars(inner).get("absgrad", False)))
        self.inner = inner

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """See gsplat."""
        return self.inner.initialize_state(scene_scale=scene_scale)

    def step_pre_backward(
        self, params: TrainedParameters, optimizers: Optimizers, state: dict[str, Any], step: int, info: dict[str, Any]
    ) -> None:
        """See gsplat."""
        self.inner.step_pre_backward(params, optimizers, state, step, info)

    def step_post_backward(
        self,
        params: TrainedParameters,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
        lr: float | None = None,
    ) -> None:
        """See gsplat."""
        self.inner.step_post_backward(params, optimizers, state, step, info, packed=packed, lr=lr)


def adopted(strategy: GsplatProtocol) -> PointStrategy:
    """`strategy` itself if it is one of ours, else as one."""
    return strategy if isinstance(strategy, PointStrategy) else Adopted(strategy)
