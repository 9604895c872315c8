"""Scenes that tell no depth: the strategy goes on without zones, and says why once."""

import pytest
import torch
from torch.nn import Parameter, ParameterDict
from wall_scene import cameras, draw, wall

from lpm.checks import LpmError
from lpm.multiview.views import Views
from lpm.strategy.lpm import LpmStrategy


def train(views, points, truth, steps=300, say=None, **options):
    """Two events and the steps around them, on the wall seen with a planted error."""
    torch.manual_seed(0)
    params = wall(0.07)
    params["features_dc"] = params["features_dc"] + 0.5  # something to mend
    start = len(params["means"])
    options = {"max_points": start + 60, "refine_start_iter": 1, "refine_stop_iter": steps, **options}
    strategy, records = LpmStrategy(refine_every=100, **options), []
    strategy.on_event = lambda record, _: records.append(record)
    strategy.messages.say = (say if say is not None else []).append
    strategy.attach(views, points)
    params = ParameterDict({k: Parameter(v.clone()) for k, v in params.items()})
    optimizers = {k: torch.optim.Adam([p], lr=0.0) for k, p in params.items()}
    state = strategy.initialize_state(1.0)
    for step in [*range(92, 101), *range(192, 201)]:
        view = step % len(views)
        image, info = draw(params, views.viewmats[view], views.Ks[view])
        (image - truth[view].nan_to_num(0)).square().sum().backward()
        info.update(view=view, render=image, truth=truth[view])
        if views.masks is not None:
            info["mask"] = views.masks[view]
        strategy.step_post_backward(params, optimizers, state, step, info)
    return strategy, params, records


def scene(case):
    K, viewmats = cameras()
    points = wall()["means"][::7]
    if case == "one view":
        K, viewmats = K[:1], viewmats[:1]
    if case == "two identical cameras":
        K, viewmats = K[:2], viewmats[:1].repeat(2, 1, 1)
    if case == "pure rotation":
        turn = torch.tensor([-0.05, 0.0, 0.05])
        K, viewmats = K[:3], torch.eye(4).repeat(3, 1, 1)
        viewmats[:, 0, 0] = viewmats[:, 2, 2] = turn.cos()
        viewmats[:, 0, 2], viewmats[:, 2, 0] = turn.sin(), -turn.sin()
    if case == "parallel rays only":
        K, viewmats = K[:2], viewmats[:2]
        viewmats[1] = viewmats[0]
        viewmats[1, 0, 3] += 0.01
    truth = [draw(wall(), v, k)[0].clamp(0, 1) for v, k in zip(viewmats, K, strict=True)]
    masks = None
    if case == "masks hide everything":
        masks = [torch.zeros(t.shape[:2], dtype=torch.bool) for t in truth]
    images = [(t * 255).round().byte() for t in truth]
    if case == "NaN pixels":
        images = [t.clone() for t in truth]
        for image in images:
            image[40:44] = torch.nan
        truth = images
    return Views(images, K, viewmats, masks), None if case == "no SfM points" else points, truth


REASONS = {
    "one view": "there is 1 training photo",
    "two identical cameras": "all cameras are in one place",
    "pure rotation": "all cameras are in one place",
    "parallel rays only": "no two photos see the same things under a parallax of 3 to 40 degrees",
    "masks hide everything": "the masks hide every pixel",
}


@pytest.mark.parametrize("case", REASONS)
def test_goes_on_without_zones_and_says_why_once(case):
    views, points, truth = scene(case)
    said = []
    _, params, records = train(views, points, truth, say=said)
    assert len(said) == 1
    assert REASONS[case] in said[0]
    assert len(records) == 2
    assert all(r.zones == [] and r.reset == 0 and r.inserted == 0 for r in records)
    if case == "masks hide everything":  # nothing is wrong anywhere
        assert records[-1].split == 0
    else:  # points are added all the same, to the budget
        assert records[0].split > 0
        assert records[-1].points == records[-1].budget == len(params["means"])
    assert all(torch.isfinite(p).all() for p in params.values())


@pytest.mark.parametrize("case", ["NaN pixels", "no SfM points"])
def test_goes_on_with_zones(case):
    """Broken pixels are passed over; without points the rendered depths tell who sees what."""
    views, points, truth = scene(case)
    said = []
    strategy, params, records = train(views, points, truth, say=said)
    assert said == []
    assert any(zone.kind != "no-evidence" for record in records for zone in record.zones)
    assert all(torch.isfinite(p).all() for p in params.values())
    assert (strategy.photo_graph.neighbours(None) >= 0).any()


def test_without_attach_one_line_says_what_to_do():
    views, _, truth = scene("one view")
    strategy = LpmStrategy(refine_start_iter=1, refine_every=1)
    params = ParameterDict({k: Parameter(v.clone()) for k, v in wall().items()})
    image, info = draw(params, views.viewmats[0], views.Ks[0])
    image.sum().backward()
    info.update(view=0, render=image, truth=truth[0])
    with pytest.raises(LpmError, match=r"views: none; .*call attach"):
        strategy.step_post_backward(params, {}, strategy.initialize_state(1.0), 2, info)


def test_missing_parameters_are_named():
    params = ParameterDict({k: Parameter(v) for k, v in wall().items() if k != "features_dc"})
    optimizers = {k: torch.optim.Adam([p], lr=0.0) for k, p in params.items()}
    with pytest.raises(AssertionError, match="features_dc"):
        LpmStrategy().check_sanity(params, optimizers)


def test_a_scene_already_fitted_is_left_alone_even_with_room():
    params = wall()
    K, viewmats = cameras()
    truth = [draw(params, v, k)[0].clamp(0, 1) for v, k in zip(viewmats, K, strict=True)]
    views = Views([(t * 255).round().byte() for t in truth], K, viewmats)
    strategy, records = LpmStrategy(max_points=10**6, refine_start_iter=1, refine_every=100), []
    strategy.on_event = lambda record, _: records.append(record)
    strategy.attach(views, params["means"][::7])
    live = ParameterDict({k: Parameter(v.clone()) for k, v in params.items()})
    optimizers = {k: torch.optim.Adam([p], lr=0.0) for k, p in live.items()}
    state = strategy.initialize_state(1.0)
    for step in range(93, 101):
        view = step % len(views)
        image, info = draw(live, viewmats[view], K[view])
        image.sum().backward()
        info.update(view=view, render=image, truth=views.images[view] / 255)
        strategy.step_post_backward(live, optimizers, state, step, info)
    (record,) = records
    assert (record.zones, record.split, record.inserted, record.pruned, record.reset) == ([], 0, 0, 0, 0)
    assert all(torch.equal(live[k], v) for k, v in params.items())
