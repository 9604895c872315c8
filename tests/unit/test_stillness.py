"""What photos of cameras that stand still say of where nothing moves, and points that are held to it."""

import pytest
import torch

from lpm.multiview.views import Views
from lpm.strategy.static_cameras import Cameras, calm_points, changing_tiles, hold_still

SIZE = (50, 38)  # not a multiple of a tile, nor of a block


def clip(change=0.2, noise=0.0, count=5):
    """Photos of one camera: noise on grey, and in the last of them a brighter block of 6 x 6 pixels at x 20, y 34."""
    generator = torch.Generator().manual_seed(0)
    images = 0.5 + noise * torch.randn(count, SIZE[1], SIZE[0], 1, generator=generator).expand(-1, -1, -1, 3)
    images = images.clone()
    images[-1, 32:38, 20:26] += change
    K = torch.tensor([[40.0, 0, 25], [0, 40, 19], [0, 0, 1]]).expand(count, 3, 3)
    return Views(list(images), K, torch.eye(4).expand(count, 4, 4), capture_times=torch.linspace(0, 1, count))


def test_photos_of_one_camera_from_one_place_belong_together():
    views = clip(count=6)
    views.viewmats, views.Ks = views.viewmats.clone(), views.Ks.clone()
    views.viewmats[[1, 4], 0, 3] = 1e-6  # hardly elsewhere is elsewhere
    views.Ks[5, 0, 0] = 41.0
    cameras = Cameras(views, 6, 16, 0.06)
    assert cameras.same == [[0, 2, 3], [1, 4], [0, 2, 3], [0, 2, 3], [1, 4], [5]]
    assert [cameras.stands(v) for v in (0, 1, 5)] == [True, False, False]


def test_only_tiles_with_a_change_change():
    changing = changing_tiles(clip(), list(range(5)), 16, 0.06)
    assert changing.shape == (3, 4)
    assert changing.nonzero().tolist() == [[2, 1]]
    assert not changing_tiles(clip(), [0, 1, 2, 3], 16, 0.06).any()  # before it came


@pytest.mark.parametrize(("noise", "change", "found"), [(0.02, 0.0, 0), (0.02, 0.2, 1), (0.0, 0.04, 0)])
def test_noise_and_hardly_a_change_are_none(noise, change, found):
    assert int(changing_tiles(clip(change, noise, 20), list(range(20)), 16, 0.06).sum()) == found


def test_what_is_masked_says_nothing():
    views = clip()
    views.masks = [torch.ones(SIZE[1], SIZE[0], dtype=torch.bool) for _ in range(5)]
    views.masks[-1][30:, 18:28] = False
    assert not changing_tiles(views, list(range(5)), 16, 0.06).any()


def test_points_are_calm_where_most_of_their_photos_never_change():
    views = clip()
    views.viewmats = views.viewmats.clone()
    views.viewmats[1:, 2, 3] = torch.tensor([0.0, 100.0, 100.0, 100.0])  # of the others only the second is near
    x, y = 22.0, 34.0
    on = torch.tensor([(x - 25) / 40, (y - 19) / 40, 1.0]) * 2
    off = torch.tensor([0.2, -0.3, 2.0])
    behind = torch.tensor([0.0, 0.0, -1.0])
    means = torch.stack([on, off, behind])
    tiles = changing_tiles(clip(), list(range(5)), 16, 0.06)
    assert calm_points(views, means, {0: tiles}, 16).tolist() == [False, True, False]
    # Two of three cameras see no change there: something passes before the third.
    calm = torch.zeros_like(tiles)
    three = {0: tiles, 1: calm, 2: calm}
    views.viewmats[2, 2, 3] = 0.0
    assert calm_points(views, means, three, 16).tolist() == [True, True, False]
    assert calm_points(views, means, {0: tiles, 1: calm}, 16).tolist() == [False, True, False]
    assert not calm_points(views, means, {}, 16).any()


def test_held_points_by_hand():
    params = {
        "motion": torch.tensor([[[3.0, 0, 4]], [[0.1, 0, 0]], [[0, 0, 0]], [[1.0, 0, 0]]]),
        "gates": torch.zeros(4, 1),
    }
    hold_still(params, torch.tensor([1.0, 0.2, 0.5, 0.0]), torch.tensor([0.0, 0.1, 0, 0]))
    wanted = [[[2.4, 0, 3.2]], [[0.0, 0, 0]], [[0, 0, 0]], [[1.0, 0, 0]]]
    torch.testing.assert_close(params["motion"], torch.tensor(wanted))
    assert params["gates"].flatten().tolist() == pytest.approx([0, 0.1, 0, 0])
    params["gates"][:] = torch.tensor([[7.9], [9.0], [-2.0], [8.0]])
    hold_still(params, torch.zeros(4), torch.full((4,), 0.5))
    assert params["gates"].flatten().tolist() == pytest.approx([8.0, 9.0, -1.5, 8.0])  # so that it can leave again
