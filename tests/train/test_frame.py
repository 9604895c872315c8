"""The frame of training is nerfstudio's, to the bit, and what it should be for cameras whose truth is known."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lpm.train.frame import frame, rotation_between

METHODS = [(o, c) for o in ("up", "vertical", "pca", "none") for c in ("poses", "focus", "none")]


def poses(seed, count=12):
    """Cameras on an arc that all look at (1, 2, 3), turned by a random rotation."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    target, found = np.array([1.0, 2.0, 3.0]), []
    for angle in rng.uniform(-2, 2, count):
        place = target + turn @ np.array([3 * np.cos(angle), 3 * np.sin(angle), rng.uniform(0.2, 1.0)])
        back = (place - target) / np.linalg.norm(place - target)
        right = np.cross(turn @ [0, 0, 1.0], back)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.column_stack([right, np.cross(back, right), back, place])
        found.append(pose)
    return np.stack(found), turn, target


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("orientation", "center"), METHODS)
def test_as_nerfstudio_has_it(seed, orientation, center):
    from nerfstudio.cameras.camera_utils import auto_orient_and_center_poses

    given, _, _ = poses(seed)
    mean = given[:, :3, 3].mean(0) if center != "none" else np.zeros(3)
    near = given.copy()
    near[:, :3, 3] -= mean
    _, wanted = auto_orient_and_center_poses(torch.from_numpy(near).float(), orientation, center)
    wanted = wanted.double().numpy()[:3]
    wanted[:, 3] -= wanted[:, :3] @ mean
    assert np.array_equal(frame(given, orientation, center), wanted)


@pytest.mark.parametrize("orientation", ["up", "vertical"])
def test_up_becomes_z_and_what_all_look_at_the_origin(orientation):
    given, turn, target = poses(5, 60)
    found = frame(given, orientation, "focus")
    assert np.abs(found[:, :3] @ found[:, :3].T - np.eye(3)).max() < 1e-5
    assert np.abs(found[:, :3] @ target + found[:, 3]).max() < 1e-4
    up = found[:, :3] @ turn @ [0, 0, 1.0]
    assert up[2] > (0.9999 if orientation == "vertical" else 0.95)


def test_far_from_the_origin_nothing_is_lost():
    given, _, _ = poses(7)
    far = given.copy()
    far[:, :3, 3] += np.array([4.5e6, 5.3e6, 120.0])
    near, there = frame(given, "up", "poses"), frame(far, "up", "poses")
    places = [(f[:, :3] @ p[:, :3, 3].T).T + f[:, 3] for f, p in ((near, given), (there, far))]
    assert np.abs(places[0] - places[1]).max() < 1e-6


def test_opposite_directions():
    up = torch.tensor([0.0, 0.0, 1.0])
    for direction in (up, -up, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, -1.0, 0.0])):
        turned = rotation_between(direction, up)
        assert torch.allclose(turned @ direction, up, atol=1e-5)
        assert float(torch.linalg.det(turned)) == pytest.approx(1.0, abs=1e-5)
