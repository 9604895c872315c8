"""What photos show in common, found without asking their poses: features that match, and agree with each other."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lpm.plausibility.pictures import Picture
from lpm.scenes.scene import Floats, Scene

FEATURES = 1_000
"""Of a photo, those of highest contrast."""
RATIO = 0.8
"""A match is nearer than so many times the second nearest (Lowe 2004, section 7.1)."""
FEWEST = 20
"""Matches that agree with each other, below which two photos tell nothing."""
MOST = 120
"""Matches of a pair that are used: more say nothing new."""
TOLERANCE = 1.5
"""Pixels of a small picture that a match may be off what the others say."""
CONFIDENCE, TRIES = 0.999, 1_000


@dataclass
class Features:
    """F features of a picture."""

    rays: Floats
    """[F, 2] x / z and y / z in the camera's axes (OpenCV's), without lens distortion."""
    descriptors: NDArray[np.float32]
    """[F, 128]"""
    known: NDArray[np.bool_]
    """[F] whether the scene's mask lets it through."""
    gray: NDArray[np.float32]
    """[F] grey level around it, 0..255."""


@dataclass
class Pair:
    """M matches of two views."""

    first: int
    second: int
    rays: Floats
    """[M, 2, 2] x / z and y / z in either camera's axes."""
    gray: NDArray[np.float32]
    """[M, 2] grey levels."""


def features(scene: Scene, picture: Picture) -> Features:
    """SIFT features of `picture`, where the lens sees something."""
    mask = None if picture.inside is None else cv2.erode(picture.inside.astype(np.uint8), np.ones((9, 9), np.uint8))
    sift = cv2.SIFT_create(nfeatures=FEATURES, enable_precise_upscale=True)  # type: ignore[attr-defined]
    points, descriptors = sift.detectAndCompute(picture.gray, mask)
    if descriptors is None or not len(points):
        none = np.zeros(0, np.float32)
        return Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32), np.zeros(0, bool), none)
    at = np.array([point.pt for point in points])
    column, row = at.round().astype(int).T.clip(0, np.array(picture.gray.shape[::-1])[:, None] - 1)
    known = np.ones(len(at), bool) if picture.known is None else picture.known[row, column]
    blurred = np.asarray(cv2.blur(picture.gray, (9, 9)), np.float32)[row, column]
    fx, fy, cx, cy = scene.intrinsics[picture.view]
    rays = ((at + 0.5) / picture.scale - (cx, cy)) / (fx, fy)  # OpenCV counts from the centre of the first pixel
    k1, k2, k3, _, p1, p2 = scene.distortion[picture.view]
    if np.any(scene.distortion[picture.view]):
        bent = np.array([k1, k2, p1, p2, k3])
        rays = np.asarray(cv2.undistortPoints(rays[:, None], np.eye(3), bent)).reshape(-1, 2)
    return Features(rays, np.asarray(descriptors, np.float32), known, blurred)


def all_features(scene: Scene, pictures: Sequence[Picture]) -> list[Features]:
    """`features` of each of `pictures`."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda picture: features(scene, picture), pictures))


def mutual(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows [K] of `a` [F, 128] and `b` [G, 128] that are each other's nearest and pass the ratio test in `a`."""
    if not len(a) or len(b) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    away = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    nearest = away.argmin(1)
    rows = np.flatnonzero(away.argmin(0)[nearest] == np.arange(len(a)))
    best = away[rows, nearest[rows]]
    away[rows, nearest[rows]] = np.inf
    good = best < RATIO**2 * away[rows].min(1)
    return rows[good], nearest[rows[good]]


def pair(found: dict[int, Features], first: int, second: int, pixels: float) -> Pair | None:
    """The matches of views `first` and `second` that some motion of a camera explains; None if there are too few.

    Args:
        pixels: of a small picture for one unit of a ray.
    """
    a, b = found[first], found[second]
    ia, ib = np.flatnonzero(a.known), np.flatnonzero(b.known)
    i, j = mutual(a.descriptors[ia], b.descriptors[ib])
    if len(i) < FEWEST:
        return None
    i, j = ia[i], ib[j]
    both = a.rays[i] * pixels, b.rays[j] * pixels
    try:
        _, good = cv2.findFundamentalMat(*both, cv2.USAC_MAGSAC, TOLERANCE, CONFIDENCE, TRIES)
    except cv2.error:  # OpenCV 4.10 asserts where no sample of the matches gives a model
        return None
    if good is None or int(good.sum()) < FEWEST:
        return None
    rows = np.flatnonzero(good.ravel())[:MOST]
    i, j = i[rows], j[rows]
    return Pair(first, second, np.stack([a.rays[i], b.rays[j]], 1), np.stack([a.gray[i], b.gray[j]], 1))


def matched(found: dict[int, Features], candidates: Sequence[tuple[int, int]], pixels: float) -> list[Pair]:
    """`pair` of those of `candidates` that have enough matches, in their order."""
    with ThreadPoolExecutor(2) as pool:
        pairs = pool.map(lambda both: pair(found, both[0], both[1], pixels), candidates)
        return [each for each in pairs if each is not None]


def candidates(scene: Scene, views: Sequence[int], near: int) -> list[tuple[int, int]]:
    """Pairs of `views` that may show the same: the `near` nearest by their poses, and neighbours by name.

    Of a scene that moves, those of one time.
    """
    at, along = scene.c2w[views, :3, 3], -scene.c2w[views, :3, 2]
    apart = np.linalg.norm(at[:, None] - at, axis=2)
    np.fill_diagonal(apart, np.inf)
    spacing = max(float(np.median(apart.min(1))), 1e-12)
    with np.errstate(invalid="ignore"):
        cost = apart / spacing + np.degrees(np.arccos(np.clip(along @ along.T, -1, 1))) / 15
    allowed = np.ones_like(cost, dtype=bool)
    if scene.capture_times is not None:
        times = scene.capture_times[views]
        allowed = times[:, None] == times
        if not (allowed.sum(1) > 1).any():  # one camera that moves
            allowed[:] = True
    cost[~allowed] = np.inf
    chosen = {(min(i, int(j)), max(i, int(j))) for i in range(len(views)) for j in cost[i].argsort()[:near]}
    chosen |= {(i, i + step) for step in (1, 2) for i in range(len(views) - step)}
    pairs = sorted(pair for pair in chosen if pair[0] != pair[1] and allowed[pair])
    return [(int(views[i]), int(views[j])) for i, j in pairs if np.isfinite(cost[i, j])]
