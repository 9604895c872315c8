"""nerfstudio's trainer on the pretended CUDA device, in a process of its own; prints one line of JSON at the end.

    python tests/pretended_training.py '{"strategy": "lpm", "steps": 31}'

Keys: strategy, steps, moving (a 4D scene), resume (halfway, from the checkpoint), pictures (the viewer's), cameras
(a mode of the camera optimizer), masks (a third of every photo says nothing), streamed
(no photo stays in memory), and any option of the model. gsplat is
the one that is imported: its own Python runs, and its compiled kernels are stood in for (pretended_gsplat). Our CUDA
kernels run as loops on the host.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import gsplat
import pretended_device as pretended
import pretended_gsplat
import pretended_torch
import torch
from PIL import Image

import lpm.cuda.device
import lpm.gaussians.optim_state
import lpm.render.losses
import lpm.zones.votes
from lpm.plugin.config import lpm_splat, lpm_splat_4d
from lpm.scenes.samples import make, moving

REFINE_EVERY = 10


class HostKernels:
    """lpm.cuda.device.DeviceLibrary's place: its kernels as loops on the host, for pretended tensors only."""

    def __init__(self) -> None:
        self.loops = lpm.cuda.device.on_host()
        assert self.loops is not None, "no compiler"
        self.path, self.host, self.calls = self.loops.path, True, Counter[str]()

    def call(self, name: str, dtype: torch.dtype, *arguments: Any) -> None:
        """See DeviceLibrary."""
        for i, a in enumerate(arguments):
            if isinstance(a, torch.Tensor):
                assert isinstance(a, pretended.FakeCuda), f"kernel {name}: argument {i} on the CPU"
                assert a.is_contiguous(), f"kernel {name}: argument {i} not contiguous"
        self.calls[name] += 1
        self.loops.call(name, dtype, *arguments)

    def loss_scratch(self, height: int, width: int, channels: int, like: torch.Tensor) -> torch.Tensor:
        """See DeviceLibrary."""
        size = self.loops._library.lpm_device_loss_scratch(height, width, channels, int(like.dtype == torch.float64))
        return like.new_empty(size, dtype=torch.uint8)


