"""The sky: colours over directions, and the dome of Gaussians that stands for it elsewhere."""

import math

import pytest
import torch

from lpm.formats.picture import draw
from lpm.gaussians.spherical_harmonics import SH_C0, sh_colors
from lpm.multiview.views import look_at, rays
from lpm.render.sky import dome, sky_colors

K = torch.tensor([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]])


def test_a_constant_is_everywhere():
    colors = sky_colors(torch.tensor([[0.1 / SH_C0, 0.0, -0.2 / SH_C0]]), torch.eye(4), K, 64, 48)
    torch.testing.assert_close(colors, torch.tensor([0.6, 0.5, 0.3]).expand(48, 64, 3))


def test_brighter_above():
    """With only the coefficient of z: the middle of a picture taken towards +z, -z, and sideways."""
    sky = torch.zeros(16, 3)
    sky[2] = 0.3
    seen = []
    for eye in ([0.0, 0, -5], [0.0, 0, 5], [5.0, 0, 0]):
        up = torch.tensor([0.0, 1, 0])
        seen.append(sky_colors(sky, look_at(torch.tensor(eye), torch.zeros(3), up), K, 64, 48)[24, 32])
    step = 0.3 * math.sqrt(3 / (4 * math.pi))
    torch.testing.assert_close(torch.stack(seen)[:, 0], torch.tensor([0.5 + step, 0.5 - step, 0.5]), atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [(64, 48), (61, 43), (9, 5)])
def test_interpolation_is_close_to_every_direction_by_itself(size):
    torch.manual_seed(1)
    sky = 0.15 * torch.randn(16, 3)
    viewmat = look_at(torch.tensor([3.0, 2, 1]), torch.zeros(3), torch.tensor([0.0, 0, 1]))
    y, x = torch.meshgrid(torch.arange(size[1]) + 0.5, torch.arange(size[0]) + 0.5, indexing="ij")
    local = rays(torch.stack([x, y], -1).reshape(-1, 2), K)
    wanted = sh_colors(3, local @ viewmat[:3, :3], sky[None].expand(len(local), -1, -1))
    got = sky_colors(sky, viewmat, K, *size)
    assert (got.reshape(-1, 3) - wanted).abs().max() < 0.01


@pytest.mark.parametrize("count", [1, 4, 16])
def test_gradient(count):
    sky = (0.1 * torch.randn(count, 3, dtype=torch.float64)).requires_grad_()
    viewmat, k = torch.eye(4, dtype=torch.float64), K.double()
    assert torch.autograd.gradcheck(lambda s: sky_colors(s, viewmat, k, 12, 10), sky)


def test_the_dome_looks_like_the_sky():
    torch.manual_seed(2)
    sky = torch.zeros(16, 3)
    sky[:9] = 0.15 * torch.randn(9, 3)
    params = {"means": torch.rand(50, 3), "scales": torch.zeros(50, 3), "quats": torch.zeros(50, 4),
              "features_dc": torch.zeros(50, 3), "features_rest": torch.zeros(50, 3, 3),
              "opacities": torch.zeros(50, 1)}  # fmt: skip
    rows = dome(sky, params)
    assert all(rows[name].shape[1:] == value.shape[1:] for name, value in params.items())
    distance = (rows["means"] - params["means"].median(0).values).norm(dim=1)
    assert 10 < float(distance.min()) <= float(distance.max()) < 20.1  # 20 times about .9
    for eye in ([0.6, 0.5, 0.5], [0.0, 1.0, 0.2]):
        viewmat = look_at(torch.tensor(eye), torch.tensor([0.5, 0.4, 0.9]), torch.tensor([0.0, 0, 1]))
        shown = draw(rows, viewmat[None], K[None], 64, 48, background=0.0)[0]
        off = (shown - sky_colors(sky, viewmat, K, 64, 48)).abs()
        assert off.mean() < 0.01
        assert off.max() < 0.05
