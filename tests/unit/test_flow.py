"""Velocities from two photos of one camera: a texture that was shifted, in front of one that was not."""

from __future__ import annotations

import math

import cv2
import pytest
import torch

from lpm.multiview import optical_flow
from lpm.multiview.optical_flow import Flows
from lpm.multiview.views import Views, unproject

SIZE, FOCAL, DEPTH = (160, 120), 150.0, 4.0


def photos(shift, turn=0.0):
    """Two photos of a texture; in the second its middle has moved by `shift` (x, y pixels)."""
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(1, 1, 30, 40, generator=generator)
    first = torch.nn.functional.interpolate(base, (SIZE[1], SIZE[0]), mode="bicubic")[0, 0].clamp(0, 1)
    matrix = torch.tensor([[1.0, 0, shift[0]], [0, 1.0, shift[1]]]).numpy()
    moved = torch.from_numpy(cv2.warpAffine(first.numpy(), matrix, SIZE))
    second = first.clone()
    second[30:90, 40:120] = moved[30:90, 40:120]
    viewmat = torch.eye(4)
    viewmat[0, 0] = viewmat[2, 2] = math.cos(turn)
    viewmat[0, 2], viewmat[2, 0] = math.sin(turn), -math.sin(turn)
    K = torch.tensor([[FOCAL, 0, SIZE[0] / 2], [0, FOCAL, SIZE[1] / 2], [0, 0, 1]])
    images = [image[..., None].expand(-1, -1, 3) for image in (first, second)]
    return Views(images, K.repeat(2, 1, 1), viewmat.repeat(2, 1, 1))


@pytest.mark.parametrize("turn", [0.0, 0.7])
@pytest.mark.parametrize("duration", [0.25, -0.5])
def test_velocity_is_that_of_the_texture(turn, duration):
    views = photos((3.0, -2.0), turn)
    pixels = torch.tensor([[80.0, 60.0], [70.0, 55.0], [10.0, 10.0]])
    places = unproject(pixels, torch.full((3,), DEPTH), views.viewmats[0], views.Ks[0])
    velocity, unlike = Flows(views).velocities(0, 1, duration, places)
    assert bool((unlike < 10).all())
    across = torch.tensor([3.0, -2.0, 0.0]) * DEPTH / FOCAL / duration
    wanted = views.viewmats[0, :3, :3].T @ across
    assert torch.allclose(velocity[:2], wanted.expand(2, 3), atol=0.15 * float(across.norm()))
    assert velocity[2].norm() < 0.1 * across.norm()
    alone = Flows(views).velocities(0, 1, duration, places[:1])
    assert torch.equal(alone[0], velocity[:1])
    assert torch.equal(alone[1], unlike[:1])


def test_what_has_no_counterpart_is_not_known():
    views = photos((0.0, 0.0))
    views.images[1] = torch.rand(SIZE[1], SIZE[0], 3)  # another scene altogether
    pixels = torch.stack(torch.meshgrid(torch.arange(20.0, 140, 10), torch.arange(20.0, 100, 10), indexing="xy"), -1)
    places = unproject(pixels.reshape(-1, 2), torch.full((pixels.numel() // 2,), DEPTH), views.viewmats[0], views.Ks[0])
    velocity, unlike = Flows(views).velocities(0, 1, 0.1, places)
    known = unlike.isfinite()
    assert known.float().mean() < 0.2  # of photos that show the same things, nearly all
    assert bool((velocity[~known] == 0).all())


def test_a_pair_is_looked_at_once_while_there_is_room(monkeypatch):
    views, looked = photos((1.0, 0.0)), []
    flow = optical_flow._flow
    monkeypatch.setattr(optical_flow, "_flow", lambda a, b: looked.append(1) or flow(a, b))
    size = 4 * 2 * SIZE[0] * SIZE[1]
    for room, wanted in ((2 * size, [1, 2, 2, 2, 2, 2]), (size, [1, 2, 3, 4, 5, 5]), (0, [1, 2, 3, 4, 5, 5])):
        flows, counts = Flows(views, cache_bytes=room), []
        looked.clear()
        for pair in ((0, 1), (1, 0), (0, 1), (1, 0), (0, 1), (0, 1)):
            assert flows.between(*pair).shape == (SIZE[1], SIZE[0], 2)
            counts.append(len(looked))
        assert counts == wanted
