"""Which points few photos look at, and that the weights of the loss pull at those alone."""

import pytest
import torch
from torch.nn import Parameter, ParameterDict

from lpm.multiview.views import MANY_CENTRES, Views, in_image, project
from lpm.strategy.few_photos import seen_by_few
from lpm.strategy.lpm import LpmStrategy
from lpm.strategy.registry import make_strategy
from lpm.train.model_settings import MovingModelSettings

SIZE = (48, 32)  # width, height


def views_along(xs, device="cpu"):
    """Cameras at x = `xs` that look along z, 62 degrees wide: at z = 4 each sees from x - 2.4 to x + 2.4."""
    viewmats = torch.eye(4).repeat(len(xs), 1, 1)
    viewmats[:, 0, 3] = -torch.tensor(xs)
    K = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]).repeat(len(xs), 1, 1)
    images = [torch.zeros(SIZE[1], SIZE[0], 3, dtype=torch.uint8) for _ in xs]
    return Views(images, K.to(device), viewmats.to(device))


def wall(xs):
    """Points at z = 4, and the parameters that a strategy needs of them."""
    n = len(xs)
    values = {
        "means": torch.tensor([[x, 0.0, 4.0] for x in xs]),
        "scales": torch.full((n, 3), 0.1).log(),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        "features_dc": torch.zeros(n, 3),
        "features_rest": torch.zeros(n, 0, 3),
        "opacities": torch.full((n, 1), 0.8).logit(),
    }
    return ParameterDict({name: Parameter(value) for name, value in values.items()})


def test_a_wall_that_a_row_of_cameras_passes_by():
    """A camera each half metre from 0 to 6: at 3.1 ten hold the wall, at its ends fewer, beyond them none."""
    views = views_along([i / 2 for i in range(13)])
    places = torch.tensor([[x, 0.0, 4.0] for x in (-3.0, -2.0, -0.9, 3.1, 7.0)] + [[3.1, 0, -4.0]])
    held = [0, 1, 4, 10, 3, 0]  # the last one is behind all of them
    for few in range(14):
        assert seen_by_few(places, views, few).tolist() == [count <= few for count in held]


@pytest.mark.parametrize("photos", [40, MANY_CENTRES + 1])  # of many, a kernel asks
def test_it_is_what_asking_every_photo_says(photos):
    generator = torch.Generator().manual_seed(0)
    views = views_along((torch.rand(photos, generator=generator) * photos / 5).tolist())
    points = torch.randn(500, 3, generator=generator) * torch.tensor([5.0, 2, 2]) + torch.tensor([4.0, 0, 3])
    pixels, z = project(points, views.viewmats, views.Ks)
    count = in_image(pixels, z, views.sizes).sum(0)
    for few in (0, 1, 5, 40):
        assert torch.equal(seen_by_few(points, views, few), count <= few)
    assert seen_by_few(points[:0], views, 3).shape == (0,)


def strategy_on(views, **options):
    strategy = LpmStrategy(refine_every=100, refine_start_iter=10**6, refine_stop_iter=0, widest=0.0, **options)
    strategy.attach(views, None)
    return strategy, strategy.initialize_state()


def test_the_weights_pull_at_points_of_few_photos_alone():
    strategy, state = strategy_on(views_along([0.0, 0.2, 0.4, 3.0]), few_photos=2)
    params = wall([-1.0, 0.0, 2.5, 4.0])  # held by 3, 3, 3 and 1 photos
    terms = strategy.regularization(params, state)
    assert terms["opacity_reg"].item() == pytest.approx(0.01 * 0.8 / 4)
    assert terms["scale_reg"].item() == pytest.approx(0.01 * 0.1 / 4)
    sum(terms.values()).backward()
    for name in ("opacities", "scales"):
        assert not params[name].grad[:3].any()
        assert (params[name].grad[3] > 0).all()


def test_they_follow_points_that_move_from_event_to_event_and_can_be_off():
    strategy, state = strategy_on(views_along([0.0, 0.2, 0.4, 3.0]), few_photos=2)
    params = wall([0.0, 4.0])
    assert strategy.regularization(params, state)
    assert state["few"].tolist() == [False, True]
    params["means"].data[:, 0] = torch.tensor([4.0, 0.0])
    strategy.step_post_backward(params, {}, state, 150, {})
    assert state["few"].tolist() == [False, True]
    strategy.step_post_backward(params, {}, state, 200, {})
    assert state["few"].tolist() == [True, False]
    strategy.few_photos = 0
    assert strategy.regularization(params, state) == {}
    moving = make_strategy("lpm", MovingModelSettings(max_steps=3000).common(10), moving=True)
    assert moving.few_photos == 0
