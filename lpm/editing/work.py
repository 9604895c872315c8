"""What lpm-edit does to places: crop, transform, level, merge."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lpm.checks import fail
from lpm.editing.cli import Common, Region
from lpm.editing.ground import ground_plane
from lpm.editing.opened import opened, places, taken, up_of, written
from lpm.editing.regions import in_box, in_camera_hull, in_sphere
from lpm.formats.placement import Placement, together
from lpm.formats.read import Loaded
from lpm.gaussians.far import Floats
from lpm.gaussians.similarity import Similarity, move_far

OPAQUE = 0.5
"""Opacity from which a Gaussian counts as a surface."""


def crop(source: Path, out: Path, region: Region, common: Common) -> None:
    """Keeps what lies in `region`."""
    loaded = opened(source, out, common)
    xyz, keep, said = places(loaded), np.ones(len(loaded.params["means"]), bool), []
    if region.box is not None:
        keep &= in_box(xyz, region.box)
        said.append("the box")
    if region.sphere is not None:
        keep &= in_sphere(xyz, region.sphere)
        said.append("the ball")
    if region.cameras is not None:
        if loaded.frame == "unknown":
            print(f"{loaded.path.name} does not say its frame: taken for that of {region.cameras}", file=sys.stderr)
        to_frame = loaded.world_to_train if loaded.frame == "train" else None
        if loaded.frame == "train" and to_frame is None:
            fail("--cameras", f"{loaded.path} does not say how its frame lies", "a run or an export with its sidecar")
        keep &= in_camera_hull(xyz, region.cameras, to_frame, region.margin)
        said.append("the cameras' hull")
    if not said:
        fail("crop", "no region", "--box, --sphere or --cameras")
    where = " and ".join(said)
    keep = ~keep if region.invert else keep
    if not keep.any():
        remedy = "lpm-inspect shows bounds" if region.cameras is None else "a larger --margin"
        fail("crop", f"none of {len(keep):,} Gaussians left", "at least one", remedy)
    params = {name: value[torch.from_numpy(keep)] for name, value in loaded.params.items()}
    side = "in" if region.invert else "outside"
    print(f"crop: {taken(loaded.params, ~keep)}, which lay {side} {where}; {int(keep.sum()):,} stay")
    written(out, loaded, loaded, params, loaded.offset, common, seen=loaded.params)


def transform(
    source: Path, out: Path, scale: float, rotate: Sequence[float] | None, move: Sequence[float], common: Common
) -> None:
    """Scales, turns and moves."""
    if not (math.isfinite(scale) and scale > 0):
        fail("--scale", str(scale), "a number above 0")
    if not all(map(math.isfinite, move)):
        fail("--move", " ".join(map(str, move)), "finite numbers")
    rotation = np.eye(3) if rotate is None else _turned(rotate)
    loaded = opened(source, out, common)
    by = Similarity(rotation, np.array(move, np.float64), scale)
    angle = 0.0 if rotate is None else rotate[3]
    print(f"transform: {len(loaded.params['means']):,} Gaussians x {scale:g}, by {angle:g} degrees, then {move}")
    _moved(out, loaded, by, rotation @ up_of(loaded), common)


def level(source: Path, out: Path, up: Sequence[float] | None, length: Sequence[float] | None, common: Common) -> None:
    """Turns the ground level, and scales by a known length."""
    if up is not None and not 0 < float(np.linalg.norm(up)) < math.inf:
        fail("--up", " ".join(map(str, up)), "a direction")
    scale = 1.0
    if length is not None:
        apart = float(np.linalg.norm(np.array(length[:3]) - np.array(length[3:6])))
        if not (0 < apart < math.inf and 0 < length[6] < math.inf):
            fail("--length", " ".join(map(str, length)), "two points apart from each other, and their metres")
        scale = length[6] / apart
    loaded = opened(source, out, common)
    solid = torch.sigmoid(loaded.params["opacities"].detach().reshape(-1)) >= OPAQUE
    xyz = loaded.params["means"].detach().double()[solid & loaded.params["means"].isfinite().all(1)].numpy()
    before = up_of(loaded) if up is None else np.array(up, np.float64) / np.linalg.norm(up)
    plane = ground_plane(xyz, before)
    rotation = Placement(plane.normal.tolist()).turn("z")
    height = plane.height + float(plane.normal @ loaded.offset)
    by = Similarity(rotation, np.array([0.0, 0.0, -scale * height]), scale)
    off = math.degrees(math.acos(min(1.0, float(plane.normal @ before))))
    metres = f", x {scale:g} to metres" if length is not None else ""
    print(
        f"level: the ground has {plane.share:.0%} of the opaque Gaussians on it and was {off:.1f} degrees off{metres}"
    )
    _moved(out, loaded, by, np.array([0.0, 0, 1]), common)


def merge(first: Path, second: Path, out: Path, common: Common) -> None:
    """Two into one, in the frame of the first."""
    a, b = opened(first, out, common), opened(second, out, common)
    by, how = Similarity(np.eye(3), np.zeros(3), 1.0), "as it lies"
    ways = [None if x.frame == "unknown" else _to_world(x) for x in (a, b)]
    if ways[0] is not None and ways[1] is not None:
        by, how = ways[1].then(ways[0].inverse()), "brought into the frame of the first"
    elif a.frame != b.frame:
        how = "as it lies, since not both say how their frames lie"
    moved, _ = move_far(b.params, by.of_less(b.offset), a.offset)
    params = together([a.params, moved])
    print(f"merge: {len(a.params['means']):,} and {len(b.params['means']):,} Gaussians; the second {how}")
    modes = {a.rasterize_mode, b.rasterize_mode} - {None}
    if len(modes) > 1:
        print("warning: one was trained antialiased, one classic: no viewer draws both right", file=sys.stderr)
    written(out, a, a, params, a.offset, common, seen=params)


def _turned(rotate: Sequence[float]) -> Floats:
    """[3, 3] of an axis and degrees (Rodrigues)."""
    axis, angle = np.array(rotate[:3], np.float64), math.radians(rotate[3])
    length = float(np.linalg.norm(axis))
    if not (0 < length < math.inf and math.isfinite(angle)):
        fail("--rotate", " ".join(map(str, rotate)), "x y z of an axis, and degrees")
    x, y, z = axis / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix: Floats = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return matrix


def _to_world(loaded: Loaded) -> Similarity | None:
    if loaded.frame == "world":
        return Similarity(np.eye(3), np.zeros(3), 1.0)
    return None if loaded.world_to_train is None else loaded.world_to_train.inverse()


def _moved(out: Path, loaded: Loaded, by: Similarity, up: Floats, common: Common) -> None:
    """Writes `loaded` after `by`, in a frame that nothing else is in."""
    params, offset = move_far(loaded.params, by.of_less(loaded.offset))
    after = replace(loaded, frame="unknown", world_to_train=None, georeference=None, up=[float(v) for v in up])
    written(out, loaded, after, params, offset, common)
