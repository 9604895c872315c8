"""How wide a point may be: far from all cameras no wider than its distance lets it, near them as the photos want it."""

import pytest
import torch

from lpm.multiview.views import MANY_CENTRES, nearest_centre
from lpm.render.rasterize import rasterize
from lpm.strategy.width import hold, widest_scales


def test_the_widest_scale_follows_the_nearest_camera_or_the_radius_of_all():
    centres = torch.tensor([[0.0, 0, 0], [10, 0, 0]])
    means = torch.tensor([[0.0, 0, 20], [19, 0, 0], [9, 0, 0], [0, 0, 0]])
    limit = widest_scales(means, centres, 0.2)
    torch.testing.assert_close(limit.exp().flatten(), torch.tensor([4.0, 1.8, 1.0, 1.0]))


@pytest.mark.parametrize("n", [0, 1])
def test_without_cameras_or_around_one_alone(n):
    limit = widest_scales(torch.tensor([[0.0, 0, 4]]), torch.zeros(n, 3), 0.25)
    assert limit.exp().item() == pytest.approx(1.0 if n else torch.inf)
    assert widest_scales(torch.zeros(0, 3), torch.zeros(n, 3), 0.25).shape == (0, 1)


def test_many_points_are_measured_block_by_block(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    means, centres = (torch.randn(n, 3, generator=generator) * 4 for n in (1000, 2**14))
    nearest = torch.cdist(means, centres).amin(1).maximum((centres - centres.mean(0)).norm(dim=1).amax())
    torch.testing.assert_close(widest_scales(means, centres, 0.5).exp().flatten(), 0.5 * nearest)


@pytest.mark.parametrize(("share", "veiled"), [(1.0, True), (0.33, False), (0.25, False)])
def test_a_point_beside_a_camera_is_a_veil_if_it_is_wide(share, veiled):
    """Half a degree before the camera's image plane, far beside it: what no picture should show."""
    away, turn = 100.0, torch.deg2rad(torch.tensor(0.5))
    means = away * torch.stack([turn.cos(), torch.zeros(()), turn.sin()])[None]
    K = torch.tensor([[[326.0, 0, 192], [0, 326, 128], [0, 0, 1]]])
    scales = widest_scales(means, torch.zeros(1, 3), share).exp().expand(1, 3)
    quats, opacities = torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1)
    _, alpha, _ = rasterize(means, quats, scales, opacities, torch.ones(1, 3), torch.eye(4)[None], K, 384, 256)
    assert bool(alpha.mean() > 0.5) == veiled
    assert veiled or float(alpha.max()) < 0.1


def test_only_what_is_too_wide_is_made_smaller():
    """A floor seen from beside it stays; of a far stick the long axis alone is cut."""
    viewmats = torch.eye(4).repeat(4, 1, 1)
    viewmats[:, :2, 3] = -torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    scales = torch.tensor([[0.24, 0.2, 0.001], [30.0, 0.5, 0.01]]).log()
    params = {"means": torch.tensor([[0.9, 0, 0.2], [0, 0, 60]]), "scales": torch.nn.Parameter(scales.clone())}
    state = {}
    hold(params, state, viewmats, 0.25, anew=False)
    cut = 0.25 * (60**2 + 1) ** 0.5
    expected = torch.tensor([[0.24, 0.2, 0.001], [cut, 0.5, 0.01]])
    torch.testing.assert_close(params["scales"].detach().exp(), expected)
    params["means"][1, 2] = 6.0  # it came nearer: known from the next measurement on
    hold(params, state, viewmats, 0.25, anew=False)
    torch.testing.assert_close(params["scales"].detach().exp(), expected)
    hold(params, state, viewmats, 0.25, anew=True)
    assert params["scales"][1].detach().exp().amax() == pytest.approx(0.25 * 37**0.5)


def test_of_many_cameras_the_nearest_is_found_in_a_tree():
    """As by measuring every distance; what is nowhere is near none."""
    centres, means = torch.randn(MANY_CENTRES + 1, 3), torch.randn(50, 3)
    means[3, 1] = torch.nan
    wanted = (means[:, None] - centres).norm(dim=2).amin(1)
    torch.testing.assert_close(nearest_centre(means, centres), wanted, equal_nan=True)
