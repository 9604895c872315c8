"""The rasterizer where scenes are empty, broken, or given in the wrong form."""

import pytest
import torch
from raster_oracle import make_scene

from lpm.checks import LpmError
from lpm.cuda.native import native
from lpm.render.native_backend import rasterize_native
from lpm.render.rasterize import rasterize

SIZE = dict(width=33, height=18)


@pytest.fixture(params=["native", "twin"])
def backend(request, monkeypatch):
    monkeypatch.setenv("LPM_NATIVE", "off" if request.param == "twin" else "auto")
    if request.param == "native" and native() is None:
        pytest.skip("no compiler, no native kernels")
    return request.param


def scene_of(n=20, cameras=1, **changes):
    scene = make_scene(n, cameras, **SIZE, dtype=torch.float32)
    return {**scene, **changes}


@pytest.mark.parametrize("render_mode", ["RGB", "D", "RGB+ED"])
@pytest.mark.parametrize("n", [0, 20])
def test_nothing_to_see_shows_the_background(backend, n, render_mode):
    scene = scene_of(n)
    scene["means"][:, 2] -= 100  # behind the camera
    scene["means"].requires_grad_()
    background = torch.tensor([[0.2, 0.4, 0.6]], requires_grad=True)
    out, alphas, meta = rasterize(
        **scene, **SIZE, sh_degree=1, backgrounds=background, render_mode=render_mode, absgrad=True
    )
    meta["means2d"].retain_grad()
    wanted = torch.cat([background[0], torch.zeros(1)])
    wanted = {"RGB": wanted[:3], "D": wanted[3:], "RGB+ED": wanted}[render_mode]
    assert torch.equal(out, wanted.expand_as(out))
    assert (alphas == 0).all()
    assert meta["radii"].shape == (1, n, 2)
    assert (meta["radii"] == 0).all()
    if out.requires_grad:
        out.sum().backward()
    if scene["means"].grad is not None:
        assert (scene["means"].grad == 0).all()
    if render_mode != "D":
        assert background.grad.tolist() == [[33.0 * 18] * 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
def test_a_broken_point_is_named(backend, name, value):
    scene = scene_of(means=torch.zeros(20, 3) + 0.01 * torch.randn(20, 3))
    scene[name] = scene[name].clone()
    scene[name][17].reshape(-1)[-1 if name != "colors" else 0] = value
    with pytest.raises(LpmError, match=rf"^{name}: non-finite value in row 17 \(1 in all\); wanted finite numbers"):
        rasterize(**scene, **SIZE, sh_degree=3)


def test_a_broken_color_value_is_named(backend):
    scene = scene_of(cameras=2, means=torch.zeros(20, 3), colors=torch.rand(20, 5))
    scene["colors"][3, 4] = float("nan")
    with pytest.raises(LpmError, match=r"^colors: non-finite value in row 3"):
        rasterize(**scene, **SIZE)


@pytest.mark.parametrize("name", ["viewmats", "Ks"])
def test_a_broken_camera_is_named(backend, name):
    scene = scene_of(cameras=2)
    scene[name][1, 0, 0] = float("nan")
    with pytest.raises(LpmError, match=f"^{name}: non-finite value in row 1"):
        rasterize(**scene, **SIZE, sh_degree=0)


def test_huge_finite_values_do_not_spread(backend):
    """What overflows is not drawn, and leaves no NaN in anything else's gradient."""
    scene = scene_of()
    scene["means"][0] = torch.tensor([1e38, 1e38, 3.0])
    scene["scales"][1] = 1e30
    scene["means"][2] = torch.tensor([0.0, 0.0, 1e38])
    scene["quats"][3] = 0
    scene["scales"][4] = 0
    inputs = {k: v.clone().requires_grad_() for k, v in scene.items() if k not in ("viewmats", "Ks")}
    cameras = {k: scene[k] for k in ("viewmats", "Ks")}
    out, alphas, _ = rasterize(**inputs, **cameras, **SIZE, sh_degree=3, render_mode="RGB+ED")
    (out.square().sum() + alphas.sum()).backward()
    for tensor in (out, alphas, *(t.grad for t in inputs.values())):
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize(
    ("changes", "options", "text"),
    [
        (dict(means=torch.zeros(20, 3).int()), {}, "means: torch.int32; wanted torch.float32 or torch.float64"),
        (dict(quats=torch.zeros(20, 4).double()), {}, "quats: torch.float64; wanted torch.float32 as means"),
        (dict(scales=torch.zeros(20, 3).half()), {}, "scales: torch.float16; wanted torch.float32 or torch.float64"),
        (dict(opacities=torch.zeros(20, 1)), {}, r"opacities: shape [20, 1]; wanted [20]"),
        (dict(viewmats=torch.eye(4)), {}, r"viewmats: shape [4, 4]; wanted [any, 4, 4]"),
        (dict(Ks=torch.zeros(2, 3, 3)), {}, r"Ks: shape [2, 3, 3]; wanted [1, 3, 3]"),
        ({}, dict(width=0), "width: 0; wanted an int from 1 to 32768"),
        ({}, dict(height=10.0), "height: 10.0; wanted an int"),
        ({}, dict(sh_degree=4), "sh_degree: 4; wanted None, 0, 1, 2 or 3"),
        (dict(colors=torch.zeros(20, 4, 3)), dict(sh_degree=2), "colors: 4 harmonics; wanted at least 9"),
        (dict(colors=torch.zeros(20, 17)), dict(sh_degree=None), "colors: 17 channels, depth included; wanted 1 to 16"),
        (
            dict(colors=torch.zeros(20, 16)),
            dict(sh_degree=None, render_mode="RGB+D"),
            "colors: 17 channels, depth included",
        ),
        (dict(colors=(torch.zeros(20, 1, 3), torch.zeros(20, 3, 3))), dict(sh_degree=None), "a pair without sh_degree"),
        ({}, dict(backgrounds=torch.zeros(3)), "backgrounds: shape [3]; wanted [1, 3]"),
        ({}, dict(render_mode="rgb"), "render_mode: 'rgb'"),
        ({}, dict(rasterize_mode="sharp"), "rasterize_mode: 'sharp'"),
        ({}, dict(near_plane=0.0), "near_plane: 0.0; wanted a number above 0"),
    ],
)
def test_wrong_forms_are_named(changes, options, text):
    with pytest.raises(LpmError) as error:
        rasterize(**scene_of(**changes), **{**SIZE, "sh_degree": 0, **options})
    assert text in str(error.value)


def test_inputs_may_be_strided(backend):
    scene = scene_of(cameras=2)
    strided = {k: torch.stack([v, v], -1)[..., 0] for k, v in scene.items()}
    strided["opacities"] = scene["opacities"][:1].expand(20)
    scene["opacities"] = strided["opacities"].contiguous()
    images = [rasterize(**s, **SIZE, sh_degree=3)[0] for s in (scene, strided)]
    assert torch.equal(*images)


def test_only_what_asks_for_a_gradient_gets_one(backend):
    scene = scene_of(cameras=2)
    for name in ("opacities", "viewmats"):
        learned = {k: v.clone().requires_grad_(k == name) for k, v in scene.items()}
        out, _, _ = rasterize(**learned, **SIZE, sh_degree=3, render_mode="RGB+D")
        out.sum().backward()
        assert [k for k, v in learned.items() if v.grad is not None] == [name]


def test_without_gradients_nothing_is_kept(backend):
    scene = scene_of()
    with torch.no_grad():
        learned = {k: v.clone().requires_grad_() for k, v in scene.items()}
        out, _, meta = rasterize(**learned, **SIZE, sh_degree=3)
    assert out.grad_fn is None
    assert meta["means2d"].grad_fn is None


def test_more_pairs_than_an_int32_counts_is_an_error():
    class Full:
        def call(self, name, *arguments):
            return 2**31 if name == "bin_count" else 0

    options = dict(
        sh_degree=0, near_plane=0.01, far_plane=1e10, eps2d=0.3, radius_clip=0.0, backgrounds=None, render_mode="RGB",
        rasterize_mode="classic", absgrad=False, log_scales=False, logit_opacities=False,
    )  # fmt: skip
    with pytest.raises(LpmError, match=r"2147483648 pairs of splat and tile; wanted fewer than 2\^31"):
        rasterize_native(Full(), **scene_of(), **SIZE, **options)


def test_switch_chooses_the_twin(monkeypatch):
    import lpm.render.torch_backend as twin

    monkeypatch.setattr(twin, "rasterize_torch", lambda *a, **k: "twin")
    monkeypatch.setenv("LPM_NATIVE", "off")
    assert rasterize(**scene_of(), **SIZE, sh_degree=0) == "twin"
    monkeypatch.setenv("LPM_NATIVE", "always")
    with pytest.raises(LpmError, match="LPM_NATIVE: 'always'; wanted auto, cpu, cuda or off"):
        rasterize(**scene_of(), **SIZE, sh_degree=0)
