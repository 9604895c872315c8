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
from lpm.editing.missed import missed
from lpm.editing.opened import Params, chosen_device, mode_of, opened, taken, written
from lpm.editing.pulled import Photos
from lpm.editing.seen_light import drawn_by_fewer
from lpm.editing.settled import settled, why_not
from lpm.files import bar
from lpm.formats.read import Loaded
from lpm.formats.rows import sound_rows
from lpm.multiview.views import centres_of
from lpm.render.rasterize import RasterizeMode
from lpm.strategy.selection import around_cameras

UNWANTED = 0.8
"""Share of the photos that a Gaussian changes which must want less of it, for it to be taken until they miss it."""
Found = dict[str, Tensor]
"""What a person is told of a rule, and the rows [N] bool that it met."""


def clean(
    source: Path, out: Path, floaters: Floaters, scene: Path | None, refit_steps: int, device: str, common: Common
) -> None:
    """Takes what the rules of `floaters` meet; with a scene, opacities of the rest are then fitted to its photos."""
    for name, value in vars(floaters).items():
        if not 0 <= value < math.inf:
            fail(f"--{name}", str(value), "0 (off) or more")
    if refit_steps < 0:
        fail("--refit-steps", str(refit_steps), "0 (off) or more")
    where = chosen_device(device)
    loaded = opened(source, out, common)
    sound = sound_rows(loaded.params)
    params = {name: value.detach()[sound] for name, value in loaded.params.items()}
    if len(params["means"]) == 0:
        fail(loaded.path, "nothing finite in it", "finite Gaussians")
    found, cameras = by_statistics(params, floaters), None
    if scene is not None:
        cameras = scene_cameras(scene, loaded, where)
        found |= by_scene(params, cameras, floaters, mode_of(loaded), where)
        if len(cameras.points) == 0 and floaters.front:
            print(f"{scene} has no points: what stands before surfaces is not known")
        if floaters.against:
            found = by_photos(params, found, cameras, floaters, mode_of(loaded), where)
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
    if scene is not None and cameras is not None and refit_steps:
        kept["opacities"] = refitted(kept, cameras, scene, loaded, refit_steps, where)
        faint = outliers.faint(kept, floaters.faint)
        if 0 < int(faint.sum()) < len(faint):
            print(f"{int(faint.sum()):,} that this left nearly transparent go, too")
            kept = {name: value[~faint] for name, value in kept.items()}
    written(out, loaded, loaded, kept, loaded.offset, common, kept, cameras)


def refitted(params: Params, cameras: Cameras, scene: Path, loaded: Loaded, steps: int, device: str) -> Tensor:
    """Opacities [N, 1] of `params`, fitted to the photos where that can be done; a person is told which."""
    reason = why_not(scene, loaded)
    if reason is not None:
        print(f"opacities stay as they are: {reason}")
        return params["opacities"]
    assert cameras.photo is not None
    photos = Photos(params, on_device(cameras, device), cameras.photo, mode_of(loaded), bar)
    opacities, before, after = settled(photos, steps)
    print(f"opacities fitted to the photos in {steps} steps: training's loss {before:.4f}, then {after:.4f}")
    return opacities


def by_statistics(params: Params, floaters: Floaters) -> Found:
    """What the Gaussians themselves tell."""
    found: Found = {}
    if floaters.faint:
        found[faint_rule(floaters)] = outliers.faint(params, floaters.faint)
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
        found[few_rule(floaters)] = drawn_by_fewer(params, seeing, floaters.few, mode)
    if floaters.front and len(cameras.points):
        found[front_rule(floaters)] = before_surfaces(params["means"], views, cameras.points, floaters.front)
    if floaters.around:
        centres = centres_of(views.viewmats)
        found["around cameras"] = around_cameras(
            params["means"], params["quats"], params["scales"], centres, floaters.around
        )
    return found


def by_photos(
    params: Params, found: Found, cameras: Cameras, floaters: Floaters, mode: RasterizeMode, device: str
) -> Found:
    """`found` as photos see it, and what they contradict besides.

    What is before surfaces goes only if photos do not want it: points of SfM tell of surfaces, not of all that is thin
    before them. What hid others is gone in the next pass. In the end photos say what they miss of all that they can
    judge, and that stays.
    """
    assert cameras.photo is not None
    seeing, none = on_device(cameras, device), torch.zeros(len(params["means"]), dtype=torch.bool)
    sure = found.get(faint_rule(floaters), none) | found.get(few_rule(floaters), none)
    front, against = found.get(front_rule(floaters), none), none.clone()
    gone = torch.stack([none, *(rows for rule, rows in found.items() if rule != front_rule(floaters))]).any(0)
    for strong in STRONG:
        rows = (~gone).nonzero().flatten()
        if len(rows) == 0:
            return found
        these = {name: value[rows] for name, value in params.items()}
        wrong = contradicted(these, seeing, cameras.photo, floaters.against, strong, mode, bar)
        gone[rows[wrong]] = against[rows[wrong]] = True
    photos = Photos(params, seeing, cameras.photo, mode, bar)
    pull = photos.pull(~gone)
    unwanted = (pull.gradient > 0) & (pull.seeing >= floaters.against) & (pull.down >= UNWANTED * pull.seeing)
    against |= unwanted & ~gone
    gone |= unwanted | front & (pull.gradient >= 0)
    gone &= ~missed(photos, gone, gone & ~sure)
    told = {**found, f"against {floaters.against} photos or more": against}
    return {rule: rows & gone for rule, rows in told.items()}


def faint_rule(floaters: Floaters) -> str:
    """What a person is told of it, as of the next two."""
    return f"nearly transparent (below {floaters.faint:g})"


def few_rule(floaters: Floaters) -> str:
    return f"in fewer than {floaters.few} photos"


def front_rule(floaters: Floaters) -> str:
    return f"before surfaces, by {floaters.front} photos or more"
