"""The published method: its error map, zones and edits, on scenes where the right answer is known."""

import math

import numpy as np
import pytest
import torch
from torch.nn import Parameter, ParameterDict

from lpm.gaussians.spherical_harmonics import rgb_to_sh0
from lpm.multiview.views import Views, project
from lpm.render.rasterize import rasterize
from lpm.strategy import paper
from lpm.strategy.adc import AdcStrategy
from lpm.strategy.paper import PaperStrategy, Zone, error_regions

SIZE = (160, 128)  # width, height
CAMERA = 4.0  # distance of the cameras from the origin
K = torch.tensor([[150.0, 0, SIZE[0] / 2], [0, 150.0, SIZE[1] / 2], [0, 0, 1]])


def looking_at_origin(degrees):
    """World to camera, on a circle around the origin in the plane y = 0; at 0 it stands at z = -CAMERA."""
    a = math.radians(degrees)
    viewmat = torch.eye(4)
    viewmat[:3, :3] = torch.tensor([[math.cos(a), 0, math.sin(a)], [0.0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    viewmat[2, 3] = CAMERA
    return viewmat


def points_at(means, opacity=0.5, scale=0.001):
    """Parameters and optimizers; `opacity` a number or one for each point."""
    means = torch.tensor(means)
    n = len(means)
    values = {
        "means": means,
        "scales": torch.full((n, 3), math.log(scale)),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        "features_dc": torch.zeros(n, 3),
        "features_rest": torch.zeros(n, 3, 3),
        "opacities": (torch.ones(n) * torch.as_tensor(opacity)).logit()[:, None],
    }
    params = ParameterDict({k: Parameter(v) for k, v in values.items()})
    return params, {k: torch.optim.Adam([p], lr=1e-3) for k, p in params.items()}


def zone_at(centre, radius=0.5, box=(60, 44, 100, 84)):
    return Zone(box, torch.tensor(centre), radius, error=0.25, color=torch.tensor([0.2, 0.4, 0.6]))


def event(params, optimizers, zones, gradients, strategy=None, **options):
    """One event of view 0 with these zones and mean gradients (of means2d in units of half the image)."""
    n = len(params["means"])
    means2d = torch.zeros(1, n, 2, requires_grad=True)
    means2d.grad = torch.stack([torch.tensor(gradients), torch.zeros(n)], -1)[None]
    info = dict(means2d=means2d, radii=torch.ones(1, n, 2), width=2, height=2, n_cameras=1, view=0)
    options = dict(refine_start_iter=1, refine_every=10, prune_scale3d=1e9, **options)
    strategy = strategy or PaperStrategy(**options)
    strategy.views = Views([torch.zeros(SIZE[1], SIZE[0], 3)], K[None], looking_at_origin(0)[None])
    strategy._find_zones = lambda step: ([0], zones)
    records = []
    strategy.on_event = lambda record, _: records.append(record)
    state = strategy.initialize_state(scene_scale=1.0)
    strategy.step_post_backward(params, optimizers, state, 10, info)
    assert set(state) == {"grad2d", "count", "scene_scale"}
    assert len(state["grad2d"]) == len(params["means"])
    for name, optimizer in optimizers.items():
        assert optimizer.param_groups[0]["params"][0] is params[name]
    return records[0]


def opacities(params):
    return torch.sigmoid(params["opacities"]).flatten()


# The error map


def test_error_map():
    """32 x 64 pixels. Equal but for two blocks of wrong pixels, in patches (0, 0) and (1, 1), which touch."""
    truth = torch.full((32, 64, 3), 0.5)
    render = truth.clone()
    render[:16, :14] = 0.9  # 14 of 16 columns: 87.5 % of the patch
    render[16:, 16:32] = 0.9
    render[:16, 48:61] = 0.9  # 13 of 16: 81 %, too few
    labels, error = error_regions(render, truth)
    # With equal parts in both, the gain makes those differ, too; all but the wrong ones are at the .4 quantile.
    assert labels.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    mean = render.mean().item() + 0.01
    wrong, right = (3 * abs(v / mean - 0.5 / 0.51) for v in (0.9, 0.5))
    np.testing.assert_allclose(error[1, 1], wrong, rtol=1e-6)
    np.testing.assert_allclose(error[0, 0], (14 * wrong + 2 * right) / 16, rtol=1e-6)
    assert error_regions(render, truth, torch.zeros(32, 64, 1))[0].max() == 0
    mask = torch.ones(32, 64, dtype=torch.bool)
    mask[:, :16] = False
    assert error_regions(render, truth, mask)[0].tolist() == [[0, 0, 0, 0], [0, 1, 0, 0]]


def test_error_map_of_equal_images_is_empty():
    image = torch.rand(40, 50, 3)
    assert error_regions(image, image)[0].shape == (3, 4)
    assert error_regions(0.5 * image, image)[1].max() < 0.1  # darker as a whole; without a gain about .75
    assert error_regions(image, image)[0].max() == 0
    image[3, 4] = torch.nan
    assert np.isfinite(error_regions(image, torch.rand(40, 50, 3))[1]).all()


# The edits


def test_threshold_is_halved_inside_zones_only():
    params, optimizers = points_at([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0], [2.0, 0, 0], [2.1, 0, 0]])
    params["features_dc"].data[:, 0] = torch.arange(5)
    record = event(params, optimizers, [zone_at([0.0, 0, 0])], [9e-5, 1.5e-4, 3e-4, 1.5e-4, 3e-4], prune=False)
    assert params["features_dc"][5:, 0].tolist() == [1, 2, 4]
    assert (record.cloned, record.split, record.inserted, record.pruned, record.reset) == (3, 0, 0, 0, 0)
    assert (record.step, record.views, record.points, record.zones[0].points) == (10, [0], 8, 3)


def test_large_points_are_split():
    params, optimizers = points_at([[0.1, 0, 0], [2.0, 0, 0]], scale=0.02)
    record = event(params, optimizers, [zone_at([0.0, 0, 0])], [1.5e-4, 1.5e-4], prune=False)
    assert (record.cloned, record.split) == (0, 1)
    torch.testing.assert_close(params["scales"][1:].exp(), torch.full((2, 3), 0.02 / 1.6))


@pytest.mark.parametrize("scale", [0.001, 0.02])
def test_as_many_are_pruned_as_zones_added(scale):
    """Two points by the halved threshold: the two lowest go, besides what is below .005, and none that is new."""
    opacity = [0.01, 0.02, 0.5, 0.03, 0.04, 0.05, 0.001]
    means = [[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0], [2.0, 0, 0], [2, 1, 0], [2, 2, 0], [2, 3, 0]]
    params, optimizers = points_at(means, opacity, scale)
    gradients = [1.5e-4, 1.5e-4, 3e-4, 0, 0, 0, 0.0]
    record = event(params, optimizers, [zone_at([0.0, 0, 0])], gradients)
    left = sorted(round(o, 3) for o in opacities(params).tolist())
    assert left == [0.01, 0.01, 0.02, 0.02, 0.05, 0.5, 0.5]
    assert record.pruned == 3
    assert record.points == len(params["means"]) == 7


def test_pruning_never_takes_more_than_there_is():
    params, optimizers = points_at([[0.1, 0, 0], [0.2, 0, 0], [2.0, 0, 0]])
    record = event(params, optimizers, [zone_at([0.0, 0, 0])], [1.5e-4, 1.5e-4, 0.0])
    assert (record.cloned, record.pruned, record.points) == (2, 1, 4)


def test_points_in_front_are_reset():
    """The sphere begins 3.5 before the camera at z = -4; the box is 20 pixels about the middle, 1 / 7.5 at depth 1."""
    front = [0.0, 0, -3], [0.1, 0, -3], [0.0, 0, -0.6], [0, 0, -3.5]
    opacity = [0.9, 0.8, 0.9, 0.01 - 1e-4]
    others = [0.2, 0, -3], [0.0, 0, -0.49], [0.0, 0, 3], [0.0, 0, -5], [0.0, 0.05, -3]  # beside, inside, behind ...
    opacity += [0.9, 0.1, 0.9, 0.9, 0.7]  # ... and the last one not opaque enough
    inside = [[0.01 * i, 0, 0] for i in range(10)]
    opacity += [0.1 * i + 1e-3 for i in range(10)]
    params, optimizers = points_at([*front, *others, *inside], opacity)
    before = opacities(params).detach().clone()
    for p in params.values():
        p.grad = torch.ones_like(p)
    for optimizer in optimizers.values():
        optimizer.step()
    params["opacities"].data = before.logit()[:, None]
    # In the zone: .1, and 0, .1, ..., .9 (+ .001); the .7 quantile is the eighth of eleven, .601.
    params["opacities"].data[8] = torch.tensor(0.6).logit()
    record = event(params, optimizers, [zone_at([0.0, 0, 0])], [0.0] * len(before), prune_opa=0.0)
    after = opacities(params)
    assert record.reset == 3
    torch.testing.assert_close(after[:3], torch.full((3,), 0.01))
    torch.testing.assert_close(after[3:8], before[3:8])
    torch.testing.assert_close(after[8:], torch.cat([torch.tensor([0.6]), before[9:]]))
    moments = optimizers["opacities"].state[params["opacities"]]["exp_avg"].flatten()
    assert (moments[:3] == 0).all()
    assert (moments[3:] != 0).all()


def test_empty_zones_get_a_point():
    params, optimizers = points_at([[2.0, 0, 0], [0.0, 0, -3]], 0.9)
    record = event(params, optimizers, [zone_at([0.0, 0, 0], 0.006), zone_at([0.3, 0, 1], 0.6)], [0.0, 0.0])
    assert (record.inserted, record.reset, record.points) == (2, 0, 4)
    torch.testing.assert_close(params["means"][2:], torch.tensor([[0.0, 0, 0], [0.3, 0, 1]]))
    torch.testing.assert_close(params["scales"][2:, 0].exp(), torch.tensor([0.002, 0.01]))
    torch.testing.assert_close(params["features_dc"][2], rgb_to_sh0(torch.tensor([0.2, 0.4, 0.6])))
    torch.testing.assert_close(opacities(params)[2:], torch.full((2,), 0.1))
    zone = record.zones[1]
    assert (zone.kind, zone.view, zone.box, zone.points, zone.error) == ("missing", 0, (60, 44, 100, 84), 0, 0.25)
    assert zone.interval == pytest.approx((4.4, 5.6))
    pixels, z = project(torch.tensor(zone.corners), looking_at_origin(0), K)
    torch.testing.assert_close(z, torch.tensor([4.4] * 4 + [5.6] * 4))
    torch.testing.assert_close(pixels, torch.tensor([[60.0, 44], [100, 44], [100, 84], [60, 84]]).repeat(2, 1))


@pytest.mark.parametrize("cap", [6, 7, 8, 10, 30, None])
def test_the_cap_is_never_exceeded(cap):
    params, optimizers = points_at([[0.1 * i, 0, 0] for i in range(7)])
    gradients = [1.5e-4, 1.6e-4, 1.7e-4, 1.8e-4, 3e-4, 3e-4, 3e-4]
    zones = [zone_at([0.0, 0, 0]), zone_at([5.0, 0, 0])]
    record = event(params, optimizers, zones, gradients, max_points=cap, prune=False)
    added = 1 + 7  # the point of the empty zone, and four by half the threshold and three by the whole
    assert record.points == len(params["means"]) == (7 + added if cap is None else max(7, min(cap, 7 + added)))
    assert record.budget == cap


@pytest.mark.parametrize("switch", ["densify", "insert", "prune", "reset"])
def test_switches(switch):
    def counts(**options):
        means = [[0.0, 0, 0], [0.1, 0, 0], [2.0, 0, 0], [0.0, 0, -3]]
        params, optimizers = points_at(means, [0.5, 0.5, 0.02, 0.9])
        zones = [zone_at([0.0, 0, 0]), zone_at([5.0, 0, 0])]
        record = event(params, optimizers, zones, [1.5e-4, 0.0, 0.0, 0.0], **options)
        return dict(densify=record.cloned, insert=record.inserted, prune=record.pruned, reset=record.reset)

    assert counts() == dict(densify=1, insert=1, prune=1, reset=1)
    wanted = dict(densify=1, insert=1, prune=1, reset=1)
    wanted[switch] = 0
    if switch == "densify":
        wanted["prune"] = 0  # nothing to make up for
    assert counts(**{switch: False}) == wanted


def test_no_zones_is_adc_to_the_bit():
    results = []
    for kind in (AdcStrategy, PaperStrategy):
        torch.manual_seed(0)
        params, optimizers = points_at(torch.randn(50, 3).tolist(), torch.rand(50), scale=0.009)
        params["scales"].data += torch.rand(50, 3)
        options = dict(refine_start_iter=1, refine_every=10, max_points=70)
        strategy = kind(**options)
        state = strategy.initialize_state(scene_scale=1.0)
        for step in (10, 20, 30):
            n = len(params["means"])
            means2d = torch.zeros(1, n, 2, requires_grad=True)
            means2d.grad = torch.rand(1, n, 2) * 4e-4
            info = dict(means2d=means2d, radii=torch.ones(1, n, 2), width=2, height=2, n_cameras=1)
            strategy.step_post_backward(params, optimizers, state, step, info)
        results.append(params)
    assert 50 < len(results[0]["means"]) <= 70
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name]), name


