#!/usr/bin/env python3
"""Where a training step's time goes, on the CPU: rasterization, loss, optimizer, strategy, and the host's overhead.

    python benchmarks/step_profile.py --data SCENE [--points 50000] [--scale 0.5] [--steps 40] [--faces core nerfstudio]

Whole steps of the real trainers are timed, of `lpm-train` (core) and of `ns-train` in turn, on a scene whose number of
points is set by hand. Rasterization is what a call of rasterize() takes, and the backward passes of its autograd
functions. Shares within one run and the ratio of the faces are what to read; milliseconds belong to the machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lpm
from lpm.cuda.native import native
from lpm.gaussians.parameters import NAMES
from lpm.render import losses, native_backend
from lpm.runs.checkpoint import seed_everything
from lpm.scenes.read import read_scene
from lpm.train import model as model_module
from lpm.train.optimizers import Optimizers
from lpm.train.out_of_memory import keep_freed_memory
from lpm.train.run_settings import RunSettings
from lpm.train.trainer import Trainer

BLOCK = 10
"""Steps of one face before it is the other's turn."""
REST = "host, autograd, the rest"
Timed = Callable[[str, Callable[..., Any]], Callable[..., Any]]


def fill(model: Any, points: int) -> None:
    """Gives `model` exactly `points` points of trained-like opacity."""
    chosen = torch.randint(model.num_points, (points,))
    shrink = (model.num_points / points) ** 0.5  # surfaces stay covered as often as before
    for name in NAMES:
        value = model.gauss_params[name].detach()[chosen].clone()
        if name == "means":
            value += torch.randn_like(value) * model.gauss_params["scales"].detach()[chosen].exp()
        elif name == "scales":
            value += torch.log(torch.tensor(shrink))
        elif name == "opacities":
            value = torch.randn_like(value) * 2 - 0.3
        model.gauss_params[name] = torch.nn.Parameter(value)


def core(data: Path, points: int, scale: float, folder: str, timed: Timed) -> Callable[[int], None]:
    """A function that makes one step of `lpm-train`."""
    settings = RunSettings(scene=data, steps=3000, strategy="absgrad", max_points=points, scale=scale, device="cpu")
    trainer = Trainer(settings, Path(folder) / "core")
    trainer.setup(read_scene(data))
    seed_everything(0)
    fill(trainer.model, points)
    trainer.optimizers = Optimizers(trainer.model, trainer.rates)
    trainer.optimizers.step = timed("optimizer", trainer.optimizers.step)
    trainer.model.step_post_backward = timed("strategy", trainer.model.step_post_backward)
    return trainer.step


def nerfstudio(data: Path, points: int, scale: float, folder: str, timed: Timed) -> Callable[[int], None]:
    """A function that makes one step of `ns-train lpm-splat`, as its loop does."""
    from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location

    from lpm.plugin.config import lpm_splat

    config = copy.deepcopy(lpm_splat.config)
    config.pipeline.datamanager.data, config.pipeline.datamanager.camera_res_scale_factor = data, scale
    config.machine.device_type, config.vis, config.output_dir = "cpu", "tensorboard", Path(folder)
    config.experiment_name, config.timestamp, config.max_num_iterations = "profile", "0", 3000
    config.logging.local_writer.enable = False
    config.pipeline.model.strategy, config.pipeline.model.max_points = "absgrad", points
    trainer = config.setup()
    trainer.setup()
    seed_everything(0)
    fill(trainer.model, points)
    trainer.optimizers = optimizers = trainer.setup_optimizers()
    optimizers.optimizer_scaler_step_some = timed("optimizer", optimizers.optimizer_scaler_step_some)
    callbacks = trainer.pipeline.get_training_callbacks(_Attributes(trainer))

    def after(number: int) -> None:
        for callback in callbacks:
            callback.run_callback_at_location(number, Location.AFTER_TRAIN_ITERATION)

    after_timed = timed("strategy", after)

    def step(number: int) -> None:
        trainer.pipeline.train()
        for callback in callbacks:
            callback.run_callback_at_location(number, Location.BEFORE_TRAIN_ITERATION)
        trainer.train_iteration(number)
        after_timed(number)

    return step


class _Attributes:
    """What nerfstudio hands to get_training_callbacks, as far as the model reads it."""

    def __init__(self, trainer: Any) -> None:
        self.optimizers, self.grad_scaler = trainer.optimizers, trainer.grad_scaler
        self.pipeline, self.trainer = trainer.pipeline, trainer


FACES = {"core": core, "nerfstudio": nerfstudio}


def main() -> None:
    """Prints the table and, with --out, writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--scale", type=float, default=0.5, help="of the images")
    parser.add_argument("--steps", type=int, default=40, help="of each face")
    parser.add_argument("--faces", nargs="+", choices=FACES, default=list(FACES))
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()

    if native() is None:
        raise SystemExit("the native kernels are not to be had: see the line above")
    keep_freed_memory()  # as the trainers do before their first step
    seconds: dict[str, dict[str, float]] = {face: defaultdict(float) for face in options.faces}
    now = [options.faces[0]]

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[now[0]][name] += time.perf_counter() - start

        return call

    model_module.rasterize = timed("rasterization", model_module.rasterize)
    for function in (native_backend._Project, native_backend._Raster):
        function.backward = staticmethod(timed("rasterization", function.backward))
    losses._L1Dssim.forward = staticmethod(timed("loss", losses._L1Dssim.forward))
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            name: FACES[name](options.data, options.points, options.scale, folder, timed) for name in options.faces
        }
        for face in options.faces:
            now[0] = face
            for number in range(1, 9):
                steps[face](number)
            seconds[face].clear()
        total: dict[str, float] = defaultdict(float)
        for block in range(0, options.steps, BLOCK):
            for face in options.faces:
                now[0], start = face, time.perf_counter()
                for number in range(10 + block, 10 + min(block + BLOCK, options.steps)):  # before the first edit
                    steps[face](number)
                total[face] += time.perf_counter() - start
    result: dict[str, Any] = {}
    for face in options.faces:
        seconds[face][REST] = total[face] - sum(seconds[face].values())
        ordered = sorted(seconds[face].items(), key=lambda item: -item[1])
        rows = {name: value / total[face] for name, value in ordered}
        print(f"{face}: {options.points:,} points, {total[face] / options.steps * 1e3:.1f} ms a step")
        for name, share in rows.items():
            print(f"  {name:26s} {share:6.1%}  {share * total[face] / options.steps * 1e3:7.2f} ms")
        result[face] = {"ms_per_step": total[face] / options.steps * 1e3, "shares": rows}
    if len(options.faces) == 2:
        print(f"a step of core takes {total['core'] / total['nerfstudio']:.3f} times one of nerfstudio")
    if options.out:
        told = dict(
            points=options.points, scale=options.scale, steps=options.steps, faces=result,
            threads=torch.get_num_threads(), torch=torch.__version__, lpm=lpm.__version__,
            command=f"benchmarks/step_profile.py --data {options.data.name} --points {options.points}",
        )  # fmt: skip
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
