"""Pictures that are not perspective: rendered as faces of a cube, and read off along each pixel's ray."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lpm.train.cameras import Camera

FACES = torch.tensor(
    [
        [[1.0, 0, 0], [0, -1, 0], [0, 0, -1]],
        [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
        [[0, 0, 1], [0, -1, 0], [1, 0, 0]],
        [[0, 0, -1], [0, -1, 0], [-1, 0, 0]],
        [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    ]
)
"""[6, 3, 3] right, down and forward of each face (ahead, back, right, left, up, down) in OpenGL's camera axes."""
RIM = 1
"""Pixels around a face, so that what is read between two pixels at its edge has both."""


def draw_along(
    draw: Callable[[Camera], dict[str, Any]],
    c2w: Tensor,
    directions: Tensor,
    pixels_per_radian: float,
    time: Tensor | float | None = None,
) -> dict[str, Any]:
    """What `draw` shows along rays from one place.

    Args:
        draw: gives pictures [h, w, C] by name, of a pinhole camera; "depth" along its axis (None: left out).
        c2w: [3, 4] camera to world, OpenGL axes. directions: [H, W, 3] of the rays, world, of any length.
        pixels_per_radian: of the picture; faces have as many in their middle, and more towards their corners.

    Returns:
        The same names, [H, W, C]; "depth" is the distance from the camera.
    """
    height, width, _ = directions.shape
    half = max(8, math.ceil(pixels_per_radian))
    side = 2 * (half + RIM)
    K = torch.tensor([[half, 0.0, side / 2], [0.0, half, side / 2], [0.0, 0.0, 1.0]], device=c2w.device)[None]
    local = F.normalize(directions.reshape(-1, 3) @ c2w[:, :3], dim=1)
    ahead = local @ FACES[:, 2].T.to(local)
    nearest = ahead.argmax(1)
    out: dict[str, Any] = {}
    for face in nearest.unique().tolist():
        turn = FACES[face].to(c2w) @ c2w[:, :3].T
        viewmat = torch.eye(4, device=c2w.device)
        viewmat[:3, :3], viewmat[:3, 3] = turn, -turn @ c2w[:, 3]
        drawn = draw(Camera(K, viewmat[None], side, side, None, time))
        mine = nearest == face
        right, down, forward = (local[mine] @ FACES[face].T.to(local)).unbind(1)
        at = (torch.stack([right, down], 1) / forward[:, None] * half / (side / 2))[None, None]
        for name, picture in drawn.items():
            if picture is None:
                continue
            seen = F.grid_sample(
                picture.permute(2, 0, 1)[None].float(), at, padding_mode="border", align_corners=False
            )[0, :, 0].T  # fmt: skip
            if name == "depth":
                seen = seen / forward[:, None]
            if name not in out:
                out[name] = seen.new_zeros(height * width, seen.shape[1])
            out[name][mine] = seen
    return {name: picture.reshape(height, width, -1) for name, picture in out.items()}
