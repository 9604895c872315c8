"""lpm-edit clean: floaters are taken away, rule by rule, and each says how many it met."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.editing import outliers
from lpm.editing.cameras import Cameras, on_device, scene_cameras
from lpm.editing.cli import Common, Floaters
from lpm.editing.contradicted import STRONG, contradicted
from lpm.editing.free_space import before_surfaces
from lpm.editing.opened import Params, chosen_device, mode_of, opened, taken, written
from lpm.editing.seen_light import drawn_by_fewer
from lpm.files import bar
from lpm.formats.rows import sound_rows
from lpm.multiview.views import centres_of
from lpm.render.rasterize import RasterizeMode
from lpm.strategy.selection import around_cameras

Found = dict[str, Tensor]
"""What a person is told of a rule, and the rows [N] bool that it met."""


def clean(source: Path, out: Path, floaters: Floaters, scene: Path | None, device: str, common: Common) -> None:
    """Takes what the rules of `floaters` meet."""
    for name, value in vars(floaters).items():
        if not 0 <= value < math.inf:
            fail(f"--{name}", str(value), "0 (off) or more")
    where = chosen_device(device)
    loaded = opened(source, out, common)
    sound = sound_rows(loaded.params)
    params = {name: value.detach()[sound] for name, value in loaded.params.items()}
    if len(params["means"]) == 0:
        fail(loaded.path, "nothing finite in it", "finite Gaussians")
    found = by_statistics(params, floaters)
    if scene is not None:
        cameras = scene_cameras(scene, loaded, where)
        found |= by_scene(params, cameras, floaters, mode_of(loaded), where)
        if len(cameras.points) == 0 and floaters.front:
            print(f"{scene} has no points: what stands before surfaces is not known")
        if floaters.against:
            rest = torch.ones(len(params["means"]), dtype=torch.bool)
            for rows in found.values():
                rest &= ~rows
            found[f"against {floaters.against} photos or more"] = by_photos(params, rest, cameras, floaters.against,
                                                                            mode_of(loaded), where)  # fmt: skip
    if not found:
        fail("clean", "all rules are off", "at least one, or --scene for those that need one")
    gone = torch.zeros(len(params["means"]), dtype=torch.bool)
    for rule, rows in found.items():
        gone |= rows
        print(f"  {rule:44} {int(rows.sum()):>9,}")
    if bool(gone.all()):
        fail("clean", f"none of {len(gone):,} Gaussians left", "at least one", "0 switches a rule off")
    print(f"clean: {taken(params, gone.numpy())}; {int((~gone).sum()):,} stay")
    kept = {name: value[~gone] for name, value in params.items()}
    written(out, loaded, loaded, kept, loaded.offset, common, seen=kept)


def by_statistics(params: Params, floaters: Floaters) -> Found:
    """What the Gaussians themselves tell."""
    found: Found = {}
    if floaters.faint:
        found[f"nearly transparent (below {floaters.faint:g})"] = outliers.faint(params, floaters.faint)
    if floaters.needle:
        found[f"needles (over {floaters.needle:g} to 1)"] = outliers.needles(params, floaters.needle)
    if floaters.giant:
        found[f"giants (over {floaters.giant:g} of the way)"] = outliers.giants(params, floaters.giant)
    if floaters.lonely:
        found["far from all others"] = outliers.lonely(params, floaters.lonely)
    return found


def by_scene(params: Params, cameras: Cameras, floaters: Floaters, mode: RasterizeMode, device: str) -> Found:
    """What the cameras and points of a scene tell; `device` draws."""
    found: Found = {}
    views = cameras.views()
    if floaters.few:
        seeing = on_device(cameras, device).views()
        found[f"in fewer than {floaters.few} photos"] = drawn_by_fewer(params, seeing, floaters.few, mode)
    if floaters.front and len(cameras.points):
        rows = before_surfaces(params["means"], views, cameras.points, floaters.front)
        found[f"before surfaces, by {floaters.front} photos or more"] = rows
    if floaters.around:
        centres = centres_of(views.viewmats)
        found["around cameras"] = around_cameras(
            params["means"], params["quats"], params["scales"], centres, floaters.around
        )
    return found


def by_photos(params: Params, rest: Tensor, cameras: Cameras, photos: int, mode: RasterizeMode, device: str) -> Tensor:
    """[N] bool, of what is left by other rules (`rest` [N] bool): what photos contradict.

    What hid others is gone in the next pass.
    """
    seeing, found = on_device(cameras, device), torch.zeros_like(rest)
    for strong in STRONG:
        rows = (rest & ~found).nonzero().flatten()
        if len(rows) == 0:
            break
        assert cameras.photo is not None
        these = {name: value[rows] for name, value in params.items()}
        wrong = contradicted(these, seeing, cameras.photo, photos, strong, mode, bar)
        found[rows[wrong]] = True
    return found
