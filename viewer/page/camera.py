"""Where somebody looks from, as viser says it, and as the rasterizer wants it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from lpm.multiview.views import look_at

FIELD = math.radians(50)
"""Vertical field of view that a page starts with; viser's own 75 degrees stretch what is near the edges."""
LEAST, MOST = 16, 4096
"""Pixels on a side of a picture."""
SAMPLE = 200_000  # points that quantiles are taken of; torch sorts no more than 16 million


@dataclass(frozen=True)
class Camera:
    """A camera. Positions are in the scene's frame; rotations are camera to world with OpenCV axes, as viser's."""

    position: tuple[float, float, float]
    wxyz: tuple[float, float, float, float]
    fov: float = FIELD
    """Vertical, radians."""
    aspect: float = 4 / 3
    """Width over height."""

    @property
    def c2w(self) -> NDArray[np.float64]:
        """[4, 4] camera to world, OpenCV axes (x right, y down, z ahead)."""
        out = np.eye(4)
        out[:3, :3] = Rotation.from_quat(np.roll(self.wxyz, -1)).as_matrix()
        out[:3, 3] = self.position
        return out

    def usable(self) -> bool:
        """Whether a picture can be drawn: finite numbers, a rotation, a field of view and an aspect."""
        numbers = np.array([*self.position, *self.wxyz, self.fov, self.aspect], np.float64)
        return bool(
            np.isfinite(numbers).all()
            and np.linalg.norm(self.wxyz) > 1e-6
            and 1e-3 < self.fov < math.pi - 1e-3
            and 1e-2 < self.aspect < 1e2
        )


def camera_at(c2w: NDArray[np.float64], fov: float = FIELD, aspect: float = 4 / 3) -> Camera:
    """The Camera of a camera-to-world matrix [4, 4] or [3, 4] with OpenCV axes."""
    x, y, z, w = Rotation.from_matrix(c2w[:3, :3]).as_quat()
    px, py, pz = np.asarray(c2w[:3, 3], np.float64).tolist()
    return Camera((px, py, pz), (float(w), float(x), float(y), float(z)), float(fov), float(aspect))


def size_of(aspect: float, longer: int, pixels: float | None = None) -> tuple[int, int]:
    """Width and height of a picture of `aspect` with `longer` pixels along its longer side, and at most `pixels`."""
    width, height = (longer, longer / aspect) if aspect >= 1 else (longer * aspect, longer)
    if pixels is not None and width * height > pixels:
        factor = math.sqrt(pixels / (width * height))
        width, height = width * factor, height * factor
    return tuple(min(MOST, max(LEAST, round(side))) for side in (width, height))  # type: ignore[return-value]


def matrices(camera: Camera, width: int, height: int) -> tuple[Tensor, Tensor]:
    """World to camera [1, 4, 4] and intrinsics [1, 3, 3] in pixels, float32, of a picture of `camera`."""
    viewmat = torch.from_numpy(np.linalg.inv(camera.c2w)).float()
    focal_y = height / 2 / math.tan(camera.fov / 2)
    focal_x = width / 2 / (math.tan(camera.fov / 2) * camera.aspect)  # the picture fills the page, whatever was rounded
    K = torch.tensor([[focal_x, 0, width / 2], [0, focal_y, height / 2], [0, 0, 1.0]])
    return viewmat[None], K[None]


def middle(params: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    """Centre [3] of what can be seen in `params` (lpm.gaussians), and the radius that holds most of it.

    Points of little opacity do not count, nor do the outer 5 % along each axis: a few floaters far away would
    otherwise make the scene a speck.
    """
    means, opacities = params["means"].float().cpu(), params["opacities"].float().cpu().reshape(-1)
    seen = means[opacities > -2.2]  # 0.1 as a logit
    seen = seen if len(seen) else means
    seen = seen[:: -(-len(seen) // SAMPLE)]
    low, high = torch.quantile(seen, torch.tensor([0.05, 0.95]), dim=0)
    centre = (low + high) / 2
    size = float(params["scales"].float().cpu()[:SAMPLE].exp().median())
    return centre, max(float((high - low).norm()) / 2, 3 * size, 1e-6)


def frame(params: Mapping[str, Tensor], up: Tensor, aspect: float = 4 / 3, fov: float = FIELD) -> tuple[Camera, Tensor]:
    """A camera a little above the scene that has all of it in view, and the point [3] that it looks at.

    Args:
        params: as in lpm.gaussians.
        up: [3], the scene's up direction.
        aspect: width over height.
        fov: vertical, radians.
    """
    centre, radius = middle(params)
    up = torch.nn.functional.normalize(up.float(), dim=0)
    # From the front: from -y where z is up, as modellers have it; from -z where -y is up, as COLMAP's first camera.
    side = torch.linalg.cross(torch.eye(3)[int(up.abs().argmin())], up)
    side = torch.nn.functional.normalize(side, dim=0)
    narrower = 2 * math.atan(math.tan(fov / 2) * min(1.0, aspect))
    away = torch.nn.functional.normalize(side + 0.35 * up, dim=0) * radius / math.sin(narrower / 2)
    c2w = np.linalg.inv(look_at(centre + away, centre, up).double().numpy())
    return camera_at(c2w, fov, aspect), centre
