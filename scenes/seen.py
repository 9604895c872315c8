"""Which of a scene's points its cameras have before them: the first thing that tells whether poses and points belong
together."""

from __future__ import annotations

import numpy as np

from lpm.scenes.scene import Floats, Scene

VIEWS, POINTS = 200, 2_000
"""At most so many are looked at, evenly spread."""
NONE, MANY = 0.01, 0.1
"""Mean share of the points that a view shows: next to none of them, and a good part."""
FLIPPED: Floats = np.array([1.0, -1.0, -1.0])
"""OpenCV's camera axes (x right, y down, z forward) by OpenGL's (x right, y up, z back)."""


def shown(scene: Scene, axes: Floats | None = None) -> Floats:
    """[V] share of the scene's points that lie before each of at most VIEWS cameras and within its picture, whatever
    hides them; empty where there are no points.

    Args:
        axes: [3] signs of the camera's axes; by default the scene's own.
    """
    if scene.points is None or not len(scene.points.xyz):
        return np.empty(0)
    xyz = scene.points.xyz[:: max(1, len(scene.points.xyz) // POINTS)]
    shares = []
    for v in np.unique(np.linspace(0, len(scene) - 1, min(len(scene), VIEWS)).astype(int)):
        c2w = scene.c2w[v]
        local = (xyz - c2w[:3, 3]) @ (c2w[:3, :3] * (FLIPPED if axes is None else FLIPPED * axes))
        fx, fy, cx, cy = scene.intrinsics[v]
        before = local[local[:, 2] > 0]
        u, w = fx * before[:, 0] / before[:, 2] + cx, fy * before[:, 1] / before[:, 2] + cy
        width, height = scene.sizes[v]
        shares.append(((u >= 0) & (u <= width) & (w >= 0) & (w <= height)).sum() / len(xyz))
    return np.array(shares)


def looks_away(scene: Scene) -> str | None:
    """What to say where no camera has the scene's points before it; None where some do, or there are no points."""
    if scene.points is None or not len(scene.points.xyz) or shown(scene).mean() > NONE:
        return None
    if shown(scene, FLIPPED).mean() >= MANY:
        why = "are the poses OpenCV's (y down, z forward)? OpenGL's are wanted (y up, z back)"
    else:
        why = "are points and poses of one scene, in one frame?"
    return f"next to none of the scene's {len(scene.points.xyz):,} points lie before its cameras: {why}"
