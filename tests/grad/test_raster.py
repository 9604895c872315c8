"""The CPU rasterizers, native and twin, against dense autograd in float64; gradients included."""

import os

import pytest
import torch
from raster_oracle import MODES, dense_rasterize, make_scene

from lpm.cuda.native import native
from lpm.render.rasterize import rasterize

WIDTH, HEIGHT = 45, 35
LEARNED = ("means", "quats", "scales", "opacities", "colors", "viewmats")
BACKENDS = ("native", "twin")


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    monkeypatch.setenv("LPM_NATIVE", "off" if request.param == "twin" else "auto")
    if request.param == "native" and native() is None:
        pytest.skip("no compiler, no native kernels")
    return request.param


def run(function, scene, backgrounds, cotangents, width=WIDTH, height=HEIGHT, **options):
    """Outputs and gradients by name, all in float64."""
    dtype = scene["means"].dtype
    inputs = {k: v.clone().requires_grad_(k in LEARNED) for k, v in scene.items()}
    behind = None if backgrounds is None else backgrounds.to(dtype, copy=True).requires_grad_()
    out, alphas, meta = function(**inputs, width=width, height=height, backgrounds=behind, **options)
    if isinstance(meta, dict):
        meta["means2d"].retain_grad()
    loss = (out * cotangents[0].to(dtype)).sum() + (alphas * cotangents[1].to(dtype)).sum()
    loss.backward()
    values = dict(image=out.detach(), alphas=alphas.detach())
    for name, tensor in inputs.items():
        if tensor.grad is not None:
            values["grad " + name] = tensor.grad
    if "grad viewmats" in values:
        values["grad viewmats"] = values["grad viewmats"][:, :3]  # the last row is taken as 0 0 0 1
    if behind is not None and behind.grad is not None:
        values["grad backgrounds"] = behind.grad
    grads = meta["means2d"].grad if isinstance(meta, dict) else torch.stack([m["means2d"].grad for m in meta])
    values["grad means2d"] = grads
    return {name: value.double() for name, value in values.items()}, meta


def assert_same(got, wanted, tolerance):
    for name, value in wanted.items():
        if name not in got:
            assert value.abs().max() == 0, f"{name} is missing"
            continue
        error = ((got[name] - value).abs().max() / value.abs().max().clamp_min(1e-12)).item()
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


def compare(scene, tolerance, backgrounds=True, width=WIDTH, height=HEIGHT, **options):
    """Runs both in turn; the reference always in float64."""
    reference = {k: v.double() for k, v in scene.items()}
    cameras = len(scene["viewmats"])
    channels = 3 if options.get("sh_degree") is not None else scene["colors"].shape[-1]
    mode = options.get("render_mode", "RGB")
    drawn = (channels if mode.startswith("RGB") else 0) + ("D" in mode)
    cotangents = [torch.randn(cameras, height, width, k, dtype=torch.float64) for k in (drawn, 1)]
    behind = torch.rand(cameras, channels, dtype=torch.float64) if backgrounds else None
    wanted, info = run(dense_rasterize, reference, behind, cotangents, width, height, **options)
    got, meta = run(rasterize, scene, behind, cotangents, width, height, **options)
    assert_same(got, wanted, tolerance)
    visible = torch.stack([m["visible"] for m in info])
    assert torch.equal((meta["radii"] > 0).all(-1), visible)
    for name in ("means2d", "depths", "opacities", "radii"):
        mask = visible if name != "opacities" or options.get("rasterize_mode") == "antialiased" else slice(None)
        ours, theirs = meta[name][mask].double(), torch.stack([m[name] for m in info])[mask].double()
        torch.testing.assert_close(ours, theirs, rtol=max(tolerance, 1e-12), atol=1e-3 if tolerance > 1e-6 else 1e-9)


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("render_mode", MODES)
@pytest.mark.parametrize("cameras", [1, 3])
def test_float64_equals_dense_autograd(backend, render_mode, rasterize_mode, cameras):
    scene = make_scene(60, cameras, WIDTH, HEIGHT)
    compare(scene, 1e-9, sh_degree=3, render_mode=render_mode, rasterize_mode=rasterize_mode, absgrad=True)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_lower_degrees_of_more_harmonics(backend, degree):
    compare(make_scene(40, 2, WIDTH, HEIGHT), 1e-9, sh_degree=degree)


@pytest.mark.parametrize("channels", range(1, 17))
def test_channels(backend, channels):
    scene = make_scene(30, 2, 33, 20)
    scene["colors"] = torch.rand(30, channels, dtype=torch.float64)
    mode = "RGB+ED" if channels < 16 else "RGB"
    compare(scene, 1e-9, width=33, height=20, backgrounds=channels % 2 == 0, render_mode=mode)


