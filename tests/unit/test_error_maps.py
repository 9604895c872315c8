"""Error maps: what is pooled, what is forgotten, and that exposure is no error."""

import pytest
import torch

from lpm.error_maps import ErrorMaps, gain_free_residual, pool


@pytest.mark.parametrize("size", [(32, 48), (33, 50), (7, 5)])
def test_pool_is_the_mean_of_each_tile(size):
    residual = torch.rand(size)
    pooled = pool(residual, 8)
    assert pooled.shape == (-(-size[0] // 8), -(-size[1] // 8))
    for r in range(pooled.shape[0]):
        for c in range(pooled.shape[1]):
            wanted = residual[8 * r : 8 * r + 8, 8 * c : 8 * c + 8].mean()
            assert pooled[r, c] == pytest.approx(wanted.item(), rel=1e-5)


def test_masked_pixels_do_not_count():
    residual, mask = torch.ones(16, 16), torch.zeros(16, 16, dtype=torch.bool)
    residual[:, :3] = 100.0
    mask[:8, 3:8] = True
    pooled = pool(residual, 8, mask)
    assert pooled.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_exposure_is_no_error():
    truth = torch.rand(40, 40, 3) * 0.6 + 0.1
    assert gain_free_residual(truth * torch.tensor([0.8, 1.0, 1.3]), truth).max() < 1e-5
    wrong = truth.clone()
    wrong[:8, :8] = 1.0
    residual = gain_free_residual(wrong * 0.8, truth)
    assert residual[:8, :8].mean() > 5 * residual[8:, 8:].mean()


def test_broken_pixels_are_no_evidence():
    truth = torch.rand(16, 16, 3)
    render = truth.clone()
    render[3, 3] = float("nan")
    maps = ErrorMaps(tile=8)
    maps.update(0, 1, render, truth)
    assert torch.isfinite(maps.maps[0]).all()


def test_moving_average_and_age():
    maps = ErrorMaps(tile=8, keep=0.75, stride=1)
    truth = torch.full((16, 16, 3), 0.5)
    checker = torch.where((torch.arange(16)[:, None] + torch.arange(16)) % 2 == 0, 1.0, -1.0)[..., None]
    maps.update(4, 10, truth + 0.4 * checker, truth)
    first = maps.maps[4].clone()
    maps.update(4, 20, truth, truth)
    torch.testing.assert_close(maps.maps[4], 0.75 * first)
    assert maps.seen == {4: 20}
    maps.update(4, 30, torch.zeros(32, 32, 3), torch.full((32, 32, 3), 0.5))  # another resolution starts anew
    assert maps.maps[4].shape == (4, 4)


def test_threshold_leaves_a_share_and_none_is_legal():
    maps = ErrorMaps()
    assert maps.bad_threshold(0.1, 0.02) == float("inf")
    maps.maps = {0: torch.linspace(0, 1, 100).reshape(10, 10)}
    threshold = maps.bad_threshold(0.1, 0.02)
    assert int((maps.maps[0] >= threshold).sum()) == 10
    assert maps.bad_threshold(0.1, 2.0) == 2.0


def test_state_comes_back():
    maps, other = ErrorMaps(), ErrorMaps()
    maps.update(3, 7, torch.rand(16, 16, 3), torch.rand(16, 16, 3))
    other.load(maps.state(), "cpu")
    assert torch.equal(other.maps[3], maps.maps[3])
    assert other.seen == {3: 7}
