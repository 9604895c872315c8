"""Density control of others for scenes that move: what asks for points, where they come, and when they are there."""

from __future__ import annotations

import math

import pytest
import torch
from test_lpm4d import moving
from test_strategies import info_with_gradients
from wall_scene import add, cameras, draw, wall

from lpm.checks import LpmError
from lpm.gaussians import motion
from lpm.multiview.views import Views, project
from lpm.strategy.adc_with_photos import AdcWithPhotos
from lpm.strategy.fourdgs import FourdgsStrategy
from lpm.strategy.freetime import FreetimeStrategy, velocities
from lpm.strategy.registry import make_strategy, strategy_class
from lpm.strategy.schedule import Common, Schedule
from lpm.strategy.stg import StgStrategy

VIEWS, MOMENTS = 4, 3


def clip(plate_at=1):
    """Photos of the wall by four cameras at three moments; at one of them a plate of grey points stands before it."""
    K, viewmats = cameras(VIEWS)
    K, viewmats = K.repeat(MOMENTS, 1, 1), viewmats.repeat(MOMENTS, 1, 1)
    times = torch.linspace(0, 1, MOMENTS).repeat_interleave(VIEWS)
    plate = {name: value[(wall()["means"][:, :2].abs() < 0.4).all(1)] for name, value in wall().items()}
    plate["means"][:, 2] = 3.0
    plate["features_dc"] = torch.full_like(plate["features_dc"], 1.5)
    points = [add(wall(), plate) if i // VIEWS == plate_at else wall() for i in range(VIEWS * MOMENTS)]
    drawn = [draw(p, v, k)[0].clamp(0, 1) for p, v, k in zip(points, viewmats, K, strict=True)]
    return Views([(t * 255).round().byte() for t in drawn], K, viewmats, capture_times=times), drawn


def optimizers_of(params):
    return {name: torch.optim.Adam([p], lr=1e-3) for name, p in params.items()}


def a_pass(strategy, params, last=100):
    """One pass over all views of clip(), ending with `last`; the optimizers move nothing."""
    views, drawn = clip()
    strategy.attach(views, None)
    optimizers, state = optimizers_of(params), strategy.initialize_state(1.0)
    for step in range(last + 1 - len(views), last + 1):
        view = step % len(views)
        for parameter in params.values():
            parameter.grad = None
        t = views.capture_times[view]
        image, info = draw(
            dict(params.items())
            | {
                "means": motion.means_at(params, t),
                "opacities": torch.logit(torch.sigmoid(params["opacities"]) * motion.weight_at(params, t)[:, None]),
            },
            views.viewmats[view],
            views.Ks[view],
        )
        info["view"] = view
        strategy.step_pre_backward(params, optimizers, state, step, info)
        (image - drawn[view]).square().sum().backward()
        info.update(render=image.detach(), truth=drawn[view])
        strategy.step_post_backward(params, optimizers, state, step, info)
    return params, state


# 4D Gaussians


def few(n=8):
    points = {name: value[:n] for name, value in wall().items()}
    points["features_rest"] = torch.zeros(n, 3, 3)
    return moving(points)


def test_as_many_ask_by_time_as_by_space():
    params = few()
    strategy = FourdgsStrategy(grow_grad2d=1e-4)
    state = strategy.initialize_state()
    params["times"].grad = torch.tensor([9, 0, 0, 8, 1, 2, 3, 7.0])[:, None]
    strategy._update_state(params, state, info_with_gradients(8, torch.tensor([0, 5, 5, 0, 0, 0, 0, 0.0]) * 1e-4))
    wanted = strategy._wanted(params, state, strategy.mean_gradient(state))
    assert wanted.nonzero().flatten().tolist() == [0, 1, 2]  # two by space; of time the largest, and the least at it
    assert float(state["grad_time"].max()) > 0
    info = info_with_gradients(8, torch.zeros(8))
    strategy.step_post_backward(params, optimizers_of(params), state, strategy.refine_start_iter + 100, info)
    assert len(params["means"]) == len(state["grad_time"]) == 8 + 3
    assert float(state["grad_time"].max()) == 0  # begins anew


def test_nothing_asks_by_time_where_nothing_asks_by_space():
    params = few()
    strategy = FourdgsStrategy(grow_grad2d=1e-4)
    state = strategy.initialize_state()
    params["times"].grad = torch.ones(8, 1)
    strategy._update_state(params, state, info_with_gradients(8, torch.zeros(8)))
    assert not strategy._wanted(params, state, strategy.mean_gradient(state)).any()


def test_halves_are_drawn_in_space_and_time_on_the_parents_path():
    params = few()
    with torch.no_grad():
        params["motion"][:, 0] = torch.tensor([1.0, -2.0, 0.5])
        params["durations"].fill_(math.log(0.1))
        params["scales"].fill_(math.log(1e-6))
    torch.manual_seed(0)
    split, none = torch.tensor([2, 5]), torch.zeros(0, dtype=torch.int64)
    rest = torch.tensor([i for i in range(8) if i not in (2, 5)])
    edit = FourdgsStrategy()._grown(params, rest, none, split)
    assert edit.source.tolist() == [*rest.tolist(), 2, 5, 2, 5]
    p, halves = edit.params, edit.source[6:]
    assert torch.equal(p["times"][:6], params["times"][rest])
    apart = (p["times"][6:] - params["times"][halves]).abs()
    assert 0 < apart.detach().min() <= apart.detach().max() < 0.5
    for t in (0.0, 0.3, 1.0):
        torch.testing.assert_close(
            motion.means_at(p, t)[6:], motion.means_at(params, t)[halves].detach(), atol=1e-5, rtol=0
        )
    torch.testing.assert_close(p["durations"][6:].exp(), torch.full((4, 1), 0.1 / 1.6))
    assert torch.equal(p["durations"][:6], params["durations"][rest])


# Spacetime Gaussians


def test_guided_sampling_comes_three_times_and_has_room():
    strategy = StgStrategy(refine_start_iter=0, refine_stop_iter=1000, refine_every=100, max_points=1000)
    assert [strategy.guided(step) for step in range(100, 1000, 100)] == [0, 0, 0, 1, 0, 2, 0, 3, 0]
    assert [strategy.guided(step) for step in (10, 410, 510)] == [0, 1, 0]


def test_rays_go_through_the_worst_tiles_at_their_moment():
    params = moving(wall())
    n = len(params["means"])
    strategy = StgStrategy(
        refine_start_iter=1, refine_stop_iter=248, refine_every=100, max_points=n + 400, guided_share=300 / (n + 400),
        guided_at=(0.4,), grow_grad2d=1e9, views_per_event=4, prune_opa=0.0,
    )  # fmt: skip
    params, _ = a_pass(strategy, params)
    new = {name: value[n:].detach() for name, value in params.items()}
    assert len(new["means"]) == 288  # 18 rays of 4 through each of 4 views
    assert torch.equal(new["times"], torch.full_like(new["times"], 0.5))  # of the plate
    torch.testing.assert_close(new["durations"].exp(), torch.full((288, 1), 2.5 * 0.5))
    views, _ = clip()
    inside = torch.zeros(288, dtype=torch.bool)
    for v in strategy.looked:
        pixels, depth = project(new["means"], views.viewmats[v], views.Ks[v])
        middle = project(torch.tensor([[0.0, 0.0, 3.0]]), views.viewmats[v], views.Ks[v])[0]
        inside |= ((pixels - middle).abs() < 30).all(1) & (depth > 0)
    assert inside.float().mean() > 0.95
    assert sorted(strategy.looked) == [4, 5, 6, 7]
    assert new["means"][:, 2].min() < 3 < 4 < new["means"][:, 2].max()


def test_what_the_cap_keeps_for_the_rays(monkeypatch):
    """Of 100 points three times 10 are kept: density control may have 70 at first, and 100 at the end."""
    params = moving({name: value[:60] for name, value in wall().items()})
    strategy = StgStrategy(
        refine_start_iter=0, refine_stop_iter=1000, max_points=100, guided_share=0.3, views_per_event=0
    )
    seen, state = [], {"guided": 0}
    strategy.attach(clip()[0])
    monkeypatch.setattr(AdcWithPhotos, "grow", lambda self, *_: seen.append(self.max_points) or (0, 0))
    for step in range(100, 1000, 100):
        strategy.grow(params, optimizers_of(params), state, step)
    assert seen == [70, 70, 70, 80, 80, 90, 90, 100, 100]
    assert strategy.max_points == 100


# FreeTimeGS


def test_velocities_lead_to_the_nearest_point_of_the_next_moment():
    points = torch.tensor([[0.0, 0, 0], [5, 0, 0]])
    after = torch.tensor([[5.0, 1, 0], [0.2, 0, 0]])
    torch.testing.assert_close(velocities(points, after, 0.1), torch.tensor([[2.0, 0, 0], [0, 10, 0]]))
    assert torch.equal(velocities(points, after[:0], 0.1), torch.zeros(2, 3))


def freetime(cap, **options):
    schedule = Schedule(steps=200, start=1, stop=150, every=100, reset_every=300, pause_after_reset=0, max_points=cap)
    strategy = make_strategy("freetime", Common(schedule), moving=True)
    assert isinstance(strategy, FreetimeStrategy)
    for name, value in options.items():
        setattr(strategy, name, value)
    return strategy


def test_the_weight_is_on_what_is_there_and_leaves_lives_alone():
    params = few(2)
    strategy = freetime(10)
    strategy.moment = 0.5
    with torch.no_grad():
        params["opacities"].copy_(torch.tensor([[0.8], [0.4]]).logit())
        params["gates"].fill_(-20.0)
        params["times"].copy_(torch.tensor([[0.5], [0.0]]))
        params["durations"].fill_(math.log(0.5))
    loss = strategy.regularization(params, {})["opacity_in_time"]
    assert loss.item() == pytest.approx(0.01 * (0.8 + 0.4 * math.exp(-0.5)) / 2, rel=1e-5)
    loss.backward()
    assert params["durations"].grad is None
    assert params["times"].grad is None
    assert (params["opacities"].grad > 0).all()


def test_points_of_every_moment_to_start_from():
    """The wall is at z = 4 at all of them, and one point in a hundred of it is there."""
    params = moving({name: value[::97] for name, value in wall().items()})
    n = len(params["means"])
    strategy = freetime(n + 600, first_moments=3)
    views, _ = clip()
    strategy.attach(views, None)
    state = strategy.initialize_state()
    strategy._start(params, optimizers_of(params), state)
    born = {name: value[n:].detach() for name, value in params.items()}
    assert 200 < len(born["means"]) <= 300
    assert set(born["times"].flatten().tolist()) == {0.0, 0.5, 1.0}
    on_wall = (born["means"][:, 2] - 4).abs() < 0.1
    on_plate = ((born["means"][:, 2] - 3).abs() < 0.1) & (born["times"].flatten() == 0.5)
    assert (on_wall | on_plate).float().mean() > 0.9
    assert (born["motion"][on_wall].norm(dim=-1) < 1.0).float().mean() > 0.8  # spacing over half the clip
    torch.testing.assert_close(born["durations"].exp(), torch.full_like(born["durations"], 2.5 * 0.5))


def test_copies_go_to_gradients_and_opacity_alike():
    params = few(4)
    strategy = freetime(10)
    with torch.no_grad():
        params["opacities"].copy_(torch.tensor([[0.9], [0.1], [0.1], [0.1]]).logit())
    strategy._score = torch.tensor([0.0, 4.0, 0.0, 0.0])
    torch.manual_seed(0)
    drawn = strategy._draw(params, torch.arange(4), 4000).bincount(minlength=4) / 4000
    torch.testing.assert_close(drawn, torch.tensor([3.0, 4 + 1 / 3, 1 / 3, 1 / 3]) / 8, atol=0.03, rtol=0)


def test_the_rate_of_velocities_falls():
    params = few(4)
    strategy, optimizers = freetime(10), optimizers_of(params)
    strategy.attach(clip()[0], None)
    state = strategy.initialize_state()
    for step, share in ((0, 1.0), (100, 0.1), (200, 0.01)):
        info = {"view": 5, "means2d": torch.zeros(1, requires_grad=True) + 0}
        strategy.step_pre_backward(params, optimizers, state, step, info)
        assert optimizers["motion"].param_groups[0]["lr"] == pytest.approx(1e-3 * share)
        assert float(strategy.moment) == 0.5


# All


@pytest.mark.parametrize("name", ["4dgs", "stg", "freetime"])
def test_they_are_for_scenes_that_move(name):
    with pytest.raises(LpmError, match=rf"strategy: {name}, which is for scenes that move; wanted one of adc"):
        strategy_class(name)
    views, _ = clip()
    views.capture_times = None
    if name != "4dgs":
        with pytest.raises(LpmError, match=r"capture_times: none"):
            make_strategy(name, Common(Schedule(100, 1, 50, 10, 30, 0, 100)), moving=True).attach(views, None)
