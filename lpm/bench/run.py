"""One run of the grid, in a process of its own: `python -m lpm.bench.run JOB.json RESULT.json`.

Prints `BENCH n` at step n; the result is a file, since whatever else writes to the terminal may cut into a line.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpm.bench import moving
from lpm.bench.jobs import MOVING, SECTOR, Job
from lpm.checks import fail, one_line_errors
from lpm.files import atomic_file

if TYPE_CHECKING:
    from lpm.train.run_data import RunData
    from lpm.train.run_settings import RunSettings
    from lpm.train.trainer import Trainer

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


def configure(job: Job) -> RunSettings:
    """The settings of the run that the job asks for."""
    from lpm.scenes.read import read_scene
    from lpm.strategy.registry import strategy_class
    from lpm.train.run_settings import MovingRunSettings, RunSettings

    moving = job.base == MOVING
    scene = Path(job.data, SECTOR) if job.hold_out == "sector" else Path(job.data)
    settings = (MovingRunSettings if moving else RunSettings)(
        scene=scene, steps=job.steps, seed=job.seed, scale=job.scale, max_points=job.cap,
        strategy=job.settings.get("strategy", "lpm") if moving else job.base, page=False, save_every=10**9,
        measure_every=0,
    )  # fmt: skip
    model = settings.model
    model.with_lpips = job.lpips
    if job.start in ("random", "photos"):
        settings.data.load_3D_points, settings.points_from_photos = False, job.start == "photos"
    elif job.start in ("thinned", "thinned+photos"):
        settings.points_from_photos = job.start == "thinned+photos"
        points = read_scene(settings.scene).points
        if points is None:
            fail("start", f"{job.start}, and the scene has no points", "a scene with points, or start random")
        settings.data.max_points = max(1, len(points.xyz) // 10)
    own = vars(model.settings)[strategy_class(settings.strategy, moving).group]
    for name, value in job.settings.items():  # before anything is built
        owner = own if name in vars(own) else model if name in vars(model) else settings
        setattr(owner, name, value)
    return settings


def held_out(trainer: Trainer, masks: dict[str, Any], perceptual: bool = False) -> list[dict[str, Any]]:
    """The metrics of every held-out view, by name; with `perceptual` FLIP, too.

    `masks`: where it moves, [H, W] bool by name.
    """
    import torch

    from lpm.runs import checkpoint

    state, model = checkpoint.random_state(), trainer.model
    model.eval()
    views = []
    for name, camera, photo in trainer.data.held_out():
        with torch.no_grad():
            outputs = model.draw(camera)
        metrics = model.held_out_metrics(outputs, photo, perceptual)
        kept: dict[str, float | None] = {
            key: float(metrics[key]) for key in ("psnr", "ssim", "lpips", "flip") if key in metrics
        }
        if name in masks:
            for part, mask in (("dynamic", masks[name]), ("static", ~masks[name])):
                kept[f"psnr_{part}"] = moving.psnr(outputs["rgb"], photo["truth"], mask)
                kept[f"ssim_{part}"] = moving.ssim(outputs["rgb"], photo["truth"], mask)
            kept["time"] = float(camera.time)  # type: ignore[arg-type]
        views.append(
            {"view": name, **{key: value for key, value in kept.items() if value == value and value is not None}}
        )
    model.train()
    checkpoint.set_random_state(state)
    return views


def over_time(trainer: Trainer) -> dict[str, Any]:
    """Of a scene that moves the `cvvdp` of its held-out cameras' clips, and their mean; see lpm.train.clips."""
    from lpm.runs import checkpoint
    from lpm.train.clips import clip_rows
    from lpm.train.opened_run import clip_means

    state = checkpoint.random_state()
    trainer.model.eval()
    found = clip_means(clip_rows(trainer.model, trainer.data))
    trainer.model.train()
    checkpoint.set_random_state(state)
    return found


def _masks(data: RunData) -> dict[str, Any]:
    """Of a scene that moves: where it does, by the name of the held-out view; by the scene's own masks (dynamic/), else
    by how a camera that stands still sees it change. Other cameras have none."""
    train, test = data.scene.train, data.scene.test
    if test.cams is None or train.cams is None:
        return {}
    files = {name: moving.mask_file(path) for name, path in zip(test.names, test.images, strict=True)}
    if all(path.is_file() for path in files.values()):
        sizes = [(photo["image"].shape[0], photo["image"].shape[1]) for photo in data.test]
        return {name: moving.read_mask(path, size) for (name, path), size in zip(files.items(), sizes, strict=True)}
    by_camera: dict[str, list[Any]] = {}
    poses: dict[str, list[Any]] = {}
    for split, cameras, photos in ((train, data.train_cameras, data.train), (test, data.test_cameras, data.test)):
        for cam, photo, pose in zip(split.cams or [], photos, cameras.c2w, strict=True):
            by_camera.setdefault(cam, []).append(photo["image"][..., :3])
            poses.setdefault(cam, []).append(pose)
    still = {cam: moving.background(images) for cam, images in by_camera.items()
             if len(images) > 2 and all((pose - poses[cam][0]).abs().max() < 1e-5 for pose in poses[cam])}  # fmt: skip
    return {name: moving.moving_mask(photo["image"][..., :3], still[cam])
            for name, cam, photo in zip(test.names, test.cams, data.test, strict=True) if cam in still}  # fmt: skip


def mean(views: list[dict[str, Any]], key: str) -> float:
    """Mean of `key` over the views that have it."""
    values: list[float] = [view[key] for view in views if key in view]
    return sum(values) / len(values)


def train(job: Job) -> dict[str, Any]:
    """Trains and measures; the result is a row of results.json."""
    import torch

    from lpm import records
    from lpm.train.opened_run import lost_views

    torch.set_num_threads(job.threads)
    clock, now = clock_of(job)
    with tempfile.TemporaryDirectory() as folder:
        start = now()
        settings = configure(job)
        from lpm.scenes.read import read_scene
        from lpm.train.trainer import Trainer

        trainer = Trainer(settings, Path(folder) / "run")
        trainer.setup(read_scene(settings.scene))
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

        trainer.on_step.append(on_step)
        trainer.train()
        end = now()
        path = trainer.folder / "edits.jsonl"
        events = records.read(path) if path.is_file() else []
        memory = peak_memory()  # before FLIP and ColorVideoVDP, which training does not need
        views, clips = held_out(trainer, masks, perceptual=True), over_time(trainer)
    kinds = ("split", "cloned", "inserted", "pruned", "reset")
    return {
        "scene": job.scene,
        "strategy": job.strategy,
        "seed": job.seed,
        "cap": job.cap,
        "steps": job.steps,
        "start": job.start,
        "hold_out": job.hold_out,
        "settings": job.settings,
        "psnr": mean(views, "psnr"),
        "ssim": mean(views, "ssim"),
        **{key: mean(views, key) for key in ("lpips", "flip") if all(key in view for view in views)},
        "lost": len(lost_views(views)),
        **clips,
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


def main() -> None:
    """Runs the job in the file that the first word names, into the file that the second names."""
    result = train(Job(**json.loads(Path(sys.argv[1]).read_text())))
    with atomic_file(Path(sys.argv[2])) as file:
        file.write(json.dumps(result).encode())


if __name__ == "__main__":
    one_line_errors(main)
