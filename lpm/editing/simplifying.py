"""lpm-edit simplify: Gaussians are merged, and what is left is trained to look like all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.editing.cameras import Cameras, drawn_cameras, on_device, own_scene, scene_cameras
from lpm.editing.cli import Common
from lpm.editing.opened import chosen_device, mode_of, opened, up_of, written
from lpm.editing.refit import refit
from lpm.editing.seen_light import stopped_light
from lpm.editing.simplify import simplify as merge_neighbours
from lpm.files import bar
from lpm.formats.read import Loaded
from lpm.formats.rows import sound_rows
from lpm.gaussians.parameters import NAMES
from lpm.render.rasterize import RasterizeMode


def simplify(
    source: Path, out: Path, points: int, scene: Path | None, refit_steps: int, seed: int, device: str, common: Common
) -> None:
    """Merges neighbours until `points` are left, and re-fits these."""
    if refit_steps < 0:
        fail("--refit-steps", str(refit_steps), "0 or more")
    where = chosen_device(device)
    loaded = opened(source, out, common)
    sound = sound_rows(loaded.params)
    full = {name: loaded.params[name].detach()[sound] for name in NAMES}
    n = len(full["means"])
    if not 1 <= points <= n:
        fail("--points", f"{points:,}", f"1 to {n:,}, as many as there are")
    worth, cameras, mode = None, None, mode_of(loaded)
    if refit_steps:
        cameras = cameras_for(loaded, full, scene, where)
        worth = seen_worth(full, cameras, mode)
    params = merge_neighbours(full, points, worth)
    print(f"simplify: {n:,} Gaussians became {len(params['means']):,}, by merging neighbours")
    if cameras is not None:
        done = refit(params, full, cameras, refit_steps, mode, seed, bar)
        params = done.params
        print(
            f"re-fitted in {refit_steps:,} steps from {cameras.whose}: {done.before:.2f} dB against all Gaussians "
            f"before, {done.after:.2f} dB after"
        )
    photos = None if cameras is None or cameras.photo is None else cameras
    written(out, loaded, loaded, params, loaded.offset, common, loaded.params, photos)


def cameras_for(loaded: Loaded, full: Mapping[str, Tensor], scene: Path | None, device: str) -> Cameras:
    """Those of `scene`, else of the run that `loaded` is from, else some that are drawn around `full`; on `device`."""
    scene = own_scene(loaded) if scene is None else scene
    if scene is not None:
        return on_device(scene_cameras(scene, loaded, device), device)
    return on_device(drawn_cameras(full, torch.from_numpy(up_of(loaded)).float()), device)


def seen_worth(params: Mapping[str, Tensor], cameras: Cameras, mode: RasterizeMode) -> Tensor:
    """[N] what a change of each of `params` costs (lpm.editing.simplify): by the light that `cameras` see of it."""
    views = cameras.views()
    lights = stopped_light(params, views, mode)
    worth = torch.zeros(len(params["means"]))
    for _ in bar(range(len(views)), "looking"):
        worth += next(lights)
    # By its square root: pixels are many where a surface is large and plain, and detail is small.
    return worth.sqrt()
