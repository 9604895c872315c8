"""A run that is stopped by signals again and again and goes on each time, beside one that nobody stops.

`python interrupted.py FOLDER SIGNAL TIMES STEPS EVERY SEED FACE` prints what happened, a line of JSON for each process.
Every process is a fork of one that has imported everything.
"""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

import torch
from tiny_scene import make_transforms

from lpm.train import cli
from lpm.train.trainer import Trainer

CORE = sys.argv[7] == "core"
if not CORE:
    from nerfstudio.scripts.train import main as ns_train

    from lpm.plugin.config import lpm_splat
    from lpm.plugin.trainer import LpmTrainer


def train_core(folder: Path, name: str, steps: int, every: int, report: int) -> None:
    """As train(), by `lpm-train`."""
    run = folder / "out" / "tiny" / "lpm-splat" / name
    words = [str(folder / "scene"), "--out", str(run), "--model.warmup-length", "5", "--model.refine-every", "5",
             "--max-points", "400", "--scale", "1", "--device", "cpu"]  # fmt: skip
    if list(run.glob("checkpoints/*.ckpt")):
        words = ["--resume", str(run)]
    words += ["--no-page", "--steps", str(steps), "--save-every", str(every), "--measure-every", "10"]
    usual = Trainer.step

    def reported(self, step):
        os.write(report, struct.pack("<q", step))
        return usual(self, step)

    Trainer.step = reported
    cli.train([*words, "--model.stop-split-at", str(steps - 5)])


def train(folder: Path, name: str, steps: int, every: int, report: int) -> None:
    """What `ns-train lpm-splat` does; goes on where a run of this name is there. `report`: gets every step's number."""
    config = copy.deepcopy(lpm_splat.config)
    config.experiment_name, config.timestamp, config.output_dir = "tiny", name, folder / "out"
    config.data, config.max_num_iterations, config.vis = folder / "scene", steps, "tensorboard"
    config.machine.device_type, config.steps_per_eval_image, config.steps_per_save = "cpu", 10, every
    config.pipeline.datamanager.camera_res_scale_factor = 1.0
    model = config.pipeline.model
    model.warmup_length, model.refine_every, model.stop_split_at, model.max_points = 5, 5, steps - 5, 400
    run = folder / "out" / "tiny" / "lpm-splat" / name
    if list(run.glob("nerfstudio_models/*.ckpt")):
        config.load_dir = run
    iteration = LpmTrainer.train_iteration

    def reported(self, step):
        os.write(report, struct.pack("<q", step))
        return iteration(self, step)

    LpmTrainer.train_iteration = reported
    ns_train(config)


def attempt(folder: Path, name: str, steps: int, every: int, stop: int | None, number: int, delay: float) -> dict:
    """One process, which gets the signal `number` a moment after it began step `stop`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            (train_core if CORE else train)(folder, name, steps, every, writing)
            code = 0
        except SystemExit as end:
            code = end.code
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writing)
    first = last = None
    while data := os.read(reading, 8):
        last = struct.unpack("<q", data)[0]
        first = last if first is None else first
        if stop is not None and last >= stop:
            time.sleep(delay)
            os.kill(child, number)
            stop = None
    os.close(reading)
    return {"first": first, "last": last, "code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


def main() -> None:
    folder, number = Path(sys.argv[1]), signal.Signals[sys.argv[2]]
    times, steps, every, seed = map(int, sys.argv[3:7])
    torch.set_num_threads(1)
    make_transforms(folder / "scene")
    draw = random.Random(seed)
    told = os.dup(1)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    stops = [*sorted(draw.sample(range(1, steps - 20), times)), None]  # not so late that the run might be complete
    for stop in stops:
        result = attempt(folder, "stopped", steps, every, stop, number, draw.uniform(0, 0.06))
        os.write(told, (json.dumps(result) + "\n").encode())
    result = attempt(folder, "whole", steps, every, None, 0, 0)
    os.write(told, (json.dumps(result) + "\n").encode())


if __name__ == "__main__":
    main()
