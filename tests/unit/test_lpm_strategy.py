"""The lpm strategy on a textured wall with planted defects: what it resets, inserts and leaves alone."""

import copy
import itertools

import pytest
import torch
from wall_scene import WALL, add, cameras, pass_and_event, wall

from lpm.gaussians.spherical_harmonics import rgb_to_sh0
from lpm.strategy.lpm import LpmStrategy


def event(params, **options):
    """One pass over all views, then one event. Returns strategy, parameters, state and the record."""
    options = {"max_points": 10**6, "refine_start_iter": 1, "refine_stop_iter": 1000, "densify": False, **options}
    strategy = LpmStrategy(refine_every=100, **options)
    return strategy, *pass_and_event(strategy, params)


@pytest.fixture(scope="module")
def defective():
    """The wall with a hole in it, and gray points floating before another part of it."""
    params = wall()
    hole = ((params["means"][:, :2] - torch.tensor([0.9, 0.0])).abs() < 0.4).all(-1)
    params = {k: v[~hole] for k, v in params.items()}
    x, y = torch.meshgrid(torch.arange(-1.3, -0.5, 0.08), torch.arange(-0.4, 0.4, 0.08), indexing="xy")
    n = x.numel()
    floating = {k: v[:1].repeat(n, *[1] * (v.dim() - 1)) for k, v in params.items()}
    floating["means"] = torch.stack([x.flatten(), y.flatten(), torch.full((n,), 2.6)], -1)
    floating["scales"] = torch.full((n, 3), 0.05).log()
    floating["features_dc"] = rgb_to_sh0(torch.full((n, 3), 0.5))
    return add(params, floating), len(params["means"]), n


def test_planted_defects(defective):
    params, good, planted = defective
    _, after, _, record = event(params, views_per_event=8)
    opacity = torch.sigmoid(after["opacities"]).flatten()
    hit = (opacity[good : good + planted] <= 0.0501).float().mean()
    wrong = (opacity[:good] <= 0.0501).float().mean()
    assert hit >= 0.9
    assert wrong <= 0.01
    assert record.reset == int((opacity[: good + planted] <= 0.0501).sum())
    kinds = {zone.kind for zone in record.zones}
    assert {"false-front", "missing"} <= kinds

    inserted = after["means"][good + planted :]
    assert record.inserted == len(inserted) >= 16
    assert ((inserted[:, 2] - WALL).abs() <= 0.02 * WALL).float().mean() >= 0.9
    inside = ((inserted[:, :2] - torch.tensor([0.9, 0.0])).abs() < 0.5).all(-1)
    floats = ((inserted[:, :2] - torch.tensor([-1.4, 0.0])).abs() < 0.9).all(-1)  # behind what floats there is a hole
    assert (inside | floats).float().mean() >= 0.9


def test_what_is_fitted_is_left_alone():
    params = wall()
    _, after, _, record = event(params, densify=True, max_points=len(params["means"]))
    assert record.zones == []
    assert (record.reset, record.inserted, record.pruned, record.split) == (0, 0, 0, 0)
    for name, value in params.items():
        assert torch.equal(after[name], value)


@pytest.mark.parametrize("switch", ["reset", "insert", "prune", "densify"])
def test_switches(defective, switch):
    params, _, _ = defective
    params = copy.deepcopy(params)
    params["opacities"][:50] = -8.0
    options = dict(densify=True, max_points=len(params["means"]) + 3000, views_per_event=8)
    _, _, _, on = event(params, **options)
    _, _, _, off = event(params, **{**options, switch: False})
    field = {"reset": "reset", "insert": "inserted", "prune": "pruned", "densify": "split"}[switch]
    assert getattr(off, field) == 0
    assert getattr(on, field) > 0


def test_random_places_are_as_many_and_elsewhere(defective):
    params, _, _ = defective
    options = dict(densify=True, insert=False, reset=False, prune=False, refine_stop_iter=101)
    options["max_points"] = len(params["means"]) + 500
    made = {}
    for random in (False, True):
        _, after, _, record = event(params, random_places=random, random_zones=random, **options)
        assert record.split == 500
        made[random] = after["means"][len(params["means"]) :]
    hole = torch.tensor([0.9, 0.0])
    near = {k: ((v[:, :2] - hole).abs() < 0.6).all(-1).float().mean().item() for k, v in made.items()}
    assert near[False] > 1.5 * near[True]


def test_budget_is_never_exceeded(defective):
    params, _, _ = defective
    n = len(params["means"])
    strategy, after, state, record = event(params, densify=True, max_points=n + 37, refine_stop_iter=101)
    assert len(after["means"]) == record.points == record.budget == n + 37
    assert strategy.budget(10**6) == n + 37
    assert all(len(state[k]) == n + 37 for k in ("touched", "front", "inside", "gradient"))


def test_same_bits_for_any_number_of_threads(defective):
    params, _, _ = defective
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(event(params, densify=True, max_points=len(params["means"]) + 500)[1])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name in results[0]:
            assert torch.equal(results[0][name], other[name]), name


def test_no_point_grows_too_wide_for_its_distance():
    params = wall()
    params["scales"][0] = torch.tensor([3.0, 0.01, 0.01]).log()
    away = torch.cdist(params["means"][:1], -cameras()[1][:, :3, 3]).min()  # the cameras do not turn
    _, after, state, _ = event(params)
    assert 0.1 * WALL < after["scales"].detach().exp().max() <= 0.2501 * away
    assert state["widest"].shape == (len(after["means"]), 1)
    _, after, _, _ = event(params, widest=0)
    assert after["scales"].detach().exp().max() == pytest.approx(3)


def test_points_are_held_after_the_last_event():
    strategy, params, state, _ = event(wall())
    with torch.no_grad():
        params["scales"][7] = 5.0
    strategy.step_post_backward(params, {}, state, strategy.refine_stop_iter + 1, {})
    assert params["scales"][7].detach().exp().max() < 0.4 * WALL


def test_events_get_sparser_in_long_runs():
    strategy = LpmStrategy(refine_start_iter=500, refine_stop_iter=20_000, refine_every=100)
    steps = [step for step in range(20_000) if strategy.has_event(step)]
    assert steps[:15] == list(range(600, 2_100, 100))  # a run of 3,000 steps ends its editing here
    assert steps[15:20] == [2_200, 2_400, 2_600, 2_800, 3_000]
    assert len(steps) == 46
    assert all(b - a <= 0.2 * a for a, b in itertools.pairwise(steps[14:]))
    strategy.sparser = 0
    assert sum(strategy.has_event(step) for step in range(20_000)) == 194


@pytest.mark.parametrize("steps", [3_000, 7_000, 15_000, 30_000, 60_000])
def test_the_cap_is_reached_by_the_last_event(steps):
    strategy = LpmStrategy(refine_start_iter=min(500, steps // 12), refine_stop_iter=2 * steps // 3, max_points=5_000)
    strategy.first_points = 1_000
    last = max(step for step in range(steps) if strategy.has_event(step))
    assert strategy.budget(last) == 5_000
