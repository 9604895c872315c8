"""ConeGS: what is missing gets points at its depth, as wide as a pixel's cone there; what fades makes room."""

import math

import pytest
import torch
from wall_scene import WALL, add, cameras, pass_and_event, photos, wall

from lpm.multiview.views import project
from lpm.strategy.conegs import ConegsStrategy

DEPTH = 3.2  # z of the planted object, world


def with_object():
    """The wall, and before it a square with a texture of its own."""
    board = wall(spacing=0.03)
    inside = (board["means"][:, 0].abs() < 0.5) & (board["means"][:, 1].abs() < 0.4)
    board = {k: v[inside].clone() for k, v in board.items()}
    board["features_dc"] = board["features_dc"].flip(0)
    board["means"][:, 2] = DEPTH
    return add(wall(), board)


def strategy_for(n, room, **options):
    """One whose first event may add `room` points to `n`."""
    schedule = dict(refine_start_iter=1, refine_stop_iter=100 * 10, refine_every=100, growth_end=0.01)
    return ConegsStrategy(max_points=n + room, **(schedule | options))


def test_a_missing_object_gets_points_at_its_depth():
    truth, n = with_object(), len(wall()["means"])
    strategy = strategy_for(n, 400)
    params, _, record = pass_and_event(strategy, wall(), truth)
    assert (record.inserted, record.pruned, record.points) == (400, 0, n + 400)
    new = params["means"].detach()[n:]
    over = (new[:, 0].abs() < 0.7) & (new[:, 1].abs() < 0.6)  # its outline, and what the cones round it reach
    assert over.float().mean() > 0.9  # nowhere else is anything wrong
    away = (new[over, 2] / DEPTH - 1).abs()
    assert away.median() < 0.01
    assert (away < 0.05).float().mean() > 0.7  # the others have the wall's depth: photos do not agree at its rim


def test_a_new_point_is_as_wide_as_its_cone_and_has_the_photos_colour():
    n = len(wall()["means"])
    params, _, record = pass_and_event(strategy_for(n, 50, cone=1.5), wall(), with_object())
    size = params["scales"].detach()[n:].exp()
    focal = float(cameras()[0][0, 0, 0])
    torch.testing.assert_close(size, 1.5 * params["means"].detach()[n:, 2:] / focal * torch.ones(1, 3))
    torch.testing.assert_close(torch.sigmoid(params["opacities"].detach()[n:]), torch.full((50, 1), 0.1))
    views, drawn = photos(with_object())
    nearest = torch.full((50,), 9.0)
    for view in record.views:
        pixels, _ = project(params["means"].detach()[n:], views.viewmats[view], views.Ks[view])
        x, y = pixels.long().unbind(1)
        color = drawn[view][y.clamp(0, 127), x.clamp(0, 159)]
        nearest = torch.minimum(nearest, (color - torch.sigmoid(params["features_dc"].detach()[n:])).abs().amax(1))
    assert nearest.max() < 0.01


def test_without_parallax_the_renders_depth_is_taken(monkeypatch):
    n = len(wall()["means"])
    strategy = strategy_for(n, 60)
    attach = strategy.attach
    monkeypatch.setattr(strategy, "attach", lambda views, points: attach(views, None))
    monkeypatch.setattr("lpm.multiview.photo_graph._hopeless", lambda views: "a test")
    params, _, record = pass_and_event(strategy, wall(), with_object())
    assert record.inserted == 60
    torch.testing.assert_close(params["means"].detach()[n:, 2], torch.full((60,), WALL), rtol=0.02, atol=0)


def test_nothing_is_added_where_nothing_is_wrong():
    *_, record = pass_and_event(strategy_for(len(wall()["means"]), 50), wall())
    assert (record.inserted, record.pruned) == (0, 0)


def test_what_has_faded_goes_and_its_place_is_taken():
    start = wall()
    n = len(start["means"])
    start["opacities"][::10] = math.log(0.004 / 0.996)
    params, state, record = pass_and_event(strategy_for(n, 0), start, with_object())
    assert record.pruned == len(range(0, n, 10))
    assert record.inserted == record.pruned
    assert len(params["means"]) == record.budget == n
    assert state["first_points"] == n


def test_the_penalty_is_on_what_is_before_the_sigmoid():
    """So its gradient is the same for opaque points as for faint ones, until they are to be removed anyway."""
    strategy = ConegsStrategy(opacity_penalty=0.3)
    logits = torch.tensor([[4.0], [0.0], [-4.0], [-9.0]], requires_grad=True)
    (term,) = strategy.regularization({"opacities": logits}, {}).values()
    term.backward()
    assert logits.grad.flatten().tolist() == pytest.approx([0.075, 0.075, 0.075, 0])
