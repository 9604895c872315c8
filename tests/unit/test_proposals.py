"""What is proposed for editing: samples, exact counts, and where new points are put."""

import numpy as np
import pytest
import torch

from lpm.multiview.views import Views
from lpm.strategy.selection import around_cameras, lowest, sparse_tiles, surface_points, weighted_sample
from lpm.zones.find import feature_depths
from lpm.zones.zone import FALSE_FRONT, MISSING, NO_EVIDENCE, UNDER_RESOLVED, ViewZones


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("n", "drawn"), [(0, 0), (3, 3), (6, 6), (50, 6), (-2, 0)])
def test_a_sample_is_exact_and_never_of_score_zero(n, drawn):
    score = torch.tensor([0.0, 1.0, 2.0, 0.0, 3.0, 1.0, 1e-9, 5.0])
    mask = weighted_sample(score, n, generator())
    assert int(mask.sum()) == drawn
    assert not mask[[0, 3]].any()
    assert torch.equal(mask, weighted_sample(score, n, generator()))


def test_a_sample_follows_the_score():
    score = torch.tensor([1.0, 2.0, 7.0])
    draws = generator()
    first = torch.stack([weighted_sample(score, 1, draws) for _ in range(4000)]).float().mean(0)
    torch.testing.assert_close(first, torch.tensor([0.1, 0.2, 0.7]), atol=0.03, rtol=0)


def test_lowest_is_exact_with_ties_by_row():
    value = torch.tensor([3.0, 1.0, 1.0, 0.0, 2.0, 1.0])
    allowed = torch.tensor([True, True, True, False, True, True])
    assert lowest(value, allowed, 2).nonzero().flatten().tolist() == [1, 2]
    assert lowest(value, allowed, 4).nonzero().flatten().tolist() == [1, 2, 4, 5]
    assert int(lowest(value, allowed, 99).sum()) == 5
    assert int(lowest(value, allowed, -1).sum()) == 0


def view_zones(kinds):
    """A camera at the origin with 2 x 3 tiles of 16 pixels, all at depth 4."""
    K = torch.tensor([[50.0, 0, 24], [0, 50, 16], [0, 0, 1]])
    near = torch.full((2, 3), 3.9)
    depth = torch.where(kinds == NO_EVIDENCE, torch.nan, 4.0)
    return ViewZones(0, torch.eye(4), K, (48, 32), 16, near, near + 0.2, depth, np.ones((2, 3)), kinds)


def test_points_are_put_where_the_photo_knows_a_depth_and_nothing_is():
    kinds = torch.tensor([[MISSING, NO_EVIDENCE, -1], [FALSE_FRONT, UNDER_RESOLVED, MISSING]])
    inside = torch.tensor([[0, 0, 0], [0, 0, 7]])
    errors = torch.tensor([[0.1, 0.9, 0.9], [0.3, 0.2, 0.9]])
    photo = torch.zeros(32, 48, 3, dtype=torch.uint8)
    photo[16:, :16] = 255  # the tile of the false front
    zones = view_zones(kinds)
    views = Views([photo], zones.K[None], zones.viewmat[None])
    lacking = [sparse_tiles(zones, inside, 1)]
    rows, seen = surface_points(views, [zones], [errors], lacking, 100)
    assert seen.tolist() == [zones.view] * len(rows["means"])
    assert len(rows["means"]) == 12  # three tiles, four each
    assert (rows["means"][:, 2] == 4).all()
    pixels = rows["means"][:, :2] / 4 * 50 + torch.tensor([24.0, 16])
    assert sorted(map(tuple, pixels[:4].round().tolist())) == [(4, 20), (4, 28), (12, 20), (12, 28)]  # the worst first
    white = rows["features_dc"] * 0.28209479177387814 + 0.5
    assert white[:4].mean() == pytest.approx(1, abs=1e-6)
    assert white[4:].abs().max() < 1e-6
    torch.testing.assert_close(rows["scales"].exp(), torch.full((12, 3), 4.0 * 4 / 50))
    assert torch.sigmoid(rows["opacities"]).mean() == pytest.approx(0.1, abs=1e-6)
    assert len(surface_points(views, [zones], [errors], lacking, 5)[1]) == 5
    assert len(surface_points(views, [zones], [errors], [sparse_tiles(zones, inside + 1, 1)], 5)[1]) == 0
    assert len(surface_points(views, [], [], [], 5)[1]) == 0


def test_depth_by_features_takes_two_on_one_surface():
    tile = torch.tensor([0, 0, 1, 2, 2, 3, 3, 3])
    depth = torch.tensor([2.0, 2.1, 5.0, 3.0, 9.0, 4.0, 4.0, 4.2])
    near, far = feature_depths(tile, depth, 6)
    nan = float("nan")
    wanted = torch.tensor([2.0, nan, nan, 4.0, nan, nan]), torch.tensor([2.1, nan, nan, 4.2, nan, nan])
    torch.testing.assert_close((near, far), wanted, equal_nan=True)


@pytest.mark.parametrize("turned", [False, True])
def test_points_that_reach_around_a_camera(turned):
    """By hand: a needle along x, and along y after a quarter turn about z, with cameras on either axis."""
    quats = torch.tensor([[0.5**0.5, 0, 0, 0.5**0.5] if turned else [1.0, 0, 0, 0]]).expand(6, 4)
    scales = torch.tensor([2.0, 0.1, 0.1]).log().expand(6, 3)
    means = torch.zeros(6, 3)
    along = 1 if turned else 0
    means[:, along] = torch.tensor([0.0, 3.9, 4.1, -3.9, 0.0, 0.0])
    means[4, 1 - along] = 0.19
    means[5, 1 - along] = 0.21
    cameras = torch.tensor([[100.0, 0, 0], [0, 0, 0]])
    assert around_cameras(means, quats, scales, cameras, 2.0).tolist() == [True, True, False, True, True, False]
    assert around_cameras(means, quats, scales, cameras, 1.0).tolist() == [True, False, False, False, False, False]
    assert not around_cameras(means, quats, scales, cameras[:0], 2.0).any()
    assert not around_cameras(means[:0], quats[:0], scales[:0], cameras, 2.0).any()