class NoScaler:
    """torch's GradScaler needs a real device, and without mixed precision does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()

    def get_scale(self) -> float:
        return 1.0

    def update(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def pretend() -> HostKernels:
    """From here on this process has a CUDA device."""
    kernels = HostKernels()
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("lpm.") and hasattr(module, "device_kernels"):
            module.device_kernels = lambda device: kernels if device.type == "cuda" else None
    pretended_torch.install()
    pretended_gsplat.install(gsplat.__version__)
    import nerfstudio.engine.trainer

    nerfstudio.engine.trainer.GradScaler = NoScaler
    torch.autocast = lambda *_, **__: contextlib.nullcontext()
    return kernels


def make_trainer(out: Path, data: Path, asked: dict[str, Any], load: Path | None = None) -> Any:
    """A trainer on the pretended device that is set up and seeded as ns-train would."""
    from nerfstudio.scripts.train import _set_random_seed

    config = copy.deepcopy((lpm_splat_4d if asked.get("moving") else lpm_splat).config)
    config.experiment_name, config.timestamp, config.output_dir = "pretended", "0", out
    manager, model = config.pipeline.datamanager, config.pipeline.model
    manager.data, manager.cache_images = data, "gpu"
    if asked.get("streamed"):
        manager.cache_gb = manager.device_cache_gb = 0.0
    manager.camera_res_scale_factor = 1.0 if asked.get("moving") else 0.25
    config.max_num_iterations, config.vis, config.machine.device_type = asked["steps"], "tensorboard", "cuda"
    config.steps_per_eval_image = config.steps_per_save = 10**6
    config.save_only_latest_checkpoint, config.load_checkpoint = False, load
    model.max_points, model.refine_every, model.with_lpips = 4000, REFINE_EVERY, False
    model.camera_optimizer.mode = asked.get("cameras", "off")
    for key, value in asked.items():
        if key not in ("steps", "moving", "resume", "pictures", "cameras", "masks", "streamed"):
            assert hasattr(model, key), key
            setattr(model, key, value)
    _set_random_seed(config.machine.seed)
    trainer = config.setup()
    trainer.setup()
    return trainer


def steps(trainer: Any, first: int, last: int) -> list[dict[str, Any]]:
    """Takes the steps `first` to `last` - 1; what each waited for, and how many operators it issued."""
    from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location

    told = []
    for i in range(first, last):
        pretended.waits.clear(), pretended.launches.clear()
        trainer.pipeline.train()
        for callback in trainer.callbacks:
            callback.run_callback_at_location(i, Location.BEFORE_TRAIN_ITERATION)
        trainer.train_iteration(i)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(i, Location.AFTER_TRAIN_ITERATION)
        told.append({"step": i, "waits": dict(pretended.waits.most_common()), "operators": pretended.launches.total(),
                     "points": trainer.model.num_points})  # fmt: skip
    return told


def pictures(trainer: Any, run: Path) -> list[list[int]]:
    """Shapes of what the viewers draw: a training run's outputs, with and without a crop box, and lpm-view's."""
    from nerfstudio.data.scene_box import OrientedBox

    from lpm.formats.read import load
    from lpm.viewer.page.camera import Camera
    from lpm.viewer.page.render_thread import RenderRequest
    from lpm.viewer.page.scene import Shown

    model = trainer.model
    model.eval()
    camera = trainer.pipeline.datamanager.train_dataset.cameras[0:1].to("cuda")
    box = OrientedBox.from_params((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (2.0, 2.0, 2.0))
    with torch.no_grad():
        drawn = [model.get_outputs_for_camera(camera)["rgb"], model.get_outputs_for_camera(camera, box)["rgb"]]
        shown = Shown(load(max(run.rglob("*.ckpt"))), "cuda")
        drawn.append(shown.draw(RenderRequest(Camera((0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 0.0), 1.0, 1.3)), 64, 48))
    return [list(picture.shape) for picture in drawn]


def add_masks(data: Path) -> None:
    """Gives every photo of a scene (transforms.json) a mask, black in the left third."""
    scene = json.loads((data / "transforms.json").read_text())
    (data / "masks").mkdir()
    for frame in scene["frames"]:
        with Image.open(data / frame["file_path"]) as photo:
            mask = Image.new("L", photo.size, 255)
        mask.paste(0, (0, 0, photo.size[0] // 3, photo.size[1]))
        frame["mask_path"] = f"masks/{Path(frame['file_path']).stem}.png"
        mask.save(data / frame["mask_path"])
    (data / "transforms.json").write_text(json.dumps(scene))


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Trains as asked; steps, and what else was asked for."""
    with tempfile.TemporaryDirectory() as name:
        out, data = Path(name) / "out", Path(name) / "scene"
        if asked.get("moving"):
            moving.make_clip("mover", data, cams=4, frames=10, size=(160, 120))
        else:
            make.make("room", data, views=10)
        if asked.get("masks"):
            add_masks(data)
        kernels = pretend()
        trainer = make_trainer(out, data, asked)
        middle = asked["steps"] // 2 if asked.get("resume") else asked["steps"]
        told = steps(trainer, 0, middle)
        trainer.save_checkpoint(middle - 1)
        if asked.get("resume"):
            trainer.shutdown()
            trainer = make_trainer(out, data, asked, max(out.rglob("*.ckpt")))
            told += steps(trainer, middle, asked["steps"])
        result = {"gsplat": gsplat.__version__, "steps": told, "kernels": dict(kernels.calls)}
        if asked.get("pictures"):
            result["pictures"] = pictures(trainer, out)
        trainer.pipeline.eval()
        result["held_out"] = trainer.pipeline.get_average_eval_image_metrics()
        return result


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
