"""What counts as evidence: who votes, which points fill a tile, what is bad enough to act on."""

import copy

import pytest
import torch
from torch.nn import Parameter, ParameterDict
from wall_scene import SIZE, add, cameras, draw, wall

from lpm.checks import LpmError
from lpm.multiview import feature_matches
from lpm.multiview.views import Views
from lpm.strategy.lpm import LpmStrategy
from lpm.zones.error_maps import coarse, spread
from lpm.zones.point_errors import look
from lpm.zones.zone import FALSE_FRONT


def prepared(params, noise=0.0, kind=LpmStrategy, photos=None, **options):
    """A strategy whose error maps are filled, on the true wall's photos: all, or so many."""
    K, viewmats = (values[:photos] for values in cameras())
    truth = [draw(wall(), v, k)[0].clamp(0, 1) for v, k in zip(viewmats, K, strict=True)]
    options = {"max_points": 10**6, "refine_start_iter": 1, "refine_every": 100, "views_per_event": 8, **options}
    strategy, records = kind(**options), []
    strategy.on_event, strategy.messages.say = lambda record, _: records.append(record), lambda text: None
    views = Views([(t * 255).round().byte() for t in truth], K, viewmats)
    strategy.attach(views, wall()["means"][::7])
    params = {k: v.clone() for k, v in params.items()}
    params["features_dc"] += noise * torch.randn(params["features_dc"].shape)
    params = ParameterDict({k: Parameter(v) for k, v in params.items()})
    optimizers = {k: torch.optim.Adam([p], lr=0.0) for k, p in params.items()}
    state = strategy.initialize_state(1.0)

    def steps(first, last):
        for step in range(first, last):
            view = step % len(views)
            image, info = draw(params, viewmats[view], K[view])
            image.sum().backward()
            info.update(view=view, render=image, truth=views.images[view] / 255)
            strategy.step_post_backward(params, optimizers, state, step, info)

    return strategy, params, state, records, steps


def front():
    """The wall with a sheet of gray points before it; rows of the sheet."""
    good = wall()
    x, y = torch.meshgrid(torch.arange(-1.3, -0.5, 0.08), torch.arange(-0.4, 0.4, 0.08), indexing="xy")
    sheet = {k: v[:1].repeat(x.numel(), *[1] * (v.dim() - 1)) for k, v in good.items()}
    sheet["means"] = torch.stack([x.flatten(), y.flatten(), torch.full((x.numel(),), 2.6)], -1)
    sheet["scales"] = torch.full((x.numel(), 3), 0.05).log()
    sheet["features_dc"] = torch.zeros(x.numel(), 3)
    return add(good, sheet), len(good["means"])


class OneLiarsZones:
    """Only view 0 may speak of false fronts."""

    def __init__(self, inner):
        self.inner = inner

    def find(self, event):
        zones = self.inner.find(event)
        for view in zones:
            if view.view != 0:
                view.kind[view.kind == FALSE_FRONT] = -1
        return zones


class OneLiar(LpmStrategy):
    def attach(self, *args):
        super().attach(*args)
        self.parts.zones = OneLiarsZones(self.parts.zones)


def test_one_view_alone_resets_nothing_however_often():
    params, _ = front()
    options = dict(densify=False, insert=False, prune=False)
    _, _, state, records, steps = prepared(params, kind=OneLiar, **options)
    steps(93, 501)
    assert (state["front"] | state["front_before"]).max() == 1  # it did speak, at every event
    assert [r.reset for r in records] == [0] * 5
    _, _, _, records, steps = prepared(params, **options)
    steps(93, 101)
    assert records[0].reset >= 90


@pytest.mark.parametrize("photos", [2, 3])
def test_it_says_so_where_no_photo_has_two_others(photos):
    strategy, _, _, _, steps = prepared(wall(), photos=photos)
    steps(93, 201)
    assert ("pairs" in strategy.messages.said) == (photos == 2)


def test_points_just_reset_are_not_split():
    params, good = front()
    _, after, _, records, steps = prepared(params, insert=False, max_points=len(params["means"]) + 4000)
    steps(93, 501)
    assert max(r.reset for r in records) >= 90
    sheet = after["means"][:, 2] < 3.2
    assert int(sheet.sum()) <= len(params["means"]) - good


@pytest.mark.parametrize("opacity", [None, 0.02, 0.004])
def test_points_that_nobody_sees_do_not_fill_a_hole(opacity):
    params = wall()
    hole = ((params["means"][:, :2] - torch.tensor([0.9, 0.0])).abs() < 0.4).all(-1)
    if opacity is None:
        params = {k: v[~hole] for k, v in params.items()}
    else:
        params["opacities"][hole] = torch.tensor(opacity).logit()
    _, _, _, records, steps = prepared(params, densify=False, reset=False)
    steps(93, 101)
    assert records[0].inserted >= 16


@pytest.mark.parametrize(("noise", "edits"), [(0.06, False), (0.6, True)])
def test_a_good_scene_is_left_alone_and_a_bad_one_is_not(noise, edits):
    """Small noise is about 40 dB: what real scenes call very good."""
    params = wall()
    _, after, _, records, steps = prepared(params, noise, max_points=len(params["means"]) + 50)
    K, viewmats = cameras()
    error = (draw(after, viewmats[0], K[0])[0].detach() - draw(wall(), viewmats[0], K[0])[0]).square().mean()
    psnr = -10 * float(error.log10())
    assert (36 < psnr < 45) == (not edits)
    steps(93, 101)
    (record,) = records
    assert (record.split + record.pruned + record.inserted + record.reset > 0) == edits
    assert bool(record.zones) == edits


