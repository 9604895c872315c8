"""Scenes whose photos are by lenses that are no pinholes, as scenes of views; and what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from lpm.scenes.cuts import Cut, cuts, reach
from lpm.scenes.images import load_image
from lpm.scenes.lenses import Lens
from lpm.scenes.masks import load_mask
from lpm.scenes.scene import Scene
from lpm.scenes.split import listed


def cut_up(scene: Scene, lenses: list[Lens | None], fov: float | None) -> Scene:
    """`scene`, whose V photos were taken by `lenses` (None: as the scene says), as pinhole views; a note says so.

    Args:
        fov: degrees across that one view is to have; None: see `cuts`.
    """
    kinds = {lens: cuts(lens, fov, str(scene.layout.source)) for lens in dict.fromkeys(lenses) if lens is not None}
    if not kinds:
        return scene
    rows: list[tuple[int, Cut | None]] = [
        (i, cut) for i, lens in enumerate(lenses) for cut in ([None] if lens is None else kinds[lens])
    ]
    of = [i for i, _ in rows]
    names = [scene.names[i] if cut is None else named(scene.names[i], cut) for i, cut in rows]
    poses, intrinsics, sizes = scene.c2w[of], scene.intrinsics[of], scene.sizes[of]
    distortion = scene.distortion[of]
    for row, (i, cut) in enumerate(rows):
        if cut is not None:
            poses[row], intrinsics[row], sizes[row] = cut.pose(scene.c2w[i]), cut.intrinsics, cut.size
            distortion[row] = 0
    views: dict[str, list[str]] = {}
    for (i, _), name in zip(rows, names, strict=True):
        views.setdefault(scene.names[i], []).append(name)
    lists = {split: [new for i in listed(scene, split) for new in views[scene.names[i]]] for split in scene.lists}
    notes = [told(lens, found, lenses.count(lens)) for lens, found in kinds.items()]
    several = f"and {len(notes) - 3} more lenses in the same way"
    return replace(
        scene,
        names=names,
        images=[scene.images[i] for i in of],
        c2w=poses,
        intrinsics=intrinsics,
        distortion=distortion,
        sizes=sizes,
        masks=None if scene.masks is None else [scene.masks[i] for i in of],
        depths=None if scene.depths is None else [scene.depths[i] for i in of],
        capture_times=None if scene.capture_times is None else scene.capture_times[of],
        cams=None if scene.cams is None else [scene.cams[i] + (cut.name if cut else "") for i, cut in rows],
        cuts=[cut for _, cut in rows],
        shots=of if scene.shots is None else [scene.shots[i] for i in of],
        lists=lists,
        notes=[*scene.notes, *notes[:3], *([several] if len(notes) > 3 else [])],
    )


def shown_of(scene: Scene, i: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """View `i` of `scene` at full size: [H, W, 3 or 4], and its mask [H, W], where it has one; 0 is ignored.

    Distortion that the scene names stays. Raises LpmError for a file that cannot be decoded.
    """
    image = load_image(scene.images[i])
    mask = None if scene.masks is None else np.where(load_mask(scene.masks[i]), 255, 0).astype(np.uint8)
    cut = None if scene.cuts is None else scene.cuts[i]
    if cut is None:
        return image, mask
    image, there = cut.take(image, mask)
    return image, None if mask is None and there.all() else np.where(there, 255, 0).astype(np.uint8)


def named(name: str, cut: Cut) -> str:
    """The name of a view of the photo `name`."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}_{cut.name}{path.suffix}")) if cut.name else name


def told(lens: Lens, found: list[Cut], count: int) -> str:
    """What is made of the `count` photos of `lens` while they are read, in a line."""
    return f"{count} photos by {seen_by(lens)} are undistorted while they are read, to {made(found)}"


def seen_by(lens: Lens) -> str:
    """The model and its field of view, in words."""
    left, right, up, down = reach(lens)
    return f"{lens.model} ({left + right:.0f} x {min(up + down, 180 if left + right == 360 else 360):.0f} degrees)"


def made(found: list[Cut]) -> str:
    """The views `found` of a photo, in words."""
    if len(found) > 1:
        return f"{len(found)} views each: {', '.join(cut.name for cut in found)}"
    return spread(found[0])


def spread(cut: Cut) -> str:
    """Size and field of view, in words."""
    (fx, fy, cx, cy), (width, height) = cut.intrinsics, cut.size
    across = math.degrees(math.atan(cx / fx) + math.atan((width - cx) / fx))
    down = math.degrees(math.atan(cy / fy) + math.atan((height - cy) / fy))
    return f"{width}x{height} ({across:.0f} x {down:.0f} degrees)"
