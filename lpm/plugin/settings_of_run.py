"""nerfstudio's options as the settings of `lpm-train`, so that it can go on with a run of `ns-train`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from lpm.plugin.dataparser import LpmDataParserConfig
from lpm.train.model_settings import ModelOptions, MovingModelOptions
from lpm.train.optimizers import MOVING, STILL
from lpm.train.run_settings import MovingRunSettings, RunSettings
from lpm.train.scene_settings import DataSettings, SceneSettings


def _part(kind: type, options: Any) -> Any:
    return kind(**{option.name: getattr(options, option.name) for option in fields(kind)})


def settings_of(config: Any, folder: Path) -> RunSettings | None:
    """What of `config` (a TrainerConfig of ours, resolved) `lpm-train` knows; None where another dataparser reads."""
    manager, model = config.pipeline.datamanager, config.pipeline.model
    parser = manager.dataparser
    if not isinstance(parser, LpmDataParserConfig):
        return None
    moving = model.moving
    settings = MovingRunSettings() if moving else RunSettings()
    settings.scene, settings.out = Path(manager.data or parser.data).resolve(), folder
    settings.steps, settings.max_points, settings.strategy = config.max_num_iterations, model.max_points, model.strategy
    settings.scale, settings.eval_every = manager.camera_res_scale_factor, parser.eval_interval
    settings.seed, settings.device = config.machine.seed, config.machine.device_type
    settings.save_every, settings.measure_every = config.steps_per_save, config.steps_per_eval_image
    settings.keep_all = not config.save_only_latest_checkpoint
    settings.points_from_photos = manager.points_from_photos
    if isinstance(settings, MovingRunSettings):
        settings.random_points = manager.num_random_points
    settings.data = DataSettings(
        **vars(_part(SceneSettings, parser)), cache_gb=manager.cache_gb, device_cache_gb=manager.device_cache_gb
    )
    settings.model = _part(MovingModelOptions if moving else ModelOptions, model)
    rates = MOVING if moving else STILL
    for name, group in config.optimizers.items():
        if name in rates and group["optimizer"].lr != rates[name].first:
            settings.rates[name] = group["optimizer"].lr
    return settings
