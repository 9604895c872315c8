"""SteepGS: the splitting matrix is the second derivative of the loss under a split, and says where to split."""

import math

import pytest
import torch
from torch.nn import Parameter
from wall_scene import pass_and_event, wall

from lpm.gaussians.edits import rotations, split_along
from lpm.multiview.views import Views, project
from lpm.render.rasterize import rasterize
from lpm.strategy.steepgs import SteepgsStrategy, least_eigenvectors

WIDTH, HEIGHT = 96, 80
K = torch.tensor([[120.0, 0, 48], [0, 120, 40], [0, 0, 1]], dtype=torch.float64)
VIEWMAT = torch.eye(4, dtype=torch.float64)
TILT = math.radians(30)
AXIS = torch.tensor([math.cos(TILT), math.sin(TILT), 0.0], dtype=torch.float64)


def one_point(opacity=0.04, scale=0.2):
    """A faint point, so that two in its place, each half as opaque, draw what it draws."""
    return {
        "means": torch.tensor([[0.1, -0.05, 4.0]], dtype=torch.float64),
        "scales": torch.tensor([[scale, 0.9 * scale, 1.1 * scale]], dtype=torch.float64).log(),
        "quats": torch.tensor([[0.9, 0.3, -0.2, 0.4]], dtype=torch.float64),
        "features_dc": torch.full((1, 3), 0.9, dtype=torch.float64),
        "opacities": torch.full((1, 1), opacity, dtype=torch.float64).logit(),
    }


def draw(params):
    image, _, info = rasterize(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        params["features_dc"], VIEWMAT[None], K[None], WIDTH, HEIGHT,
    )  # fmt: skip
    return image[0], info


def two_lights(apart=0.35):
    """What the point covers: two lights beside it, left and right of it along AXIS, and nothing in between."""
    params = one_point()
    both = {k: v.repeat(2, 1) for k, v in params.items()}
    both["means"] = both["means"] + apart * torch.stack([AXIS, -AXIS])
    both["scales"] = both["scales"] - 0.7
    both["opacities"] = torch.full((2, 1), 0.2, dtype=torch.float64).logit()
    return draw(both)[0].detach()


def seen(params, truth):
    """A strategy that has seen one step of `params` against `truth`, and its state."""
    strategy = SteepgsStrategy(grow_grad2d=0.0, refine_start_iter=1, refine_every=10)
    strategy.attach(Views([(truth.clamp(0, 1) * 255).byte()], K[None], VIEWMAT[None]))
    live = {k: Parameter(v.clone()) for k, v in params.items()}
    optimizers = {k: torch.optim.Adam([p], lr=0.0) for k, p in live.items()}
    state = strategy.initialize_state(1.0)
    image, info = draw(live)
    info["view"] = 0
    strategy.step_pre_backward(live, optimizers, state, 9, info)
    (image - truth).square().sum().backward()
    strategy.step_post_backward(live, optimizers, state, 9, info)
    return strategy, live, optimizers, state


def loss_after(params, offset, truth):
    """The loss with two points of half the opacity at +-offset."""
    everything = torch.ones(len(params["means"]), dtype=torch.bool)
    return float((draw(split_along(params, everything, offset[None], 0.5).params)[0] - truth).square().sum())


def loss_of_offspring(params, offset, truth):
    """The loss with two offspring of weight 1/2 each at +-offset, their alphas added up: the paper's, written out."""
    (a, b, c) = draw(params)[1]["conics"][0, 0].detach()
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    alpha = 0
    for sign in (1, -1):
        pixels, _ = project(params["means"] + sign * offset, VIEWMAT, K)
        dx, dy = x - pixels[0, 0], y - pixels[0, 1]
        power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
        alpha = alpha + 0.5 * torch.sigmoid(params["opacities"]) * torch.exp(power)
    return float((alpha[..., None] * params["features_dc"] - truth).square().sum())


@pytest.mark.parametrize("apart", [0.0, 0.35])
def test_the_splitting_matrix_is_that_of_finite_differences(apart):
    """In every direction, where a split helps and where it does not."""
    params, truth = one_point(opacity=0.9), two_lights(apart)
    S = seen(params, truth)[3]["splitting"][0].double()
    step, at_rest = 0.01, loss_of_offspring(params, torch.zeros(3, dtype=torch.float64), truth)
    for v in [*torch.eye(3, dtype=torch.float64), AXIS, torch.tensor([0.5, -0.5, 0.7], dtype=torch.float64)]:
        bent = (loss_of_offspring(params, step * v, truth) - at_rest) / (0.5 * step**2)
        assert float(v @ S @ v) == pytest.approx(bent, rel=0.03, abs=0.01 * float(S.abs().max()))


def test_its_least_eigenvector_points_to_what_the_point_covers():
    params, truth = one_point(), two_lights()
    S = seen(params, truth)[3]["splitting"].double()
    least, axis = least_eigenvectors(S)
    assert least[0] < 0
    assert abs(float(axis[0] @ AXIS)) > 0.99
    across = torch.linalg.cross(AXIS, torch.tensor([0, 0, 1.0], dtype=torch.float64))
    at_rest = loss_after(params, 0 * AXIS, truth)
    assert loss_after(params, 0.1 * axis[0], truth) < min(at_rest, loss_after(params, 0.1 * across, truth))


def test_it_is_split_there_and_a_point_that_is_too_wide_is_not():
    params, truth = one_point(), two_lights()
    strategy, live, optimizers, state = seen(params, truth)
    assert strategy.grow(live, optimizers, state, 10) == (0, 1)
    apart = live["means"].detach()[0] - live["means"].detach()[1]
    local = rotations(params["quats"])[0].T @ apart
    assert abs(float(apart @ AXIS) / float(apart.norm())) > 0.98
    # Half of its standard deviation to each side.
    spread = (local / local.norm() * params["scales"].exp()[0]).norm()
    assert float(apart.norm()) == pytest.approx(float(spread), rel=1e-4)
    torch.testing.assert_close(torch.sigmoid(live["opacities"]).detach(), torch.full((2, 1), 0.02).double())
    assert torch.equal(live["scales"].detach(), params["scales"].repeat(2, 1))
    assert state["splitting"].abs().max() == 0

    narrow = {k: v.clone() for k, v in params.items()}
    narrow["scales"] -= 0.7
    narrow["opacities"] = torch.full((1, 1), 0.16, dtype=torch.float64).logit()  # as much light in less room
    strategy, live, optimizers, state = seen(params, draw(narrow)[0].detach())
    assert float(least_eigenvectors(state["splitting"])[0]) > 0
    assert strategy.grow(live, optimizers, state, 10) == (0, 0)
    assert len(live["means"]) == 1


def test_the_cap_holds_and_the_event_is_told():
    params = {k: v[::9] for k, v in wall().items()}
    params["scales"] = params["scales"] + 0.8
    n = len(params["means"])
    strategy = SteepgsStrategy(max_points=n + 50, refine_start_iter=1, refine_stop_iter=1000, refine_every=100)
    params, state, record = pass_and_event(strategy, params)
    assert len(params["means"]) == record.points == n + 50 - record.pruned
    assert record.split == 50
    assert state["splitting"].shape == (record.points, 3, 3)
