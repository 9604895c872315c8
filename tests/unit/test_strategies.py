"""The baselines: relocation keeps the picture, caps hold exactly, controls do what they say."""

import math

import gsplat
import pytest
import torch
from torch.nn import Parameter, ParameterDict

from lpm.gaussians.edits import relocated
from lpm.strategy.adc import AdcStrategy
from lpm.strategy.mcmc import position_noise
from lpm.strategy.options import GROUPS, MOVING_GROUPS
from lpm.strategy.registry import MOVING, STRATEGIES, make_strategy
from lpm.strategy.schedule import Common, Schedule


def params_of(n=20, opacity=0.5, scale=0.1):
    values = {
        "means": torch.randn(n, 3),
        "scales": torch.full((n, 3), math.log(scale)),
        "quats": torch.nn.functional.normalize(torch.randn(n, 4), dim=-1),
        "features_dc": torch.randn(n, 3),
        "features_rest": torch.randn(n, 3, 3),
        "opacities": torch.full((n, 1), opacity).logit(),
    }
    params = ParameterDict({k: Parameter(v) for k, v in values.items()})
    optimizers = {k: torch.optim.Adam([p], lr=1e-3) for k, p in params.items()}
    for p in params.values():
        p.grad = torch.ones_like(p)
    for o in optimizers.values():
        o.step()
    return params, optimizers


def strategy_of(name, cap=None, **schedule):
    defaults = dict(steps=1000, start=10, stop=500, every=10, reset_every=100, pause_after_reset=0, max_points=cap)
    return make_strategy(name, Common(Schedule(**{**defaults, **schedule})))


def info_with_gradients(n, gradient):
    """What a render hands over: every point seen, with this gradient of means2d [1, n, 2] (per pixel)."""
    means2d = torch.zeros(1, n, 2, requires_grad=True)
    means2d.grad = gradient.reshape(1, n, 1).expand(1, n, 2).clone()
    means2d.absgrad = means2d.grad
    radii = torch.ones(1, n, 2, dtype=torch.int32)
    return dict(means2d=means2d, radii=radii, width=2, height=2, n_cameras=1, gaussian_ids=None)


@pytest.mark.parametrize("copies", [1, 2, 3, 10, 51])
@pytest.mark.parametrize("opacity", [0.01, 0.3, 0.9, 0.99])
def test_relocated_copies_render_as_one(copies, opacity):
    """Eq. 9 preserves the centre's opacity exactly, and the integral along a line through the centre."""
    new, scale = relocated(torch.tensor([opacity]), torch.ones(1, 3), torch.tensor([copies]))
    assert 1 - (1 - new.item()) ** copies == pytest.approx(opacity, rel=1e-4)
    x = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    one = opacity * torch.exp(-(x**2) / 2)
    many = 1 - (1 - new.double() * torch.exp(-((x / scale[0, 0].double()) ** 2) / 2)) ** copies
    assert torch.trapezoid(many, x) == pytest.approx(torch.trapezoid(one, x).item(), rel=2e-3)


def test_noise_has_the_points_covariance():
    n = 100_000
    quats = torch.tensor([[0.8, 0.2, -0.4, 0.4]]).expand(n, 4)
    scales = torch.tensor([[0.5, 0.1, 0.02]]).expand(n, 3)
    noise = position_noise(quats, scales, torch.full((n,), 0.0), 1.0)
    from gsplat.utils import normalized_quat_to_rotmat

    rotation = normalized_quat_to_rotmat(torch.nn.functional.normalize(quats[:1], dim=-1))[0]
    covariance = rotation @ torch.diag(scales[0] ** 2) @ rotation.T
    weight = torch.sigmoid(torch.tensor(0.5)).item()
    torch.testing.assert_close(noise.T @ noise / n / weight**2, covariance @ covariance.T, atol=1e-3, rtol=0.05)
    assert position_noise(quats[:10], scales[:10], torch.full((10,), 0.9), 1.0).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["adc", "absgrad"])
