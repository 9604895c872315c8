"""Cameras as training has them: of all photos of a split, and of one step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lpm.multiview.views import world_to_camera


@dataclass
class Camera:
    """One pinhole camera, as a model draws what it sees. Tensors are on the model's device."""

    K: Tensor
    """[1, 3, 3] intrinsics, pixels."""
    viewmat: Tensor
    """[1, 4, 4] world to camera (x right, y down, z forward)."""
    height: int
    width: int
    c2w: Tensor | None = None
    """[1, 3, 4] camera to world, OpenGL axes: what refinement of poses corrects. None: it stays as it is."""
    time: Tensor | float | None = None
    """0 (first frame) to 1 (last); [] or a number; None: it has none."""
    index: int | None = None
    """Which training photo it took; None: no training photo."""

    def smaller(self, factor: int) -> Camera:
        """The same camera with 1/factor of the pixels along each side."""
        if factor == 1:
            return self
        K = torch.cat([self.K[:, :2] / factor, self.K[:, 2:]], 1)
        return replace(self, K=K, height=self.height // factor, width=self.width // factor)


@dataclass
class Cameras:
    """The cameras of V photos; all on the CPU, in single precision but for the sizes."""

    c2w: Tensor
    """[V, 3, 4] camera to world, OpenGL axes, in the frame of training."""
    intrinsics: Tensor
    """[V, 4] fx, fy, cx, cy in pixels; the centre of the first pixel is at (0.5, 0.5)."""
    sizes: Tensor
    """[V, 2] int64 width, height."""
    distortion: Tensor | None = None
    """[V, 6] k1, k2, k3, k4, p1, p2 (OpenCV's formula); None: pinhole cameras."""
    capture_times: Tensor | None = None
    """[V] 0..1, of a scene that moves."""

    def __len__(self) -> int:
        return len(self.c2w)

    def scaled(self, factor: float) -> Cameras:
        """The cameras of photos of `factor` times the size, sizes rounded down."""
        by = torch.tensor([factor])
        return replace(self, intrinsics=self.intrinsics * by, sizes=(self.sizes * by).to(torch.int64))

    def Ks(self) -> Tensor:
        """[V, 3, 3] intrinsics, without distortion."""
        return intrinsics_matrices(self.intrinsics)

    def each_viewmat(self) -> Tensor:
        """[V, 4, 4] world to camera, to the bit what world_to_camera gives for one at a time.

        The bits of a product of matrices are not those of many at once.
        """
        return torch.cat([world_to_camera(c2w[None]) for c2w in self.c2w])


def intrinsics_matrices(intrinsics: Tensor) -> Tensor:
    """[..., 3, 3] of fx, fy, cx, cy [..., 4]."""
    fx, fy, cx, cy = intrinsics.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = [torch.stack(row, -1) for row in ((fx, zero, cx), (zero, fy, cy), (zero, zero, one))]
    return torch.stack(rows, -2)
