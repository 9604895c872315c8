"""Which Gaussians lie in a box, a ball, or the hull of a scene's cameras."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from lpm.checks import fail
from lpm.gaussians.far import Floats
from lpm.gaussians.similarity import Similarity
from lpm.scenes.read import read_scene

CHUNK = 1 << 16  # points at a time against all faces of a hull
Rows = NDArray[np.bool_]


def in_box(xyz: Floats, box: Sequence[float]) -> Rows:
    """[N] of points [N, 3]; box: x y z of the lowest corner, then of the highest."""
    if any(math.isnan(value) for value in box) or any(box[i] >= box[i + 3] for i in range(3)):
        fail("--box", " ".join(map(str, box)), "x y z of the lowest corner, then of the highest")
    inside: Rows = ((xyz >= box[:3]) & (xyz <= box[3:])).all(1)
    return inside


def in_sphere(xyz: Floats, sphere: Sequence[float]) -> Rows:
    """[N] of points [N, 3]; sphere: x y z of the centre, then the radius."""
    if not all(map(math.isfinite, sphere)) or sphere[3] <= 0:
        fail("--sphere", " ".join(map(str, sphere)), "x y z of the centre, then a radius above 0")
    inside: Rows = np.linalg.norm(xyz - np.array(sphere[:3]), axis=1) <= sphere[3]
    return inside


def in_camera_hull(xyz: Floats, scene: Path, to_frame: Similarity | None, margin: float) -> Rows:
    """[N] of points [N, 3] in the convex hull of a scene's cameras, each with room around it.

    Args:
        to_frame: from the world of the scene's files to the frame of `xyz`; None: they are the same.
        margin: how much room, in diagonals of the box around the cameras.
    """
    if not 0 < margin < 1e6:
        fail("--margin", str(margin), "a number above 0")
    places = np.asarray(read_scene(scene).c2w, np.float64)[:, :3, 3]
    if to_frame is not None:
        places = places @ to_frame.rotation.T * to_frame.scale + to_frame.translation
    size = float(np.linalg.norm(places.max(0) - places.min(0)))
    if size == 0:
        fail("--cameras", f"{len(places)} cameras in one place", "cameras in several", "use --sphere")
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * margin * size / math.sqrt(3)
    faces = ConvexHull((places[:, None] + corners).reshape(-1, 3)).equations
    inside = np.zeros(len(xyz), bool)
    for start in range(0, len(xyz), CHUNK):
        part = xyz[start : start + CHUNK]
        inside[start : start + CHUNK] = (part @ faces[:, :3].T + faces[:, 3] <= 0).all(1)
    return inside
