#!/usr/bin/env python3
"""What a GPU makes of it, in one run: kernels against copying, and training beside splatfacto.

    python benchmarks/gpu.py --data FOLDER [--full] [--out benchmarks/results/gpu/NAME.json]     (or: make gpu-check)

FOLDER holds the scenes fox and snowmiku; those that are missing are left out, and said to be. The quick form takes
some minutes: 7,000 steps; --full takes 30,000. Where torch, nvcc and a folder of wheels are all there is, it works too:
what cannot be imported is said and left out. `--device cpu` runs the same code slowly, to see that it runs.

The kernels, and each method on each scene, are processes of their own: one that breaks the device or hangs takes no
other along, and of one that is stopped at --limit there is what it had by then. After each the file is written anew.
All prepare at once (imports, photos, the model); then they measure one at a time.

Stages are timed with CUDA events on the stream; so waiting of the GPU for Python counts for the stage it happens in.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from lpm.files import atomic_file

SCENES = ("fox", "snowmiku")
METHODS = ("lpm", "adc", "mcmc", "splatfacto")


class Stages:
    """Milliseconds by stage: CUDA events on a GPU, wall time on a CPU."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.pairs: list[tuple[str, Any, Any]] = []
        self.on = True

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def timed(self, name: str, function: Any) -> Any:
        """`function`, with its time added to stage `name`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.on:
                return function(*args, **kwargs)
            begin = self._now()
            try:
                return function(*args, **kwargs)
            finally:
                self.pairs.append((name, begin, self._now()))

        return call

    def ms(self) -> dict[str, float]:
        """The sums; waits for the device."""
        sums: dict[str, float] = defaultdict(float)
        if self.cuda:
            torch.cuda.synchronize()
        for name, begin, end in self.pairs:
            sums[name] += begin.elapsed_time(end) if self.cuda else 1e3 * (end - begin)
        return dict(sums)


def seconds_of(work: Any, device: str, repeats: int = 20) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        stages = Stages(device)
        stages.timed("it", work)()
        times.append(stages.ms()["it"] / 1e3)
    return sorted(times)[len(times) // 2]


def kernels(device: str, n: int) -> list[dict[str, Any]]:
    """Bytes per second of kernels, as shares of what copying reaches."""
    from lpm.cuda.device import device_kernels, on_host
    from lpm.gaussians.optim_state import follow_rows
    from lpm.render.losses import l1_dssim_device, l1_dssim_torch
    from lpm.zones.error_maps import ErrorMaps
    from lpm.zones.votes import zone_votes_native, zone_votes_torch
    from lpm.zones.zone import ViewZones

    library = device_kernels(torch.device(device)) if device == "cuda" else on_host()
    if library is None:
        print("no native kernels here: their part is left out")
        return []
    big = torch.empty(max(n, 1000) * 64, device=device)
    copied = torch.empty_like(big)
    bandwidth = 2 * big.nbytes / seconds_of(lambda: copied.copy_(big), device)

    means = torch.randn(n, 3, device=device)
    zones = []
    for number in range(8):
        viewmat = torch.eye(4)
        viewmat[:3, :3], viewmat[2, 3] = torch.linalg.qr(torch.randn(3, 3)).Q, 4.0
        K = torch.tensor([[800.0, 0, 480], [0, 800, 270], [0, 0, 1]])
        has = torch.rand(68, 120) < 0.06  # about 500 tiles of each view
        near = torch.where(has, 3.5, torch.inf)
        far, kind = torch.where(has, 4.5, -torch.inf), torch.where(has, 0, -1)
        on = [value.to(device) for value in (viewmat, K, near, far, near, kind)]
        viewmat, K, near, far, depth, kind = on
        zones.append(ViewZones(number, viewmat, K, (960, 540), 8, near, far, depth, has.numpy(), kind))
    truth = torch.rand(540, 960, 3, device=device)
    render = (truth + 0.1 * torch.randn_like(truth)).requires_grad_()
    maps = ErrorMaps(8, stride=1)
    rows = torch.randint(n, (n,), device=device)
    nothing = torch.zeros(n, dtype=torch.bool, device=device)
    moments = torch.randn(n, 15, 3, device=device)
    jobs = [
        ("zone membership and votes, 8 views", 20 * n, lambda: zone_votes_native(library, means, zones, 0.02),
         lambda: zone_votes_torch(means, zones, 0.02)),
        ("L1 + SSIM with gradient and tile errors, 960x540", 3 * truth.nbytes,
         lambda: l1_dssim_device(library, render, truth, 0.2, maps.request(0, (540, 960))),
         lambda: l1_dssim_torch(render, truth, 0.2).backward()),
        ("rows of an edit, 45 values each", 2 * moments.nbytes + 9 * n,
         lambda: follow_rows(library, moments, rows, nothing), lambda: moments[rows]),
    ]  # fmt: skip
    table = []
    for name, touched, ours, twin in jobs:
        took, torchs = seconds_of(ours, device), seconds_of(twin, device)
        share = touched / took / bandwidth
        table.append({"kernel": name, "ms": 1e3 * took, "torch_ms": 1e3 * torchs, "share_of_copy": share, "points": n})
    return table


def config_of(method: str, data: Path, steps: int, device: str, folder: Path) -> Any:
    """nerfstudio's configuration of one of METHODS, or METHOD@POINTS: with that cap."""
    from nerfstudio.configs.method_configs import method_configs

    from lpm.plugin.config import lpm_splat
    from lpm.plugin.dataparser import LpmDataParserConfig
    from lpm.train.load_photos import fitting_scale

    method, _, cap = method.partition("@")
    ours = method != "splatfacto"
    config = copy.deepcopy(lpm_splat.config if ours else method_configs["splatfacto"])
    config.experiment_name, config.timestamp, config.output_dir = method, "0", folder
    config.machine.device_type, config.vis, config.max_num_iterations = device, "tensorboard", steps
    config.steps_per_eval_image = config.steps_per_eval_all_images = config.steps_per_eval_batch = 10**9
    config.steps_per_save, config.logging.local_writer.enable = 10**9, False
    manager = config.pipeline.datamanager
    # The same parser, hold-out rule and size for all.
    manager.dataparser = LpmDataParserConfig(data=data)
    manager.data = data
    manager.camera_res_scale_factor = fitting_scale(960, device)
    if ours:
        config.pipeline.model.strategy, config.pipeline.model.max_points = method, int(cap) if cap else None
    return config


