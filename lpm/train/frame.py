"""The frame that training is in: cameras turned so that up is z, and moved to the origin."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

PARALLEL = 1e-6
"""Two directions are one where the entries of their cross product sum up to less."""
SAME_SIDE = 0.17
"""cos(80 degrees): sideways axes of cameras that all lie within 10 degrees of one direction do not say what is up."""


def frame(poses: Floats, orientation: str, center: str) -> Floats:
    """The transform [3, 4] that turns and centres `poses` [V, 4, 4] (camera to world, OpenGL axes).

    The cameras' mean is subtracted in double precision; the rest is in single precision, as nerfstudio has it, so that
    a run is in the same frame whatever reads the scene.

    Args:
        orientation: up (the cameras' mean up direction becomes z), vertical (what is vertical in most photos), pca
            (the axes of the cameras' places; z the one along which they differ least) or none.
        center: poses (the cameras' mean becomes the origin), focus (the point they look at) or none.
    """
    mean = poses[:, :3, 3].mean(0) if center != "none" else np.zeros(3)
    near = poses.copy()
    near[:, :3, 3] -= mean
    turned = _frame(torch.from_numpy(near).float(), orientation, center)
    result = turned.double().numpy()
    result[:, 3] -= result[:, :3] @ mean
    return result


def _frame(poses: Tensor, orientation: str, center: str) -> Tensor:
    places = poses[..., :3, 3]
    mean = places.mean(0)
    if center == "poses":
        origin = mean
    elif center == "focus":
        origin = looked_at_by_all(poses, mean)
    else:
        origin = torch.zeros_like(mean)
    if orientation == "none":
        return torch.cat([torch.eye(3), -origin[:, None]], 1)
    if orientation == "pca":
        apart = places - mean
        axes = torch.linalg.eigh(apart.T @ apart)[1].flip(-1)
        if torch.linalg.det(axes) < 0:
            axes[:, 2] = -axes[:, 2]
        result = torch.cat([axes, axes @ -origin[:, None]], 1)
        if (result @ poses).mean(0)[2, 1] < 0:  # cameras would hang upside down
            result[1:3] = -result[1:3]
        return result
    rotation = rotation_between(_up(poses, orientation == "vertical"), torch.tensor([0.0, 0.0, 1.0]))
    return torch.cat([rotation, rotation @ -origin[:, None]], 1)


def _up(poses: Tensor, vertical: bool) -> Tensor:
    """[3] the cameras' mean up direction; with `vertical` the direction that is vertical in their pictures.

    That one is at right angles to all cameras' x axes (total least squares): the last right singular vector.
    """
    up: Tensor = poses[:, :3, 1].mean(0)
    up = up / torch.linalg.norm(up)
    if not vertical:
        return up
    _, size, directions = torch.linalg.svd(poses[:, :3, 0], full_matrices=False)
    if size[1] > SAME_SIDE * len(poses) ** 0.5:
        found: Tensor = directions[2]
        return found if torch.dot(found, up) > 0 else -found
    up = up - directions[0] * torch.dot(up, directions[0])  # all x axes are one: nothing but that is known of up
    up = up / torch.linalg.norm(up)
    return up


def looked_at_by_all(poses: Tensor, start: Tensor) -> Tensor:
    """[3] the point nearest to all optical axes (least squares) of those cameras that have it in front.

    `start` [3] where fewer than two cameras have it in front of them, as in a panorama.
    """
    forward, places = -poses[:, :3, 2:3], poses[:, :3, 3:4]
    point = start
    ahead = (forward.squeeze(-1) * (point - places.squeeze(-1))).sum(-1) > 0
    while int(ahead.sum()) > 1:
        forward, places = forward[ahead], places[ahead]
        across = torch.eye(3) - forward * forward.transpose(-2, -1)
        across = across.transpose(-2, -1) @ across
        point = torch.linalg.inv(across.mean(0)) @ (across @ places).mean(0)[:, 0]
        ahead = (forward.squeeze(-1) * (point - places.squeeze(-1))).sum(-1) > 0
        if bool(ahead.all()):
            break
    return point


def rotation_between(a: Tensor, b: Tensor) -> Tensor:
    """[3, 3] the shortest rotation that turns direction `a` [3] to `b` [3] (Rodrigues)."""
    a, b = a / torch.linalg.norm(a), b / torch.linalg.norm(b)
    axis = torch.linalg.cross(a, b)
    if axis.abs().sum() < PARALLEL:
        other = torch.tensor([1.0, 0.0, 0.0]) if abs(a[0]) < PARALLEL else torch.tensor([0.0, 1.0, 0.0])
        axis = torch.linalg.cross(a, other)
    x, y, z = (axis / torch.linalg.norm(axis)).tolist()
    K = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = torch.acos(torch.clip(torch.dot(a, b), -1, 1))
    return torch.eye(3) + torch.sin(angle) * K + (1 - torch.cos(angle)) * (K @ K)
