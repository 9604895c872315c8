"""What a scene's own points say: whether they lie before its cameras, and where tracks say that photos show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lpm.checks import LpmError
from lpm.plausibility.findings import Finding, listed
from lpm.scenes.layouts.colmap_tables import guarded, read_cameras, read_images, read_points, table
from lpm.scenes.lenses import NAMES, Lens
from lpm.scenes.scene import Scene, rotation
from lpm.scenes.seen import looks_away

OFF = 0.01
"""Share of a photo's longer side: points of a good model are a tenth of that off where photos show them."""
WORSE = 10.0
"""So many times as far off as those of the other photos are those of a photo whose pose is wrong."""
FEWEST = 10
"""Points of a photo, below which its pose is not judged."""
LARGEST = 2**26
"""Bytes of a table that is read for the brief check."""
SOLVE = "run the pose estimation again, or restore the model's files"


def check_points(scene: Scene) -> list[Finding]:
    """Whether any of the points lie before the cameras."""
    away = looks_away(scene)
    return (
        []
        if away is None
        else [
            Finding("points", True, away, "correct the axes of the poses, or export poses and points again, together")
        ]
    )


def check_tracks(scene: Scene, brief: bool = False) -> list[Finding]:
    """Whether COLMAP's points are where the model says that photos show them."""
    if scene.layout.kind != "colmap":
        return []
    try:
        off = track_errors(scene.layout.source, LARGEST if brief else None)
    except LpmError:  # the tables are good enough to train on, or the scene could not have been read
        return []
    if not off:
        return []
    usual = float(np.median(list(off.values())))
    if usual > OFF:
        text = f"the model's points are {usual:.1%} of a photo's width off where it says that photos show them"
        return [Finding("reprojection", True, f"{text}; good ones are .1%", SOLVE)]
    bad = tuple(sorted(name for name, error in off.items() if error > max(OFF, WORSE * usual)))
    if not bad:
        return []
    text = f"the points of {len(bad)} of {len(off)} photos are far from where the model says they show them"
    remedy = "remove these photos (those that are not there are left out), or run the pose estimation again"
    return [Finding("pose", True, f"{text} ({listed(bad)})", remedy, bad)]


def track_errors(folder: Path, largest: int | None = None) -> dict[str, float]:
    """Median distance of the points of each image of COLMAP's model in `folder` from where it saw them, as a share of
    the image's longer side. Empty where the model has no tracks, or a table has more than `largest` bytes.

    Raises:
        LpmError: a table cannot be read.
    """
    paths = [table(folder, name) for name in ("cameras", "images", "points3D")]
    if any(path is None or (largest is not None and path.stat().st_size > largest) for path in paths):
        return {}
    cameras_path, images_path, points_path = (path for path in paths if path is not None)
    cameras, points = guarded(read_cameras, cameras_path), guarded(read_points, points_path)
    views = guarded(lambda path: read_images(path, tracks=True), images_path)
    numbers = np.zeros(0, np.int64) if points.ids is None else points.ids
    order = np.argsort(numbers)
    errors = {}
    for view in views.values():
        if view.points is None or view.pixels is None or not len(order):
            continue
        at = np.searchsorted(numbers, view.points, sorter=order).clip(0, len(order) - 1)
        there = numbers[order[at]] == view.points
        camera = cameras.get(view.camera)
        if there.sum() < FEWEST or camera is None or camera.model not in NAMES:
            continue
        size = camera.width, camera.height
        lens = Lens(camera.model, tuple(camera.params[: len(NAMES[camera.model])].tolist()), size)
        local = points.xyz[order[at[there]]] @ rotation(view.qvec).T + view.tvec
        away = np.linalg.norm(lens.draws(local) - view.pixels[there], axis=1)
        errors[view.name] = float(np.median(np.where(np.isfinite(away), away, np.inf))) / max(size)
    return errors
