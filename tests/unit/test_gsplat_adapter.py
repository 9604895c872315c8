"""The gsplat adapter against stand-ins with the output shapes that gsplat 1.4.0 and 1.5/1.6 have."""

import sys
import types

import pytest
import torch

from lpm.checks import LpmError
from lpm.render.gsplat_backend import rasterize_gsplat

N, CAMERAS, WIDTH, HEIGHT = 5, 2, 20, 10


class _Raster(torch.autograd.Function):
    """Sets absgrad on its input, as gsplat's raster function does."""

    @staticmethod
    def forward(ctx, means2d):
        ctx.save_for_backward(means2d)
        return means2d.sum() * torch.ones(CAMERAS, HEIGHT, WIDTH, 3)

    @staticmethod
    def backward(ctx, grad):
        (means2d,) = ctx.saved_tensors
        means2d.absgrad = torch.full_like(means2d, 7.0)
        return torch.ones_like(means2d)


@pytest.fixture(params=["1.4.0", "1.6.0"])
def gsplat(request, monkeypatch):
    """A stand-in for gsplat that records its arguments."""
    module = types.ModuleType("gsplat")

    def rasterization(**arguments):
        module.arguments = arguments
        means2d = arguments["means"][None, :, :2] * torch.ones(CAMERAS, 1, 1)
        radii = torch.arange(CAMERAS * N).reshape(CAMERAS, N).to(torch.int32)
        if request.param != "1.4.0":
            radii = torch.stack([radii, radii + 1], -1)
        meta = dict(
            radii=radii, means2d=means2d, depths=torch.ones(CAMERAS, N), conics=torch.ones(CAMERAS, N, 3),
            opacities=torch.ones(CAMERAS, N), width=WIDTH, height=HEIGHT, tile_size=16, n_cameras=CAMERAS,
        )  # fmt: skip
        return _Raster.apply(means2d), torch.ones(CAMERAS, HEIGHT, WIDTH, 1), meta

    def spherical_harmonics(degree, directions, harmonics):
        module.seen = degree, directions, harmonics
        return harmonics[..., 0, :]

    module.rasterization, module.spherical_harmonics = rasterization, spherical_harmonics
    module.version = request.param
    monkeypatch.setitem(sys.modules, "gsplat", module)
    return module


def points(dtype=torch.float32):
    return dict(
        means=torch.rand(N, 3, dtype=dtype).requires_grad_(), quats=torch.rand(N, 4), scales=torch.rand(N, 3),
        opacities=torch.rand(N), viewmats=torch.eye(4).expand(CAMERAS, 4, 4), Ks=torch.eye(3).expand(CAMERAS, 3, 3),
        width=WIDTH, height=HEIGHT,
    )  # fmt: skip


def test_radii_have_two_axes_in_every_version(gsplat):
    _, _, meta = rasterize_gsplat(**points(), colors=torch.rand(N, 3))
    assert meta["radii"].shape == (CAMERAS, N, 2)
    assert meta["radii"].dtype == torch.int32
    assert meta["radii"][1, 2].tolist() == ([7, 7] if gsplat.version == "1.4.0" else [7, 8])
    assert meta["gaussian_ids"] is None
    assert meta["n_cameras"] == CAMERAS


def test_gradients_land_on_means2d_of_meta(gsplat):
    out, _, meta = rasterize_gsplat(**points(), colors=torch.rand(N, 3), absgrad=True)
    meta["means2d"].retain_grad()
    out.sum().backward()
    assert meta["means2d"].grad.shape == (CAMERAS, N, 2)
    assert (meta["means2d"].absgrad == 7).all()
    assert gsplat.arguments["absgrad"] is True


def test_harmonics_are_seen_from_each_camera(gsplat):
    sh0, shN = torch.rand(N, 1, 3) - 0.7, torch.rand(N, 8, 3)
    some = points() | {"viewmats": torch.randn(CAMERAS, 4, 4)}  # R need not be a rotation, nor the last row 0 0 0 1
    rasterize_gsplat(**some, colors=(sh0, shN), sh_degree=2)
    degree, directions, harmonics = gsplat.seen
    whole = torch.cat([some["viewmats"][:, :3], torch.tensor([[0.0, 0, 0, 1]]).expand(CAMERAS, 1, 4)], 1)
    wanted = some["means"][None] - torch.linalg.inv(whole)[:, None, :3, 3]
    torch.testing.assert_close(directions, wanted, rtol=1e-4, atol=1e-4)
    assert degree == 2
    assert torch.equal(harmonics, torch.cat([sh0, shN], 1).expand(CAMERAS, N, 9, 3))
    assert gsplat.arguments["sh_degree"] is None
    assert torch.equal(gsplat.arguments["colors"], (sh0[:, 0] + 0.5).clamp_min(0).expand(CAMERAS, N, 3))
    assert gsplat.arguments["packed"] is False


def test_gradient_of_viewmats_through_harmonics(gsplat):
    """That of a centre -R^-1 t, as the kernels of the CPU have it: none for the last row."""
    some = points() | {"viewmats": torch.eye(4).repeat(CAMERAS, 1, 1) + 0.2 * torch.randn(CAMERAS, 4, 4)}
    viewmats = some["viewmats"].requires_grad_()
    weight = torch.randn(CAMERAS, N, 3)
    rasterize_gsplat(**some, colors=torch.rand(N, 1, 3), sh_degree=0)
    (got,) = torch.autograd.grad((gsplat.seen[1] * weight).sum(), viewmats)
    centres = -(torch.linalg.inv(viewmats[:, :3, :3]) @ viewmats[:, :3, 3:])[..., 0]
    (wanted,) = torch.autograd.grad(((some["means"][None] - centres[:, None]) * weight).sum(), viewmats)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    assert wanted[:, 3].abs().max() == 0


def test_depth_has_no_background(gsplat):
    background = torch.rand(CAMERAS, 3)
    rasterize_gsplat(**points(), colors=torch.rand(N, 3), backgrounds=background, render_mode="ED")
    assert gsplat.arguments["backgrounds"] is None
    rasterize_gsplat(**points(), colors=torch.rand(N, 3), backgrounds=background, render_mode="RGB+ED")
    assert gsplat.arguments["backgrounds"] is background


def test_float64_and_missing_gsplat_are_named(gsplat, monkeypatch):
    with pytest.raises(LpmError, match=r"means: torch\.float64; wanted torch\.float32"):
        rasterize_gsplat(**points(torch.float64), colors=torch.rand(N, 3))
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(LpmError, match=r"gsplat: .*pip install gsplat"):
        rasterize_gsplat(**points(), colors=torch.rand(N, 3))


def test_options_are_those_of_the_installed_gsplat():
    """The real signature takes every option that the adapter passes."""
    import inspect

    rendering = pytest.importorskip("gsplat.rendering")
    parameters = inspect.signature(rendering.rasterization).parameters
    wanted = "means quats scales opacities colors viewmats Ks width height near_plane far_plane radius_clip eps2d "
    wanted += "sh_degree packed backgrounds render_mode absgrad rasterize_mode"
    assert set(wanted.split()) <= set(parameters)
