"""The nerfstudio model of scenes that move: Gaussians with a time, drawn as they are at the camera's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor
from torch.nn import ParameterDict

from lpm.checks import fail
from lpm.gaussians import motion
from lpm.plugin.model import LpmModel, LpmModelConfig
from lpm.strategy.lpm4d_options import ZonesInTime
from lpm.strategy.registry import StrategyOptions4d


@dataclass
class LpmModel4dConfig(LpmModelConfig):
    """Options of `lpm-splat-4d`."""

    _target: type = field(default_factory=lambda: LpmModel4d)
    preset: Literal["linear", "stg-lite"] = "linear"
    """linear: points move straight and keep their harmonics. stg-lite: cubic motion, turning, one colour a point
    (the lite model of Spacetime Gaussians)."""
    settings: Annotated[StrategyOptions4d, tyro.conf.arg(name="")] = field(default_factory=StrategyOptions4d)  # type: ignore[valid-type]
    """What else each strategy has to set."""
    zones_in_time: ZonesInTime | None = None
    """A shorter name of lpm.zones-in-time, which it overrides."""

    moving: ClassVar[bool] = True


class LpmModel4d(LpmModel):
    """Gaussians that move and fade."""

    config: LpmModel4dConfig
    time: float = 0.0
    """What a camera without a time of its own shows, 0..1."""

    def populate_modules(self) -> None:
        """As LpmModel's, with motion."""
        if self.config.preset == "stg-lite":
            self.config.sh_degree = 0
        if self.config.zones_in_time is not None:
            self.config.settings.lpm.zones_in_time = self.config.zones_in_time  # type: ignore[attr-defined]
        super().populate_modules()

    def _start(self) -> ParameterDict:
        if self.config.init_from is not None:
            fail("init_from", str(self.config.init_from), "None: files hold no motion", "train from points")
        params = super()._start()
        cubic = self.config.preset == "stg-lite"
        params.update(motion.start(len(params["means"]), 3 if cubic else 1, spins=cubic))
        return params

    def _time_of(self, camera: Cameras) -> Tensor | float:
        return self.time if camera.times is None else camera.times.reshape(()).to(self.device)

    def frozen(self, camera: Cameras) -> dict[str, Tensor]:
        """The parameters as they are at the camera's time, without gradients."""
        return motion.frozen_at(self.gauss_params, self._time_of(camera))

    def at_camera(self, params: dict[str, Tensor], camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
        """The points as they are at the camera's time, or at `self.time` if it has none."""
        t = self._time_of(camera)
        opacities = torch.sigmoid(params["opacities"]).squeeze(-1) * motion.weight_at(params, t)
        return motion.means_at(params, t), motion.quats_at(params, t), opacities
