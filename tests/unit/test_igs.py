"""Improved-GS: the shape of its halves, edges, growth, resets and who recovers, and the rate of the scales."""

import math

import pytest
import torch
from test_strategies import info_with_gradients, params_of, strategy_of
from wall_scene import pass_and_event, photos, wall

from lpm.gaussians.edits import long_axis_split, rotations
from lpm.gaussians.spherical_harmonics import rgb_to_sh0
from lpm.strategy.igs import HALVES, IgsStrategy, edges


def test_the_halves_end_where_the_parent_ended():
    """Three standard deviations out, as published; so their second moment along the axis is 2.125 of the parent's."""
    assert HALVES.offset + 3 * HALVES.long == pytest.approx(3)
    params = {k: v.detach().double() for k, v in params_of(4)[0].items()}
    params["scales"] = torch.tensor([[0.5, 0.2, 0.1]], dtype=torch.float64).log().repeat(4, 1)
    mask = torch.tensor([False, True, False, True])
    edit = long_axis_split(params, mask, halves=HALVES)
    assert edit.source.tolist() == [0, 2, 1, 3, 1, 3]
    for row in (2, 3):
        parent = edit.source[row]
        axes = rotations(params["quats"][parent][None])[0]
        local = (edit.params["means"][[row, row + 2]] - params["means"][parent]) @ axes
        torch.testing.assert_close(local[0], torch.tensor([1.35 * 0.5, 0, 0], dtype=torch.float64))
        torch.testing.assert_close(local[1], -local[0])
        size = edit.params["scales"][row].exp()
        torch.testing.assert_close(size, torch.tensor([0.55 * 0.5, 0.893 * 0.2, 0.893 * 0.1], dtype=torch.float64))
        moment = local[0] ** 2 + size**2
        assert moment[0] == pytest.approx((1.35**2 + 0.55**2) * 0.25)
        opacity = torch.sigmoid(edit.params["opacities"][[row, row + 2]])
        torch.testing.assert_close(opacity, 0.6 * torch.sigmoid(params["opacities"][parent]).expand(2, 1))


def test_edges_are_thin_and_where_brightness_jumps():
    gray = torch.zeros(20, 30)
    gray[:, 12:] = 0.8
    gray[3, 25] = torch.nan
    found = edges(gray)
    assert found.max() == 1
    assert (found[8:, 11:13].amax(1) > 0.999).all()
    assert found[8:, :11].max() == found[8:, 13:].max() == 0
    assert torch.isfinite(found).all()
    assert edges(torch.full((20, 30), 0.3)).max() == 0


def test_of_two_points_of_one_gradient_the_one_on_an_edge_is_split():
    """A step in the wall's brightness, and a budget with room for one."""
    params = wall()
    params["features_dc"] = rgb_to_sh0((params["means"][:, :1] > 0).float().expand(-1, 3) * 0.8 + 0.1)
    strategy = IgsStrategy(max_points=len(params["means"]) + 1, refine_start_iter=1, refine_stop_iter=100)
    strategy.attach(photos(params)[0])
    share = strategy.edge_share(params)
    assert share.max() == 1
    near = params["means"][:, 0].abs() < 0.05
    middle = params["means"][:, 1].abs() < 1.2
    assert share[near & middle].mean() > 10 * share[~near & middle].mean()
    n = len(share)
    live = {k: torch.nn.Parameter(v) for k, v in params.items()}
    state = {"grad2d": torch.full((n,), 0.01), "count": torch.ones(n), "scene_scale": 1.0}
    optimizers = {k: torch.optim.Adam([p]) for k, p in live.items()}
    assert strategy.grow(live, optimizers, state, 100) == (0, 1)
    assert len(live["means"]) == n + 1
    assert (live["means"][-2:, 0].abs() < 0.1).all()


def test_it_grows_along_a_square_root_and_never_beyond_the_cap():
    strategy = strategy_of("igs", cap=120, start=0, stop=100, every=1)
    params, optimizers = params_of(20)
    strategy.views_per_event = 0  # edges of no photo: all points are alike
    strategy.attach(photos(wall())[0])
    state = strategy.initialize_state()
    for step in range(1, 100):
        n = len(params["means"])
        strategy.step_post_backward(params, optimizers, state, step, info_with_gradients(n, torch.ones(n)))
        wanted = 20 + round(math.sqrt(step / 100) * 100)
        assert len(params["means"]) == min(2 * n, wanted)  # a point has two halves at most
    assert len(params["means"]) == 119


def test_what_has_not_recovered_from_a_reset_is_removed():
    strategy = strategy_of("igs", cap=10, start=0, stop=2000, every=100, reset_every=10**6)
    assert (strategy.reset_every, strategy.recovery) == (600, 300)  # a fifth of 2,000 is too soon
    strategy.attach(photos(wall())[0])
    params, optimizers = params_of(10)
    state = strategy.initialize_state()

    def step(number):
        n = len(params["means"])
        strategy.step_post_backward(params, optimizers, state, number, info_with_gradients(n, torch.zeros(n)))

    params["opacities"].data[:2] = math.log(0.03 / 0.97)
    step(500)
    assert len(params["means"]) == 10  # no reset yet, so nothing to recover from
    step(600)
    assert torch.sigmoid(params["opacities"]).max() <= 0.0101
    params["opacities"].data[:] = math.log(0.06 / 0.94)
    params["opacities"].data[:3] = math.log(0.04 / 0.96)
    step(800)
    assert len(params["means"]) == 10
    step(900)
    assert len(params["means"]) == 7
    params["opacities"].data[0] = math.log(0.04 / 0.96)
    step(1000)
    assert len(params["means"]) == 7
    before = params["opacities"].detach().clone()
    step(1800)  # a reset here could not be judged by step 2,000
    assert torch.equal(params["opacities"], before)


def test_the_rate_of_the_scales_falls():
    strategy = strategy_of("igs", steps=1000)
    params, optimizers = params_of(3)
    for step, rate in ((0, 0.02), (500, math.sqrt(0.02 * 0.002)), (1000, 0.002)):
        means2d = (params["means"][None, :, :2] * 1.0).clone()
        strategy.step_pre_backward(params, optimizers, {}, step, {"means2d": means2d})
        assert optimizers["scales"].param_groups[0]["lr"] == pytest.approx(rate)
    assert optimizers["means"].param_groups[0]["lr"] == 1e-3


def test_an_event_is_told():
    params = {k: v[::9] for k, v in wall().items()}
    strategy = IgsStrategy(max_points=400, refine_start_iter=1, refine_stop_iter=101, refine_every=100)
    n = len(params["means"])
    params, _, record = pass_and_event(strategy, params)
    assert (record.step, record.cloned, record.split, record.pruned) == (100, 0, record.points - n, 0)
    assert record.points == len(params["means"])
    assert len(record.views) == 8