def held_out_psnr(trainer: Any) -> float:
    """Mean over the held-out photos, dB."""
    model, values = trainer.pipeline.model, []
    model.eval()
    with torch.no_grad():
        for camera, batch in trainer.pipeline.datamanager.fixed_indices_eval_dataloader:
            outputs = model.get_outputs_for_camera(camera)
            photo = model.composite_with_background(model.get_gt_img(batch["image"]), outputs["background"])
            values.append(float(-10 * torch.log10((outputs["rgb"].clamp(0, 1) - photo).square().mean())))
    model.train()
    return sum(values) / len(values)


def train(
    method: str, data: Path, steps: int, device: str, tell: Any = lambda run: None, prepared: Any = lambda: None
) -> dict[str, Any]:
    """One run: quality over time, points, memory, and milliseconds by stage. `tell` is given it on the way, too.

    `prepared` is called when all is there and the steps begin.
    """
    from nerfstudio.engine.callbacks import TrainingCallbackLocation as Location
    from nerfstudio.models import splatfacto
    from nerfstudio.scripts.train import _set_random_seed

    # Its weights come over the network, and PSNR needs none.
    splatfacto.LearnedPerceptualImagePatchSimilarity = lambda **_: torch.nn.Identity()  # type: ignore[misc, assignment]
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(method, data, steps, device, Path(folder))
        _set_random_seed(42)
        begin = time.perf_counter()
        trainer = config.setup()
        trainer.setup()
        preparing = time.perf_counter() - begin
        stages = Stages(device)
        pipeline, model = trainer.pipeline, trainer.pipeline.model
        model.get_outputs = stages.timed("render", model.get_outputs)
        model.get_loss_dict = stages.timed("loss", model.get_loss_dict)
        optimizers = trainer.optimizers
        optimizers.optimizer_scaler_step_some = stages.timed("optimizer", optimizers.optimizer_scaler_step_some)
        train_iteration = stages.timed("step", trainer.train_iteration)

        def callbacks(step: int, where: Any) -> None:
            for callback in trainer.callbacks:
                callback.run_callback_at_location(step, where)

        manage = stages.timed("point management", lambda step: callbacks(step, Location.AFTER_TRAIN_ITERATION))
        prepared()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        curve, spent = [], 0.0

        def so_far() -> dict[str, Any]:
            done = curve[-1][1]
            ms = {name: value / done for name, value in stages.ms().items()}
            ms["backward and the rest"] = ms["step"] - sum(ms[name] for name in ("render", "loss", "optimizer"))
            memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
            return {
                "scene": data.name, "method": method, "steps": done, "preparing_seconds": preparing, "seconds": spent,
                "psnr": curve[-1][2], "points": model.num_points, "peak_GiB": memory, "ms_by_stage": ms, "curve": curve,
                "point_management_share": ms["point management"] / (ms["step"] + ms["point management"]),
            }  # fmt: skip

        looks = {round(steps * share / 20) for share in range(1, 21)}
        begin = time.perf_counter()
        for step in range(steps):
            pipeline.train()
            callbacks(step, Location.BEFORE_TRAIN_ITERATION)
            train_iteration(step)
            manage(step)
            if step + 1 in looks:
                if device == "cuda":
                    torch.cuda.synchronize()
                spent += time.perf_counter() - begin
                stages.on = False
                curve.append((round(spent, 3), step + 1, round(held_out_psnr(trainer), 3)))
                tell(so_far())
                stages.on = True
                begin = time.perf_counter()
        return so_far()


