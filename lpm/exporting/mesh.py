"""lpm-export mesh: the surface of a model, from the depths that cameras see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lpm.checks import fail, need
from lpm.editing.opened import chosen_device, mode_of
from lpm.editing.simplifying import cameras_for
from lpm.exporting.cli import Surface
from lpm.exporting.depths import seen_surface
from lpm.exporting.mesh_files import ENDINGS, write_mesh
from lpm.exporting.tsdf import DepthMap, Grid, fuse, surface
from lpm.files import bar
from lpm.formats.cli import Options
from lpm.formats.export import check_ending, placement, prepare, up_direction
from lpm.formats.rows import sound_rows
from lpm.gaussians.far import Floats
from lpm.gaussians.parameters import NAMES

LARGEST = 1024
"""Voxels along the longest side; a box of that many each way takes 10 GB and more."""
OUTSIDE = 0.01
"""The box leaves out this share of what is seen on each side."""
MARGIN = 0.05
"""Of the longest side of what is left, put on around it."""


def to_mesh(run: Path, out: Path, frame: Literal["train", "world"] | None, how: Surface) -> None:
    """Writes the mesh `out`."""
    check_ending(out, *ENDINGS)
    need("skimage", "mesh")
    if not 16 <= how.resolution <= LARGEST:
        fail("--resolution", str(how.resolution), f"16 to {LARGEST:,}")
    if not 1 <= how.truncation <= 8:
        fail("--truncation", str(how.truncation), "1 to 8 voxels")
    if how.views < 1:
        fail("--views", str(how.views), "1 or more")
    if not 0 <= how.smallest < 1:
        fail("--smallest", str(how.smallest), "a share, 0 to below 1")
    device = chosen_device(how.device)
    loaded, chosen = prepare(run, Options(frame=frame, sky=False, time=how.time))
    sound = sound_rows(chosen.params)
    params = {name: chosen.params[name].detach()[sound].to(device) for name in NAMES}
    placed = replace(loaded, params=params, frame=chosen.frame, offset=chosen.offset,
                     up=up_direction(loaded, chosen.frame))  # fmt: skip
    cameras = cameras_for(placed, {name: value.cpu() for name, value in params.items()}, how.scene, device)
    print(f"looking from {cameras.whose}")
    maps = [seen_surface(params, cameras, v, mode_of(loaded)) for v in bar(range(len(cameras.sizes)), "looking")]
    low, high = seen_box(maps) if how.crop is None else _given_box(how.crop, chosen.offset, device)
    grid = Grid.around(low, high, how.resolution)
    mesh = surface(fuse(grid, maps, how.truncation * grid.voxel, bar), min(how.views, len(maps)), how.smallest)
    write_mesh(out, mesh, placement(loaded, chosen))
    print(
        f"{out}: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles, voxels of {grid.voxel:.3g}, "
        f"{out.stat().st_size / 1e6:.1f} MB"
    )


def seen_box(maps: Sequence[DepthMap]) -> tuple[Tensor, Tensor]:
    """Lowest and highest corner [3] of a box around what `maps` show.

    A pixel counts by 1 / depth^2, as much as the surface it shows is fine: what is far behind a window or a garden
    would else make voxels as large as furniture.
    """
    every = max(1, round((sum(each.depth.numel() for each in maps) / 1e6) ** 0.5))
    xyz = torch.cat([each.points(every) for each in maps])
    if len(xyz) == 0:
        fail("--scene", "cameras see no surface of the Gaussians", "cameras that look at them",
             "is it the scene that they were trained on?")  # fmt: skip
    worth = torch.cat([each.depth[::every, ::every][each.depth[::every, ::every] > 0] ** -2.0 for each in maps])
    ends = []
    for column in xyz.unbind(1):
        order = column.argsort()
        share = worth[order].double().cumsum(0)
        at = torch.searchsorted(share / share[-1], share.new_tensor([OUTSIDE, 1 - OUTSIDE])).clamp_max(len(order) - 1)
        ends.append(column[order[at]])
    low, high = torch.stack(ends, 1)
    pad = MARGIN * (high - low).amax().clamp_min(1e-6)
    return low - pad, high + pad


def _given_box(crop: Sequence[float], offset: Floats, device: str) -> tuple[Tensor, Tensor]:
    """Corners of --crop, less `offset` [3]."""
    low, high = np.array(crop[:3]) - offset, np.array(crop[3:]) - offset
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        fail("--crop", " ".join(map(str, crop)), "x y z of the lowest corner, then of the highest")
    first, last = (torch.from_numpy(corner).float().to(device) for corner in (low, high))
    return first, last
