"""Makes trainers of `lpm-splat` on a tiny scene, in this process."""

import copy
from pathlib import Path

import pytest
from faces import core_trainer
from tiny_scene import make_transforms


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with a tiny scene in nerfstudio's layout."""
    return make_transforms(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def face() -> str:
    """Which face make_trainer makes; tests for both are parametrized with faces.BOTH."""
    return "nerfstudio"


@pytest.fixture
def make_trainer(tiny, tmp_path, face):
    """make_trainer(name, steps, **model options): a trainer that is set up and seeded as its command would."""
    if face == "core":
        yield lambda name, steps, load=None, data=tiny, scale=None, moving=False, vis=None, port=None, **model: (
            core_trainer(tmp_path / "out" / "tiny" / "lpm-splat" / name, steps, load, data, scale, moving, **model)
        )
        return
    from nerfstudio.scripts.train import _set_random_seed

    from lpm.plugin.config import lpm_splat, lpm_splat_4d

    def make(
        name: str, steps: int, load: Path | None = None, data: Path = tiny, scale=None, vis="tensorboard",
        moving: bool = False, port: int | None = None, **model,
    ):  # fmt: skip
        config = copy.deepcopy((lpm_splat_4d if moving else lpm_splat).config)
        config.experiment_name, config.timestamp, config.output_dir = "tiny", name, tmp_path / "out"
        config.pipeline.datamanager.data, config.pipeline.datamanager.camera_res_scale_factor = data, scale
        config.max_num_iterations, config.vis, config.load_checkpoint = steps, vis, load
        config.machine.device_type, config.steps_per_eval_image = "cpu", 10
        config.save_only_latest_checkpoint, config.viewer.websocket_port = False, port
        for key, value in model.items():
            owner = config.pipeline.datamanager if key == "cache_gb" else config.pipeline.model
            assert hasattr(owner, key)
            setattr(owner, key, value)
        _set_random_seed(config.machine.seed)
        if vis == "viewer":
            config.viewer.quit_on_train_completion = True
            config.save_config()  # as ns-train does; the viewer wants the folder
        trainer = config.setup()
        trainer.setup()
        return trainer

    yield make