@pytest.mark.parametrize("cap", [20, 23, 40, None])
def test_adc_keeps_the_cap_exactly(name, cap):
    params, optimizers = params_of(20, scale=0.001)
    strategy = strategy_of(name, cap)
    state = strategy.initialize_state(scene_scale=1.0)
    strategy.step_post_backward(params, optimizers, state, 20, info_with_gradients(20, torch.arange(20) * 1.0 + 1))
    assert len(params["means"]) == (40 if cap is None else min(cap, 40))
    if cap == 23:  # the three with the highest gradient were cloned
        assert torch.equal(params["features_dc"][20:], params["features_dc"][17:20])
    for name_, optimizer in optimizers.items():
        assert optimizer.param_groups[0]["params"][0] is params[name_]
        assert len(optimizer.state[params[name_]]["exp_avg"]) == len(params["means"])


def test_adc_splits_large_prunes_faint_and_resets():
    params, optimizers = params_of(10, scale=0.05)
    params["opacities"].data[3] = -9.0
    strategy = strategy_of("adc")
    state = strategy.initialize_state(scene_scale=1.0)
    gradient = torch.zeros(10)
    gradient[[0, 1]] = 1.0
    strategy.step_post_backward(params, optimizers, state, 20, info_with_gradients(10, gradient))
    assert len(params["means"]) == 10 + 2 - 1
    torch.testing.assert_close(params["scales"][-4:].exp(), torch.full((4, 3), 0.05 / 1.6), rtol=0.05, atol=0)
    strategy.step_post_backward(params, optimizers, state, 200, info_with_gradients(11, torch.zeros(11)))
    assert torch.sigmoid(params["opacities"]).max() <= 0.01 + 1e-6


def test_step_0_resets_nothing():
    params, optimizers = params_of(4)
    before = params["opacities"].detach().clone()
    strategy = strategy_of("adc")
    state = strategy.initialize_state(scene_scale=1.0)
    strategy.step_post_backward(params, optimizers, state, 0, info_with_gradients(4, torch.zeros(4)))
    assert torch.equal(params["opacities"], before)


@pytest.mark.parametrize("revised_opacity", [False, True])
def test_adc_is_gsplats_1_4_to_the_bit(revised_opacity):
    """Clones, splits, removals, resets, moments and statistics of twelve events."""
    from gsplat.strategy import DefaultStrategy

    if not gsplat.__version__.startswith("1.4"):
        pytest.skip(f"gsplat {gsplat.__version__} is another baseline than 1.4")
    options = dict(
        refine_start_iter=10, refine_stop_iter=500, refine_every=10, reset_every=50, revised_opacity=revised_opacity
    )
    results = []
    for kind in (AdcStrategy, DefaultStrategy):
        torch.manual_seed(1)
        params, optimizers = params_of(200)
        params["scales"].data += torch.randn(200, 3)
        params["scales"].data -= 2.0
        params["opacities"].data += 2 * torch.randn(200, 1)
        strategy = kind(**options)
        state = strategy.initialize_state(scene_scale=1.0)
        sizes = []
        for step in range(1, 121):
            n = len(params["means"])
            info = info_with_gradients(n, 3e-4 * torch.rand(n))
            if kind is DefaultStrategy:
                info["radii"] = info["radii"][..., 0]
            strategy.step_post_backward(params, optimizers, state, step, info)
            sizes.append(len(params["means"]))
        moments = {f"{k} {m}": o.state[params[k]][m] for k, o in optimizers.items() for m in ("exp_avg", "exp_avg_sq")}
        results.append((sizes, {**params, **moments, "grad2d": state["grad2d"], "count": state["count"]}))
    (sizes, ours), (theirs_sizes, theirs) = results
    assert sizes == theirs_sizes
    assert len(set(sizes)) > 5
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name