def test_a_start_above_the_budget_loses_what_paints_least():
    params = wall()
    small = copy.deepcopy(params)
    small["scales"][::3] -= 3.0
    _, after, _, records, steps = prepared(small, noise=0.3, max_points=len(params["means"]) - 500, insert=False)
    steps(93, 101)
    assert len(after["means"]) == records[0].points == records[0].budget == len(params["means"]) - 500
    lost = len(small["means"][::3]) - int((after["scales"][:, 0] < -5.5).sum())
    assert lost >= 450


def test_without_a_cap_it_is_ten_times_the_start():
    strategy, params, _, _, steps = prepared(wall(0.2), noise=0.3, max_points=None)
    steps(93, 101)
    assert strategy.budget(10**6) == 10 * strategy.first_points
    assert len(params["means"]) <= strategy.budget(100)


def test_a_step_without_its_view_is_named():
    strategy, params, state, _, _ = prepared(wall(0.2))
    K, viewmats = cameras()
    image, info = draw(params, viewmats[0], K[0])
    image.sum().backward()
    info.update(view=None, render=image, truth=image)
    with pytest.raises(LpmError, match=r"info\['view'\]: None"):
        strategy.step_post_backward(params, {}, state, 5, info)


def test_a_checkpoint_of_other_photos_starts_anew():
    strategy, _, _, _, steps = prepared(wall(0.07), noise=0.3)
    steps(93, 101)
    saved = strategy.extra_state()
    other = LpmStrategy()
    K, viewmats = cameras(4)
    said = []
    other.messages.say = said.append
    other.attach(Views([torch.zeros(SIZE[1], SIZE[0], 3, dtype=torch.uint8)] * 4, K, viewmats), None)
    other.load_extra_state(saved, "cpu")
    assert other.maps.maps == {}
    assert other.parts.choice.visited == {}
    assert "other photos" in said[0]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    K, viewmats = cameras()
    truth = [draw(wall(), v, k)[0].clamp(0, 1) for v, k in zip(viewmats, K, strict=True)]
    (tmp_path / "file").write_text("")
    feature_matches._memory.clear()
    strategy = LpmStrategy()
    views = Views([(t * 255).round().byte() for t in truth], K, viewmats)
    strategy.attach(views, wall()["means"][::7], tmp_path / "file" / "cache")
    assert strategy.photo_graph.cache is None
    assert (strategy.photo_graph.neighbours(None) >= 0).any()


@pytest.mark.parametrize("size", [(64, 48), (61, 45), (33, 7)])
def test_errors_stay_where_they_are_in_images_of_any_size(size):
    """Each pixel has its own tile's error, also where the last tile is cut, or the map is of half the resolution."""
    width, height = size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = -(-height // 8), -(-width // 8)
    error = torch.arange(float(rows * columns)).reshape(rows, columns)
    assert torch.equal(spread(error, size, 8), error[y // 8, x // 8])
    means = coarse(error, size, 16, 8)
    assert means[0, 0] == pytest.approx(float(error[y // 8, x // 8][:16, :16].mean()))
    assert means[-1, -1] == pytest.approx(
        float(error[y // 8, x // 8][(height - 1) // 16 * 16 :, (width - 1) // 16 * 16 :].mean())
    )
    if height > 16:
        rows = -(-(height // 2) // 8)
        half = torch.arange(float(rows * -(-(width // 2) // 8))).reshape(rows, -1)
        wanted = half[(y // 16).clamp(max=half.shape[0] - 1), (x // 16).clamp(max=half.shape[1] - 1)]
        assert torch.equal(spread(half, size, 8), wanted)


@pytest.mark.parametrize(("size", "noise"), [(0.004, 0.6), (0.02, 0.25), (0.2, 0.05)])
def test_a_smaller_image_says_the_same(size, noise):
    """Pixels painted and residual splatted, in pixels of the full image, of points from a tenth of a pixel to many."""
    torch.manual_seed(0)
    n = 4000
    params = {
        "means": torch.rand(n, 3) * torch.tensor([3.0, 2.0, 1.0]) + torch.tensor([-1.5, -1.0, 4.0]),
        "quats": torch.randn(n, 4),
        "scales": torch.full((n, 3), size).log(),
        "opacities": torch.full((n, 1), -2.0),
    }
    K = torch.tensor([[100.0, 0, 50], [0, 100, 37], [0, 0, 1]])
    error = torch.linspace(0, 1, 100).expand(75, 100)
    full, half = (look(params, torch.eye(4), K, (100, 75), error, shrink=s) for s in (1, 2))
    assert half.depth.shape == half.alpha.shape == (37, 50)
    inside = full.visible & half.visible
    assert inside.sum() > 0.9 * full.visible.sum() > 2000
    for name in ("contribution", "point_error"):
        a, b = (getattr(e, name)[inside] for e in (full, half))
        assert b.sum() == pytest.approx(float(a.sum()), rel=0.03)
        assert (a - b).square().mean().sqrt() < noise * a.square().mean().sqrt()
    torch.testing.assert_close(half.alpha.mean(), full.alpha.mean(), rtol=0.05, atol=0)
