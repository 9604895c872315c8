"""One run of the grid, in a process of its own: `python -m lpm.bench.run JOB.json RESULT.json`.

Prints `BENCH n` at step n; the result is a file, since whatever else writes to the terminal may cut into a line.
"""

from __future__ import annotations

import copy
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lpm.bench import moving
from lpm.bench.jobs import MOVING, Job
from lpm.checks import fail
from lpm.files import atomic_file

CURVE_POINTS = 6
"""How often held-out quality is measured on the way; the clock stands still meanwhile."""


def clock_of(job: Job) -> tuple[str, Callable[[], float]]:
    """The clock of a run, seconds: on one thread of a CPU its processor time, whatever else the machine does.

    On a GPU the clock is read when the GPU has done what it was given.
    """
    import torch

    if torch.cuda.is_available():

        def now() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return "wall", now
    if job.threads == 1:
        return "processor", time.process_time
    return "wall", time.perf_counter


def peak_memory() -> dict[str, int]:
    """MB that this process has held at most, since it began: of the host, and of the device where there is one."""
    import torch

    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    if torch.cuda.is_available():
        peak["device"] = torch.cuda.max_memory_allocated() // 2**20
    return peak


def configure(job: Job, folder: Path) -> Any:
    """The method's own configuration with what the job asks for."""
    from lpm.plugin.config import lpm_splat, lpm_splat_4d
    from lpm.scenes.read import read_scene
    from lpm.strategy.registry import strategy_class

    config = copy.deepcopy((lpm_splat_4d if job.base == MOVING else lpm_splat).config)
    config.experiment_name, config.timestamp, config.output_dir = "run", "0", folder
    config.machine.seed, config.vis = job.seed, "tensorboard"
    config.max_num_iterations, config.steps_per_eval_image, config.steps_per_save = job.steps, 0, 10**9
    config.logging.local_writer.enable = False
    data: Any = config.pipeline.datamanager
    model: Any = config.pipeline.model
    data.data, data.camera_res_scale_factor, data.train_cameras_sampling_seed = Path(job.data), job.scale, job.seed
    model.strategy = "lpm" if job.base == MOVING else job.base
    model.max_points, model.with_lpips = job.cap, job.lpips
    if job.start in ("random", "photos"):
        data.dataparser.load_3D_points, data.points_from_photos = False, job.start == "photos"
    elif job.start in ("thinned", "thinned+photos"):
        data.points_from_photos = job.start == "thinned+photos"
        points = read_scene(data.data).points
        if points is None:
            fail("start", f"{job.start}, and the scene has no points", "a scene with points, or start random")
        data.dataparser.max_points = max(1, len(points.xyz) // 10)
    own = vars(model.settings)[strategy_class(model.strategy, model.moving).group]
    for name, value in job.settings.items():  # before anything is built
        setattr(own if name in vars(own) else model, name, value)
    return config


def held_out(trainer: Any, masks: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of every held-out view, by name; `masks`: where it moves, [H, W] bool by name."""
    from lpm.runs import checkpoint

    state = checkpoint.random_state()
    data, model = trainer.data, trainer.model
    model.eval()
    names = data.eval_dataset.metadata["image_names"]
    views = []
    for name, (camera, batch) in zip(names, data.fixed_indices_eval_dataloader, strict=True):
        outputs = model.get_outputs_for_camera(camera)
        metrics, _ = model.get_image_metrics_and_images(outputs, batch)
        kept: dict[str, float | None] = {
            key: float(metrics[key]) for key in ("psnr", "ssim", "lpips") if key in metrics
        }
        if name in masks:
            for part, mask in (("dynamic", masks[name]), ("static", ~masks[name])):
                kept[f"psnr_{part}"] = moving.psnr(outputs["rgb"], batch["truth"], mask)
                kept[f"ssim_{part}"] = moving.ssim(outputs["rgb"], batch["truth"], mask)
            kept["time"] = float(camera.times)
        views.append(
            {"view": name, **{key: value for key, value in kept.items() if value == value and value is not None}}
        )
    model.train()
    checkpoint.set_random_state(state)
    return views


def _masks(data: Any) -> dict[str, Any]:
    """Of a scene that moves: where it does, by the name of the held-out view; by the scene's own masks (dynamic/), else
    by how a camera that stands still sees it change. Other cameras have none."""
    train, test = data.train_dataset, data.eval_dataset
    cams = test.metadata.get("cams")
    if cams is None:
        return {}
    names = test.metadata["image_names"]
    files = {name: moving.mask_file(path) for name, path in zip(names, test.image_filenames, strict=True)}
    if all(path.is_file() for path in files.values()):
        sizes = [tuple(item["image"].shape[:2]) for item in data.cached_eval]
        return {name: moving.read_mask(path, size) for (name, path), size in zip(files.items(), sizes, strict=True)}
    by_camera: dict[str, list[Any]] = {}
    poses: dict[str, list[Any]] = {}
    for dataset, cached in ((train, data.cached_train), (test, data.cached_eval)):
        for cam, item, pose in zip(dataset.metadata["cams"], cached, dataset.cameras.camera_to_worlds, strict=True):
            by_camera.setdefault(cam, []).append(item["image"][..., :3])
            poses.setdefault(cam, []).append(pose)
    still = {cam: moving.background(images) for cam, images in by_camera.items()
             if len(images) > 2 and all((pose - poses[cam][0]).abs().max() < 1e-5 for pose in poses[cam])}  # fmt: skip
    return {name: moving.moving_mask(item["image"][..., :3], still[cam])
            for name, cam, item in zip(names, cams, data.cached_eval, strict=True) if cam in still}  # fmt: skip


def mean(views: list[dict[str, Any]], key: str) -> float:
    """Mean of `key` over the views that have it."""
    values = [view[key] for view in views if key in view]
    return sum(values) / len(values)


def train(job: Job) -> dict[str, Any]:
    """Trains and measures; the result is a row of results.json."""
    import torch

    from lpm import records

    torch.set_num_threads(job.threads)
    clock, now = clock_of(job)
    with tempfile.TemporaryDirectory() as folder:
        start = now()
        config = configure(job, Path(folder))
        from lpm.plugin.nerfstudio_patches import set_random_seed  # nerfstudio itself cannot be imported first

        set_random_seed(job.seed)
        trainer = config.setup()
        trainer.setup()
        ready = now()
        masks = _masks(trainer.data)
        measured = now() - ready
        curve: list[dict[str, float]] = []

        def on_step(step: int) -> None:
            nonlocal measured
            if (step + 1) % 50 == 0:
                print(f"BENCH {step + 1}", flush=True)
            if (step + 1) % max(1, job.steps // CURVE_POINTS) == 0:
                paused = now()
                psnr = mean(held_out(trainer, masks), "psnr")
                curve.append(
                    dict(step=step + 1, seconds=paused - start - measured, points=trainer.model.num_points, psnr=psnr)
                )
                measured += now() - paused

        trainer.eval_iteration = on_step  # nerfstudio calls it after every step
        trainer.train()
        end = now()
        path = trainer.base_dir / "edits.jsonl"
        events = records.read(path) if path.is_file() else []
        views = held_out(trainer, masks)
    memory = peak_memory()
    kinds = ("split", "cloned", "inserted", "pruned", "reset")
    return {
        "scene": job.scene,
        "strategy": job.strategy,
        "seed": job.seed,
        "cap": job.cap,
        "steps": job.steps,
        "start": job.start,
        "settings": job.settings,
        "psnr": mean(views, "psnr"),
        "ssim": mean(views, "ssim"),
        **({"lpips": mean(views, "lpips")} if all("lpips" in view for view in views) else {}),
        **{key: mean(views, key) for key in moving.METRICS if any(key in view for view in views)},
        "views": views,
        "points": trainer.model.num_points,
        "seconds": {
            "setup": ready - start,
            "training": end - ready - measured,
            "events": sum(event.seconds for event in events),
            "total": end - start - measured,
        },
        "clock": clock,
        "curve": curve,
        "edits": {kind: sum(getattr(event, kind) for event in events) for kind in kinds},
        "size": list(trainer.model.last_size),
        "threads": job.threads,
        "peak_memory_mb": memory.get("device", memory["host"]),
        "memory_of": "device" if "device" in memory else "host",
    }


if __name__ == "__main__":
    result = train(Job(**json.loads(Path(sys.argv[1]).read_text())))
    with atomic_file(Path(sys.argv[2])) as file:
        file.write(json.dumps(result).encode())