def test_mcmc_moves_the_dead_and_grows_to_the_cap():
    params, optimizers = params_of(100)
    params["opacities"].data[:30] = -9.0
    strategy = strategy_of("mcmc", cap=103)
    state = strategy.initialize_state()
    strategy.step_post_backward(params, optimizers, state, 20, {}, lr=0.0)
    assert len(params["means"]) == 103
    assert (torch.sigmoid(params["opacities"]) > 0.005).all()
    same = (params["means"][:30, None] == params["means"][None, 30:100]).all(-1)
    assert same.any(1).all()  # each dead point now sits on a living one
    for name, optimizer in optimizers.items():
        assert len(optimizer.state[params[name]]["exp_avg"]) == 103


def test_the_noise_of_mcmc_settles_with_the_rates():
    """As a rate that is asked for: where steps get shorter, in a run of what moves, noise does."""
    moved = []
    for share, asked in ((1.0, None), (0.1, None), (1.0, 1e-4)):
        torch.manual_seed(0)
        params, optimizers = params_of(100, opacity=0.02)
        before, optimizers["means"].share = params["means"].detach().clone(), share
        strategy = strategy_of("mcmc", cap=100)
        strategy.step_post_backward(params, optimizers, strategy.initialize_state(), 5, {}, lr=asked)
        moved.append(params["means"].detach() - before)
    assert moved[0].abs().max() > 0
    assert torch.equal(moved[1], moved[2])
    torch.testing.assert_close(moved[0], 10 * moved[1], rtol=1e-2, atol=1e-4)


def test_mcmc_along_a_line_reaches_the_cap_in_a_short_run():
    """Where 5 % an event ends far below it."""
    counts = {}
    for growth in ("share", "line"):
        params, optimizers = params_of(100)
        strategy = strategy_of("mcmc", cap=1000, start=0, stop=101, every=10)
        strategy.growth = growth
        state = strategy.initialize_state()
        counts[growth] = []
        for step in range(1, 101):
            strategy.step_post_backward(params, optimizers, state, step, {}, lr=0.0)
            if step % 10 == 0:
                counts[growth].append(len(params["means"]))
    assert counts["line"] == [100 + round(min(1.0, step / (0.9 * 101)) * 900) for step in range(10, 101, 10)]
    assert counts["line"][-1] == 1000
    assert counts["share"][-1] < 170


def test_every_name_builds():
    for name in STRATEGIES:
        assert strategy_of(name, cap=10).refine_stop_iter == 500


def test_statistics_are_gsplats():
    """The dense sums are what gsplat gathers by index."""
    from gsplat.strategy import DefaultStrategy

    params, _ = params_of(50)
    seen = torch.rand(2, 50) > 0.4
    means2d = torch.zeros(2, 50, 2, requires_grad=True)
    means2d.grad = torch.randn(2, 50, 2) * seen[..., None]
    info = dict(means2d=means2d, width=37, height=21, n_cameras=2, gaussian_ids=None)
    info["radii"] = seen[..., None].expand(2, 50, 2).int() * 3
    states = [dict(grad2d=None, count=None) for _ in range(2)]
    AdcStrategy()._update_state(params, states[0], info)
    version = tuple(int(v) for v in gsplat.__version__.split(".")[:2])
    theirs = info if version >= (1, 5) else {**info, "radii": info["radii"].amax(-1)}
    DefaultStrategy()._update_state(params, states[1], theirs)
    for name in ("grad2d", "count"):
        torch.testing.assert_close(states[0][name], states[1][name])


def test_the_options_of_all_strategies_are_those_of_the_groups():
    """They stand in a module of their own, so that a help text need not import the strategies."""
    assert {kind.group: kind.Options for kind in STRATEGIES.values()} == GROUPS
    assert {kind.group: kind.Options for kind in (STRATEGIES | MOVING).values()} == MOVING_GROUPS
