"""A first focal length for fisheyes, which tell none: the one by which most matches of some pairs can be explained.

COLMAP verifies matches of fisheyes by their directions, so that it needs a focal length before there is a model; by one
that was a fifth too small, the global mapper failed. Perspective photos need none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHARES = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 1.0)
"""Times the longer side."""
BEGIN = 0.4
"""Of these, what is begun with: 180 degrees from corner to corner, 140 across."""
PAIRS = 12
"""That are looked at."""
AS_GOOD = 0.999
"""Of the most matches that one explains, what others must explain to be as good: of these the middle one is taken."""


def begin(pycolmap: Any, database: Path, key: int) -> None:
    """Has camera `key` in `database`, if it is a fisheye without a focal length from EXIF, begin with BEGIN."""
    with pycolmap.Database.open(database) as db:
        camera = db.read_camera(key)
        if "FISHEYE" in camera.model.name and not camera.has_prior_focal_length:
            set_focal(camera, BEGIN)
            camera.has_prior_focal_length = True  # without, no pair is verified
            db.update_camera(camera)


def set_focal(camera: Any, share: float) -> None:
    """Gives `camera` a focal length of `share` of its longer side."""
    params = camera.params
    params[list(camera.focal_length_idxs())] = share * max(camera.width, camera.height)
    camera.params = params


def is_guess(camera: Any) -> bool:
    """Whether the focal length of pycolmap's `camera` is from here, and not from EXIF."""
    side = max(camera.width, camera.height)
    return "FISHEYE" in camera.model.name and any(camera.mean_focal_length() == share * side for share in SHARES)


def choose(
    pycolmap: Any, database: Path, pairs: Sequence[tuple[str, str]], seed: int,
    match: Callable[[Sequence[tuple[str, str]]], None],
) -> None:  # fmt: skip
    """Gives each camera in `database` that `is_guess` the focal length of SHARES that explains most matches.

    Pairs whose relative pose it does not explain (COLMAP then says UNCALIBRATED) count nothing.

    Args:
        pairs: of images by name, that are to be compared.
        match: matches the pairs that it is given, into the database.
    """
    with pycolmap.Database.open(database) as db:
        cameras = [camera for camera in db.read_all_cameras() if is_guess(camera)]
        images = {image.name: image for image in db.read_all_images()}
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    uncalibrated = pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED
    for camera in cameras:
        own = [pair for pair in pairs if all(images[name].camera_id == camera.camera_id for name in pair)]
        some = [own[i] for i in sorted(set(np.linspace(0, len(own) - 1, min(PAIRS, len(own))).astype(int).tolist()))]
        match(some)
        explained = []
        with pycolmap.Database.open(database) as db:
            keys = [(images[one].image_id, images[two].image_id) for one, two in some]
            points = {key: db.read_keypoints(key)[:, :2].astype(np.float64) for pair in keys for key in pair}
            matches = {pair: db.read_matches(*pair) for pair in keys}
            for share in SHARES:
                set_focal(camera, share)
                found = [
                    pycolmap.estimate_two_view_geometry(camera, points[one], camera, points[two], both, options)
                    for (one, two), both in matches.items()
                ]
                explained.append(sum(len(one.inlier_matches) for one in found if one.config != uncalibrated))
            good = np.flatnonzero(np.array(explained) >= AS_GOOD * max(explained))
            set_focal(camera, SHARES[good[(len(good) - 1) // 2]] if max(explained) else BEGIN)
            db.update_camera(camera)
    if cameras:
        with pycolmap.Database.open(database) as db:
            db.clear_two_view_geometries()
