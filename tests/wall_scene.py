"""A textured wall of small points, eight cameras before it, and their photos: truth that is known to the last digit."""

from __future__ import annotations

import torch
from torch.nn import Parameter, ParameterDict

from lpm.gaussians.spherical_harmonics import rgb_to_sh0
from lpm.multiview.views import Views
from lpm.render.rasterize import rasterize

SIZE = (160, 128)  # width, height
WALL = 4.0  # z of the wall, world


def wall(spacing=0.035):
    """Small opaque points on the plane z = WALL with a smooth random texture."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.meshgrid(torch.arange(-2.4, 2.4, spacing), torch.arange(-2.0, 2.0, spacing), indexing="xy")
    n = x.numel()
    coarse = torch.rand(1, 3, 40, 48, generator=generator)
    grid = torch.stack([x.flatten() / 2.4, y.flatten() / 2.0], -1)[None, None]
    rgb = torch.nn.functional.grid_sample(coarse, grid, align_corners=True)[0, :, 0].T
    return {
        "means": torch.stack([x.flatten(), y.flatten(), torch.full((n,), WALL)], -1),
        "scales": torch.full((n, 3), spacing * 0.5).log(),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        "features_dc": rgb_to_sh0(rgb),
        "features_rest": torch.zeros(n, 0, 3),
        "opacities": torch.full((n, 1), 0.95).logit(),
    }


def cameras(views=8):
    K = torch.tensor([[150.0, 0, SIZE[0] / 2], [0, 150.0, SIZE[1] / 2], [0, 0, 1]]).repeat(views, 1, 1)
    viewmats = torch.eye(4).repeat(views, 1, 1)
    angle = torch.arange(views) * 2 * torch.pi / views
    viewmats[:, 0, 3], viewmats[:, 1, 3] = 0.5 * angle.cos(), 0.4 * angle.sin()
    return K, viewmats


def draw(params, viewmat, K):
    image, _, info = rasterize(
        params["means"], params["quats"], params["scales"].exp(), torch.sigmoid(params["opacities"]).flatten(),
        params["features_dc"][:, None], viewmat[None], K[None], *SIZE, sh_degree=0, absgrad=True,
    )  # fmt: skip
    return image[0], info


def add(params, more):
    return {k: torch.cat([v, more[k]]) for k, v in params.items()}


def photos(truth):
    """The views of the points `truth`, as bytes, and what they were before."""
    K, viewmats = cameras()
    drawn = [draw(truth, v, k)[0].clamp(0, 1) for v, k in zip(viewmats, K, strict=True)]
    return Views([(t * 255).round().byte() for t in drawn], K, viewmats), drawn


def pass_and_event(strategy, params, truth=None):
    """One pass over all views, then one event at step 100, of points that stand still.

    `truth`: the points that the photos show, the wall unless given. Returns parameters, state and the event's record.
    """
    records = []
    strategy.on_event = lambda record, _: records.append(record)
    truth = wall() if truth is None else truth
    views, drawn = photos(truth)
    strategy.attach(views, truth["means"][::7])
    params = ParameterDict({k: Parameter(v.clone()) for k, v in params.items()})
    optimizers = {k: torch.optim.Adam([p], lr=0.0) for k, p in params.items()}
    state = strategy.initialize_state(1.0)
    for step in range(93, 101):
        view = step % len(views)
        for parameter in params.values():
            parameter.grad = None
        image, info = draw(params, views.viewmats[view], views.Ks[view])
        info["view"] = view
        strategy.step_pre_backward(params, optimizers, state, step, info)
        (image - drawn[view]).square().sum().backward()
        info.update(render=image.detach(), truth=drawn[view])
        strategy.step_post_backward(params, optimizers, state, step, info)
    return params, state, records[-1]
