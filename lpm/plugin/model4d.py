"""The model of scenes that move, as nerfstudio's tools know one."""

from __future__ import annotations

from dataclasses import dataclass, field

from lpm.plugin.model import LpmModel, LpmModelConfig
from lpm.train.model_settings import MovingModelSettings
from lpm.train.moving_model import MovingGaussianModel


@dataclass
class LpmModel4dConfig(MovingModelSettings, LpmModelConfig):  # type: ignore[misc]
    """Options of `lpm-splat-4d`."""

    _target: type = field(default_factory=lambda: LpmModel4d)


# LpmModel first: how it begins and draws is nerfstudio's.
class LpmModel4d(LpmModel, MovingGaussianModel):  # type: ignore[misc]
    """Gaussians that move and fade."""

    config: LpmModel4dConfig
