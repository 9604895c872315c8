"""The native loss against its torch twin, its own gradient, and a library's SSIM."""

import pytest
import torch
from pytorch_msssim import ssim

from lpm.cuda.native import native
from lpm.render.losses import _L1Dssim, l1_dssim, l1_dssim_torch

needs_native = pytest.mark.skipif(native() is None, reason="no native kernels on this machine")


def pair(height=37, width=50, channels=3, dtype=torch.float64):
    truth = torch.rand(height, width, channels, dtype=dtype)
    render = (truth + 0.2 * torch.randn_like(truth)).requires_grad_()
    return render, truth


@needs_native
@pytest.mark.parametrize("size", [(11, 11), (12, 40), (37, 50), (64, 33)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("ssim_lambda", [0.2, 1.0])
def test_native_is_the_twin(size, channels, ssim_lambda):
    render, truth = pair(*size, channels)
    loss = _L1Dssim.apply(render, truth, ssim_lambda)
    (gradient,) = torch.autograd.grad(3.0 * loss, render)
    twin = l1_dssim_torch(render, truth, ssim_lambda)
    (wanted,) = torch.autograd.grad(3.0 * twin, render)
    assert abs(loss - twin) <= 1e-12
    assert (gradient - wanted).abs().max() <= 1e-12 * max(wanted.abs().max().item(), 1)
    single = _L1Dssim.apply(render.detach().float().requires_grad_(), truth.float(), ssim_lambda)
    assert abs(single - twin) <= 1e-5


@needs_native
def test_gradcheck():
    render, truth = pair(13, 14, 2)
    assert torch.autograd.gradcheck(lambda r: _L1Dssim.apply(r, truth, 0.2), (render,))


def test_twin_is_the_librarys_ssim():
    render, truth = pair(dtype=torch.float32)
    a, b = (image.detach().permute(2, 0, 1)[None] for image in (render, truth))
    wanted = 0.8 * (render - truth).abs().mean() + 0.2 * (1 - ssim(a, b, data_range=1.0))
    assert abs(l1_dssim_torch(render, truth, 0.2) - wanted) <= 1e-5
    assert l1_dssim(truth, truth, 0.2) == pytest.approx(0, abs=1e-6)


@needs_native
def test_same_bits_for_any_number_of_threads():
    render, truth = pair(dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            loss = _L1Dssim.apply(render, truth, 0.2)
            results.append((loss.item(), torch.autograd.grad(loss, render)[0]))
    finally:
        torch.set_num_threads(before)
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        assert torch.equal(gradient, results[0][1])


def test_small_images_and_no_grad():
    render, truth = pair(5, 40)
    assert l1_dssim(render, truth, 0.2) == (render - truth).abs().mean()
    with torch.no_grad():
        assert l1_dssim(*pair(), 0.2) > 0
