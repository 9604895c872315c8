"""Finding and reading what a training run left behind, without nerfstudio."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import LpmError, fail
from lpm.files import atomic_file
from lpm.gaussians import motion
from lpm.gaussians.parameters import NAMES
from lpm.gaussians.spherical_harmonics import rgb_to_sh0
from lpm.runs import checkpoint

CHECKPOINT_NAME = re.compile(r"step-(\d+)\.ckpt$")
CHECKPOINTS = ("checkpoints", "nerfstudio_models")
"""Where a run's folder has its checkpoints: one of lpm-train, and one of ns-train."""
CONFIGS = ("config.toml", "config.yml")
GEOREFERENCE = "georeference.json"
RASTERIZE_MODE = re.compile(r"^\s*rasterize_mode\s*[:=]\s*['\"]?(classic|antialiased)\b", re.MULTILINE)


def _step(path: Path) -> int:
    found = CHECKPOINT_NAME.search(path.name)
    return int(found[1]) if found else -1


def latest_checkpoint(folder: Path) -> Path:
    """The checkpoint with the highest step in `folder`; raises LpmError if there is none."""
    found = max(folder.glob("step-*.ckpt"), key=_step, default=None)
    if found is None or _step(found) < 0:
        fail(folder, "no checkpoint in it", "step-*.ckpt files", "give a run's folder, or train on until one is saved")
    return found


def checkpoint_folder(run: Path) -> Path:
    """Where the run in the folder `run` has its checkpoints, or will have them."""
    return next((run / name for name in CHECKPOINTS if (run / name).is_dir()), run / CHECKPOINTS[0])


def find_checkpoint(run: Path) -> Path:
    """The newest checkpoint of `run`: its folder, its config file, its folder of checkpoints, or a .ckpt file."""
    if run.suffix == ".ckpt" or (run.is_file() and run.name not in CONFIGS):
        return run
    folder = run.parent if run.name in CONFIGS else run
    if not folder.is_dir():
        fail(run, "no such folder", "a run's folder, its config.toml or config.yml, or a .ckpt file")
    inner = checkpoint_folder(folder)
    return latest_checkpoint(inner if inner.is_dir() else folder)


def read_checkpoint(run: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of `run` (see find_checkpoint) that can be read, and what it holds.

    Says so where that is not the newest. Raises LpmError where none can be read, or the .ckpt that `run` is.
    """
    newest = find_checkpoint(run)
    older = [] if newest == run else sorted(newest.parent.glob("step-*.ckpt"), key=_step, reverse=True)[1:]
    try:
        return newest, checkpoint.load(newest)
    except LpmError as error:
        for path in older:
            with contextlib.suppress(LpmError):
                state = checkpoint.load(path)
                print(f"{error}; taken is the one before it, {path.name}", file=sys.stderr)
                return path, state
        raise


def run_folder(checkpoint: Path) -> Path:
    """The run's folder that `checkpoint` lies in (or, alone somewhere, the folder it is in)."""
    folder = checkpoint.absolute().parent
    return folder.parent if folder.name in CHECKPOINTS else folder


def run_frame(folder: Path) -> tuple[NDArray[np.float64], float] | None:
    """World to train, of the run in `folder`: transform [3, 4] and scale, train = scale * (transform @ world).

    From dataparser_transforms.json, which nerfstudio writes.

    Returns:
        None where there is no such file.

    Raises:
        LpmError: the file is broken.
    """
    path = folder / "dataparser_transforms.json"
    if not path.is_file():
        return None
    try:
        saved = json.loads(path.read_bytes())
        transform, scale = np.array(saved["transform"], np.float64), float(saved["scale"])
        if transform.shape != (3, 4) or not np.isfinite(transform).all() or not 0 < scale < np.inf:
            raise ValueError
        return transform, scale
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError):
        fail(path, "no transform and scale in it", "what nerfstudio writes", "remove it; then there is no world frame")


def keep_georeference(scene: Path, folder: Path) -> None:
    """Copies what lpm-prepare knows about where `scene` stands on earth, and of metres, into the run's `folder`."""
    if (scene / GEOREFERENCE).is_file() and folder.is_dir():
        with atomic_file(folder / GEOREFERENCE) as file:
            file.write((scene / GEOREFERENCE).read_bytes())


def run_georeference(folder: Path) -> dict[str, Any] | None:
    """What the run in `folder` knows of that (docs/prepare.md); None where it does not, or the file is broken."""
    try:
        found = json.loads((folder / GEOREFERENCE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def run_rasterize_mode(folder: Path) -> str | None:
    """How the run in `folder` was trained, classic or antialiased; None where no config file says it."""
    path = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    if path is None:
        return None
    # nerfstudio's file is YAML with Python objects of nerfstudio in it, which reading as YAML would import.
    found = RASTERIZE_MODE.search(path.read_text(errors="replace"))
    return found[1] if found else None


def load_sky(state: dict[str, Any]) -> Tensor | None:
    """Coefficients [K, 3] (lpm.render.sky) in what a checkpoint holds; None if it was trained without."""
    found = state["pipeline"].get("_model.sky")
    good = isinstance(found, Tensor) and found.dim() == 2 and len(found) in (1, 4, 9, 16) and found.shape[1] == 3
    return found if good and bool(torch.isfinite(found).all()) else None


def load_gaussians(path: Path, state: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """Parameters (lpm.gaussians; colours always as SH; motion, of a model that moves) in a checkpoint.

    `state`: what it holds, where it was read already. Reads tensors and runs no code from it.
    """
    saved = (checkpoint.load(path) if state is None else state)["pipeline"]
    prefix = "_model.gauss_params."
    saved = saved if isinstance(saved, dict) else {}
    missing = [name for name in NAMES if not isinstance(saved.get(prefix + name), Tensor)]
    if missing:
        fail(path, f"no {missing[0]} in it", "a checkpoint of lpm-splat or splatfacto")
    names = (*NAMES, *(name for name in (*motion.NAMES, motion.SPINS) if prefix + name in saved))
    params = {name: saved[prefix + name] for name in names}
    if params["features_rest"].shape[1] == 0:  # a model without harmonics keeps colours as logits
        params["features_dc"] = rgb_to_sh0(torch.sigmoid(params["features_dc"]))
    return params
