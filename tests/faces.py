"""A trainer of `lpm-train` with the names that tests know from nerfstudio's, so that one test speaks to both."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from lpm.scenes.read import read_scene
from lpm.train.run_settings import MovingRunSettings, RunSettings
from lpm.train.terminal import Terminal
from lpm.train.trainer import Trainer

FACES = ("nerfstudio", "core")
BOTH = pytest.mark.parametrize("face", FACES)
"""Of a test that takes make_trainer: it runs with each."""
CORE_FIRST = pytest.mark.parametrize("face", ["core", pytest.param("nerfstudio", marks=pytest.mark.slow)])
"""The same of a test that takes many seconds with each: with the host it is in the slow group."""


class _Config:
    """The options that tests change after setup, by nerfstudio's names."""

    NAMES = {"steps_per_save": "save_every", "max_num_iterations": "steps"}  # noqa: RUF012

    def __init__(self, settings: RunSettings) -> None:
        object.__setattr__(self, "settings", settings)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "save_only_latest_checkpoint":
            name, value = "keep_all", not value
        setattr(self.settings, self.NAMES.get(name, name), value)


class CoreTrainer(Trainer):
    """See the module."""

    @property
    def config(self) -> _Config:
        return _Config(self.settings)

    @property
    def pipeline(self) -> SimpleNamespace:
        return SimpleNamespace(model=self.model, datamanager=SimpleNamespace(sampling_state=self.data.order.state))

    @property
    def base_dir(self) -> Path:
        return self.folder

    @property
    def checkpoint_dir(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def _start_step(self) -> int:
        return self.first

    def _image(self, view: int | None) -> str:
        return self._photo(view)

    def one_step(self, step: int) -> None:
        self.step(step)

    def shutdown(self) -> None:
        pass


def core_trainer(
    folder: Path, steps: int, load: Path | None, data: Path, scale: float | None, moving: bool, **model: Any
) -> CoreTrainer:
    """A trainer that is set up in `folder`; `model`: options, by the names that they have in both faces."""
    settings = (MovingRunSettings if moving else RunSettings)(
        scene=data, steps=steps, scale=scale, page=False, device="cpu", keep_all=True, measure_every=0
    )
    for name, value in model.items():
        owner = next((part for part in (settings, settings.data) if hasattr(part, name)), settings.model)
        assert hasattr(owner, name), name
        setattr(owner, name, value)
    trainer = CoreTrainer(settings, folder, Terminal(Console(width=400, highlight=False)))
    trainer.setup(read_scene(data), load)
    return trainer
