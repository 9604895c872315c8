"""The model of scenes that move: Gaussians with a time, drawn as they are at the camera's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import ParameterDict

from lpm.checks import fail
from lpm.gaussians import motion
from lpm.train.cameras import Camera
from lpm.train.model import GaussianModel, Start
from lpm.train.model_settings import MovingModelSettings


class MovingGaussianModel(GaussianModel):
    """Gaussians that move and fade."""

    config: MovingModelSettings
    logit_opacities = False
    time: float = 0.0
    """What a camera without a time of its own shows, 0..1."""

    @property
    def settles(self) -> bool:
        """With every strategy, as all rates of scenes that move are the same for all."""
        return True

    def build(self, start: Start, say: Callable[[str], Any]) -> None:
        """As GaussianModel's, with motion."""
        if self.config.preset == "stg-lite":
            self.config.sh_degree = 0
        if self.config.zones_in_time is not None:
            self.config.settings.lpm.zones_in_time = self.config.zones_in_time  # type: ignore[attr-defined]
        super().build(start, say)

    def first_gaussians(self, start: Start) -> ParameterDict:
        """As GaussianModel's, at rest."""
        if self.config.init_from is not None:
            fail("init_from", str(self.config.init_from), "None: files hold no motion", "train from points")
        params = super().first_gaussians(start)
        cubic = self.config.preset == "stg-lite"
        params.update(motion.start(len(params["means"]), 3 if cubic else 1, spins=cubic))
        return params

    def _time_of(self, camera: Camera) -> Tensor | float:
        return self.time if camera.time is None else camera.time

    def frozen(self, camera: Camera) -> dict[str, Tensor]:
        """The parameters as they are at the camera's time, without gradients."""
        return motion.frozen_at(self.gauss_params, self._time_of(camera))

    def at_camera(self, params: dict[str, Tensor], camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
        """The points as they are at the camera's time, or at `self.time` if it has none."""
        t = self._time_of(camera)
        opacities = torch.sigmoid(params["opacities"]).squeeze(-1) * motion.weight_at(params, t)
        return motion.means_at(params, t), motion.quats_at(params, t), opacities
