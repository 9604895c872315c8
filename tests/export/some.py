"""Random Gaussians and pictures of them, for tests."""

import sys

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lpm.formats.picture import draw
from lpm.multiview.views import look_at


def some(n=50, degree=3):
    rest = (degree + 1) ** 2 - 1
    shapes = {"means": (3,), "scales": (3,), "quats": (4,), "features_dc": (3,), "features_rest": (rest, 3)}
    shapes["opacities"] = (1,)
    return {name: torch.randn(n, *shape) for name, shape in shapes.items()}


def rotations(quats):
    """[N, 3, 3] of wxyz [N, 4], by somebody else's arithmetic."""
    return torch.from_numpy(Rotation.from_quat(np.asarray(quats, np.float64)[:, [1, 2, 3, 0]]).as_matrix())


def covariances(params):
    """[N, 3, 3] in world units, which do not depend on a quaternion's sign or the order of axes."""
    turned = rotations(params["quats"]) * params["scales"].double().exp()[:, None]
    return turned @ turned.transpose(1, 2)


def visible(n=200, degree=3, seed=0):
    """Gaussians of sizes and colours that a picture shows."""
    generator = torch.Generator().manual_seed(seed)
    params = {name: torch.randn(value.shape, generator=generator) for name, value in some(n, degree).items()}
    params["means"] *= 0.5
    params["scales"] = params["scales"] * 0.4 - 2.2
    params["features_rest"] *= 0.15
    return params


def picture(params, eye=(3.0, 0.0, 0.0), size=96, up=(0.0, 0.0, 1.0), background=0.0, target=(0.0, 0.0, 0.0)):
    """[H, W, 3] 0..1, and the camera's matrices."""
    camera = look_at(torch.tensor(eye), torch.tensor(target), torch.tensor(up))
    K = torch.tensor([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1.0]])
    return draw(params, camera[None], K[None], size, size, background)[0]


def call(main, *arguments):
    """Runs a command in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [main.__name__, *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0
    return 0
