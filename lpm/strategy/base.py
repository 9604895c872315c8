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
from lpm.strategy.options import NoOptions
from lpm.strategy.requests import Requests
from lpm.strategy.schedule import Common
from lpm.zones.error_maps import ErrorMaps

OnEvent = Callable[[EditRecord, "Changes | None"], None]
"""on_event(record, changes): an event's record, and the places of its edits where the strategy tells them."""


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
    num_downscales: ClassVar[int] = 0
    """Training starts at 1/2^this of the resolution, unless the run says another number."""
    settles: ClassVar[bool] = False
    """A run of a still scene ends by settling (lpm.train.optimizers); one of a moving scene always does."""
    several_processes: ClassVar[bool] = False
    """Whether several processes can train one model with it (lpm.distributed)."""
    summed: ClassVar[tuple[str, ...]] = ()
    """What of the state is gathered in every step, and summed over the processes at an event."""

    def harmonics_rate(self, steps: int) -> float:
        """What the learning rate of harmonics beyond the first is multiplied by in a run of so many steps."""
        return 1.0

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

    def regularization(self, params: Any, state: dict[str, Any]) -> dict[str, Tensor]:
        """Terms of the loss that the strategy needs, by name; `state` as in a step."""
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