def test_colors_of_each_camera(backend):
    scene = make_scene(30, 3, WIDTH, HEIGHT)
    scene["colors"] = torch.rand(3, 30, 5, dtype=torch.float64)
    compare(scene, 1e-9, render_mode="RGB+D")


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 1), (1, 33), (31, 47)])
def test_sizes(backend, size):
    width, height = size
    compare(make_scene(40, 1, width, height), 1e-9, width=width, height=height, sh_degree=1)


def test_clipping(backend):
    scene = make_scene(80, 1, WIDTH, HEIGHT)
    compare(scene, 1e-9, sh_degree=0, near_plane=3.5, far_plane=5.0, radius_clip=4.0, eps2d=0.1)


def test_opaque_stacks_stop(backend):
    """Many opaque splats on each other: pixels finish early, across several batches of a tile."""
    scene = make_scene(400, 1, 30, 20)
    scene["opacities"] = torch.sigmoid(torch.randn(400, dtype=torch.float64) + 3)
    scene["opacities"][::7] = 1.0
    compare(scene, 1e-9, width=30, height=20, sh_degree=0)


@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
def test_float32_is_close(backend, render_mode):
    scene = make_scene(120, 2, WIDTH, HEIGHT, dtype=torch.float32)
    compare(scene, 2e-3, sh_degree=3, render_mode=render_mode)


def test_needles_have_no_holes(backend):
    """Long thin diagonal splats, whose conics lose digits in float32, cover what they cover in float64."""
    scene = make_scene(40, 1, 100, 80, degree=0)
    scene["scales"] = torch.tensor([1.5, 0.002, 0.002], dtype=torch.float64).expand(40, 3)
    options = dict(width=100, height=80, sh_degree=0)
    wide, _, _ = rasterize(**scene, **options)
    narrow, _, _ = rasterize(**{k: v.float() for k, v in scene.items()}, **options)
    assert (narrow - wide).abs().max() < 2e-2


def test_gradcheck(backend):
    """Finite differences, on a scene where no alpha or transmittance is near a cut-off."""
    g = torch.Generator().manual_seed(4)
    n, kind = 4, dict(dtype=torch.float64)
    means = torch.randn(n, 3, generator=g, **kind) * torch.tensor([0.8, 0.6, 0.5], **kind)
    viewmat = torch.eye(4, **kind)
    viewmat[2, 3] = 5.0
    K = torch.tensor([[8.0, 0, 4], [0, 8, 3], [0, 0, 1]], **kind)
    inputs = (
        means, torch.randn(n, 4, generator=g, **kind), torch.rand(n, 3, generator=g, **kind) + 2.5,
        torch.rand(n, generator=g, **kind) * 0.3 + 0.3, torch.rand(n, 1, 3, generator=g, **kind),
        torch.randn(n, 3, 3, generator=g, **kind) * 0.1, viewmat[None], torch.rand(1, 3, generator=g, **kind),
    )  # fmt: skip

    def function(means, quats, scales, opacities, sh0, shN, viewmats, backgrounds):
        out, alphas, meta = rasterize(
            means, quats, scales, opacities, (sh0, shN), viewmats, K[None], 8, 6, sh_degree=1,
            backgrounds=backgrounds, render_mode="RGB+ED", rasterize_mode="antialiased",
        )  # fmt: skip
        return out, alphas, meta["means2d"], meta["conics"], meta["depths"]

    assert torch.autograd.gradcheck(
        function, [t.requires_grad_() for t in inputs], atol=1e-6, fast_mode=backend == "twin"
    )


def test_absgrad_is_the_sum_over_pixels_of_absolute_gradients(backend):
    width, height, cameras = 12, 9, 2
    scene = make_scene(15, cameras, width, height)
    weight = torch.randn(cameras, height, width, 3, dtype=torch.float64)
    scene["means"].requires_grad_()
    options = dict(width=width, height=height, sh_degree=0)
    image, _, meta = rasterize(**scene, **options, absgrad=True)
    meta["means2d"].retain_grad()
    (image * weight).sum().backward()
    got = meta["means2d"]
    assert (got.absgrad >= got.grad.abs() - 1e-12).all()
    dense, _, info = dense_rasterize(**scene, **options)
    for c in range(cameras):
        wanted = torch.zeros(15, 2, dtype=torch.float64)
        for value in (dense * weight)[c].sum(-1).flatten():
            wanted += torch.autograd.grad(value, info[c]["means2d"], retain_graph=True)[0].abs()
        torch.testing.assert_close(got.absgrad[c], wanted, rtol=1e-9, atol=1e-12)


