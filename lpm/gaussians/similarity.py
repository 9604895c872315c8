"""Moving Gaussians between the frame they were trained in and the world's, spherical harmonics included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpm.checks import fail
from lpm.gaussians.far import offset_of
from lpm.gaussians.spherical_harmonics import rotate_harmonics


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation; `rotation` [3, 3] is orthogonal and may mirror."""

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    scale: float

    def inverse(self) -> Similarity:
        """The transform that undoes this one."""
        back = self.rotation.T
        return Similarity(back, -back @ self.translation / self.scale, 1.0 / self.scale)

    def then(self, after: Similarity) -> Similarity:
        """This transform, and then `after`."""
        moved = after.scale * after.rotation @ self.translation + after.translation
        return Similarity(after.rotation @ self.rotation, moved, after.scale * self.scale)

    def of_less(self, offset: NDArray[np.float64]) -> Similarity:
        """The same of positions that are written less `offset` [3]."""
        return Similarity(self.rotation, self.translation + self.scale * self.rotation @ offset, self.scale)


def from_dataparser(transform: NDArray[np.float64], scale: float) -> Similarity:
    """World -> train as nerfstudio's dataparser_transforms.json has it: x -> scale * (transform [3, 4] @ (x, 1)).

    Raises:
        LpmError: not a rotation and a translation, or the scale is not positive.
    """
    transform = np.asarray(transform, np.float64)
    name = "dataparser_transforms.json"
    if transform.shape not in ((3, 4), (4, 4)) or not np.isfinite(transform).all():
        fail(name, f"a transform of shape {transform.shape}", "3 rows of 4 finite numbers")
    if not (np.isfinite(scale) and scale > 0):
        fail(name, f"scale {scale}", "a positive number")
    # It is kept in float32; the nearest orthogonal matrix makes going there and back exact. What became the origin must
    # stay there: turned about the world's, a scene that lies far from it would be shifted.
    u, size, v = np.linalg.svd(transform[:3, :3])
    if np.abs(size - 1).max() > 1e-3:
        fail(name, f"a transform that stretches by {size.min():.4g} to {size.max():.4g}", "a rotation")
    rotation = u @ v
    # One Newton step of the polar decomposition: the product is orthogonal to several roundings only, and the way back
    # to an origin millions of metres away would miss it by as many.
    rotation = 1.5 * rotation - 0.5 * rotation @ rotation.T @ rotation
    origin = np.linalg.solve(transform[:3, :3], -transform[:3, 3])
    return Similarity(rotation, -scale * rotation @ origin, float(scale))


def move(params: Mapping[str, Tensor], by: Similarity) -> dict[str, Tensor]:
    """`params` (lpm.gaussians) after the transform: means, scales, quats and harmonics; opacities stay.

    Seen from a camera moved along, the picture is the same. Where that may lead beyond float32: move_far.
    """
    moved = _moved(params, by)
    return {**moved, "means": moved["means"].float()}


def move_far(
    params: Mapping[str, Tensor], by: Similarity, offset: NDArray[np.float64] | None = None
) -> tuple[dict[str, Tensor], NDArray[np.float64]]:
    """move(), with the positions less an offset [3] (lpm.gaussians.far), which is returned beside them.

    Args:
        offset: what to take; None: what float32 needs, mostly zeros.
    """
    moved = _moved(params, by)
    if offset is None:
        offset = offset_of(moved["means"].numpy(), moved["scales"].double().mean(1).exp().numpy())
    return {**moved, "means": (moved["means"] - torch.from_numpy(offset)).float()}, offset


def _moved(params: Mapping[str, Tensor], by: Similarity) -> dict[str, Tensor]:
    """move(), with the positions in float64."""
    rotation = torch.from_numpy(np.array(by.rotation, np.float64))
    means = params["means"].detach().double() @ rotation.T * by.scale + torch.from_numpy(np.array(by.translation))
    scales = params["scales"].detach().double() + np.log(by.scale)
    # A Gaussian is symmetric about its centre: mirrored by R it has the shape that the proper rotation -R gives it.
    proper = by.rotation if np.linalg.det(by.rotation) > 0 else -by.rotation
    quats = multiply(torch.from_numpy(quaternion(proper)), params["quats"].detach().double())
    return {
        **params,
        "means": means,
        "scales": scales.float(),
        "quats": quats.float(),
        "features_rest": rotate_harmonics(params["features_rest"].detach(), by.rotation),
    }


def quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """wxyz [4] of a proper rotation [3, 3]: eigenvector to the largest eigenvalue of Bar-Itzhack's (2000) matrix."""
    m = rotation
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    vector: NDArray[np.float64] = np.linalg.eigh(k)[1][:, -1]
    return vector if vector[0] >= 0 else -vector


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of quaternions wxyz [..., 4]: first the rotation `b`, then `a`."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )
