"""How many of the verified matches a model explains.

A mapper drops the matches that do not fit its model, so that the reprojection error of what is left says little: a
wrong model can have the smaller one. Here all matches count that two-view geometry verified before there was a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpm.prepare.figures import Floats

NEAR = 4.0
"""Pixels from where the other image's camera says that it must lie: a match is explained."""
NARROW = np.cos(np.radians(80))
"""Cosine of the angle from the axis within which a focal length says how far apart two directions are in an image."""
SAMPLE = 100
"""Pairs that are asked whether cameras that only turn explain them."""
AGREES = 0.7
"""Share of the matches of an image, or of two 360 degree photos, that must be explained for it, or them, to fit."""


@dataclass(frozen=True)
class Agreement:
    """Of a model with the verified matches of all pairs of images, those without a pose included."""

    share: float
    """Of all matches, those that the model explains; 0 where there are none."""
    fit: float
    """The same of the matches between images that have a pose. Where two photos agree by `AGREES`, of which one is
    several images (faces of a 360 degree photo), all of theirs count: the rest is of walls that look alike."""
    placed: float
    """Of the features in those matches, the share that has a point in the model. Next to none has where all photos were
    taken from one place: any model explains their matches, and none of them has a depth."""
    turning: float
    """Of those matches, the share that cameras explain which only turn on the spot, at their best focal length."""
    misfits: list[str]
    """Images with a pose of whose matches with other such images less than `AGREES` are explained, worst first; of a
    360 degree photo the first face, for all of them."""


def agreement(pycolmap: Any, database: Path, model: Any, least: int) -> Agreement:
    """Of pycolmap's reconstruction `model` with the pairs in `database` that have at least `least` verified matches."""
    posed = {key: image for key, image in model.images.items() if image.has_pose}
    poses = {key: image.cam_from_world() for key, image in posed.items()}
    focal = {key: float(model.cameras[image.camera_id].mean_focal_length()) for key, image in posed.items()}
    rays: dict[int, Floats] = {}
    total = 0
    by_frames: dict[tuple[int, int], list[int]] = {}
    matched: dict[int, set[int]] = {key: set() for key in posed}
    seen: list[tuple[Floats, Floats, float]] = []
    with pycolmap.Database.open(database) as db:
        for key, geometry in zip(*db.read_two_view_geometries(), strict=True):
            found = geometry.inlier_matches
            if len(found) < least:
                continue
            total += len(found)
            pair = one, two = pycolmap.pair_id_to_image_pair(key)
            if one not in posed or two not in posed:
                continue
            for image in pair:
                if image not in rays:
                    camera = model.cameras[posed[image].camera_id]
                    pixels = db.read_keypoints(image)[:, :2].astype(np.float64)
                    rays[image] = np.asarray(camera.cam_ray_from_img(pixels), np.float64).reshape(-1, 3)
            relative = poses[two] * poses[one].inverse()
            turned, moved = relative.rotation.matrix(), np.asarray(relative.translation)
            here, there = rays[one][found[:, 0]], rays[two][found[:, 1]]
            seen.append((here, there, focal[one]))
            fits = fitting(here, there, turned, moved, (focal[one], focal[two]))
            frames = posed[one].frame_id, posed[two].frame_id
            counts = by_frames.setdefault((min(frames), max(frames)), [0, 0])
            counts[:] = counts[0] + int(fits.sum()), counts[1] + len(found)
            for image, column in zip(pair, found.T, strict=True):
                matched[image].update(column.tolist())
    between = sum(count for _, count in by_frames.values())
    explained = explained_by(by_frames, Counter(image.frame_id for image in posed.values()))
    # Faces of a 360 degree photo have one pose: two walls that look alike are no fault of it.
    names = {image.frame_id: image.name for _, image in sorted(posed.items(), reverse=True)}
    of_frame = {image.frame_id: np.zeros(2, np.int64) for image in posed.values()}
    for frames, counts in by_frames.items():
        for frame in frames:
            of_frame[frame] += counts
    shares = {names[frame]: fit / count for frame, (fit, count) in of_frame.items() if count}
    misfits = sorted((name for name, share in shares.items() if share < AGREES), key=shares.__getitem__)
    points = sum(image.num_points3D for image in posed.values())
    features = sum(len(indices) for indices in matched.values())
    shares_of_all = explained / max(total, 1), explained / max(between, 1), points / max(features, 1)
    return Agreement(*shares_of_all, turning_share(seen), misfits)


