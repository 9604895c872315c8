"""Panoramas and fisheyes out of the faces of a cube: every ray shows what lies along it, without seams."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from lpm.multiview.views import rays
from lpm.train.all_around import FACES, draw_along

C2W = torch.cat([torch.from_numpy(Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()).float(),
                 torch.tensor([[1.0], [-2.0], [0.5]])], 1)  # fmt: skip


def ball(camera):
    """A ball of radius 2 seen from its middle: its colour is the direction, its depth along the axis less than 2."""
    y, x = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    local = rays(torch.stack([x, y], -1), camera.K[0])
    torch.testing.assert_close(-camera.viewmat[0, :3, :3].T @ camera.viewmat[0, :3, 3], C2W[:, 3])
    unit = torch.nn.functional.normalize(local, dim=-1)
    world = unit @ camera.viewmat[0, :3, :3]
    return {"rgb": 0.5 + 0.5 * world, "depth": 2 * unit[..., 2:], "nothing": None}


def test_faces_are_cameras_that_see_all():
    assert torch.allclose(FACES @ FACES.transpose(1, 2), torch.eye(3).expand(6, 3, 3))
    assert torch.allclose(torch.linalg.det(FACES), torch.ones(6))
    assert FACES[:, 2].abs().sum(0).tolist() == [2, 2, 2]
    assert FACES[:, 2].sum(0).tolist() == [0, 0, 0]


def test_a_panorama():
    height, width = 60, 120
    latitude = (0.5 - (torch.arange(height) + 0.5) / height) * math.pi
    longitude = ((torch.arange(width) + 0.5) / width - 0.5) * 2 * math.pi
    up, turn = torch.meshgrid(latitude, longitude, indexing="ij")
    local = torch.stack([up.cos() * turn.sin(), up.sin(), -up.cos() * turn.cos()], -1)
    directions = local @ C2W[:, :3].T
    seen = draw_along(ball, C2W, directions, width / (2 * math.pi))
    assert set(seen) == {"rgb", "depth"}
    assert (seen["rgb"] - (0.5 + 0.5 * directions)).abs().max() < 2e-3
    assert (seen["depth"] - 2).abs().max() < 0.02


@pytest.mark.parametrize("length", [1.0, 7.0])
def test_only_the_faces_that_are_seen_are_drawn(length):
    drawn = []
    ahead = torch.nn.functional.normalize(torch.tensor([[[0.1, 0.2, -1.0], [-0.3, 0.0, -1.0]]]), dim=-1) @ C2W[:, :3].T

    def draw(camera):
        drawn.append(camera)
        return ball(camera)

    seen = draw_along(draw, C2W, length * ahead, 20.0)
    assert len(drawn) == 1
    assert (seen["rgb"] - (0.5 + 0.5 * ahead)).abs().max() < 2e-3
