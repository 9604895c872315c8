"""lpm-export sog --lod: levels of detail as streamed SOG, which PlayCanvas' engine and what is built on it stream.

npm's splat-transform cuts the scene into chunks and writes them; the levels are made here. Each is the one before with
half the points: neighbours are merged so that their moments stay (lpm.editing.simplify), and what is left is trained to
look like the whole model (lpm.editing.refit). Photos are not needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.editing.cameras import Cameras
from lpm.editing.opened import chosen_device, mode_of
from lpm.editing.refit import Refitted, refit
from lpm.editing.simplify import simplify
from lpm.editing.simplifying import cameras_for, seen_worth
from lpm.exporting.cli import Lod
from lpm.files import Progress, bar, check_new_folder, quiet, staging_folder
from lpm.formats.cli import Options
from lpm.formats.export import check_offset, comments, finish, prepare, up_direction
from lpm.formats.ply import write_ply
from lpm.formats.rows import sound_rows
from lpm.formats.splat_transform import bundle_levels, check_levels
from lpm.gaussians.parameters import NAMES
from lpm.render.rasterize import RasterizeMode

Params = dict[str, Tensor]


@dataclass
class Refit:
    """How levels are re-fitted."""

    cameras: Cameras
    mode: RasterizeMode
    steps: int
    seed: int = 0


def coarser_levels(
    full: Mapping[str, Tensor], count: int, how: Refit | None, progress: Progress = quiet
) -> Iterator[Refitted]:
    """`count` levels below `full` (lpm.gaussians, finite), each half of the one before, rounded down.

    Args:
        how: None: levels are merged only, by what they tell of themselves; before and after are then NaN.
    """
    params = {name: full[name].detach() for name in NAMES}
    for _ in range(count):
        worth = None if how is None else seen_worth(params, how.cameras, how.mode)
        level = Refitted(simplify(params, len(params["means"]) // 2, worth), torch.nan, torch.nan)
        if how is not None:
            level = refit(level.params, full, how.cameras, how.steps, how.mode, how.seed, progress)
        params = level.params
        yield level


def to_levels(run: Path, out: Path, common: Options, lod: Lod) -> None:
    """Writes the folder `out`: streamed SOG, which appears when all of it is there."""
    if out.suffix in (".sog", ".json"):
        fail(out, f"the name of a file, {out.suffix}", "that of a new folder, which --lod writes")
    if lod.levels < 2:
        fail("--levels", str(lod.levels), "2 or more, the whole model among them")
    if lod.refit_steps < 0:
        fail("--refit-steps", str(lod.refit_steps), "0 or more")
    check_new_folder(out)
    device = chosen_device(lod.device)
    check_levels()
    loaded, chosen = prepare(run, common)
    check_offset(chosen, common)
    # The sky is behind everything at any distance: it is no part of the levels.
    points = len(chosen.params["means"]) - chosen.dome
    scene, sky = ({name: chosen.params[name].detach()[at] for name in NAMES}
                  for at in (slice(points), slice(points, None)))  # fmt: skip
    sound = sound_rows(scene)
    full = {name: value[sound] for name, value in scene.items()}
    n = len(full["means"])
    if n >> (lod.levels - 1) < 1:
        fail("--levels", f"{lod.levels} of {n:,} Gaussians", "so few that the coarsest has one")
    how = None
    if lod.refit_steps:
        placed = replace(loaded, params=full, frame=chosen.frame, offset=chosen.offset,
                         up=up_direction(loaded, chosen.frame))  # fmt: skip
        how = Refit(cameras_for(placed, full, lod.scene, device), mode_of(loaded), lod.refit_steps, lod.seed)
        print(f"re-fitting from {how.cameras.whose}")
    said = comments(loaded, chosen)
    with staging_folder(out) as unfinished:
        files = [unfinished / f"level{i}.ply" for i in range(lod.levels)]
        write_ply(files[0], full, comments=said)
        for i, level in enumerate(coarser_levels(full, lod.levels - 1, how, bar), 1):
            write_ply(files[i], level.params, comments=said)
            like = "" if how is None else f": {level.after:.2f} dB against the whole, {level.before:.2f} when merged"
            print(f"level {i}: {len(level.params['means']):,} Gaussians{like}", flush=True)
        environment = unfinished / "sky.ply" if chosen.dome else None
        if environment is not None:
            write_ply(environment, sky, comments=said)
        bundle_levels(files, environment, unfinished / out.name)
        os.replace(unfinished / out.name, out)
    finish(out, loaded, chosen, int((~sound).sum()), common)
