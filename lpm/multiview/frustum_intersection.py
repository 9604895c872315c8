"""The piece of space that a box of pixels in each of two views have in common, and the sphere around it.

Such a piece has a dozen corners at most, so both questions are answered by trying all candidates: the points where
three planes meet, and the spheres through up to four corners. That is exact, has no special cases, and gives the same
bits every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TOLERANCE = 1e-9
"""In units of the distance between the cameras, or relative."""


def frustum_intersection(
    box_a: Sequence[float], K_a: Tensor, viewmat_a: Tensor, box_b: Sequence[float], K_b: Tensor, viewmat_b: Tensor
) -> Tensor | None:
    """Corners of the intersection of the cones through a pixel box in each of two views.

    The cones begin at the camera centres and have no end. Their intersection is the region of space of localized point
    management (Yang et al. 2025, arXiv 2406.04251).

    Args:
        box_a, box_b: x0, y0, x1, y1, pixels.
        K_a, K_b: [3, 3], pixels. viewmat_a, viewmat_b: [4, 4], world to camera, rigid; OpenCV axes.

    Returns:
        [M, 3] float64 on the CPU, world, M >= 4, in no particular order. None where there is no piece of space: the
        cones miss each other, a box is empty, the cameras are at the same place, or the intersection goes on forever
        (the cones share a direction).
    """
    if min(box_a[2] - box_a[0], box_a[3] - box_a[1], box_b[2] - box_b[0], box_b[3] - box_b[1]) <= 0:
        return None
    (normals_a, origin), (normals_b, other) = _cone(box_a, K_a, viewmat_a), _cone(box_b, K_b, viewmat_b)
    baseline = float(np.linalg.norm(other - origin))
    if baseline == 0:
        return None
    normals = np.concatenate([normals_a, normals_b])  # inside: normals @ x >= offsets; first camera at 0, baseline 1
    offsets = np.concatenate([np.zeros(4), normals_b @ ((other - origin) / baseline)])

    pairs = np.array(list(combinations(range(8), 2)))
    edges = np.cross(normals[pairs[:, 0]], normals[pairs[:, 1]])
    length = np.linalg.norm(edges, axis=1)
    edges = edges[length > TOLERANCE] / length[length > TOLERANCE, None]
    if (np.concatenate([edges, -edges]) @ normals.T >= -TOLERANCE).all(1).any():
        return None

    triples = np.array(list(combinations(range(8), 3)))
    triples = triples[np.abs(np.linalg.det(normals[triples])) > TOLERANCE]
    points = np.linalg.solve(normals[triples], offsets[triples][..., None])[..., 0]
    slack = TOLERANCE * (1 + np.linalg.norm(points, axis=1))[:, None]
    points = points[(points @ normals.T >= offsets - slack).all(1)]
    _, first = np.unique(points.round(8), axis=0, return_index=True)  # more than three planes may meet
    if len(first) < 4:
        return None
    return torch.from_numpy(points[first] * baseline + origin)


def _cone(box: Sequence[float], K: Tensor, viewmat: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit normals [4, 3] of a cone's sides, pointing inwards, and its apex [3]; world."""
    x0, y0, x1, y1 = box
    inverse = np.linalg.inv(K.detach().double().cpu().numpy())
    rotation, translation = np.split(viewmat.detach().double().cpu().numpy()[:3], [3], axis=1)
    rays = np.array([[x0, y0, 1], [x1, y0, 1], [x1, y1, 1], [x0, y1, 1]]) @ inverse.T
    normals = np.cross(rays, np.roll(rays, -1, axis=0)) @ rotation
    return normals / np.linalg.norm(normals, axis=1, keepdims=True), -(rotation.T @ translation)[:, 0]


def bounding_sphere(vertices: Tensor) -> tuple[Tensor, float]:
    """The smallest sphere around `vertices` [M, 3], M >= 1 and small (work grows with M^5): centre [3] and radius.

    It is the smallest sphere through two, three or four of the vertices that holds them all (Welzl 1991, lemma 1).
    Computed in float64; units and device of the result are those of `vertices`.
    """
    points = np.unique(vertices.detach().double().cpu().numpy(), axis=0)
    best, squared = points[0], np.inf if len(points) > 1 else 0.0
    for size in range(2, min(4, len(points)) + 1):
        chosen = points[np.array(list(combinations(range(len(points)), size)))]
        start, edges = chosen[:, 0], chosen[:, 1:] - chosen[:, :1]
        gram = edges @ edges.transpose(0, 2, 1)
        diagonal = np.diagonal(gram, axis1=1, axis2=2)
        sound = np.linalg.det(gram) > 1e-12 * diagonal.prod(1)  # those on one line or plane are in a smaller group
        start, edges, gram, diagonal = start[sound], edges[sound], gram[sound], diagonal[sound]
        weights = np.linalg.solve(2 * gram, diagonal[..., None])
        centres = start + (weights * edges).sum(1)
        farthest = np.square(points - centres[:, None]).sum(-1).max(1)
        holds = farthest <= np.square(start - centres).sum(-1) * (1 + TOLERANCE)
        if holds.any():
            i = np.where(holds, farthest, np.inf).argmin()
            if farthest[i] < squared:
                best, squared = centres[i], float(farthest[i])
    return torch.from_numpy(best).to(vertices), float(np.sqrt(squared))
