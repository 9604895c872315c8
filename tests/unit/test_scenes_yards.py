"""Yards drawn from a seed: each another place, with surfaces where truth.json says, air around the cameras, and sky."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lpm.scenes.read import read_scene
from lpm.scenes.samples import make, textures
from lpm.scenes.samples.yards import yard, yard_cameras

VIEWS, SIZE = 10, (96, 64)


@pytest.fixture(scope="module", params=[0, 1, 2])
def made(request, tmp_path_factory):
    """Seed, folder and scene of a small yard with coarse textures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textures, "SIZE", 128)
        folder = make.make("yard", tmp_path_factory.mktemp("yard") / "out", VIEWS, SIZE, request.param)
        return request.param, folder, read_scene(folder), yard(request.param)


def test_photos_show_buildings_and_sky(made):
    _, folder, scene, _ = made
    depth = np.stack([np.load(folder / "depth" / f"{i:04d}.npy") for i in range(VIEWS)])
    sky = (depth > 150).mean((1, 2))
    assert 0.03 < sky.mean() < 0.6
    assert ((depth > 5) & (depth < 40)).mean() > 0.3
    assert json.loads((folder / "truth.json").read_text())["false_points"]["positions"] == []
    assert len(scene.points.xyz) > 500


def test_points_lie_on_surfaces_and_few_are_far(made):
    _, _, scene, world = made
    xyz = scene.points.xyz
    nearest = np.linalg.norm(xyz[:, None] - scene.c2w[None, :, :3, 3], axis=2).min(1)
    assert np.median(world.distance(xyz) / nearest) < 0.02
    assert (nearest > 100).mean() < 0.2


def test_cameras_stand_in_the_open(made):
    _, _, scene, world = made
    assert world.distance(scene.c2w[:, :3, 3]).min() > 0.2


def test_seeds_draw_places():
    rng = np.random.default_rng
    assert np.allclose(yard_cameras(5, VIEWS, rng(1)), yard_cameras(5, VIEWS, rng(1)))
    assert not np.allclose(yard_cameras(5, VIEWS, rng(1)), yard_cameras(6, VIEWS, rng(1)))
