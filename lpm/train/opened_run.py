"""A run that was trained, opened to measure it or to draw from it: scene, photos and model as training had them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lpm.checks import fail
from lpm.files import Progress, quiet
from lpm.runs.folder import find_checkpoint, read_checkpoint, run_folder
from lpm.scenes.read import read_scene
from lpm.train.cameras import Camera
from lpm.train.clips import clip_rows
from lpm.train.load_photos import Photo
from lpm.train.model import GaussianModel
from lpm.train.moving_model import MovingGaussianModel
from lpm.train.photo_store import Budget
from lpm.train.placed import place
from lpm.train.run_data import RunData
from lpm.train.run_settings import FILE, RunSettings, read_settings


@dataclass
class OpenedRun:
    """See the module."""

    folder: Path
    settings: RunSettings
    data: RunData
    model: GaussianModel
    checkpoint: Path
    step: int
    """Steps that were done."""


def parameters_in(state: dict[str, Any]) -> dict[str, Any]:
    """The state_dict of a model in what a checkpoint holds, by either face."""
    prefix, pipeline = "_model.", state["pipeline"]
    saved = {name[len(prefix) :]: value for name, value in pipeline.items() if name.startswith(prefix)}
    saved.pop("device_indicator_param", None)  # which nerfstudio's models have
    return saved


def load_parameters(model: GaussianModel, state: dict[str, Any]) -> None:
    """Puts what the checkpoint `state` holds into `model`; its parameters of points are new ones, of the saved size."""
    saved = parameters_in(state)
    model.resize_for(saved)
    model.load_state_dict(saved)


def open_run(
    run: Path, device: str = "auto", scene: Path | None = None, say: Callable[[str], Any] = print,
    progress: Progress = quiet,
) -> OpenedRun:  # fmt: skip
    """Opens `run`: its folder, its config.toml or a checkpoint in it. Nothing in it is changed.

    Args:
        device: auto, cpu or cuda.
        scene: where the scene is now, if it was moved.

    Raises:
        LpmError: it has no settings or no checkpoint, its scene is gone, or they do not fit together.
    """
    folder = run_folder(find_checkpoint(run))
    if not (folder / FILE).is_file():
        fail(folder, f"no {FILE} in it", "the folder of a run", "runs of earlier versions open in lpm-view, lpm-export")
    settings = read_settings(folder / FILE)
    settings.scene = scene or settings.scene
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings.resolve(device)
    read = read_scene(settings.scene, settings.data.outside_files, settings.data.lens_fov)
    placed = place(read, settings.data, settings.eval_every)
    more = {"random_points": 1} if settings.moving else {}
    data = RunData(placed, settings.scene, device, settings.scale, settings.seed, settings.moving, False, say=say,
                   progress=progress, budget=Budget.of(device, settings.data.cache_gb, settings.data.device_cache_gb),
                   **more)  # fmt: skip
    settings.model.init_from = None
    kind = MovingGaussianModel if settings.moving else GaussianModel
    model = kind(settings.model_settings(), data.start(), say).to(device)
    path, state = read_checkpoint(run)
    try:
        load_parameters(model, state)
    except (KeyError, RuntimeError, TypeError) as error:
        fail(path, f"does not fit ({type(error).__name__}: {str(error)[:200]})", f"what {FILE} describes")
    model.step = settings.steps or 0  # all harmonics
    model.eval()
    return OpenedRun(folder, settings, data, model, path, int(state["step"]) + 1)


@torch.no_grad()
def held_out_rows(
    model: GaussianModel, views: Iterable[tuple[str, Camera, Photo]], perceptual: bool = False
) -> list[dict[str, Any]]:
    """Of each of `views` (RunData.held_out) its name as `view`, psnr (dB), ssim and, where its weights are, lpips; with
    `perceptual` also flip, where its package is."""
    return [
        {"view": name, **model.held_out_metrics(model.draw(camera), photo, perceptual)} for name, camera, photo in views
    ]


def measured(run: OpenedRun, progress: Progress = quiet) -> dict[str, Any]:
    """Means over all held-out photos, how many are lost, and each photo's own (held_out_rows); of a scene that moves
    also each clip's (lpm.train.clips), and the mean of their cvvdp."""
    views = run.data.held_out()
    rows = held_out_rows(run.model, (next(views) for _ in progress(range(len(run.data.test)), "measuring")), True)
    result = {"step": run.step, "points": run.model.num_points, **means(rows), "lost": len(lost_views(rows))}
    clips = clip_rows(run.model, run.data, progress)
    return result | {"views": rows} | clip_means(clips)


def clip_means(clips: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean `cvvdp` of clip_rows, and the rows as `clips`; nothing of none."""
    return {"cvvdp": math.fsum(clip["cvvdp"] for clip in clips) / len(clips), "clips": clips} if clips else {}


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of every number that all `rows` have."""
    names = [name for name in rows[0] if name != "view" and all(name in row for row in rows)]
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in names}


def lost_views(rows: list[dict[str, Any]], by: float = 6.0) -> list[str]:
    """Names of photos whose PSNR is `by` dB or more below the median of all: whole views that something hides."""
    values = sorted(row["psnr"] for row in rows)
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return [row["view"] for row in rows if row["psnr"] <= middle - by]


def as_json(result: dict[str, Any]) -> bytes:
    """`result` as the bytes of a metrics.json."""
    return (json.dumps(result, indent=1) + "\n").encode()