# From photos


def scene():
    """A textured square in the plane z = 0 (small points), seen from five sides; the texture is smooth noise."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.meshgrid(torch.arange(-1.8, 1.8, 0.035), torch.arange(-1.4, 1.4, 0.035), indexing="xy")
    means = torch.stack([x.flatten(), y.flatten(), torch.zeros(x.numel())], -1)
    noise = torch.rand(1, 3, 24, 32, generator=generator)
    grid = means[None, None, :, :2] / torch.tensor([1.8, 1.4])
    rgb = torch.nn.functional.grid_sample(noise, grid, align_corners=True)[0, :, 0].T
    params, _ = points_at(means.tolist(), 0.95, 0.0175)
    params["features_dc"].data = rgb_to_sh0(rgb)
    return params


def draw(params, viewmat):
    image, _, info = rasterize(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        params["features_dc"][:, None], viewmat[None], K[None], *SIZE, sh_degree=0,
    )  # fmt: skip
    return image[0], info


def train(params, degrees=(0, 12, 24, -15, 31), **options):
    """The event of step 20 with view 0, whose photo shows scene()."""
    viewmats = torch.stack([looking_at_origin(a) for a in degrees])
    truth = [draw(scene(), v)[0].detach().clamp(0, 1) for v in viewmats]
    strategy, records, said = PaperStrategy(refine_start_iter=1, refine_every=10, **options), [], []
    strategy.on_event, strategy.messages.say = lambda record, _: records.append(record), said.append
    strategy.attach(Views([(t * 255).round().byte() for t in truth], K.expand(len(degrees), 3, 3), viewmats))
    params = ParameterDict({k: Parameter(v.detach().clone()) for k, v in params.items()})
    optimizers = {k: torch.optim.Adam([p], lr=0.0) for k, p in params.items()}
    state = strategy.initialize_state(1.0)
    torch.manual_seed(0)
    for step in (19, 20):
        image, info = draw(params, viewmats[0])
        info["means2d"].retain_grad()
        (image - truth[0]).square().mean().backward()
        info.update(view=0, render=image, truth=truth[0])
        strategy.step_post_backward(params, optimizers, state, step, info)
    return params, records, said


@pytest.fixture(scope="module")
def hole():
    """The scene without the points in |x|, |y| < .5."""
    params = scene()
    keep = ~(params["means"][:, :2].abs() < 0.5).all(-1)
    return {k: v.detach()[keep] for k, v in params.items()}


def test_zone_of_a_region(monkeypatch):
    """The region is the 32 x 32 pixels in the middle, 6.1 degrees to each side; the neighbour stands at 30 degrees.

    Both look at the origin, 3.86 from the middle between them, and are 2.07 apart. If the matches fill the region, the
    cones' nearest and farthest corners are 1.035 tan(75 -+ 6.1 deg) = 2.68 and 6.61 from there: the sphere's centre is
    .78 beyond the origin, which is .76 in depth, and its radius (3.93 + a little for the height) / 2.
    """
    labels = np.zeros((8, 10), np.int64)
    labels[3:5, 4:6] = 1
    monkeypatch.setattr(paper, "error_regions", lambda *images: (labels, labels * 0.5))
    _, (record,), said = train(scene(), (0, 30))
    assert said == []
    assert (record.step, record.views, record.inserted) == (20, [0, 1], 0)
    (zone,) = record.zones
    assert (zone.kind, zone.box, zone.error) == ("under-resolved", (64, 48, 96, 80), 0.5)
    near, far = zone.interval
    assert (near + far) / 2 == pytest.approx(CAMERA + 0.76, abs=0.15)
    assert (far - near) / 2 == pytest.approx(2.0, abs=0.2)
    assert zone.points > 1000


def test_the_render_may_be_smaller_than_the_photo(monkeypatch):
    """At half the size a patch of the render is 32 pixels of the photo."""
    labels = np.zeros((4, 5), np.int64)
    labels[1, 2] = 1
    monkeypatch.setattr(paper, "error_regions", lambda *images: (labels, labels * 0.5))
    viewmats = torch.stack([looking_at_origin(a) for a in (0, 30)])
    photos = [draw(scene(), v)[0].detach().clamp(0, 1) for v in viewmats]
    strategy = PaperStrategy()
    strategy.attach(Views(photos, K.expand(2, 3, 3), viewmats))
    strategy._info = dict(view=0, render=photos[0][::2, ::2], truth=photos[0][::2, ::2])
    _, (zone,) = strategy._find_zones(100)
    assert zone.box == (64, 32, 96, 64)
    torch.testing.assert_close(zone.color, photos[0][48, 80])


def test_same_bits_for_any_number_of_threads(hole):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(train(hole, grow_grad2d=1e-6))
    finally:
        torch.set_num_threads(before)
    assert results[0][1][0].zones
    for params, records, _ in results[1:]:
        assert records[0].zones == results[0][1][0].zones
        for name in params:
            assert torch.equal(params[name], results[0][0][name]), name


def test_neighbours_are_drawn_by_seed_and_step():
    viewmats = torch.stack([looking_at_origin(a) for a in (0, 30, 44, 46, 0, -20)])
    views = Views([torch.zeros(8, 8, 3)] * 6, K.expand(6, 3, 3), viewmats)

    def drawn(seed, **options):
        strategy = PaperStrategy(seed=seed, **options)
        strategy.attach(views)
        return [strategy._neighbour(0, step) for step in range(100)]

    assert set(drawn(0)) == {1, 2, 5}
    assert set(drawn(0, max_angle=90.0)) == {1, 2, 3, 5}
    assert drawn(0) == drawn(0) != drawn(1)


@pytest.mark.parametrize("degrees", [(0, 0), (0, 60), (0,)])
def test_no_neighbour_is_said_once(hole, degrees):
    _, records, said = train(hole, degrees)
    assert records[0].zones == []
    assert len(said) == 1
    assert "no other view looks" in said[0]


def test_no_matches_is_said_once():
    viewmats = torch.stack([looking_at_origin(a) for a in (0, 10)])
    said = []
    strategy = PaperStrategy()
    strategy.messages.say = said.append
    strategy.attach(Views([torch.full((SIZE[1], SIZE[0], 3), 128, dtype=torch.uint8)] * 2, K.expand(2, 3, 3), viewmats))
    render = torch.rand(SIZE[1], SIZE[0], 3)
    strategy._info = dict(view=1, render=render, truth=torch.full_like(render, 0.5))
    for step in (100, 200):
        assert strategy._find_zones(step) == ([1, 0], [])
    assert len(said) == 1
    assert "0 features match" in said[0]
