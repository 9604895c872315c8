"""Error maps: what is pooled, what is forgotten, and that exposure is no error."""

import pytest
import torch

from lpm.cuda.native import native
from lpm.zones.error_maps import ErrorMaps, pool, tile_errors, tile_errors_torch

needs_native = pytest.mark.skipif(native() is None, reason="no native kernels on this machine")


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


@pytest.mark.parametrize("dssim", [0.0, 0.2])
def test_exposure_is_no_error(dssim):
    truth = torch.rand(40, 40, 3) * 0.6 + 0.1
    assert tile_errors(truth * torch.tensor([0.8, 1.0, 1.3]), truth, 8, dssim=dssim).max() < 1e-5
    wrong = truth.clone()
    wrong[:8, :8] = 1.0
    errors = tile_errors(wrong * 0.8, truth, 8, dssim=dssim)
    assert errors[0, 0] > 5 * errors.flatten()[1:].max()


def test_l1_and_dssim_by_hand():
    """One tile; the definitions of both terms in numpy's words."""
    render, truth = torch.rand(8, 8, 3), torch.rand(8, 8, 3)
    render *= (truth.square().sum((0, 1)) / (render * truth).sum((0, 1)))[None, None]
    render *= ((render * truth).sum((0, 1)) / render.square().sum((0, 1)))[None, None]  # the best gain is 1 now
    x, y = render.double().mean(-1), truth.double().mean(-1)
    c1, c2 = 0.01**2, 0.03**2
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    ssim = (2 * x.mean() * y.mean() + c1) * (2 * covariance + c2)
    ssim /= (x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var(correction=0) + y.var(correction=0) + c2)
    l1 = (render - truth).abs().mean()
    for dssim in (0.0, 0.2, 1.0):
        wanted = (1 - dssim) * l1 + dssim * (1 - ssim) / 2
        for errors in (tile_errors, tile_errors_torch):
            assert errors(render, truth, 8, dssim=dssim).item() == pytest.approx(float(wanted), rel=1e-4)


def test_a_blurred_texture_is_seen_by_dssim():
    """Detail that is lost without a change of the mean: what under-resolved points look like."""
    truth = torch.full((16, 16, 3), 0.5)
    truth[:8, :8] += 0.05 * torch.where((torch.arange(8)[:, None] + torch.arange(8)) % 2 == 0, 1.0, -1.0)[..., None]
    render = torch.full((16, 16, 3), 0.5)
    l1, both = (tile_errors(render, truth, 8, dssim=d) for d in (0.0, 0.2))
    assert both[0, 0] > 1.5 * l1[0, 0]
    assert both[1, 1] < 0.01 * both[0, 0]


@pytest.mark.parametrize("which", ["render", "truth"])
def test_broken_pixels_are_no_evidence(which):
    """They are left out of their tile; the rest of the image counts as before."""
    render, truth = torch.rand(16, 16, 3), torch.rand(16, 16, 3)
    clean = tile_errors(render, truth, 8)
    broken = {"render": render.clone(), "truth": truth.clone()}
    broken[which][3, 3] = float("nan")
    errors = tile_errors(broken["render"], broken["truth"], 8)
    assert torch.isfinite(errors).all()
    torch.testing.assert_close(errors, clean, rtol=0.1, atol=0)
    assert not torch.equal(errors, clean)
    nothing = tile_errors(render, torch.full_like(truth, float("nan")), 8)
    assert nothing.tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1)])
def test_what_a_mask_hides_is_no_error(shape):
    maps, mask = ErrorMaps(tile=8, stride=1), torch.zeros(shape, dtype=torch.bool)
    mask[8:] = True
    maps.update(0, 1, torch.rand(16, 16, 3), torch.rand(16, 16, 3), mask)
    assert maps.maps[0][0].tolist() == [0.0, 0.0]
    assert (maps.maps[0][1] > 0.05).all()


def test_moving_average_and_age():
    maps = ErrorMaps(tile=8, keep=0.75, stride=1, dssim=0.0)
    truth = torch.full((16, 16, 3), 0.5)
    checker = torch.where((torch.arange(16)[:, None] + torch.arange(16)) % 2 == 0, 1.0, -1.0)[..., None]
    maps.update(4, 10, truth + 0.4 * checker, truth)
    first = maps.maps[4].clone()
    maps.update(4, 20, truth, truth)
    torch.testing.assert_close(maps.maps[4], 0.75 * first)
    assert maps.seen == {4: 20}
    assert (maps.age(4, 25), maps.age(5, 25)) == (5, None)
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


def test_large_images_give_the_same_bits_for_any_number_of_threads():
    render, truth = torch.rand(1080, 1920, 3), torch.rand(1080, 1920, 3)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            maps = ErrorMaps(tile=4, stride=2)
            maps.update(0, 1, render, truth)
            results.append((maps.maps[0], maps.mean(0), maps.bad_threshold(0.1, 0.01)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        assert other[1:] == results[0][1:]


SIZES = [((40, 56), 8, 1), ((37, 51), 8, 2), ((5, 3), 16, 4), ((1, 1), 8, 2)]


@needs_native
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
@pytest.mark.parametrize("hidden", ["nothing", "mask", "broken", "both"])
@pytest.mark.parametrize(("size", "tile", "stride"), SIZES)
def test_native_is_the_twin(size, tile, stride, hidden, dtype, tolerance):
    render, truth = (torch.rand(*size, 3, dtype=dtype) for _ in range(2))
    mask = torch.rand(size) > 0.4 if hidden in ("mask", "both") else None
    if hidden in ("broken", "both"):
        render[torch.rand(size) > 0.8] = torch.nan
        truth[..., 1][torch.rand(size) > 0.8] = torch.inf
    for dssim in (0.0, 0.2):
        got, wanted = (f(render, truth, tile, mask, dssim, stride) for f in (tile_errors, tile_errors_torch))
        assert got.shape == (-(-size[0] // tile), -(-size[1] // tile))
        torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)


def test_inputs_may_be_strided_or_carry_gradients():
    both = torch.rand(6, 24, 32)
    render, truth = (image.permute(1, 2, 0) for image in both.split(3))
    wanted = tile_errors(render.contiguous(), truth.contiguous(), 8)
    assert torch.equal(tile_errors(render.requires_grad_(), truth, 8), wanted)
    assert not wanted.requires_grad
