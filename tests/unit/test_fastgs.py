"""FastGS: what one view finds wrong is not grown, what several do is, and who is blamed goes."""

import pytest
import torch
from test_strategies import info_with_gradients, params_of
from wall_scene import SIZE, cameras, pass_and_event, photos, wall

from lpm.multiview.views import project
from lpm.strategy.fastgs import FastgsStrategy
from lpm.zones.error_maps import FINE_TILE

WRONG = 0.8


def three_points(views=8):
    """A strategy that has seen photos in which the first point is wrong in one view, the second in all, the third in
    none; and parameters of those three, far from one another on the screen."""
    params, optimizers = params_of(3, opacity=0.9, scale=0.06)
    params["means"].data = torch.tensor([[-1.0, 0, 4], [0.1, 0.5, 4], [1.1, -0.6, 4]])
    strategy = FastgsStrategy(refine_start_iter=1, refine_every=10, wrong_pixels=4, views_per_event=views)
    strategy.attach(photos(wall())[0])
    K, viewmats = cameras()
    for view in range(8):
        pixels, _ = project(params["means"].detach(), viewmats[view], K[view])
        error = torch.zeros(-(-SIZE[1] // FINE_TILE), -(-SIZE[0] // FINE_TILE))
        for point in (0, 1):
            column, row = (pixels[point] / FINE_TILE).long().tolist()
            if point == 1 or view == 5:
                error[row - 1 : row + 2, column - 1 : column + 2] = WRONG
        strategy.maps.maps[view] = error
    return strategy, params, optimizers


def test_scores_are_means_over_views():
    strategy, params, _ = three_points()
    paints, blame = strategy.scores(params)
    assert sorted(strategy.looked) == list(range(8))
    assert paints[2] == 0
    assert paints[1] > 4
    assert paints[0] == pytest.approx(float(paints[1]) / 8, rel=0.3)  # as many pixels, in one view of eight
    assert blame[1] == 1
    assert blame[2] == 0
    assert blame[0] < 0.3


def test_what_one_view_needs_is_not_grown_and_what_several_find_wrong_is():
    strategy, params, optimizers = three_points()
    state = strategy.initialize_state()
    info = dict(info_with_gradients(3, torch.ones(3)), view=0, error_map=strategy.maps.maps[0])
    info.update(render=torch.zeros(*SIZE[::-1], 3), truth=torch.zeros(*SIZE[::-1], 3))
    records = []
    strategy.on_event = lambda record, _: records.append(record)
    strategy.step_post_backward(params, optimizers, state, 10, info)
    assert len(params["means"]) == 4  # the second one has become two, though nobody is blamed more
    assert params["means"].detach()[:2].tolist() == pytest.approx(torch.tensor([[-1.0, 0, 4], [1.1, -0.6, 4]]))
    assert (records[0].cloned + records[0].split, records[0].pruned) == (1, 0)
    assert "blame" not in state


def test_what_many_views_blame_and_no_gradient_asks_for_goes():
    strategy, params, optimizers = three_points()
    state = strategy.initialize_state()
    info = dict(info_with_gradients(3, torch.zeros(3)), view=0, error_map=strategy.maps.maps[0])
    info.update(render=torch.zeros(*SIZE[::-1], 3), truth=torch.zeros(*SIZE[::-1], 3))
    strategy.step_post_backward(params, optimizers, state, 10, info)
    assert params["means"][:, 0].tolist() == pytest.approx([-1.0, 1.1])


def test_a_wall_that_is_right_does_not_grow_and_a_blurred_part_does():
    params = wall()
    corner = (params["means"][:, 0] > 1) & (params["means"][:, 1] > 0.8)
    coarse = {k: torch.cat([v[~corner], v[corner][::4]]) for k, v in params.items()}
    coarse["scales"][-int(corner.sum()) // 4 :] += 0.7
    n = len(coarse["means"])
    strategy = FastgsStrategy(refine_start_iter=1, refine_stop_iter=1000, refine_every=100, max_points=n + 60)
    after, _, record = pass_and_event(strategy, coarse)
    grown = record.cloned + record.split
    assert 20 <= grown <= 60
    assert len(after["means"]) == n + grown - record.pruned
    new = after["means"].detach()[-grown:]
    assert ((new[:, 0] > 0.8) & (new[:, 1] > 0.6)).float().mean() > 0.9