def explained_by(by_frames: dict[tuple[int, int], list[int]], images: Mapping[int, int]) -> int:
    """How many matches a model explains; see Agreement.fit.

    Args:
        by_frames: of each two photos, how many matches between them fit, and how many there are.
        images: how many each photo is.
    """
    return sum(
        count if max(images[one], images[two]) > 1 and fit >= AGREES * count else fit
        for (one, two), (fit, count) in by_frames.items()
    )


def fitting(
    one: Floats, two: Floats, rotation: Floats, translation: Floats, focal: tuple[float, float]
) -> NDArray[np.bool_]:
    """Which matches [M] some point in front of both cameras could have made.

    Args:
        one, two: [M, 3] directions of length 1 in which each camera saw it; a fisheye's may lie behind it.
        rotation: [3, 3]. translation: [3]. From the first camera to the second.
        focal: pixels, of each camera; a pixel is taken to be an angle of 1 / focal.
    """
    a, b = one @ rotation.T, two  # both in the second camera's axes
    # Sampson's distance to the epipolar lines of both images (Hartley and Zisserman 2004, section 11.4.3), with
    # directions moved on the unit sphere instead of points in an image.
    normal, back = np.cross(translation, a), np.cross(b, translation)
    residual = (b * normal).sum(1)
    size = ((normal**2).sum(1) - residual**2) / focal[1] ** 2 + ((back**2).sum(1) - residual**2) / focal[0] ** 2
    epipolar = np.abs(residual) <= NEAR * np.sqrt(np.maximum(size, 0))
    # Depths along both rays where they are nearest to each other: depth1 * a + translation = depth2 * b.
    ab, at, bt = (a * b).sum(1), a @ translation, b @ translation
    slack = NEAR / min(focal) * np.linalg.norm(translation)  # far points may seem to lie a little behind infinity
    ahead = (ab * bt - at >= -slack) & (bt - ab * at >= -slack)
    return np.asarray(epipolar & ahead)


def turning_share(pairs: list[tuple[Floats, Floats, float]]) -> float:
    """Share of the matches that rotations alone explain, to `NEAR` pixels, at the focal length that explains most.

    A camera that only turned can be given a wrong focal length and a path along which all its matches fit to a tenth
    of a pixel, as if all it saw lay on a ball. Rotations then fit as well, which they do nowhere else.

    Args:
        pairs: of each, the directions of its matches [M, 3] in either image, and the focal length (pixels) that they
            were computed with. At most SAMPLE pairs are looked at, and no direction that is 80 degrees off the axis.
    """
    sample = pairs[:: max(1, len(pairs) // SAMPLE)]
    best = 0.0
    for stretch in np.geomspace(0.5, 2.0, 15):
        explained = total = 0
        for here, there, focal in sample:
            ahead = (here[:, 2] > NARROW) & (there[:, 2] > NARROW)
            a, b = (at[ahead] / at[ahead, 2:] * (1 / stretch, 1 / stretch, 1) for at in (here, there))
            u, _, vt = np.linalg.svd(
                (b / np.linalg.norm(b, axis=1)[:, None]).T @ (a / np.linalg.norm(a, axis=1)[:, None])
            )
            turned = a @ (u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt).T
            away = (turned[:, :2] / turned[:, 2:] - b[:, :2]) * stretch * focal
            explained += int((np.linalg.norm(away, axis=1) <= NEAR).sum())
            total += len(a)
        best = max(best, explained / max(total, 1))
    return best