def seconds_to(run: dict[str, Any], psnr: float) -> float | None:
    """When a run's held-out quality first reached `psnr`."""
    return next((seconds for seconds, _, value in run["curve"] if value >= psnr), None)


def table(kernel_rows: list[dict[str, Any]], runs: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = []
    if kernel_rows:
        lines += [f"| kernel ({kernel_rows[0]['points']:,} points) | ms | torch, ms | of copy bandwidth |",
                  "|---|---|---|---|"]  # fmt: skip
        lines += [f"| {r['kernel']} | {r['ms']:.3f} | {r['torch_ms']:.3f} | {r['share_of_copy']:.0%} |"
                  for r in kernel_rows]  # fmt: skip
        lines.append("")
    heads = ("scene", "method", "steps", "PSNR", "points", "s", "to adc's last PSNR", "GiB", "management", "ms a step")
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for run in runs:
        adc = next((r for r in runs if r["scene"] == run["scene"] and r["method"] == "adc"), None)
        reached = seconds_to(run, adc["psnr"]) if adc else None
        stages = ", ".join(f"{name} {value:.2f}" for name, value in run["ms_by_stage"].items() if name != "step")
        memory = "" if run["peak_GiB"] is None else f"{run['peak_GiB']:.2f}"
        cells = (
            run["scene"], run["method"], f"{run['steps']:,}", f"{run['psnr']:.2f}", f"{run['points']:,}",
            f"{run['seconds']:.1f}", "never" if reached is None else f"{reached:.1f} s", memory,
            f"{run['point_management_share']:.1%}", stages,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


class Part:
    """One of ["kernels"] and [method, scene] in a process of its own, which prepares, and measures when told to."""

    def __init__(self, names: list[str], options: argparse.Namespace, steps: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.out, self.limit = Path(self.folder.name) / "part.json", options.limit
        command = [sys.executable, __file__, "--data", str(options.data), "--device", options.device]
        command += ["--steps", str(steps), "--points", str(options.points), "--part", *names, "--out", str(self.out)]
        self.said = open(Path(self.folder.name) / "said.txt", "w+")  # noqa: SIM115  # the process writes to it
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=self.said, text=True, env={**os.environ, "PYTHONSAFEPATH": "1"}
        )

    def measure(self) -> Any:
        """What it gives, or has by the time that it is stopped. Raises RuntimeError."""
        try:
            self.process.communicate("go\n", timeout=self.limit)
        except subprocess.TimeoutExpired:
            self.stop()
            if not self.out.is_file():
                raise RuntimeError(f"stopped after {self.limit:.0f} s") from None
            return json.loads(self.out.read_text())
        if self.process.returncode or not self.out.is_file():
            self.said.seek(0)
            said = [line.strip() for line in self.said if line.strip()]
            raise RuntimeError(f"exit {self.process.returncode}: {said[-1] if said else 'without a word'}")
        return json.loads(self.out.read_text())

    def stop(self) -> None:
        """Ends the process if it is there."""
        self.process.kill()
        self.process.wait()


def write(result: dict[str, Any], out: Path | None) -> None:
    """What is there so far, as JSON and as a table beside it."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        left = "".join(f"\nleft out: {line}\n" for line in result["left_out"])
        out.with_suffix(".md").write_text(f"{result['device']}\n\n{table(result['kernels'], result['runs'])}\n{left}")


def main() -> None:
    """Writes after every part, and prints the table last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of scenes")
    parser.add_argument("--scenes", nargs="*", default=SCENES)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="each METHOD, or METHOD@POINTS for another cap")
    parser.add_argument("--full", action="store_true", help="30,000 steps")
    parser.add_argument("--steps", type=int, help="in place of 7,000 or 30,000")
    parser.add_argument("--points", type=int, default=2_000_000, help="for the kernels")
    parser.add_argument("--no-kernels", action="store_true", help="training only")
    parser.add_argument("--limit", type=float, help="seconds that a part may measure at most")
    parser.add_argument("--after", type=Path, metavar="FILE", help="measure nothing before FILE is there")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)  # what apart() asks of its process
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "no NVIDIA GPU that torch can use: nothing was measured (--device cpu only shows that it runs)"
        )
    steps = options.steps or (30_000 if options.full else 7_000)
    if options.part:
        method, *scene = options.part

        def tell(done: Any) -> None:
            with atomic_file(options.out) as file:  # it may be stopped at any moment
                file.write(json.dumps(done).encode())

        if scene:
            train(method, options.data / scene[0], steps, options.device, tell, sys.stdin.readline)
        else:
            sys.stdin.readline()
            tell(kernels(options.device, options.points))
        return
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    result: dict[str, Any] = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda,
                              "kernels": [], "runs": [], "left_out": []}  # fmt: skip
    parts = [] if options.no_kernels else [["kernels"]]
    there = [scene for scene in options.scenes if (options.data / scene).is_dir()]
    result["left_out"] += [f"{scene}: not in {options.data}" for scene in options.scenes if scene not in there]
    parts += [[method, scene] for scene in there for method in options.methods]
    started = [Part(part, options, steps) for part in parts]
    try:
        while options.after is not None and not options.after.exists():
            time.sleep(0.2)
        for part, process in zip(parts, started, strict=True):
            try:
                done = process.measure()
                result["runs" if part[1:] else "kernels"] += [done] if part[1:] else done
            except RuntimeError as error:  # the others still say something
                result["left_out"].append(f"{' on '.join(part)}: {error}"[:300])
            write(result, options.out)
    finally:
        for process in started:
            process.stop()
    print(f"\n{name}, torch {torch.__version__}, held-out PSNR (dB)\n\n{table(result['kernels'], result['runs'])}")
    for line in result["left_out"]:
        print(f"left out: {line}")
    raise SystemExit(1 if result["left_out"] else 0)


if __name__ == "__main__":
    main()
