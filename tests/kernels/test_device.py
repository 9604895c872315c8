"""The source of the CUDA kernels against torch twins: as loops on the host everywhere, on a GPU where there is one."""

from __future__ import annotations

import math
import os
import sys
import types

import pytest
import torch

from lpm.cuda.build import BuildError, build_cuda, cuda_flags, find_nvcc, show_toolkit, toolkit
from lpm.cuda.device import _SIGNATURES, DeviceLibrary, device_kernels, on_host
from lpm.cuda.native import native
from lpm.gaussians.optim_state import follow_rows
from lpm.multiview.views import Views, nearest_centre_native
from lpm.render.losses import l1_dssim_device, l1_dssim_torch
from lpm.strategy.few_photos import seen_by_few_native, seen_by_few_torch
from lpm.zones.error_maps import ErrorMaps, tile_errors_torch
from lpm.zones.votes import zone_votes_native, zone_votes_torch
from lpm.zones.zone import FALSE_FRONT, ViewZones

INF = float("inf")


@pytest.fixture(params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    if request.param == "host" and native() is None:
        pytest.skip("no C++ compiler on this machine")
    return torch.device("cpu" if request.param == "host" else "cuda")


@pytest.fixture
def kernels(device) -> DeviceLibrary:
    found = on_host() if device.type == "cpu" else device_kernels(device)
    assert found is not None
    return found


def pair(device, height=37, width=50, channels=3, dtype=torch.float64):
    truth = torch.rand(height, width, channels, dtype=dtype)
    render = truth + 0.2 * torch.randn_like(truth)
    return render.to(device).requires_grad_(), truth.to(device)


@pytest.mark.parametrize("size", [(11, 11), (12, 40), (37, 50), (64, 133)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("ssim_lambda", [0.2, 1.0])
def test_loss_is_the_twin(kernels, device, size, channels, ssim_lambda):
    render, truth = pair(device, *size, channels)
    loss, nothing = l1_dssim_device(kernels, render, truth, ssim_lambda)
    assert nothing is None
    (gradient,) = torch.autograd.grad(3.0 * loss, render)
    twin = l1_dssim_torch(render, truth, ssim_lambda)
    (wanted,) = torch.autograd.grad(3.0 * twin, render)
    assert abs(loss - twin) <= 1e-12
    assert (gradient - wanted).abs().max() <= 1e-12 * max(wanted.abs().max().item(), 1)
    single, _ = l1_dssim_device(kernels, render.detach().float(), truth.float(), ssim_lambda)
    assert abs(single - twin) <= 1e-5


def test_loss_gradcheck(kernels, device):
    render, truth = pair(device, 13, 14, 2)
    assert torch.autograd.gradcheck(lambda r: l1_dssim_device(kernels, r, truth, 0.2)[0], (render,))


@pytest.mark.parametrize("size", [(48, 64), (37, 50), (11, 16)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles_come_with_the_loss(kernels, device, size, stride, masked):
    render, truth = pair(device, *size)
    broken = render.detach().clone()
    broken[3, 4, 1], broken[5, 5] = math.nan, INF
    mask = (torch.rand(size) < 0.7).to(device) if masked else None
    if masked:
        mask[:8, :8] = False
    maps = ErrorMaps(8, stride=stride)
    request = maps.request(0, size, mask)
    _, made = l1_dssim_device(kernels, broken, truth, 0.2, request)
    wanted = tile_errors_torch(broken, truth, 8, mask, 0.2, stride)
    assert made.shape == wanted.shape
    assert (made - wanted).abs().max() <= 1e-9
    assert not masked or made[0, 0] == 0
    assert not made.requires_grad

    maps.update(0, 1, broken, truth, mask, made)
    loss, again = l1_dssim_device(kernels, render, truth, 0.2, maps.request(0, size, mask))
    now = tile_errors_torch(render, truth, 8, mask, 0.2, stride)
    assert (again - torch.lerp(now, wanted, maps.keep)).abs().max() <= 1e-9
    assert torch.equal(
        torch.autograd.grad(loss, render)[0],
        torch.autograd.grad(l1_dssim_device(kernels, render, truth, 0.2)[0], render)[0],
    )
    assert maps.request(0, (2 * size[0], 2 * size[1])).old is None  # another resolution


def test_same_bits_every_time(kernels, device):
    render, truth = pair(device, 64, 90, dtype=torch.float32)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            request = ErrorMaps(8).request(0, (64, 90))
            loss, made = l1_dssim_device(kernels, render, truth, 0.2, request)
            results.append((loss.detach(), torch.autograd.grad(loss, render)[0], made))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def some_zones(device, dtype) -> list[ViewZones]:
    views = []
    for number in range(5):
        q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=dtype))
        viewmat = torch.eye(4, dtype=dtype)
        viewmat[:3, :3], viewmat[2, 3] = q * torch.sign(torch.det(q)), 5.0
        K = torch.tensor([[230.0 + number, 0, 120], [0, 240, 60], [0, 0, 1]], dtype=dtype)
        has = torch.rand(9, 15) < 0.4
        near = 4 + torch.rand(9, 15, dtype=dtype)
        far = torch.where(has, near + 1, -INF)
        near = torch.where(has, near, INF)
        kind = torch.where(has, FALSE_FRONT + torch.randint(2, (9, 15)), -1)
        views.append(
            ViewZones(number, viewmat.to(device), K.to(device), (240, 140), 16, near.to(device), far.to(device),
                      ((near + far) / 2).to(device), has.long().numpy(), kind.to(device))
        )  # fmt: skip
    return views


def test_votes_are_the_twin(kernels, device):
    views = some_zones(device, torch.float64)
    means = torch.randn(3000, 3, dtype=torch.float64)
    means[:2] = torch.tensor([[math.nan, 0, 0], [INF, 1, 1]])
    means = means.to(device)
    votes, twin = zone_votes_native(kernels, means, views, 0.02), zone_votes_torch(means, views, 0.02)
    assert twin.inside.sum() > 100
    assert twin.front.sum() > 100
    assert torch.equal(votes.inside, twin.inside)
    assert torch.equal(votes.front, twin.front)
    assert all(torch.equal(a, b) for a, b in zip(votes.counts, twin.counts, strict=True))


@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 15, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_follow_an_edit(kernels, device, shape, dtype):
    old = torch.randn(shape, dtype=dtype, device=device)
    source = torch.randint(-1, 40, (73,), device=device)
    zero = torch.rand(73, device=device) < 0.3
    new = follow_rows(kernels, old, source, zero)
    assert new.shape == (73, *shape[1:])
    for i in range(73):
        wanted = torch.zeros_like(old[0]) if zero[i] or source[i] < 0 else old[source[i]]
        assert torch.equal(new[i], wanted)
    assert follow_rows(kernels, old, source[:0], zero[:0]).shape == (0, *shape[1:])


def cameras_around(count, device, dtype):
    """Cameras on a ring that look at the origin, with photos of different sizes."""
    angle = torch.arange(count, dtype=dtype) * 2 * math.pi / count
    back = torch.stack([angle.cos(), 0.2 * angle.sin(), angle.sin()], 1)
    z = -back / back.norm(dim=1, keepdim=True)
    x = torch.linalg.cross(z, torch.tensor([0.0, 1, 0], dtype=dtype).expand_as(z))
    x = x / x.norm(dim=1, keepdim=True)
    viewmats = torch.eye(4, dtype=dtype).repeat(count, 1, 1)
    viewmats[:, :3, :3] = torch.stack([x, torch.linalg.cross(z, x), z], 1)
    viewmats[:, :3, 3] = -(viewmats[:, :3, :3] @ (3 * back)[..., None])[..., 0]
    images = [torch.zeros(40 + 3 * v, 60, 3) for v in range(count)]
    K = torch.tensor([[50.0, 0.5, 30], [0, 52, 20], [0, 0, 1]], dtype=dtype)
    return Views([i.to(device) for i in images], K.repeat(count, 1, 1).to(device), viewmats.to(device))


@pytest.mark.parametrize("few", [0, 2, 11])
def test_points_of_few_photos_are_the_twins(kernels, device, few):
    views = cameras_around(11, device, torch.float64)
    means = 3 * torch.randn(5000, 3, dtype=torch.float64)
    means[:2] = torch.tensor([[math.nan, 0, 0], [INF, 1, 1]])
    order = torch.randperm(11)
    found = seen_by_few_native(kernels, means.to(device), views, few, order.to(device))
    wanted = seen_by_few_torch(means.to(device), views, few, order.tolist())
    assert torch.equal(found, wanted)
    assert bool(found[:2].all())  # what is nowhere no photo holds
    assert (few == 11) == bool(found.all())


def test_the_nearest_centre_is_the_twins(kernels, device):
    means, centres = torch.randn(3000, 3, dtype=torch.float64), torch.randn(17, 3, dtype=torch.float64)
    means[0, 1] = math.nan
    found = nearest_centre_native(kernels, means.to(device), centres.to(device)).cpu()
    wanted = (means[:, None] - centres).square().sum(-1).sqrt().amin(1)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=0, equal_nan=True)


@pytest.fixture(scope="module")
def nvcc() -> list[str]:
    try:
        return find_nvcc()
    except BuildError as error:
        pytest.skip(f"the CUDA sources are not compiled here: {error}")


def test_cuda_library_compiles(nvcc, tmp_path, monkeypatch):
    """For a Hopper GPU and, as PTX, for all others; that it runs is shown by `make gpu-check` where there is one."""
    monkeypatch.setenv("LPM_CACHE", str(tmp_path))
    flags = " ".join(cuda_flags(nvcc, (9, 0)))
    assert "code=sm_90" in flags
    assert "code=compute_7" in flags
    content = build_cuda((9, 0)).read_bytes()
    for name in _SIGNATURES:
        assert f"lpm_device_{name}_f32".encode() in content
    assert b"cudaLaunchKernel" in content or b".nv_fatbin" in content


def test_a_broken_source_is_reported_whole(nvcc, tmp_path, monkeypatch):
    monkeypatch.setenv("LPM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "csrc").mkdir()
    (tmp_path / "include").mkdir()
    (tmp_path / "csrc" / "device.cu").write_text("__global__ void f() { no_such_name(); }\n")
    monkeypatch.setattr("lpm.cuda.build.FOLDER", tmp_path)
    with pytest.raises(BuildError, match=r"(?s)nvcc.*no_such_name.*undefined"):
        build_cuda((9, 0))
    assert not list((tmp_path / "cache").glob("*.so"))


def test_no_nvcc_says_what_to_do(monkeypatch):
    monkeypatch.setenv("CUDACXX", "/no/nvcc")
    with pytest.raises(BuildError, match="no nvcc: none of /no/nvcc") as caught:
        find_nvcc()
    assert "CUDA_HOME" in caught.value.remedy


@pytest.mark.parametrize("headers", [False, True])
def test_a_wrapper_of_nvcc_does_not_hide_the_toolkit(monkeypatch, tmp_path, headers):
    """torch looks for CUDA above whatever nvcc is on PATH; nvcc itself says where it lies."""
    real, wrapper = tmp_path / "cuda-13", tmp_path / "local" / "bin" / "nvcc"
    for folder in (real / "bin", wrapper.parent):
        folder.mkdir(parents=True)
    wrapper.write_text(f"#!/bin/sh\necho '#$ TOP={real}/bin/..' >&2\n")
    wrapper.chmod(0o755)
    if headers:
        (tmp_path / "local" / "include").mkdir()
        (tmp_path / "local" / "include" / "cuda_runtime.h").touch()
    for name in ("CUDACXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    monkeypatch.setitem(sys.modules, "torch.utils.cpp_extension", types.SimpleNamespace(CUDA_HOME="/usr/local"))
    assert toolkit() == real
    show_toolkit()
    extension = sys.modules["torch.utils.cpp_extension"]
    if headers:
        assert "CUDA_HOME" not in os.environ
        assert extension.CUDA_HOME == "/usr/local"
    else:
        assert os.environ["CUDA_HOME"] == extension.CUDA_HOME == str(real)
        assert os.environ["PATH"].startswith(f"{real}/bin:{wrapper.parent}")
        os.environ.pop("CUDA_HOME")  # not monkeypatch's: it would come back


def test_without_nvcc_there_is_no_toolkit(monkeypatch):
    monkeypatch.setenv("CUDACXX", "/no/nvcc")
    assert toolkit() is None
