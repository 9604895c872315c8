"""Which of a scene's points its cameras have before them: the first thing that tells whether poses and points belong
together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lpm.scenes.scene import Floats, Scene

VIEWS, POINTS = 200, 2_000
"""At most so many are looked at, evenly spread."""
NONE, MANY = 0.01, 0.1
"""Mean share of the points that a view shows: next to none of them, and a good part."""
FLIPPED: Floats = np.array([1.0, -1.0, -1.0])
"""OpenCV's camera axes (x right, y down, z forward) by OpenGL's (x right, y up, z back)."""


def projected(scene: Scene, view: int, xyz: Floats, axes: Floats = FLIPPED) -> tuple[Floats, NDArray[np.bool_]]:
    """Pixels [N, 2] of points [N, 3] in a view, without lens distortion, and which lie before it and in its picture.

    Args:
        axes: [3] signs of the camera's axes, by those of OpenGL.
    """
    c2w = scene.c2w[view]
    local = (xyz - c2w[:3, 3]) @ (c2w[:3, :3] * axes)
    depth = np.where(local[:, 2] > 0, local[:, 2], np.nan)
    pixels = local[:, :2] / depth[:, None] * scene.intrinsics[view, :2] + scene.intrinsics[view, 2:]
    with np.errstate(invalid="ignore"):
        return pixels, ((pixels >= 0) & (pixels <= scene.sizes[view])).all(1)


def shown(scene: Scene, axes: Floats = FLIPPED) -> Floats:
    """[V] share of the scene's points that lie before each of at most VIEWS cameras and within its picture, whatever
    hides them; empty where there are no points. `axes`: see `projected`.

    Of more photos, each is asked about the points nearest to it: of all of a town's a photo shows next to none.
    """
    if scene.points is None or not len(scene.points.xyz):
        return np.empty(0)
    views = np.unique(np.linspace(0, len(scene) - 1, min(len(scene), VIEWS)).astype(int))
    if len(scene) <= VIEWS:
        xyz = scene.points.xyz[:: max(1, len(scene.points.xyz) // POINTS)]
        return np.array([projected(scene, int(view), xyz, axes)[1].mean() for view in views])
    xyz = scene.points.xyz[:: max(1, len(scene.points.xyz) // (POINTS * VIEWS))]
    near = cKDTree(xyz).query(scene.c2w[views, :3, 3], min(POINTS, len(xyz)))[1].reshape(len(views), -1)
    pairs = zip(views.tolist(), near, strict=True)
    return np.array([projected(scene, view, xyz[rows], axes)[1].mean() for view, rows in pairs])


def looks_away(scene: Scene) -> str | None:
    """What to say where no camera has the scene's points before it; None where some do, or there are no points."""
    if scene.points is None or not len(scene.points.xyz) or shown(scene).mean() > NONE:
        return None
    if shown(scene, np.ones(3)).mean() >= MANY:
        why = "are the poses OpenCV's (y down, z forward)? OpenGL's are wanted (y up, z back)"
    else:
        why = "are points and poses of one scene, in one frame?"
    return f"next to none of the scene's {len(scene.points.xyz):,} points lie before its cameras: {why}"
