#!/usr/bin/env python3
"""Where a training step's time goes, on the CPU: rasterization, loss, optimizer, strategy, and the host's overhead.

    python benchmarks/step_profile.py --data SCENE [--points 50000] [--scale 0.5] [--steps 40]

Whole steps of the real trainer are timed, callbacks included, on a scene whose number of points is set by hand.
Rasterization is what a call of rasterize() takes, and the backward passes of its autograd functions. Shares within one
run are what to read; milliseconds belong to the machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location
from nerfstudio.scripts.train import _set_random_seed

import lpm
from lpm.cuda.native import native
from lpm.gaussians.parameters import NAMES
from lpm.plugin import model
from lpm.plugin.config import lpm_splat
from lpm.render import losses, native_backend


def trainer_with(data: Path, points: int, scale: float, folder: str):
    """A trainer on `data` whose model has exactly `points` points of trained-like opacity."""
    config = copy.deepcopy(lpm_splat.config)
    config.pipeline.datamanager.data, config.pipeline.datamanager.camera_res_scale_factor = data, scale
    config.machine.device_type, config.vis, config.output_dir = "cpu", "tensorboard", Path(folder)
    config.experiment_name, config.timestamp, config.max_num_iterations = "profile", "0", 3000
    config.logging.local_writer.enable = False
    config.pipeline.model.strategy, config.pipeline.model.max_points = "absgrad", points
    _set_random_seed(0)
    trainer = config.setup()
    trainer.setup()
    model = trainer.pipeline.model
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
    trainer.optimizers = trainer.setup_optimizers()
    return trainer


def main() -> None:
    """Prints the table and, with --out, writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--scale", type=float, default=0.5, help="of the images")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()

    kernels = native()
    if kernels is None:
        raise SystemExit("the native kernels are not to be had: see the line above")
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_with(options.data, options.points, options.scale, folder)
        seconds: dict[str, float] = defaultdict(float)

        def timed(name, function):
            def call(*args, **kwargs):
                start = time.perf_counter()
                try:
                    return function(*args, **kwargs)
                finally:
                    seconds[name if isinstance(name, str) else name(*args)] += time.perf_counter() - start

            return call

        model.rasterize = timed("rasterization", model.rasterize)
        for function in (native_backend._Project, native_backend._Raster):
            function.backward = staticmethod(timed("rasterization", function.backward))
        losses._L1Dssim.forward = staticmethod(timed("loss", losses._L1Dssim.forward))
        trainer.optimizers.optimizer_scaler_step_some = timed(
            "optimizer", trainer.optimizers.optimizer_scaler_step_some
        )

        def step(number: int) -> None:
            trainer.pipeline.train()
            for callback in trainer.callbacks:
                callback.run_callback_at_location(number, Location.BEFORE_TRAIN_ITERATION)
            trainer.train_iteration(number)
            start = time.perf_counter()
            for callback in trainer.callbacks:
                callback.run_callback_at_location(number, Location.AFTER_TRAIN_ITERATION)
            seconds["strategy"] += time.perf_counter() - start

        trainer.callbacks = trainer.pipeline.get_training_callbacks(_Attributes(trainer))
        for number in range(1, 9):
            step(number)
        seconds.clear()
        start = time.perf_counter()
        for number in range(10, 10 + options.steps):  # before the first edit, so that the number of points stays
            step(number)
        total = time.perf_counter() - start
    height, width = trainer.pipeline.datamanager.cached_train[0]["image"].shape[:2]
    seconds["host, autograd, the rest"] = total - sum(seconds.values())
    rows = {name: value / total for name, value in sorted(seconds.items(), key=lambda item: -item[1])}
    print(f"{options.points:,} points, {width}x{height}, {total / options.steps * 1e3:.1f} ms a step")
    for name, share in rows.items():
        print(f"  {name:26s} {share:6.1%}  {share * total / options.steps * 1e3:7.2f} ms")
    if options.out:
        result = dict(
            points=options.points, width=width, height=height, ms_per_step=total / options.steps * 1e3, shares=rows,
            threads=torch.get_num_threads(), torch=torch.__version__, lpm=lpm.__version__,
            command=f"benchmarks/step_profile.py --data {options.data.name} --points {options.points}",
        )  # fmt: skip
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


class _Attributes:
    """What nerfstudio hands to get_training_callbacks, as far as the model reads it."""

    def __init__(self, trainer):
        self.optimizers, self.grad_scaler = trainer.optimizers, trainer.grad_scaler
        self.pipeline, self.trainer = trainer.pipeline, trainer


if __name__ == "__main__":
    main()