def test_pair_of_harmonics_equals_one_tensor(backend):
    scene = make_scene(50, 2, WIDTH, HEIGHT)
    whole = scene.pop("colors").requires_grad_()
    parts = [whole[:, :1].detach().clone().requires_grad_(), whole[:, 1:].detach().clone().requires_grad_()]
    images = []
    for colors in (whole, tuple(parts)):
        image, _, _ = rasterize(**scene, colors=colors, width=WIDTH, height=HEIGHT, sh_degree=2)
        image.square().sum().backward()
        images.append(image)
    assert torch.equal(*images)
    assert torch.equal(whole.grad, torch.cat([p.grad for p in parts], 1))


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("cameras", [1, 2])
@pytest.mark.parametrize(
    ("name", "option", "trained", "slope"),
    [
        ("scales", "log_scales", torch.log, lambda scales: scales),
        ("opacities", "logit_opacities", torch.logit, lambda opacities: opacities * (1 - opacities)),
    ],
)
def test_scales_and_opacities_as_they_are_trained(backend, name, option, trained, slope, cameras, rasterize_mode):
    scene = make_scene(50, cameras, WIDTH, HEIGHT)
    plain = scene.pop(name).requires_grad_()
    raw = trained(plain.detach()).requires_grad_()
    images = []
    for value in (plain, raw):
        options = {option: value is raw, "sh_degree": 2, "rasterize_mode": rasterize_mode}
        image, _, meta = rasterize(**scene, **{name: value}, width=WIDTH, height=HEIGHT, **options)
        image.square().sum().backward()
        images.append(image)
    assert meta["opacities"].shape == (cameras, 50)
    assert plain.grad.abs().max() > 0.1
    torch.testing.assert_close(*images, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(raw.grad, plain.grad * slope(plain.detach()), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("per_camera", [False, True])
def test_gradient_of_colors_alone(backend, channels, per_camera, render_mode):
    """A pass of its own in the native kernels: the same numbers as with all gradients."""
    scene = make_scene(60, 2, WIDTH, HEIGHT)
    scene["colors"] = torch.rand(*([2, 60] if per_camera else [60]), channels, dtype=torch.float64)
    behind = torch.rand(2, channels, dtype=torch.float64, requires_grad=True)
    gradients = []
    for wanted in (("colors",), LEARNED):
        inputs = {k: v.clone().requires_grad_(k in wanted) for k, v in scene.items()}
        image, _, _ = rasterize(**inputs, width=WIDTH, height=HEIGHT, backgrounds=behind, render_mode=render_mode)
        cotangent = torch.linspace(-1, 1, image.numel(), dtype=torch.float64).reshape(image.shape)
        gradients.append(torch.autograd.grad((image * cotangent).sum(), [inputs["colors"], behind]))
    for alone, among in zip(*gradients, strict=True):
        assert among.abs().max() > 0.1
        torch.testing.assert_close(alone, among, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("render_mode", MODES)
def test_cpu_equals_cuda(render_mode, rasterize_mode):
    scene = make_scene(500, 2, 64, 48, dtype=torch.float32)
    options = dict(sh_degree=3, render_mode=render_mode, rasterize_mode=rasterize_mode, absgrad=True)
    results = []
    for device in ("cpu", "cuda"):
        inputs = {k: v.to(device).requires_grad_(k in LEARNED) for k, v in scene.items()}
        inputs = {k: v.detach().requires_grad_(v.requires_grad) for k, v in inputs.items()}
        out, alphas, meta = rasterize(**inputs, width=64, height=48, **options)
        meta["means2d"].retain_grad()
        (out.square().sum() + alphas.sum()).backward()
        values = [out, alphas, meta["means2d"].grad, meta["means2d"].absgrad]
        values += [t.grad for t in inputs.values() if t.grad is not None]
        results.append([v.detach().cpu() for v in values])
    for cpu, cuda in zip(*results, strict=True):
        assert (cpu - cuda).abs().max() <= 5e-3 * cuda.abs().max()


def test_threads_do_not_change_a_bit():
    if native() is None or os.environ.get("LPM_NATIVE") == "off":
        pytest.skip("no native kernels")
    scene = make_scene(3000, 2, 100, 70, dtype=torch.float32)
    scene["scales"] *= 0.3
    before, results = torch.get_num_threads(), []
    cotangent = torch.randn(2, 70, 100, 4)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            inputs = {k: v.clone().requires_grad_(k in LEARNED) for k, v in scene.items()}
            out, alphas, meta = rasterize(
                **inputs,
                width=100,
                height=70,
                sh_degree=3,
                render_mode="RGB+ED",
                rasterize_mode="antialiased",
                absgrad=True,
            )
            meta["means2d"].retain_grad()
            out.backward(cotangent)
            grads = [inputs[name].grad for name in LEARNED]
            results.append([out, alphas, meta["means2d"].grad, meta["means2d"].absgrad, *grads])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
