"""A wall of Gaussians and cameras before it, for tests."""

import numpy as np
import torch
from export.some import visible

from lpm.editing.cameras import Cameras
from lpm.multiview.views import look_at


def wall(n=1500, seed=3):
    """A wall of small opaque Gaussians in the plane z = 0, from -1 to 1, each as large as the gaps between them."""
    r = np.random.default_rng(seed)
    params = visible(n, 1)
    params["means"] = torch.from_numpy(np.column_stack([r.uniform(-1, 1, (n, 2)), r.normal(0, 0.005, n)])).float()
    params["scales"] = torch.from_numpy(np.log([[0.03, 0.025, 0.005]]) + r.normal(0, 0.2, (n, 3))).float()
    params["quats"] = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    params["opacities"][:] = 2.0
    params["features_dc"] = torch.where(params["means"][:, :1] > 0, 1.0, -1.0).repeat(1, 3)
    params["features_rest"][:] = 0
    return params


def cameras(params, views=8):
    """On an arc before the wall, three away; the wall's centres are the points."""
    turn = torch.linspace(-0.5, 0.5, views)
    eyes = torch.stack([3 * turn.sin(), 0.3 * (turn * 9).sin(), 3 * turn.cos()], 1)
    viewmats = torch.stack([look_at(eye, torch.zeros(3), torch.tensor([0.0, 1, 0])) for eye in eyes])
    K = torch.tensor([[80.0, 0, 32], [0, 80, 32], [0, 0, 1]])
    sizes = torch.full((views, 2), 64)
    return Cameras(viewmats, K.repeat(views, 1, 1), sizes, torch.arange(views) == 3, params["means"][::3], "tests")


def with_row(params, **changed):
    """`params` and one more row: the first, changed."""
    row = {name: value[:1].clone() for name, value in params.items()}
    row |= {name: torch.tensor([value], dtype=torch.float32) for name, value in changed.items()}
    return {name: torch.cat([value, row[name]]) for name, value in params.items()}
